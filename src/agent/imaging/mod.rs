//! One attempt: from a job to disks that are proved and bootable, still serving others.
//!
//! Invariant: nothing is written before every reason to refuse was checked on all disks of the job, and
//! nothing is committed for boot before it was read back completely from the devices. Memory is bounded:
//! piece buffers by the smaller of [`ImagingContext::memory_limit`] and half of the memory available at the
//! start (six pieces at least), and beside them 3 MiB for each replaced partition (its held-back head and the
//! bytes wiped there), 16 MiB (two pieces at least) for reading back, 1 MiB for writing zeros, 32 MiB (two
//! pieces at least) while pieces move on the disk, the image's description and the administrator's files for
//! the terminal (`manifest::after::MAX_BYTES`); before them 64 MiB (two pieces at least) for comparing.
//! `agent` does the steps before (network, discovery, the job) and after (reports, the stay in the swarm, the
//! start).

mod bounds;
mod compare;
mod context;
mod download;
mod meter;
mod next;
pub(crate) mod personal;
mod preflight;
mod target;
mod twins;
mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::agent::status::Status;
use crate::api::{Assignment, payload_rate};
use crate::event::{Failure, Installed, Stage};
use crate::io::disk::commit::{CommittedDisk, commit};
use crate::io::torrent::{Session, SessionConfig, Swarm};
use crate::layout::personal::Places;
use crate::layout::present::wanted;
use crate::swarm::RateLimit;
use bounds::{on_disk, timely};
use compare::Looked;
use meter::Share;
use target::{Ready, Target};

pub use context::{Bounds, ImagingContext, LATE_DISKS};
pub use next::Next;
pub use personal::Committed;
pub use preflight::{Checked, check};

/// How often the numbers of a terminal that only serves are renewed.
const SERVE_TICK: Duration = Duration::from_secs(1);

/// An image on the disk, proved from the disk and committed. While this value lives, the terminal serves it
/// to others.
pub struct Imaged {
    /// The images now on the disks (name, model, serial number, size).
    pub installed: Vec<Installed>,
    /// The system that starts next.
    pub next: Next,
    /// Where the system lies that starts.
    pub system: Option<Places>,
    /// What was written to the further disks.
    pub also: Vec<Places>,
    /// Problems that do not spoil the image (boot entries, kexec), for people.
    pub warnings: Vec<String>,
    session: Session,
    swarms: Vec<Swarm>,
    numbers: JoinHandle<()>,
    committed: Vec<CommittedDisk>,
}

impl Imaged {
    /// Bytes received and sent so far.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let stats = self.swarms.iter().map(Swarm::stats);
        stats.fold((0, 0), |(bytes_in, bytes_out), one| (bytes_in + one.bytes_in, bytes_out + one.bytes_out))
    }

    /// Leaves the swarms (which tells the tracker) and gives the disks back.
    pub async fn stop(self) {
        self.numbers.abort();
        for swarm in &self.swarms {
            swarm.stop().await;
        }
        self.session.shutdown().await;
        drop(self.committed);
    }
}

/// Carries out `assignment`. The failure comes with whether the disk's old content is gone. Dropping the
/// future ends the attempt; the disk is given back as soon as its threads have noticed.
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
    let mut images = Vec::new();
    for task in assignment.tasks() {
        images.push(download::describe(ctx, task).await?);
    }

    let files = match images.first() {
        Some(image) => download::files(ctx, assignment, image).await?,
        None => Vec::new(),
    };

    ctx.status.stage(Stage::Claim);
    let mut targets: Vec<Target> = Vec::new();
    for (task, image) in assignment.tasks().zip(images) {
        targets.push(Target::claim(ctx, assignment, task, image, &targets).await?);
    }
    let mut warnings: Vec<String> =
        targets.iter().flat_map(|target| target.plan.warnings().to_vec()).collect();
    let twins = twins::look(targets.iter().map(Target::identity).collect());
    warnings.extend(timely(ctx.bounds.disk, "looking for disks with the same identity", twins).await?);
    warnings.iter().for_each(|warning| ctx.status.note(warning.clone()));
    let installed: Vec<Installed> = targets.iter().map(Target::will_be_installed).collect();
    let mut places: Vec<Places> = targets.iter().map(|target| target.system(Vec::new())).collect();
    if let Some(system) = places.first_mut() {
        system.files = files;
    }
    warnings.extend(personal::undone(assignment, &installed));
    let disks: Vec<&str> = installed.iter().map(|one| one.disk.as_str()).collect();
    ctx.status.disk(disks.join(" and "));
    ctx.status.chosen(targets.iter().map(Target::chosen).collect());
    let session = listen(ctx, assignment).await?;
    let mut found = Vec::new();
    for (target, places) in targets.into_iter().zip(&mut places) {
        let mut looked = compare::look(ctx, target, assignment).await?;
        places.proved = looked.will_be_proved();
        warnings.extend(looked.warning.take());
        found.push(looked);
    }

    let finished = if found.iter().all(|looked| looked.whole.is_some()) {
        already(ctx, assignment, found, &session).await
    } else {
        for looked in &found {
            looked.target.look_again(ctx)?;
        }
        ctx.status.stage(Stage::Disarm);
        *touched = true;
        finish(ctx, assignment, found, &session).await
    };
    let (swarms, committed) = match finished {
        Ok((swarms, committed, said)) => {
            warnings.extend(said);
            (swarms, committed)
        }
        Err(failure) => {
            // The disk must be released before the job is tried again. But a disk that hangs must not delay
            // the report of the failure.
            let _ = tokio::time::timeout(ctx.bounds.end, session.shutdown()).await;
            return Err(failure);
        }
    };
    let mut places = places.into_iter();
    let (system, also) = (places.next(), places.collect());
    let disk = system.as_ref().map(|system: &Places| system.info.name.clone()).unwrap_or_default();
    let (next, loader) = match committed.first() {
        Some(first) => {
            next::prepare(ctx.bounds.end, assignment.after, first.storage(), &disk, &mut warnings).await
        }
        None => (Next::Firmware, None),
    };
    // Others fetch the pieces of this disk until the terminal leaves, so the copy is made after that.
    let system = system.map(|system| Places { loader, ..system });

    ctx.status.stage(Stage::Serve);
    ctx.status.progress(|progress| {
        progress.percent = 100.0;
        progress.seconds_left = Some(0);
    });
    warnings.iter().for_each(|warning| ctx.status.note(warning.clone()));
    let numbers = tokio::spawn(serve_numbers(ctx.status.clone(), swarms.clone()));
    Ok(Imaged { installed, next, system, also, warnings, session, swarms, numbers, committed })
}

/// Swarms that keep serving, disks that start the new system, and warnings.
type Finished = (Vec<Swarm>, Vec<CommittedDisk>, Vec<String>);

/// An earlier attempt has completed the disks and could not report it. Writes nothing and serves them.
async fn already(
    ctx: &ImagingContext,
    assignment: &Assignment,
    found: Vec<Looked>,
    session: &Session,
) -> Result<Finished, Failure> {
    ctx.status
        .note("all of it is on the disk already, proved from the disk and committed: nothing is written");
    let (mut swarms, mut committed, mut bytes) = (Vec::new(), Vec::new(), 0);
    for Looked { target: Target { image, claimed, plan, .. }, whole, .. } in found {
        let Some(whole) = whole else { continue };
        let grid = Arc::clone(&image.grid);
        let pulse = claimed.disk().pulse();
        let disk = on_disk(ctx, pulse, move || CommittedDisk::found(claimed, plan, grid, whole)).await?;
        let storage = disk.storage();
        let all = wanted(storage.plan(), storage.grid());
        bytes += u64::from(all.count()) * storage.grid().piece_length().bytes();
        let spec = write::torrent(ctx, assignment, &image.torrent, storage, all, None);
        swarms.push(session.add(spec)?);
        committed.push(disk);
    }
    ctx.status.progress(|progress| {
        (progress.bytes_done, progress.bytes_total, progress.bytes_verified) = (bytes, bytes, bytes);
    });
    Ok((swarms, committed, Vec::new()))
}

/// From claimed disks to ones that start the new system: none is committed before all are proved, and the one
/// that starts comes last.
async fn finish(
    ctx: &ImagingContext,
    assignment: &Assignment,
    found: Vec<Looked>,
    session: &Session,
) -> Result<Finished, Failure> {
    let mut ready = Vec::new();
    for Looked { target, present, .. } in found {
        ready.push(target.disarm(ctx, present).await?);
    }
    let (mut swarms, mut proved) = (Vec::new(), Vec::new());
    let mut shares = Share::of_each(&ready.iter().map(Ready::bytes).collect::<Vec<_>>()).into_iter();
    for ready in ready {
        ctx.status.stage(Stage::Fetch);
        let share = shares.next().unwrap_or_default();
        let (swarm, verified) = write::write(ctx, assignment, ready, session, share).await?;
        swarms.push(swarm);
        proved.push(verified);
    }
    ctx.status.stage(Stage::Commit);
    let (mut committed, mut warnings) = (Vec::new(), Vec::new());
    for verified in proved.into_iter().rev() {
        let pulse = verified.storage().disk().pulse();
        let (disk, warning) = on_disk(ctx, pulse, move || commit(verified)).await?;
        committed.insert(0, disk);
        warnings.extend(warning);
    }
    Ok((swarms, committed, warnings))
}

/// Listening is tried before anything is written.
async fn listen(ctx: &ImagingContext, assignment: &Assignment) -> Result<Session, Failure> {
    let compress = ctx.compress.unwrap_or(assignment.compress);
    let limit = assignment.limit_mbit.map(payload_rate).map(RateLimit::new).unwrap_or_default();
    let config = SessionConfig { compress, limit, ..SessionConfig::new(ctx.listen) };
    Session::start(config).await.map_err(|e| {
        let message = format!("listening for peers on {}: {e}", ctx.listen);
        Failure::retry(message, "Stop the program that uses that port, or wait until it is free.")
    })
}

/// Shows the bytes served to others after the commit.
async fn serve_numbers(status: Status, swarms: Vec<Swarm>) {
    let mut ticks = tokio::time::interval(SERVE_TICK);
    loop {
        ticks.tick().await;
        let stats = swarms.iter().map(Swarm::stats).reduce(meter::sum).unwrap_or_default();
        status.progress(|progress| meter::traffic(progress, &stats));
    }
}

#[cfg(test)]
mod tests;
