//! All terminals as the server knows them, in memory.
//!
//! Invariant: each terminal has at most one current attempt; only who knows its token reports for it; the number of
//! terminals and the length of everything they say is bounded. Time, tokens and targets come in as arguments; what
//! changed goes out as [`Change`]s, which `store` keeps.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::identity::{self, Identity, Known, Mac};
use super::jobs::{self, Attempt, Target};
use super::zones::Ties;
use crate::api::{Compare, Hello, Inventory, Orders, Refusal, TerminalState, TerminalView};
use crate::event::{Class, Failure, Installed, Outcome, Progress, Stage};

/// Most terminals that are remembered.
pub const MAX_TERMINALS: usize = 10_000;
/// Longest word from a terminal (model, serial number).
const MAX_WORD: usize = 200;
/// Longest sentence from a terminal (error, advice).
const MAX_SENTENCE: usize = 2000;
/// Most disks or interfaces of one terminal.
const MAX_PARTS: usize = 64;
/// Most partitions that one attempt names.
const MAX_PARTITIONS: usize = 256;
/// Progress is written down so often; stages at once.
const WRITE_EVERY: Duration = Duration::from_secs(20);

/// A terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct Terminal {
    /// Its name in calls: the MAC or UUID under which it was first seen.
    pub id: String,
    /// Its MACs and UUID.
    pub identity: Identity,
    /// What it is made of.
    pub inventory: Inventory,
    /// Version of its agent.
    pub agent: String,
    /// Last address it spoke from.
    pub address: Option<String>,
    /// When it was last heard.
    pub heard: Duration,
    /// Its latest attempt.
    pub last: Option<Attempt>,
}

/// What has to be written down.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A terminal is new or says something new of itself.
    Terminal(Box<Terminal>),
    /// An attempt began or went on.
    Attempt(String, Box<Attempt>),
}

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// No terminal has this attempt as its current one.
    #[error("this attempt is over: a newer one of the same terminal has begun, or the server never knew it")]
    Unknown,
    /// The token is not that of the attempt.
    #[error("wrong token for this attempt")]
    WrongToken,
}

/// The lab.
#[derive(Debug, Default)]
pub struct Lab {
    terminals: BTreeMap<String, Terminal>,
    by_attempt: HashMap<u64, String>,
    last_number: u64,
    coming: HashMap<Mac, (Duration, Vec<String>)>,
    written: HashMap<u64, Duration>,
}

impl Lab {
    /// The lab as it was written down. `last_number` is the highest attempt number ever given.
    pub fn restore(terminals: Vec<Terminal>, last_number: u64) -> Self {
        let by_attempt =
            terminals.iter().filter_map(|t| Some((t.last.as_ref()?.number, t.id.clone()))).collect();
        let terminals = terminals.into_iter().map(|t| (t.id.clone(), t)).collect();
        Lab { terminals, by_attempt, last_number, ..Lab::default() }
    }

    /// The terminal with this name, or with this MAC or UUID, or that people call so.
    pub fn get(&self, id: &str) -> Option<&Terminal> {
        self.terminals.get(id)
    }

    /// All terminals.
    pub fn iter(&self) -> impl Iterator<Item = &Terminal> {
        self.terminals.values()
    }

    /// Which terminal is this?
    pub fn find(&self, who: &Identity, now: Duration) -> Option<&Terminal> {
        let known = self.terminals.values().map(|t| Known {
            id: &t.id,
            identity: &t.identity,
            silent: now.saturating_sub(t.heard).as_secs(),
        });
        identity::find(known, who).and_then(|id| self.terminals.get(id))
    }

    /// A netbooting terminal was sent the agent, to fetch `images`.
    pub fn expect(&mut self, now: Duration, who: &Identity, images: Vec<String>) {
        self.coming.retain(|_, (since, _)| now.saturating_sub(*since) < jobs::COMING);
        if let Some(mac) = who.macs.first().filter(|_| self.coming.len() < MAX_TERMINALS) {
            self.coming.insert(*mac, (now, images));
        }
    }

    /// A terminal introduces itself. `None` when the lab is full.
    pub fn hello(&mut self, now: Duration, address: String, hello: Hello) -> Option<(String, Change)> {
        let who = Identity::new(&hello.macs, hello.uuid.as_deref());
        let id = match self.find(&who, now) {
            Some(known) => known.id.clone(),
            None => self.new_id(&who)?,
        };
        let last = self.terminals.get(&id).and_then(|t| t.last.clone());
        let terminal = Terminal {
            id: id.clone(),
            identity: who,
            inventory: bounded_inventory(hello.inventory),
            agent: bounded(hello.agent, MAX_WORD),
            address: Some(address),
            heard: now,
            last,
        };
        self.terminals.insert(id.clone(), terminal.clone());
        Some((id, Change::Terminal(Box::new(terminal))))
    }

    fn new_id(&self, who: &Identity) -> Option<String> {
        if self.terminals.len() >= MAX_TERMINALS {
            return None;
        }
        let mac = who.macs.first().map(ToString::to_string);
        let name = mac.or_else(|| who.uuid.map(|uuid| uuid.to_string()))?;
        let free = |id: &String| !self.terminals.contains_key(id);
        std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}"))).find(free)
    }

    /// A terminal takes `target`: a new attempt begins.
    pub fn take(
        &mut self,
        now: Duration,
        id: &str,
        target: &Target,
        token: String,
    ) -> Option<(Attempt, Vec<Change>)> {
        let terminal = self.terminals.get_mut(id)?;
        let last = terminal.last.take();
        let mut changes = Vec::new();
        self.last_number += 1;
        let attempt = Attempt {
            number: self.last_number,
            token,
            job: target.job.name.clone(),
            image: target.image.clone(),
            version: target.version.clone(),
            also: target.image_ids().split_off(1),
            started: now,
            heard: now,
            progress: None,
            ended: None,
            outcome: None,
            tries: jobs::tries_of_next(last.as_ref(), target),
            dirty: last.as_ref().is_some_and(Attempt::leaves_half_a_system),
            retried: false,
            retried_as: None,
            installed: last.as_ref().map(Attempt::leaves_installed).unwrap_or_default(),
            cancelled: false,
        };
        if let Some(mut old) = last {
            self.by_attempt.remove(&old.number);
            self.written.remove(&old.number);
            old.ended.get_or_insert(now);
            changes.push(Change::Attempt(id.into(), Box::new(old)));
        }
        terminal.heard = now;
        terminal.last = Some(attempt.clone());
        for mac in &terminal.identity.macs {
            self.coming.remove(mac);
        }
        self.by_attempt.insert(attempt.number, id.into());
        self.written.insert(attempt.number, now);
        changes.push(Change::Attempt(id.into(), Box::new(attempt.clone())));
        Some((attempt, changes))
    }

    /// The attempt that `token` may report for, with the name of its terminal, which is heard by that.
    fn reporting(
        &mut self,
        now: Duration,
        number: u64,
        token: &str,
    ) -> Result<(String, &mut Attempt), ReportError> {
        let terminal = self.by_attempt.get(&number).and_then(|id| self.terminals.get_mut(id));
        let terminal = terminal.ok_or(ReportError::Unknown)?;
        match &mut terminal.last {
            // What a person cancelled before it ran has no token: nobody reports for it.
            Some(attempt) if !token.is_empty() && attempt.token == token => {
                terminal.heard = now;
                attempt.heard = now;
                Ok((terminal.id.clone(), attempt))
            }
            _ => Err(ReportError::WrongToken),
        }
    }

    /// An attempt says how far it is.
    pub fn progress(
        &mut self,
        now: Duration,
        number: u64,
        token: &str,
        progress: Progress,
        ties: &Ties,
    ) -> Result<(Orders, Option<Change>), ReportError> {
        let (id, attempt) = self.reporting(now, number, token)?;
        let before = attempt.progress.replace(bounded_progress(progress)).map(|p| p.stage);
        let changed = before != attempt.progress.as_ref().map(|p| p.stage);
        let attempt = attempt.clone();
        let written = self.written.entry(number).or_insert(Duration::ZERO);
        let change = (changed || now.saturating_sub(*written) >= WRITE_EVERY).then(|| {
            *written = now;
            Change::Attempt(id, Box::new(attempt.clone()))
        });
        Ok((self.orders(&attempt, ties, now), change))
    }

    /// An attempt ended. The first outcome stands, so that a report that is sent twice does no harm; only the one that
    /// the server made up when a person cancelled is replaced by the terminal's own.
    pub fn outcome(
        &mut self,
        now: Duration,
        number: u64,
        token: &str,
        outcome: Outcome,
        ties: &Ties,
    ) -> Result<(Orders, Option<Change>), ReportError> {
        let (id, attempt) = self.reporting(now, number, token)?;
        let mut change = None;
        if attempt.outcome.is_none() || attempt.cancelled {
            attempt.outcome = Some(bounded_outcome(outcome));
            attempt.ended = Some(now);
            change = Some(Change::Attempt(id, Box::new(attempt.clone())));
        }
        let attempt = attempt.clone();
        Ok((self.orders(&attempt, ties, now), change))
    }

    fn orders(&self, attempt: &Attempt, ties: &Ties, now: Duration) -> Orders {
        let me = self.by_attempt.get(&attempt.number).and_then(|id| self.get(id)).and_then(Terminal::ip);
        // The zones are looked at last: a thousand terminals report each second.
        let needs_me = |other: &&Terminal| {
            other.last.as_ref().is_some_and(|last| last.is_live(now)) && ties.needs(other.ip(), me)
        };
        let others = self.terminals.values().filter(needs_me).filter_map(|t| t.last.as_ref());
        // Who is on its way is where it was the last time, or anywhere.
        let coming = self.coming.iter().filter(|(mac, _)| {
            let known = self.terminals.values().find(|t| t.identity.macs.contains(mac));
            ties.needs(known.and_then(Terminal::ip), me)
        });
        let coming: Vec<(Duration, String)> = coming
            .flat_map(|(_, (since, images))| images.iter().map(|image| (*since, image.clone())))
            .collect();
        let release = jobs::may_leave(attempt, others, coming.iter(), now);
        Orders {
            release,
            cancel: attempt.cancelled && !matches!(attempt.outcome, Some(Outcome::Done { .. })),
        }
    }

    /// A person wants another attempt, and may say what becomes of what is on the disk.
    pub fn retry(
        &mut self,
        now: Duration,
        id: &str,
        compare: Option<Compare>,
    ) -> Result<Option<Change>, Refusal> {
        let Some(attempt) = self.terminals.get_mut(id).and_then(|t| t.last.as_mut()) else { return Ok(None) };
        if attempt.is_live(now) {
            return Err(Refusal {
                error: format!("terminal {id} is imaging now"),
                advice: "Wait until it is done, or stop it with 'flashmob job cancel'.".into(),
            });
        }
        attempt.retried = true;
        attempt.retried_as = compare;
        Ok(Some(Change::Attempt(id.into(), Box::new(attempt.clone()))))
    }

    /// A person wants a terminal to stop, or a waiting one not to start `target`.
    pub fn cancel(
        &mut self,
        now: Duration,
        id: &str,
        target: Option<&Target>,
    ) -> Result<Vec<Change>, Refusal> {
        let nothing = || Refusal {
            error: format!("terminal {id} has nothing to cancel"),
            advice: "See 'flashmob terminals' for what each one does.".into(),
        };
        let last = self.terminals.get(id).and_then(|t| t.last.as_ref());
        let running = last.is_some_and(|a| a.outcome.is_none());
        let mut changes = Vec::new();
        if !running {
            let target = target.filter(|target| jobs::waits(last, Some(target))).ok_or_else(nothing)?;
            // An attempt that never ran, so that this survives a restart.
            let made = self.take(now, id, target, String::new()).ok_or_else(nothing)?;
            changes.extend(made.1);
        }
        let attempt = self.terminals.get_mut(id).and_then(|t| t.last.as_mut()).ok_or_else(nothing)?;
        let failure = Failure::new(
            Class::Refused,
            "cancelled by the administrator",
            format!("Start it again with 'flashmob job retry {id}'."),
        );
        let stage = attempt.progress.as_ref().map_or(Stage::Discover, |p| p.stage);
        let disk_touched = stage >= Stage::Disarm;
        attempt.outcome = Some(Outcome::Failed { stage, failure, disk_touched });
        attempt.ended = Some(now);
        attempt.cancelled = true;
        changes.push(Change::Attempt(id.into(), Box::new(attempt.clone())));
        Ok(changes)
    }
}

impl Terminal {
    /// Its row on the page.
    pub fn view(
        &self,
        label: Option<&str>,
        target: Option<&Target>,
        ties: &Ties,
        now: Duration,
    ) -> TerminalView {
        let last = self.last.as_ref();
        let state = jobs::state(last, target, now);
        let image = match (state, target, last) {
            (TerminalState::Waiting, Some(target), _) => Some(target.title()),
            (_, _, last) => last.map(Attempt::title),
        };
        let current = last.filter(|_| state != TerminalState::Waiting);
        TerminalView {
            id: self.id.clone(),
            label: label.map(Into::into),
            macs: self.identity.macs.iter().map(ToString::to_string).collect(),
            uuid: self.identity.uuid.map(|uuid| uuid.to_string()),
            address: self.address.clone(),
            machine: self.inventory.machine.clone(),
            state,
            image,
            progress: current.and_then(|a| a.progress.clone()),
            outcome: last.and_then(|a| a.outcome.clone()),
            silent: now.saturating_sub(self.heard).as_secs(),
            zone: ties.zone(self.ip()),
            gateway: self.ip().is_some_and(|ip| ties.gateways.contains(&ip)),
            switch: self.neighbour().map(|switch| {
                let name = switch.name.as_ref().unwrap_or(&switch.chassis);
                format!("{name}, port {}", switch.port)
            }),
        }
    }
}

fn bounded(text: String, limit: usize) -> String {
    if text.len() <= limit { text } else { text.chars().take(limit).collect() }
}

fn bounded_inventory(mut inventory: Inventory) -> Inventory {
    inventory.disks.truncate(MAX_PARTS);
    inventory.nics.truncate(MAX_PARTS);
    let shorten = |text: &mut String| *text = bounded(std::mem::take(text), MAX_WORD);
    [&mut inventory.machine, &mut inventory.cpu, &mut inventory.firmware].into_iter().for_each(shorten);
    inventory.serial.iter_mut().for_each(shorten);
    for disk in &mut inventory.disks {
        [&mut disk.name, &mut disk.bus, &mut disk.path].into_iter().for_each(shorten);
        [&mut disk.model, &mut disk.serial, &mut disk.wwn].into_iter().flatten().for_each(shorten);
    }
    for nic in &mut inventory.nics {
        [&mut nic.name, &mut nic.mac].into_iter().for_each(shorten);
        [&mut nic.driver, &mut nic.address].into_iter().flatten().for_each(shorten);
        if let Some(switch) = &mut nic.neighbour {
            [&mut switch.chassis, &mut switch.port].into_iter().chain(&mut switch.name).for_each(shorten);
        }
    }
    inventory
}

fn bounded_progress(mut progress: Progress) -> Progress {
    progress.percent = if progress.percent.is_finite() { progress.percent.clamp(0.0, 100.0) } else { 0.0 };
    progress
}

fn bounded_outcome(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Done { seconds, bytes_in, bytes_out, disk, mut installed } => {
            installed.truncate(MAX_PARTS);
            for Installed { image, version, disk, partitions } in &mut installed {
                partitions.iter_mut().for_each(|partitions| partitions.truncate(MAX_PARTITIONS));
                [image, version, disk]
                    .into_iter()
                    .for_each(|text| *text = bounded(std::mem::take(text), MAX_WORD));
            }
            Outcome::Done { seconds, bytes_in, bytes_out, disk: bounded(disk, MAX_WORD), installed }
        }
        Outcome::Failed { stage, failure: Failure { class, message, advice }, disk_touched } => {
            let failure = Failure {
                class,
                message: bounded(message, MAX_SENTENCE),
                advice: bounded(advice, MAX_SENTENCE),
            };
            Outcome::Failed { stage, failure, disk_touched }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::config::Job;
    use super::super::jobs::tests::{done, failed};
    use super::*;
    use crate::api::{Neighbour, NicInfo};
    use crate::tracker::{Topology, Zone};

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn target() -> Target {
        let job = Job { name: "lab".into(), ..Job::by_hand("debian".parse().expect("valid")) };
        Target { job, image: "debian".into(), version: "1".into(), also: Vec::new() }
    }

    /// A terminal with one MAC introduces itself.
    pub fn hello_of(mac: &str) -> Hello {
        let inventory = Inventory { machine: "QEMU Standard PC".into(), ..Inventory::default() };
        Hello { uuid: None, macs: vec![mac.into()], inventory, agent: "0.1.0".into() }
    }

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";

    fn lab() -> Lab {
        let mut lab = Lab::default();
        for mac in [A, B] {
            lab.hello(at(0), "10.0.0.9".into(), hello_of(mac)).expect("room");
        }
        lab
    }

    fn begin(lab: &mut Lab, now: u64, id: &str, token: &str) -> u64 {
        lab.take(at(now), id, &target(), token.into()).expect("known").0.number
    }

    #[test]
    fn a_terminal_that_says_hello_again_is_the_same_one() {
        let mut lab = lab();
        let number = begin(&mut lab, 1, A, "t");
        let (id, _) = lab.hello(at(5), "10.0.0.10".into(), hello_of(A)).expect("room");
        assert_eq!((id.as_str(), lab.iter().count()), (A, 2));
        let terminal = lab.get(A).expect("there");
        assert_eq!(terminal.address.as_deref(), Some("10.0.0.10"));
        assert_eq!(terminal.last.as_ref().map(|a| a.number), Some(number));
    }

    #[test]
    fn who_has_neither_mac_nor_uuid_is_nobody() {
        assert!(lab().hello(at(0), String::new(), hello_of("no")).is_none());
    }

    #[test]
    fn only_the_token_of_the_current_attempt_reports() {
        let mut lab = lab();
        let first = begin(&mut lab, 1, A, "one");
        let progress = || Progress::at(Stage::Fetch);
        assert_eq!(
            lab.progress(at(2), first, "two", progress(), &Ties::default()).err(),
            Some(ReportError::WrongToken)
        );
        assert_eq!(
            lab.progress(at(2), 99, "one", progress(), &Ties::default()).err(),
            Some(ReportError::Unknown)
        );
        assert!(lab.progress(at(2), first, "one", progress(), &Ties::default()).is_ok());
        let second = begin(&mut lab, 3, A, "two");
        assert!(second > first);
        assert_eq!(
            lab.progress(at(4), first, "one", progress(), &Ties::default()).err(),
            Some(ReportError::Unknown)
        );
        assert!(lab.get(A).and_then(|t| t.last.as_ref()).expect("attempt").dirty);
    }

    #[test]
    fn progress_is_written_at_each_stage_and_now_and_then() {
        let mut lab = lab();
        let number = begin(&mut lab, 100, A, "t");
        let mut report = |now, stage| {
            lab.progress(at(now), number, "t", Progress::at(stage), &Ties::default())
                .expect("taken")
                .1
                .is_some()
        };
        assert!(report(101, Stage::Claim));
        assert!(!report(102, Stage::Claim));
        assert!(report(103, Stage::Disarm));
        assert!(!report(122, Stage::Disarm));
        assert!(report(123, Stage::Disarm));
    }

    #[test]
    fn the_last_one_releases_all() {
        let mut lab = lab();
        let (a, b) = (begin(&mut lab, 1, A, "a"), begin(&mut lab, 1, B, "b"));
        assert_eq!(lab.outcome(at(2), a, "a", done(), &Ties::default()).expect("taken").0, Orders::default());
        assert!(lab.outcome(at(3), b, "b", done(), &Ties::default()).expect("taken").0.release);
        let serving = Progress::at(Stage::Serve);
        assert!(lab.progress(at(4), a, "a", serving, &Ties::default()).expect("taken").0.release);
    }

    #[test]
    fn a_zone_that_is_done_is_released_but_for_the_gateway_that_others_fetch_through() {
        const C: &str = "52:54:00:00:00:0c";
        let mut lab = Lab::default();
        for (mac, address) in [(A, "10.1.0.1"), (B, "10.1.0.2"), (C, "10.2.0.1")] {
            lab.hello(at(0), address.into(), hello_of(mac)).expect("room");
        }
        let zone = |name: &str, net: &str| Zone::new(name, vec![net.parse().expect("a network")]);
        let zones = vec![zone("one", "10.1.0.0/16"), zone("two", "10.2.0.0/16")];
        let ties = Ties {
            topology: Topology { zones, ..Topology::default() }.into(),
            gateways: [[10, 1, 0, 1].into(), [10, 2, 0, 1].into()].into(),
        };
        let [a, b, c] = [(A, "a"), (B, "b"), (C, "c")].map(|(id, token)| begin(&mut lab, 1, id, token));
        let mut end = |now, attempt, token| {
            lab.outcome(at(now), attempt, token, done(), &ties).expect("taken").0.release
        };
        assert!(!end(2, a, "a"));
        assert!(end(3, b, "b"), "its zone is done, and nobody fetches through it");
        assert!(!end(4, a, "a"), "zone two still fetches through it");
        assert!(end(5, c, "c") && end(6, a, "a"));
    }

    #[test]
    fn one_that_netboots_is_waited_for_until_it_takes() {
        let mut lab = lab();
        let a = begin(&mut lab, 1, A, "a");
        lab.expect(at(2), &Identity::new(&[B], None), vec!["debian@1".into()]);
        assert!(!lab.outcome(at(3), a, "a", done(), &Ties::default()).expect("taken").0.release);
        let b = begin(&mut lab, 4, B, "b");
        lab.outcome(at(5), b, "b", failed(Class::Disk, true), &Ties::default()).expect("taken");
        assert!(
            lab.progress(at(6), a, "a", Progress::at(Stage::Serve), &Ties::default())
                .expect("taken")
                .0
                .release
        );
    }

    #[test]
    fn nobody_reports_for_what_was_cancelled_before_it_ran() {
        let mut lab = lab();
        lab.cancel(at(1), A, Some(&target())).expect("waiting");
        let number = lab.get(A).and_then(|t| t.last.as_ref()).expect("attempt").number;
        assert_eq!(
            lab.outcome(at(2), number, "", done(), &Ties::default()).err(),
            Some(ReportError::WrongToken)
        );
    }

    #[test]
    fn the_next_attempt_knows_what_the_last_one_left_on_the_disk() {
        let mut lab = lab();
        let first = begin(&mut lab, 1, A, "a");
        let installed = |lab: &Lab| lab.get(A).and_then(|t| t.last.clone()).expect("attempt").installed;
        assert!(installed(&lab).is_empty());
        lab.outcome(at(2), first, "a", done(), &Ties::default()).expect("taken");
        let second = begin(&mut lab, 3, A, "b");
        assert_eq!(installed(&lab).len(), 1);
        lab.progress(at(4), second, "b", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
        begin(&mut lab, 5, A, "c");
        assert!(installed(&lab).is_empty(), "half of something");
    }

    #[test]
    fn the_first_outcome_stands() {
        let mut lab = lab();
        let a = begin(&mut lab, 1, A, "a");
        assert!(lab.outcome(at(2), a, "a", done(), &Ties::default()).expect("taken").1.is_some());
        assert!(
            lab.outcome(at(3), a, "a", failed(Class::Disk, true), &Ties::default())
                .expect("taken")
                .1
                .is_none()
        );
        assert_eq!(lab.get(A).and_then(|t| t.last.clone()).and_then(|a| a.outcome), Some(done()));
    }

    #[test]
    fn a_person_can_stop_a_running_one_and_start_it_again() {
        let mut lab = lab();
        let a = begin(&mut lab, 1, A, "a");
        lab.progress(at(2), a, "a", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
        assert!(lab.retry(at(3), A, None).is_err(), "imaging now");
        lab.cancel(at(3), A, Some(&target())).expect("running");
        let (orders, _) =
            lab.progress(at(4), a, "a", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
        assert!(orders.cancel);
        let attempt = lab.get(A).and_then(|t| t.last.clone()).expect("attempt");
        assert!(attempt.leaves_half_a_system() && !jobs::waits(Some(&attempt), Some(&target())));
        lab.retry(at(5), A, None).expect("stopped");
        assert_eq!(
            lab.get(A).expect("there").view(None, Some(&target()), &Ties::default(), at(5)).state,
            TerminalState::Waiting
        );
    }

    #[test]
    fn a_person_can_keep_a_waiting_one_from_starting() {
        let mut lab = lab();
        assert_eq!(lab.cancel(at(1), A, Some(&target())).expect("waiting").len(), 2);
        assert_eq!(
            lab.get(A).expect("there").view(None, Some(&target()), &Ties::default(), at(1)).state,
            TerminalState::Failed
        );
        assert!(lab.cancel(at(2), A, Some(&target())).is_err(), "nothing left");
        assert!(lab.cancel(at(2), B, None).is_err(), "no job");
    }

    #[test]
    fn what_terminals_say_is_bounded() {
        let mut lab = lab();
        let mut long = hello_of(A);
        long.inventory.machine = "ä".repeat(100_000);
        long.inventory.disks = vec![Default::default(); 1000];
        let neighbour = Neighbour { name: Some("x".repeat(100_000)), ..Neighbour::default() };
        long.inventory.nics = vec![NicInfo { neighbour: Some(neighbour), ..NicInfo::default() }];
        lab.hello(at(1), String::new(), long).expect("room");
        let inventory = &lab.get(A).expect("there").inventory;
        assert_eq!((inventory.machine.chars().count(), inventory.disks.len()), (MAX_WORD, MAX_PARTS));
        let switch = inventory.nics[0].neighbour.as_ref().expect("kept");
        assert_eq!(switch.name.as_ref().map(String::len), Some(MAX_WORD));
        let a = begin(&mut lab, 1, A, "a");
        let wild = Progress { percent: f32::NAN, ..Progress::at(Stage::Fetch) };
        lab.progress(at(2), a, "a", wild, &Ties::default()).expect("taken");
        let view = lab.get(A).expect("there").view(None, None, &Ties::default(), at(2));
        assert_eq!(view.progress.map(|p| p.percent), Some(0.0));
    }

    #[test]
    fn a_full_lab_takes_nobody_new() {
        let mut lab = Lab::default();
        for n in 0..MAX_TERMINALS {
            let mac = format!("52:54:00:01:{:02x}:{:02x}", n >> 8, n & 255);
            let who = Identity::new(&[mac], None);
            let id = lab.new_id(&who).expect("room");
            let terminal = Terminal {
                id: id.clone(),
                identity: who,
                inventory: Inventory::default(),
                agent: String::new(),
                address: None,
                heard: at(0),
                last: None,
            };
            lab.terminals.insert(id, terminal);
        }
        assert!(lab.hello(at(1), String::new(), hello_of(A)).is_none());
        assert!(lab.hello(at(1), String::new(), hello_of("52:54:00:01:00:00")).is_some());
    }
}
