//! One attempt: from a job to a disk that is proved and bootable, still serving others.
//!
//! Invariant: nothing is written before everything that can be refused was looked at, and nothing is committed
//! for boot before all of it was read back from the device. Memory is bounded: piece buffers by the smaller of
//! [`ImagingContext::memory_limit`] and half of what is available at the start (six pieces at least), and beside
//! them 2 MiB for each replaced partition (its held-back head and what was wiped there), 5 MiB for reading back and writing
//! zeros, 32 MiB (two pieces at least) while pieces move on the disk, and the image's description. What comes before (network, discovery, the job) and
//! after (reports, how long to stay, what to start) is left to `agent`.

mod compare;
mod download;
mod meter;
mod next;
mod target;
mod write;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::agent::status::Status;
use crate::api::{Assignment, Compress};
use crate::event::{Class, Failure, Installed, Stage};
use crate::io::commit::{CommittedDisk, commit};
use crate::io::session::{Session, SessionConfig, Swarm};
use crate::manifest::TrustedKeys;
use target::{Ready, Target};

pub use next::Next;

/// How often the numbers of a terminal that only serves are renewed.
const SERVE_TICK: Duration = Duration::from_secs(1);

/// What an attempt is given by the agent.
#[derive(Clone)]
pub struct ImagingContext {
    /// The server's address, for example `http://10.0.0.1:6969`, without a slash at its end.
    pub server: String,
    /// Keys that may sign manifests.
    pub keys: TrustedKeys,
    /// Accept manifests without a signature.
    pub allow_insecure: bool,
    /// Where progress is told.
    pub status: Status,
    /// A disk rule from the command line: goes before the job's.
    pub disk_override: Option<String>,
    /// Whether pieces travel compressed, from the command line: goes before what the server says.
    pub compress: Option<Compress>,
    /// For the manifest and its sidecars.
    pub http: reqwest::Client,
    /// Most bytes of memory for piece buffers. Half of what is available at the start is a bound as well.
    pub memory_limit: u64,
    /// Where peers are listened for.
    pub listen: SocketAddr,
}

/// An image that is on the disk, proved from the disk and committed. The terminal goes on serving it to others
/// for as long as this value lives.
pub struct Imaged {
    /// What is on which disk now (name, model, serial number, size).
    pub installed: Vec<Installed>,
    /// What starts next.
    pub next: Next,
    /// What did not work although the image is good (boot entries, kexec), for people.
    pub warnings: Vec<String>,
    session: Session,
    swarm: Swarm,
    numbers: JoinHandle<()>,
    committed: CommittedDisk,
}

impl Imaged {
    /// Bytes received and sent so far.
    pub fn traffic(&self) -> (u64, u64) {
        let stats = self.swarm.stats();
        (stats.bytes_in, stats.bytes_out)
    }

    /// Leaves the swarm (which tells the tracker) and gives the disk back.
    pub async fn stop(self) {
        self.numbers.abort();
        self.swarm.stop().await;
        self.session.shutdown().await;
        drop(self.committed);
    }
}

/// Carries out `assignment`. The failure comes with whether the disk's old content is gone. Dropping the future
/// ends the attempt; the disk is given back as soon as its threads have noticed.
pub async fn run(ctx: ImagingContext, assignment: Assignment) -> Result<Imaged, (Failure, bool)> {
    let mut touched = false;
    let result = attempt(&ctx, &assignment, &mut touched).await;
    result.map_err(|failure| (failure, touched))
}

async fn attempt(
    ctx: &ImagingContext,
    assignment: &Assignment,
    touched: &mut bool,
) -> Result<Imaged, Failure> {
    ctx.status.stage(Stage::Manifest);
    let image = download::describe(ctx, &assignment.task).await?;

    ctx.status.stage(Stage::Claim);
    let target = Target::claim(ctx, &assignment.task, image).await?;
    let installed = target.will_be_installed();
    ctx.status.disk(installed.disk.clone());
    let session = listen(ctx, assignment).await?;
    let (target, present) = compare::look(ctx, target, &assignment.installed).await?;

    ctx.status.stage(Stage::Disarm);
    *touched = true;
    let result = match target.disarm(present).await {
        Ok(ready) => finish(ctx, assignment, ready, &session).await,
        Err(failure) => Err(failure),
    };
    let (swarm, committed, mut warnings) = match result {
        Ok(done) => done,
        Err(failure) => {
            // Nobody else may find the disk still held when the job is tried again.
            session.shutdown().await;
            return Err(failure);
        }
    };
    let next = next::prepare(assignment.after, committed.storage(), &mut warnings).await;

    ctx.status.stage(Stage::Serve);
    ctx.status.progress(|progress| {
        progress.percent = 100.0;
        progress.seconds_left = Some(0);
    });
    warnings.iter().for_each(|warning| ctx.status.note(warning.clone()));
    let numbers = tokio::spawn(serve_numbers(ctx.status.clone(), swarm.clone()));
    Ok(Imaged { installed: vec![installed], next, warnings, session, swarm, numbers, committed })
}

/// From a disarmed disk to one that starts the new system.
async fn finish(
    ctx: &ImagingContext,
    assignment: &Assignment,
    ready: Ready,
    session: &Session,
) -> Result<(Swarm, CommittedDisk, Vec<String>), Failure> {
    ctx.status.stage(Stage::Fetch);
    let (swarm, verified) = write::write(ctx, assignment, ready, session).await?;
    ctx.status.stage(Stage::Commit);
    let (committed, warning) = blocking(move || commit(verified)).await?;
    Ok((swarm, committed, warning.into_iter().collect()))
}

/// Work with the disk, away from the network's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(Failure::new(
            Class::Disk,
            format!("working on the disk ended unexpectedly: {e}"),
            "Run the job again.",
        ))
    })
}

/// Listening is tried before anything is written.
async fn listen(ctx: &ImagingContext, assignment: &Assignment) -> Result<Session, Failure> {
    let compress = ctx.compress.unwrap_or(assignment.compress);
    let config = SessionConfig { compress, ..SessionConfig::new(ctx.listen) };
    Session::start(config).await.map_err(|e| {
        let message = format!("listening for peers on {}: {e}", ctx.listen);
        Failure::new(Class::Retry, message, "Stop what uses that port, or wait until it is free.")
    })
}

/// Has work on a thread end when it is dropped, whatever the reason.
struct StopOnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for StopOnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What is served to others after the commit.
async fn serve_numbers(status: Status, swarm: Swarm) {
    let mut ticks = tokio::time::interval(SERVE_TICK);
    loop {
        ticks.tick().await;
        let stats = swarm.stats();
        status.progress(|progress| meter::traffic(progress, &stats));
    }
}

#[cfg(test)]
mod tests;
