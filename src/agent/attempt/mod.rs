//! One attempt of a job on this terminal: imaging, reports to the server, the stay in the swarm.
//!
//! Invariant: a server that is away never stops the imaging or the leaving; the outcome is reported until the
//! server has it or the longest stay is over. Getting the job is `worker`'s, the imaging itself `imaging`'s.

mod imager;
mod pace;
mod personal;
mod reporter;

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;

use crate::agent::imaging::{Checked, Committed, Next};
use crate::agent::status::Status;
use crate::api::{Assignment, Compare, MAX_LOG, Orders};
use crate::event::{Class, Failure, Outcome, Stage};
use crate::io::net::api_client::Api;
pub(crate) use imager::RealImager;
pub use imager::{Held, Imager};
pub use pace::Pace;
use reporter::Reporter;
pub(crate) use reporter::tell_crash;

/// Tries after retryable failures, before the attempt has failed.
const TRIES: u32 = 3;

/// No server keeps a finished terminal longer, even if it asks to.
const LONGEST_STAY: Duration = Duration::from_secs(24 * 3600);

/// How an attempt ended, after all reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The image is on the disk and this terminal has left the swarm.
    Done(Next),
    /// A preflight was reported, whatever it found; the disk is as it was.
    Checked,
    Failed {
        failure: Failure,
        /// The disk's old content is gone.
        disk_touched: bool,
    },
}

/// Carries out `assignment` of the server behind `api`, in full. `stop` ends it early (a person pressed
/// Ctrl-C).
pub async fn run<I: Imager>(
    api: &Api,
    assignment: &Assignment,
    imager: &I,
    status: &Status,
    pace: Pace,
    stop: impl Future<Output = ()>,
) -> Ended {
    status.begin_attempt(assignment.title());
    let (orders, mut heard) = watch::channel(Orders::default());
    let reporter = Reporter::begin(api, assignment, status, pace, orders);
    if assignment.finish {
        reported(&reporter, personal::finish(api, assignment, imager, status)).await;
        reporter.end().await;
        return Ended::Done(Next::Firmware);
    }
    let reporting = reporter.report();
    let late = Cell::new(false);
    let stop = async {
        stop.await;
        late.set(true);
    }
    .fuse();
    tokio::pin!(reporting, stop);
    let imaged = tokio::select! {
        imaged = work(api, assignment, imager, status, pace) => imaged,
        never = &mut reporting => match never {},
        () = before_commit(cancelled(&mut heard), status) => {
            Err(stopped("a person cancelled the job", status))
        }
        () = before_commit(&mut stop, status) => Err(stopped("it was stopped", status)),
    };
    let held = match imaged {
        Ok(Worked::Imaged(held)) => held,
        Ok(Worked::Checked(Checked { findings, facts })) => {
            let seconds = status.elapsed().as_secs();
            reporter.last(Outcome::Checked { seconds, findings, facts }).await;
            return Ended::Checked;
        }
        Err((failure, disk_touched)) => {
            let stage = status.view().progress.stage;
            reporter.last(Outcome::Failed { stage, failure: failure.clone(), disk_touched }).await;
            return match assignment.preflight {
                true => Ended::Checked,
                false => Ended::Failed { failure, disk_touched },
            };
        }
    };
    for warning in held.warnings() {
        status.note(warning);
    }
    let (bytes_in, bytes_out) = held.traffic();
    let installed = held.installed();
    let disks: Vec<&str> = installed.iter().map(|one| one.disk.as_str()).collect();
    let (seconds, disk) = (status.elapsed().as_secs(), disks.join(" and "));
    let warnings = held.warnings();
    let outcome = Outcome::Done { seconds, bytes_in, bytes_out, disk, installed, warnings };
    status.change(|view| {
        view.progress.stage = Stage::Serve;
        view.progress.percent = 100.0;
        view.progress.seconds_left = None;
        view.outcome = Some(outcome.clone());
    });
    let told = Cell::new(false);
    let ordered = tokio::select! {
        () = stay(&reporter, (outcome.clone(), &told), status, assignment) => false,
        () = released(&mut heard) => {
            status.note("the server has released this terminal");
            true
        }
        never = &mut reporting => match never {},
        () = stopped_at_last(&mut stop, &late) => true,
    };
    if ordered && !told.get() {
        // An order to stop that came during the commit. A server that does not hear of the end would take the
        // disk for half a system.
        let _ = reporter.outcome(outcome, pace.tell).await;
    }
    let next = held.next();
    let committed = Committed { system: held.system(), also: held.also(), problems: Vec::new() };
    status.stage(Stage::Leave);
    let leave = async {
        if tokio::time::timeout(pace.leave, held.stop()).await.is_err() {
            status.note("leaving the swarm takes too long; going on");
        }
        personal::run(api, assignment, imager, status, committed).await;
    };
    reported(&reporter, leave).await;
    reporter.end().await;
    Ended::Done(next)
}

/// Does the last work while progress is reported: a ticket takes the place of a terminal that is silent, and
/// a large filesystem grows for minutes.
async fn reported(reporter: &Reporter, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        never = reporter.report() => match never {},
    }
}

/// What an assignment came to.
enum Worked<H> {
    Imaged(H),
    Checked(Checked),
}

/// Does it once.
async fn once<I: Imager>(
    api: &Api,
    assignment: &Assignment,
    imager: &I,
) -> Result<Worked<I::Held>, (Failure, bool)> {
    match assignment.preflight {
        true => imager.check(api.base(), assignment).await.map(Worked::Checked).map_err(|e| (e, false)),
        false => imager.run(api.base(), assignment).await.map(Worked::Imaged),
    }
}

/// Tries until it works, a failure is not retryable, or [`TRIES`] are used up.
async fn work<I: Imager>(
    api: &Api,
    assignment: &Assignment,
    imager: &I,
    status: &Status,
    pace: Pace,
) -> Result<Worked<I::Held>, (Failure, bool)> {
    let mut assignment = assignment.clone();
    let mut touched = false;
    let mut tried = 0;
    loop {
        tried += 1;
        match once(api, &assignment, imager).await {
            Ok(worked) => return Ok(worked),
            Err((failure, now)) => {
                touched |= now;
                if touched {
                    resume(&mut assignment);
                }
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

/// No record describes the disk now, and the pieces of this attempt must be found and not discarded.
fn resume(assignment: &mut Assignment) {
    assignment.tasks_mut().for_each(|task| task.compare = Compare::Auto);
    assignment.installed.clear();
}

/// The failure of an attempt that was ordered to stop.
fn stopped(why: &str, status: &Status) -> (Failure, bool) {
    let stage = status.view().progress.stage;
    let failure =
        Failure::retry(format!("{why} while {}", stage.title()), "Start the job again when it may go on.");
    (failure, stage >= Stage::Disarm)
}

/// Waits for `stop`, and ignores it once the commit has begun, because after half a commit a terminal could
/// not start a proved image. The commit takes a second; a stop that comes meanwhile ends the stay in the
/// swarm.
async fn before_commit(stop: impl Future<Output = ()>, status: &Status) {
    stop.await;
    if status.view().progress.stage >= Stage::Commit {
        std::future::pending().await
    }
}

/// Waits for `stop`, which may have come while it was not heard.
async fn stopped_at_last(stop: impl Future<Output = ()>, came: &Cell<bool>) {
    if !came.get() {
        stop.await;
    }
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

/// Stays in the swarm for the longest stay, telling the server the outcome meanwhile. `heard` becomes true
/// when the server has it.
async fn stay(
    reporter: &Reporter,
    (outcome, heard): (Outcome, &Cell<bool>),
    status: &Status,
    assignment: &Assignment,
) {
    let longest = Duration::from_secs(assignment.longest_stay).min(LONGEST_STAY);
    let told = async {
        // The last numbers first: a release may follow the outcome at once.
        let _ = reporter.progress_once().await;
        heard.set(reporter.outcome(outcome, longest).await.is_ok());
        reporter.log(MAX_LOG).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = tokio::time::sleep(longest) => status.note("the longest stay is over"),
        () = told => {}
    }
}

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tests;
