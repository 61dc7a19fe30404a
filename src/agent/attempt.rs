//! One attempt of a job on this terminal: imaging, reports to the server, the stay in the swarm.
//!
//! Invariant: a server that is away never stops the imaging or the leaving; the outcome is reported until the
//! server has it or the longest stay is over. Getting the job is `worker`'s, the imaging itself `imaging`'s.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::imaging::{self, Imaged, ImagingContext, Next};
use crate::agent::status::Status;
use crate::api::{Assignment, Orders, OutcomeReport, ProgressReport};
use crate::event::{Class, Failure, Outcome, Stage};
use crate::io::http::{Api, CallError};

/// Tries of what can be tried again, before the attempt has failed.
const TRIES: u32 = 3;

/// How fast things are repeated; tests are faster.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two reports of progress.
    pub report: Duration,
    /// Before the second try; the third waits three times as long.
    pub again: Duration,
    /// How long the server is told of a failure while it is away.
    pub tell: Duration,
    /// How long leaving the swarm may take.
    pub leave: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            report: Duration::from_secs(1),
            again: Duration::from_secs(10),
            tell: Duration::from_secs(300),
            leave: Duration::from_secs(10),
        }
    }
}

/// What carries out an assignment; tests put something simpler here.
pub trait Imager {
    /// What goes on serving others afterwards.
    type Held: Held;
    /// Carries out `assignment` of the server at `server`. A failure comes with whether the disk was touched.
    fn run(
        &self,
        server: &str,
        assignment: &Assignment,
    ) -> impl Future<Output = Result<Self::Held, (Failure, bool)>>;
}

/// An image that is on the disk and still served to others.
pub trait Held {
    /// The disk, for people.
    fn disk(&self) -> String;
    /// What can start next.
    fn next(&self) -> Next;
    /// What did not work although the image is good.
    fn warnings(&self) -> Vec<String>;
    /// Bytes received and sent.
    fn traffic(&self) -> (u64, u64);
    /// Leaves the swarm.
    fn stop(self) -> impl Future<Output = ()>;
}

/// The real one: the context's server is replaced by the one that was found.
#[derive(Clone)]
pub struct RealImager(pub ImagingContext);

impl Imager for RealImager {
    type Held = Imaged;

    async fn run(&self, server: &str, assignment: &Assignment) -> Result<Imaged, (Failure, bool)> {
        let context = ImagingContext { server: server.to_owned(), ..self.0.clone() };
        imaging::run(context, assignment.clone()).await
    }
}

impl Held for Imaged {
    fn disk(&self) -> String {
        self.disk.clone()
    }

    fn next(&self) -> Next {
        self.next.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn traffic(&self) -> (u64, u64) {
        Imaged::traffic(self)
    }

    async fn stop(self) {
        Imaged::stop(self).await;
    }
}

/// How an attempt ended, after all reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The image is on the disk and this terminal has left the swarm.
    Done(Next),
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// The disk's old content is gone.
        disk_touched: bool,
    },
}

/// Carries out `assignment` of the server behind `api`, in full. `stop` ends it early (a person pressed Ctrl-C).
pub async fn run<I: Imager>(
    api: &Api,
    assignment: &Assignment,
    imager: &I,
    status: &Status,
    pace: Pace,
    stop: impl Future<Output = ()>,
) -> Ended {
    let began = Instant::now();
    status.begin_attempt(format!("{}@{}", assignment.image, assignment.version));
    let (orders, mut heard) = watch::channel(Orders::default());
    let reporter =
        Reporter { api: api.clone(), assignment: assignment.clone(), status: status.clone(), pace, orders };
    let reporting = reporter.progress();
    tokio::pin!(reporting, stop);
    let imaged = tokio::select! {
        imaged = image(api, assignment, imager, status, pace) => imaged,
        never = &mut reporting => match never {},
        () = cancelled(&mut heard) => Err(stopped("a person cancelled the job", status)),
        () = &mut stop => Err(stopped("it was stopped", status)),
    };
    let held = match imaged {
        Ok(held) => held,
        Err((failure, disk_touched)) => {
            let stage = status.view().progress.stage;
            let outcome = Outcome::Failed { stage, failure: failure.clone(), disk_touched };
            status.change(|view| view.outcome = Some(outcome.clone()));
            // A server that stays away learns of it by the terminal's silence.
            let _ = reporter.outcome(outcome, pace.tell).await;
            return Ended::Failed { failure, disk_touched };
        }
    };
    for warning in held.warnings() {
        status.note(warning);
    }
    let (bytes_in, bytes_out) = held.traffic();
    let outcome =
        Outcome::Done { seconds: began.elapsed().as_secs(), bytes_in, bytes_out, disk: held.disk() };
    status.change(|view| {
        view.progress.stage = Stage::Serve;
        view.progress.percent = 100.0;
        view.progress.seconds_left = None;
        view.outcome = Some(outcome.clone());
    });
    tokio::select! {
        () = stay(&reporter, outcome, &held, status, assignment, pace) => {}
        () = released(&mut heard) => status.note("the server has released this terminal"),
        never = &mut reporting => match never {},
        () = &mut stop => {}
    }
    let next = held.next();
    status.stage(Stage::Leave);
    if tokio::time::timeout(pace.leave, held.stop()).await.is_err() {
        status.note("leaving the swarm takes too long; going on");
    }
    Ended::Done(next)
}

/// Tries until it works, or what failed cannot be tried again, or it was tried enough.
async fn image<I: Imager>(
    api: &Api,
    assignment: &Assignment,
    imager: &I,
    status: &Status,
    pace: Pace,
) -> Result<I::Held, (Failure, bool)> {
    let mut touched = false;
    let mut tried = 0;
    loop {
        tried += 1;
        match imager.run(api.base(), assignment).await {
            Ok(held) => return Ok(held),
            Err((failure, now)) => {
                touched |= now;
                if failure.class != Class::Retry || tried == TRIES {
                    return Err((failure, touched));
                }
                let pause = pace.again * (2 * tried - 1);
                status.note(format!("{failure}; trying again in {} s", pause.as_secs()));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// The failure of an attempt that was told to stop.
fn stopped(why: &str, status: &Status) -> (Failure, bool) {
    let stage = status.view().progress.stage;
    let failure = Failure::new(
        Class::Retry,
        format!("{why} while {}", stage.title()),
        "Start the job again when it may go on.",
    );
    (failure, stage >= Stage::Disarm)
}

/// Waits for the order to stop.
async fn cancelled(orders: &mut watch::Receiver<Orders>) {
    if orders.wait_for(|orders| orders.cancel).await.is_err() {
        std::future::pending().await
    }
}

/// Waits for the order to leave.
async fn released(orders: &mut watch::Receiver<Orders>) {
    if orders.wait_for(|orders| orders.release || orders.cancel).await.is_err() {
        std::future::pending().await
    }
}

/// Stays in the swarm for the longest stay, telling the server the outcome meanwhile.
async fn stay<H: Held>(
    reporter: &Reporter,
    outcome: Outcome,
    held: &H,
    status: &Status,
    assignment: &Assignment,
    pace: Pace,
) {
    let longest = Duration::from_secs(assignment.longest_stay);
    let traffic = async {
        let mut before = held.traffic().1;
        loop {
            tokio::time::sleep(pace.report).await;
            let (_, out) = held.traffic();
            let rate = u128::from(out.saturating_sub(before)) * 1000 / pace.report.as_millis().max(1);
            status.progress(|p| {
                p.bytes_out = out;
                p.rate_in = 0;
                p.rate_out = u64::try_from(rate).unwrap_or(u64::MAX);
            });
            before = out;
        }
    };
    let told = async {
        let _ = reporter.outcome(outcome, longest).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = tokio::time::sleep(longest) => status.note("the longest stay is over"),
        () = traffic => {}
        () = told => {}
    }
}

/// Tells the server how an attempt goes, and passes on what it orders.
struct Reporter {
    api: Api,
    assignment: Assignment,
    status: Status,
    pace: Pace,
    orders: watch::Sender<Orders>,
}

impl Reporter {
    /// Reports progress for ever.
    async fn progress(&self) -> Infallible {
        let mut away = false;
        loop {
            let mut progress = self.status.view().progress;
            // A terminal that is done and serves is at 100 whatever the imaging last said.
            progress.percent = progress.percent.clamp(0.0, 100.0);
            let report = ProgressReport { token: self.assignment.token.clone(), progress };
            match self.api.progress(self.assignment.attempt, &report).await {
                Ok(orders) => {
                    if away {
                        self.status.note("the server answers again");
                    }
                    away = false;
                    self.hear(orders);
                }
                Err(e) => {
                    if !away {
                        self.status.note(format!("{e}; going on without the server"));
                    }
                    away = true;
                }
            }
            tokio::time::sleep(self.pace.report).await;
        }
    }

    /// Reports the outcome until the server has it or the time is over.
    async fn outcome(&self, outcome: Outcome, within: Duration) -> Result<(), CallError> {
        let end = Instant::now() + within;
        let report = OutcomeReport { token: self.assignment.token.clone(), outcome };
        loop {
            match self.api.outcome(self.assignment.attempt, &report).await {
                Ok(orders) => {
                    self.hear(orders);
                    return Ok(());
                }
                Err(CallError::Refused(rejected)) if rejected.status < 500 => {
                    self.status.note(format!("the outcome is not taken: {rejected}"));
                    return Err(CallError::Refused(rejected));
                }
                Err(e) if Instant::now() + self.pace.report >= end => return Err(e),
                Err(_) => tokio::time::sleep(self.pace.report * 3).await,
            }
        }
    }

    fn hear(&self, orders: Orders) {
        self.orders.send_if_modified(|old| std::mem::replace(old, orders) != orders);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::{After, LayoutMode};
    use crate::io::http::{client, tests::serve};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    /// Fails as often as it is told, then succeeds.
    pub(crate) struct Pretend {
        pub(crate) failures: Mutex<Vec<(Failure, bool)>>,
        pub(crate) runs: AtomicU32,
    }

    impl Pretend {
        pub(crate) fn failing(failures: Vec<(Class, bool)>) -> Self {
            let failure = |(class, touched)| (Failure::new(class, "it went wrong", "do this"), touched);
            let failures = failures.into_iter().rev().map(failure).collect();
            Pretend { failures: Mutex::new(failures), runs: AtomicU32::new(0) }
        }
    }

    pub(crate) struct Disk;

    impl Imager for Pretend {
        type Held = Disk;

        async fn run(&self, _: &str, _: &Assignment) -> Result<Disk, (Failure, bool)> {
            self.runs.fetch_add(1, Ordering::SeqCst);
            match self.failures.lock().unwrap().pop() {
                Some(failure) => Err(failure),
                None => Ok(Disk),
            }
        }
    }

    impl Held for Disk {
        fn disk(&self) -> String {
            "vda".into()
        }
        fn next(&self) -> Next {
            Next::Firmware
        }
        fn warnings(&self) -> Vec<String> {
            vec![]
        }
        fn traffic(&self) -> (u64, u64) {
            (7, 9)
        }
        async fn stop(self) {}
    }

    pub(crate) const PACE: Pace = Pace {
        report: Duration::from_millis(5),
        again: Duration::from_millis(5),
        tell: Duration::from_secs(5),
        leave: Duration::from_secs(5),
    };

    pub(crate) fn assignment(longest_stay: u64) -> Assignment {
        Assignment {
            job: "j".into(),
            attempt: 3,
            token: "secret".into(),
            image: "debian".into(),
            version: "1".into(),
            folder: "/images/debian/1/".into(),
            disk: "internal".into(),
            layout: LayoutMode::WholeDisk,
            after: After::Reboot,
            verify: true,
            longest_stay,
        }
    }

    /// A server that notes what it is told and answers outcomes and later progress with `orders`.
    async fn server(orders: &str) -> (Api, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (notes, orders) = (heard.clone(), orders.to_owned());
        let url = serve(move |path, body| {
            assert!(body.contains("\"token\":\"secret\""));
            let mut notes = notes.lock().unwrap();
            let told = path.ends_with("/outcome") || notes.iter().any(|n: &String| n.contains("/outcome"));
            notes.push(format!("{path} {body}"));
            (200, if told { orders.clone() } else { r#"{"release":false,"cancel":false}"#.into() })
        })
        .await;
        (Api::new(client().unwrap(), url), heard)
    }

    async fn never() {
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_terminal_stays_until_the_server_releases_it() {
        let (api, heard) = server(r#"{"release":true,"cancel":false}"#).await;
        let imager = Pretend::failing(vec![(Class::Retry, true)]);
        let status = Status::new();
        let ended = run(&api, &assignment(3600), &imager, &status, PACE, never()).await;
        assert_eq!(ended, Ended::Done(Next::Firmware));
        assert_eq!(imager.runs.load(Ordering::SeqCst), 2, "what can be tried again is tried again");
        assert!(matches!(status.view().outcome, Some(Outcome::Done { bytes_in: 7, .. })));
        let heard = heard.lock().unwrap();
        let outcome = heard.iter().find(|h| h.starts_with("/api/v1/attempts/3/outcome")).unwrap();
        assert!(outcome.contains(r#""result":"done""#), "{outcome}");
    }

    #[tokio::test]
    async fn without_a_server_the_longest_stay_ends_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::new(client().unwrap(), format!("http://{}", listener.local_addr().unwrap()));
        drop(listener);
        let status = Status::new();
        let ended = run(&api, &assignment(1), &Pretend::failing(vec![]), &status, PACE, never()).await;
        assert_eq!(ended, Ended::Done(Next::Firmware));
        let notes = status.view().notes;
        assert!(notes.iter().any(|n| n.contains("going on without the server")), "{notes:?}");
        assert_eq!(notes.last().unwrap(), "the longest stay is over");
    }

    #[tokio::test]
    async fn a_refusal_is_reported_and_not_tried_again() {
        let (api, heard) = server(r#"{"release":false,"cancel":false}"#).await;
        let imager = Pretend::failing(vec![(Class::Refused, false)]);
        let status = Status::new();
        let ended = run(&api, &assignment(3600), &imager, &status, PACE, never()).await;
        assert!(
            matches!(ended, Ended::Failed { ref failure, disk_touched: false } if failure.class == Class::Refused)
        );
        assert_eq!(imager.runs.load(Ordering::SeqCst), 1);
        let heard = heard.lock().unwrap();
        let outcome = heard.last().unwrap();
        assert!(outcome.contains("/outcome") && outcome.contains(r#""class":"refused""#), "{outcome}");
    }

    #[tokio::test]
    async fn a_disk_touched_in_an_earlier_try_stays_touched() {
        let (api, _) = server(r#"{"release":false,"cancel":false}"#).await;
        let imager = Pretend::failing(vec![(Class::Retry, true), (Class::Untrusted, false)]);
        let ended = run(&api, &assignment(3600), &imager, &Status::new(), PACE, never()).await;
        assert!(matches!(ended, Ended::Failed { disk_touched: true, .. }), "{ended:?}");
    }

    #[tokio::test]
    async fn a_cancelled_job_stops() {
        struct Endless;
        impl Imager for Endless {
            type Held = Disk;
            async fn run(&self, _: &str, _: &Assignment) -> Result<Disk, (Failure, bool)> {
                std::future::pending().await
            }
        }
        let url = serve(|_, _| (200, r#"{"release":false,"cancel":true}"#.into())).await;
        let api = Api::new(client().unwrap(), url);
        let ended = run(&api, &assignment(3600), &Endless, &Status::new(), PACE, never()).await;
        assert!(matches!(ended, Ended::Failed { ref failure, .. } if failure.message.contains("cancelled")));
    }
}
