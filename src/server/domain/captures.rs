//! Captures over the network: terminals that are to lend, or lend, their disks.
//!
//! Invariant: a terminal has at most one capture. A capture ends when its administrator's program ends it or
//! is silent for [`SILENT`], so that no terminal is held by one that crashed. Only the agent that took the
//! latest offer is heard. Request and offer are kept over a restart of the server: the agent goes on lending,
//! and the program goes on reading, because neither of them reads through the server.
//!
//! Each offer has a code for the agent's screen, by which a person sees that the machine that lends is the
//! golden machine and not another one that answers with its MAC. The server draws the code, so no machine can
//! choose it, and gives at most [`MOST_OFFERS`] for a capture, so no machine can wait for a certain one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{CaptureState, LendOffer, LendReport, LentView};
use crate::event::Failure;

/// A program that waits for a capture asks every few seconds.
const SILENT: Duration = Duration::from_secs(90);
/// A terminal that lends reports every second.
const QUIET: Duration = Duration::from_secs(15);
/// How often a golden machine may start during its capture.
const MOST_OFFERS: u32 = 20;

/// What only the server and an agent with an offer know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OfferSecrets {
    pub(crate) token: String,
    pub(crate) code: String,
}

#[derive(Debug, Default)]
pub(crate) struct Captures {
    last: u64,
    by_terminal: BTreeMap<String, Capture>,
}

/// A capture of one terminal's disk.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) request: Request,
    /// When the administrator's program was last heard.
    watched: Duration,
    percent: Option<u8>,
    lent: Option<Lent>,
}

/// What of a capture survives a restart of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub(crate) number: u64,
    /// The image's name, for people.
    pub(crate) image: String,
    /// Who asked, for people.
    pub(crate) by: String,
    disk: String,
    /// Of the latest offer.
    secrets: Option<OfferSecrets>,
    offers: u32,
    pub(crate) failure: Option<Failure>,
}

#[derive(Debug)]
struct Lent {
    address: SocketAddr,
    report: LendReport,
    heard: Duration,
}

impl Captures {
    /// The captures of terminals before the server started, at `now`; their programs have [`SILENT`] to come
    /// back.
    pub(crate) fn restore(now: Duration, requests: Vec<(String, Request)>) -> Self {
        let last = requests.iter().map(|(_, request)| request.number).max().unwrap_or(0);
        let by_terminal = requests.into_iter().map(|(id, request)| (id, Capture::new(request, now)));
        Captures { last, by_terminal: by_terminal.collect() }
    }

    /// What is to be stored of the terminal `id`.
    pub(crate) fn stored(&self, id: &str) -> Option<Request> {
        self.by_terminal.get(id).map(|capture| capture.request.clone())
    }

    /// A capture of the terminal `id` begins; the caller made sure that it has none.
    pub(crate) fn open(&mut self, id: &str, (image, disk): (&str, &str), by: String, now: Duration) -> u64 {
        // Numbers follow the time, so that none of an ended capture is given again after a restart.
        self.last = now.as_secs().max(self.last + 1);
        let request = Request {
            number: self.last,
            image: image.into(),
            by,
            disk: disk.into(),
            secrets: None,
            offers: 0,
            failure: None,
        };
        self.by_terminal.insert(id.into(), Capture::new(request, now));
        self.last
    }

    /// Removes captures whose program is silent, and names their terminals.
    pub(crate) fn remove_silent(&mut self, now: Duration) -> Vec<String> {
        let is_over = |id: &&String| self.of(id, now).is_none();
        let over: Vec<String> = self.by_terminal.keys().filter(is_over).cloned().collect();
        over.iter().for_each(|id| self.forget(id));
        over
    }

    /// The terminal is forgotten.
    pub(crate) fn forget(&mut self, id: &str) {
        self.by_terminal.remove(id);
    }

    /// The open capture of a terminal.
    pub(crate) fn of(&self, id: &str, now: Duration) -> Option<&Capture> {
        self.by_terminal.get(id).filter(|capture| now.saturating_sub(capture.watched) < SILENT)
    }

    /// The terminal of an open capture.
    pub(crate) fn terminal(&self, number: u64, now: Duration) -> Option<&str> {
        let found = self.by_terminal.iter().find(|(_, capture)| capture.request.number == number);
        found.map(|(id, _)| id.as_str()).filter(|id| self.of(id, now).is_some())
    }

    /// The terminal's agent is there: what it is to lend. An earlier agent's lending is over.
    pub(crate) fn offer(&mut self, id: &str, secrets: OfferSecrets, now: Duration) -> Option<LendOffer> {
        self.of(id, now)?;
        let capture = self.by_terminal.get_mut(id).filter(|capture| capture.request.failure.is_none())?;
        capture.lent = None;
        let request = &mut capture.request;
        request.offers += 1;
        request.secrets = Some(secrets.clone());
        if request.offers > MOST_OFFERS {
            request.failure = Some(Failure::untrusted(
                format!("machines that answer as this terminal began to lend {MOST_OFFERS} times"),
                "Look for another machine with its MAC, or why it starts again and again, and begin anew.",
            ));
            return None;
        }
        let (image, disk) = (request.image.clone(), request.disk.clone());
        let OfferSecrets { token, code } = secrets;
        Some(LendOffer { capture: request.number, token, code, image, disk, readers: Vec::new() })
    }

    /// The agent at `from` lends, or cannot: its terminal, which goes on if there is no failure. `None`: this
    /// is not the agent that took the latest offer, and it is to stop.
    pub(crate) fn report(
        &mut self,
        number: u64,
        from: IpAddr,
        report: LendReport,
        now: Duration,
    ) -> Option<String> {
        let id = self.terminal(number, now)?.to_owned();
        let capture = self.by_terminal.get_mut(&id)?;
        let is_latest = capture.request.secrets.as_ref().is_some_and(|secrets| secrets.token == report.token);
        if !is_latest || capture.request.failure.is_some() {
            return None;
        }
        capture.request.failure = report.failure.clone();
        let address = SocketAddr::new(from.to_canonical(), report.port);
        capture.lent = capture.request.failure.is_none().then_some(Lent { address, report, heard: now });
        Some(id)
    }

    /// When the agent that lends the disk of `id` reported last.
    pub(crate) fn heard(&self, id: &str) -> Option<Duration> {
        Some(self.by_terminal.get(id)?.lent.as_ref()?.heard)
    }

    /// The terminal's agent cannot lend.
    pub(crate) fn fail(&mut self, id: &str, failure: Failure) {
        if let Some(capture) = self.by_terminal.get_mut(id) {
            (capture.request.failure, capture.lent) = (Some(failure), None);
        }
    }

    /// The administrator's program is still there, and knows how far it is.
    pub(crate) fn watch(&mut self, number: u64, percent: Option<u8>, now: Duration) -> Option<&Capture> {
        let id = self.terminal(number, now)?.to_owned();
        let capture = self.by_terminal.get_mut(&id)?;
        (capture.watched, capture.percent) = (now, percent.map(|percent| percent.min(100)));
        Some(capture)
    }

    /// A capture is over, whether it succeeded or not.
    pub(crate) fn end(&mut self, number: u64) {
        self.by_terminal.retain(|_, capture| capture.request.number != number);
    }
}

impl Capture {
    fn new(request: Request, now: Duration) -> Self {
        Capture { request, watched: now, percent: None, lent: None }
    }

    pub(crate) fn state(&self, now: Duration) -> CaptureState {
        match (&self.request.failure, &self.lent) {
            (Some(_), _) => CaptureState::Failed,
            (None, None) => CaptureState::Waiting,
            (None, Some(lent)) if now.saturating_sub(lent.heard) >= QUIET => CaptureState::Silent,
            (None, Some(_)) => CaptureState::Lending,
        }
    }

    pub(crate) fn lent(&self) -> Option<LentView> {
        let Lent { address, report, .. } = self.lent.as_ref()?;
        Some(LentView {
            url: format!("nbd://{address}/{}", report.export),
            code: self.request.secrets.as_ref()?.code.clone(),
            disk: report.disk.clone(),
            size: report.size,
            sector_size: report.sector_size,
            read: report.read,
        })
    }

    /// How it stands, in words.
    pub(crate) fn text(&self, now: Duration) -> String {
        match (self.state(now), self.percent) {
            (CaptureState::Waiting, _) => "to be captured: it lends its disk at its next network boot".into(),
            (CaptureState::Lending, Some(percent)) => format!("being captured, {percent} %"),
            (CaptureState::Lending, None) => "being captured".into(),
            (CaptureState::Silent, _) => "being captured, but silent".into(),
            (CaptureState::Failed, _) => "it cannot be captured".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn secrets(token: &str) -> OfferSecrets {
        OfferSecrets { token: token.into(), code: format!("00000{}", token.len()) }
    }

    fn report(token: &str, export: &str) -> LendReport {
        LendReport {
            token: token.into(),
            port: 7000,
            export: export.into(),
            disk: "sda".into(),
            size: 1 << 20,
            sector_size: 512,
            read: 0,
            failure: None,
        }
    }

    fn open(captures: &mut Captures) -> u64 {
        captures.open("t-1", ("lab", "internal"), "anna".into(), at(0))
    }

    #[test]
    fn the_agent_that_took_the_latest_offer_lends() {
        let mut captures = Captures::default();
        let number = open(&mut captures);
        let state = |captures: &Captures, now| captures.of("t-1", now).expect("open").state(now);
        assert_eq!(state(&captures, at(1)), CaptureState::Waiting);
        assert!(captures.report(number, FROM, report("a", "x"), at(1)).is_none(), "nobody took the offer");
        assert_eq!(captures.offer("t-2", secrets("a"), at(1)), None);
        let offer = captures.offer("t-1", secrets("a"), at(1)).expect("an offer");
        assert_eq!((offer.capture, offer.disk.as_str()), (number, "internal"));
        assert!(captures.report(number, FROM, report("a", "x"), at(2)).is_some());
        let url =
            |captures: &Captures| captures.of("t-1", at(3)).and_then(Capture::lent).map(|lent| lent.url);
        assert_eq!(url(&captures).as_deref(), Some("nbd://10.0.0.7:7000/x"));
        assert_eq!(
            (state(&captures, at(3)), state(&captures, at(20))),
            (CaptureState::Lending, CaptureState::Silent)
        );
        // The terminal starts again.
        captures.offer("t-1", secrets("b"), at(20)).expect("an offer");
        assert_eq!(state(&captures, at(20)), CaptureState::Waiting);
        assert!(captures.report(number, FROM, report("a", "x"), at(21)).is_none(), "the former agent");
        assert!(captures.report(number, FROM, report("b", "y"), at(21)).is_some());
        assert_eq!(
            captures.watch(number, Some(41), at(22)).map(|one| one.text(at(22))).as_deref(),
            Some("being captured, 41 %")
        );
        captures.end(number);
        assert!(
            captures.report(number, FROM, report("b", "y"), at(23)).is_none()
                && captures.of("t-1", at(23)).is_none()
        );
    }

    #[test]
    fn a_capture_whose_program_is_silent_is_over() {
        let mut captures = Captures::default();
        let number = open(&mut captures);
        captures.offer("t-1", secrets("a"), at(1)).expect("an offer");
        assert!(captures.watch(number, None, at(80)).is_some() && captures.of("t-1", at(160)).is_some());
        assert!(captures.report(number, FROM, report("a", "x"), at(170)).is_none());
        assert!(
            captures.watch(number, None, at(170)).is_none()
                && captures.offer("t-1", secrets("b"), at(170)).is_none()
        );
        assert_ne!(open(&mut captures), number);
    }

    #[test]
    fn a_terminal_that_cannot_lend_is_not_asked_again() {
        let mut captures = Captures::default();
        let number = open(&mut captures);
        captures.offer("t-1", secrets("a"), at(1)).expect("an offer");
        let failure = Some(Failure::refused("no disk", "Look."));
        assert!(captures.report(number, FROM, LendReport { failure, ..report("a", "") }, at(2)).is_some());
        assert_eq!(captures.of("t-1", at(3)).map(|one| one.state(at(3))), Some(CaptureState::Failed));
        assert_eq!(captures.offer("t-1", secrets("b"), at(4)), None);
    }

    #[test]
    fn a_machine_cannot_start_until_it_gets_the_code_that_it_wants() {
        let mut captures = Captures::default();
        let number = open(&mut captures);
        for _ in 0..MOST_OFFERS {
            captures.offer("t-1", secrets("a"), at(1)).expect("an offer");
        }
        assert_eq!(captures.offer("t-1", secrets("a"), at(1)), None);
        let failure =
            captures.of("t-1", at(1)).and_then(|one| one.request.failure.clone()).expect("it failed");
        assert!(failure.message.contains("began to lend 20 times"), "{failure:?}");
        assert!(captures.report(number, FROM, report("a", "x"), at(2)).is_none());
    }

    #[test]
    fn a_restart_of_the_server_ends_no_capture_whose_program_comes_back() {
        let mut captures = Captures::default();
        let number = open(&mut captures);
        captures.offer("t-1", secrets("a"), at(1)).expect("an offer");
        assert!(captures.report(number, FROM, report("a", "x"), at(2)).is_some());
        let stored = vec![("t-1".to_owned(), captures.stored("t-1").expect("it is stored"))];

        let mut captures = Captures::restore(at(200), stored.clone());
        assert!(captures.watch(number, Some(50), at(203)).is_some());
        assert!(captures.report(number, FROM, report("a", "x"), at(204)).is_some(), "the same agent");
        let lent = captures.of("t-1", at(205)).and_then(Capture::lent).expect("lent");
        assert_eq!((&*lent.url, &*lent.code), ("nbd://10.0.0.7:7000/x", "000001"));
        assert!(captures.remove_silent(at(205)).is_empty());
        captures.end(number);
        assert_eq!(captures.stored("t-1"), None);
        assert!(open(&mut captures) > number);

        let mut captures = Captures::restore(at(200), stored);
        assert_eq!(captures.remove_silent(at(300)), ["t-1"], "its program is gone");
        assert!(captures.remove_silent(at(301)).is_empty());
    }
}
