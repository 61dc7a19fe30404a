//! One attempt: from a job to a disk that is proved and bootable, still serving others.
//!
//! Invariant: nothing is written before everything that can be refused was looked at, and nothing is committed
//! for boot before all of it was read back from the device. Memory is bounded: piece buffers by the smaller of
//! [`ImagingContext::memory_limit`] and half of what is available at the start (six pieces at least), and beside
//! them 1 MiB for each replaced partition (its held-back head), 5 MiB for reading back and writing zeros, and the
//! image's description. What comes before (network, discovery, the job) and
//! after (reports, how long to stay, what to start) is left to `agent`.

mod compare;
mod download;
mod meter;
mod next;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::agent::status::Status;
use crate::api::{Assignment, Compare, DiskInfo, LayoutMode};
use crate::event::{Class, Failure, Stage};
use crate::io::claim::{ClaimedDisk, claim};
use crate::io::commit::{CommittedDisk, commit, disarm, disk_failed};
use crate::io::image_storage::ImageStorage;
use crate::io::readback::{ImageVerified, LAG, Readback, zero_bytes};
use crate::io::session::{Have, Session, SessionConfig, Swarm, TorrentSpec};
use crate::io::storage::ImageShape;
use crate::io::{disks, memory};
use crate::layout::plan::LayoutPlan;
use crate::layout::rule::{Rule, describe};
use crate::manifest::{Manifest, Policy, Table, TrustedKeys};
use crate::swarm::Bitfield;
use crate::units::Sha256;
use download::Description;
use meter::Meter;

pub use next::Next;

/// How often the numbers of a terminal that only serves are renewed.
const SERVE_TICK: Duration = Duration::from_secs(1);
/// How often it is looked whether the read-back is through.
const VERIFY_TICK: Duration = Duration::from_millis(50);

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
    /// The disk it is on: name, model, serial number, size.
    pub disk: String,
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
    let image = download::describe(ctx, assignment).await?;

    ctx.status.stage(Stage::Claim);
    let info = choose(ctx, assignment, image.manifest.manifest())?;
    ctx.status.disk(describe(&info));
    let (claimed, plan) = claim_and_plan(&info, assignment.layout, &image).await?;
    let session = listen(ctx).await?;
    let (claimed, plan, kept) = match (assignment.compare, &image.hashes) {
        (Compare::Auto, Some(hashes)) => compare::look(ctx, claimed, plan, &image, hashes.clone()).await?,
        (Compare::Auto, None) | (Compare::Full, _) => (claimed, plan, Bitfield::none(image.grid.pieces())),
    };

    ctx.status.stage(Stage::Disarm);
    *touched = true;
    let result = match blocking(move || disarm(claimed, plan)).await {
        Ok(disarmed) => {
            let storage = Arc::new(ImageStorage::new(disarmed, Arc::clone(&image.grid)));
            write_image(ctx, assignment, image, storage, &session, kept).await
        }
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
    Ok(Imaged { disk: describe(&info), next, warnings, session, swarm, numbers, committed })
}

/// The disk that the rule means.
fn choose(ctx: &ImagingContext, assignment: &Assignment, manifest: &Manifest) -> Result<DiskInfo, Failure> {
    let text = ctx.disk_override.as_deref().unwrap_or(&assignment.disk).trim();
    let wrong = |why: String| Failure::new(Class::Usage, why, "Correct the job's disk rule.");
    if text.starts_with("/dev/") && !text.contains(',') {
        // May be a link (`/dev/disk/by-id/…`), a loop device, a partition: whatever was named is meant.
        let info = disks::find(text)?;
        let rule: Rule = format!("name={}", info.name).parse().map_err(wrong)?;
        return rule.choose(&[info], manifest.disk.minimum_size).cloned();
    }
    let rule: Rule = text.parse().map_err(wrong)?;
    if matches!(manifest.disk.table, Table::None) && rule.name().is_none() {
        // It would lie over the table and all partitions of a disk that was only described.
        return Err(Failure::new(
            Class::Refused,
            format!("{} is a single partition, and the rule '{rule}' chooses a whole disk", manifest.id()),
            "Name the partition, or the bare disk, in the job's disk rule: /dev/….",
        ));
    }
    let mut all = disks::list().map_err(|e| {
        Failure::new(Class::Retry, format!("listing the disks: {e}"), "Look whether /sys is mounted.")
    })?;
    if let Some(name) = rule.name()
        && !all.iter().any(|disk| disk.name == name)
        && let Ok(info) = disks::find(&format!("/dev/{name}"))
    {
        all.push(info);
    }
    rule.choose(&all, manifest.disk.minimum_size).cloned()
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

async fn claim_and_plan(
    info: &DiskInfo,
    mode: LayoutMode,
    image: &Description,
) -> Result<(ClaimedDisk, LayoutPlan), Failure> {
    let partitions = &image.manifest.manifest().partitions;
    let replaced: Vec<u32> =
        partitions.iter().filter(|p| p.policy == Policy::Replace).map(|p| p.number).collect();
    let (info, manifest, boot) = (info.clone(), image.manifest.clone(), image.boot.clone());
    blocking(move || {
        let claimed = claim(&info, mode, &replaced)?;
        let plan = LayoutPlan::new(&manifest, &boot, claimed.facts(), mode)?;
        Ok((claimed, plan))
    })
    .await
}

/// Listening is tried before anything is written.
async fn listen(ctx: &ImagingContext) -> Result<Session, Failure> {
    Session::start(SessionConfig::new(ctx.listen)).await.map_err(|e| {
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

/// Zeros and pieces, read-back, commit.
async fn write_image(
    ctx: &ImagingContext,
    assignment: &Assignment,
    image: Description,
    storage: Arc<ImageStorage>,
    session: &Session,
    kept: Bitfield,
) -> Result<(Swarm, CommittedDisk, Vec<String>), Failure> {
    ctx.status.stage(Stage::Fetch);
    let first = image.manifest.manifest().clone();
    let verify = assignment.verify && !image.torrent.unhashed;
    let readback = match image.hashes {
        Some(hashes) => Some(read_back(&storage, hashes, kept.count())?),
        None => None,
    };
    let available = memory::available().unwrap_or(ctx.memory_limit);
    let swarm = session.add(TorrentSpec {
        meta: image.torrent,
        storage: storage.clone(),
        shape: Arc::new(ImageShape(image.grid)),
        have: Have::Pieces(kept),
        wanted: None,
        trackers: vec![format!("{}/announce", ctx.server)],
        verify: assignment.verify,
        memory: ctx.memory_limit.min(available / 2),
    })?;
    let zeros_written = Arc::new(AtomicU64::new(0));
    let meter = Meter {
        status: &ctx.status,
        swarm: &swarm,
        readback: Mutex::new(readback),
        zeros_written: Arc::clone(&zeros_written),
        zeros_total: zero_bytes(&storage),
        started: Instant::now(),
        loneliness: Mutex::default(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let _stop = StopOnDrop(move || stopped.store(true, Ordering::SeqCst));
    let zeros = write_zeros(Arc::clone(&storage), zeros_written, stop);
    meter.during(async { tokio::try_join!(swarm.complete(), zeros).map(|_| ()) }).await?;

    if !meter.reads_back() {
        ctx.status.stage(Stage::Hashes);
        let hashes = meter.during(download::hashes(ctx, assignment, &first)).await?;
        meter.begin(read_back(&storage, hashes, 0)?);
    }
    ctx.status.stage(Stage::Verify);
    meter.all_written();
    let through = async {
        while !meter.is_through() {
            tokio::time::sleep(VERIFY_TICK).await;
        }
        Ok(())
    };
    meter.during(through).await.map_err(|failure| blame(failure, verify))?;
    let readback = meter.finish();
    let verified: ImageVerified = blocking(move || match readback {
        Some(readback) => readback.finish(),
        None => Err(Failure::new(Class::Disk, "nothing was read back", "Run the job again.")),
    })
    .await?;

    ctx.status.stage(Stage::Commit);
    let (committed, warning) = blocking(move || commit(verified)).await?;
    Ok((swarm, committed, warning.into_iter().collect()))
}

fn read_back(storage: &Arc<ImageStorage>, hashes: Vec<Sha256>, kept: u32) -> Result<Readback, Failure> {
    Readback::start(Arc::clone(storage), hashes, LAG, kept).map_err(|e| {
        Failure::new(Class::Retry, format!("starting the read-back: {e}"), "Restart the terminal.")
    })
}

/// Where pieces were not checked as they came, the disk is not the first to suspect.
fn blame(failure: Failure, verify: bool) -> Failure {
    if verify {
        return failure;
    }
    Failure {
        message: format!(
            "{}; pieces were not checked as they arrived, so a peer may have sent it so",
            failure.message
        ),
        advice: format!("Run the job with checking switched on. {}", failure.advice),
        ..failure
    }
}

/// Writes the zero pieces beside the swarm.
async fn write_zeros(
    storage: Arc<ImageStorage>,
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<(), Failure> {
    blocking(move || {
        let go_on = |bytes| {
            written.fetch_add(bytes, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        };
        storage.write_zeros(go_on).map_err(|e| disk_failed(&e))
    })
    .await
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
