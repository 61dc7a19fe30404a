//! Makes the system on a terminal's disk its own, after the image was proved and this terminal has left the
//! swarm.
//!
//! Invariant: the image is good even if this fails, so a problem here is told and never a failure of the
//! attempt. Every wait for the disk ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use super::bounds::on_disk;
use super::context::{ImagingContext, blocking};
use super::download;
use super::next::{BootEntries, not_changed};
use super::target::Target;
use crate::api::{Assignment, Task};
use crate::boot::entries;
use crate::event::{Failure, Installed, Stage};
use crate::io::disk::{grow, grow_ntfs, personal};
use crate::io::host::modules::Loader;
use crate::layout::personal::{OwnFile, Places, Told};

/// When a disk that has taken too long is looked at again, because a restart now would spoil it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The drivers of filesystems with more than one name.
const DRIVERS: [(&str, &str); 2] = [("ext2", "ext4"), ("ext3", "ext4")];

/// Disks whose images were proved and committed, and where the rest of an attempt's work lies.
#[derive(Debug, Default)]
pub struct Committed {
    /// The system that starts.
    pub system: Option<Places>,
    /// The further disks.
    pub also: Vec<Places>,
    /// Why a further disk is not among them.
    pub problems: Vec<String>,
}

/// The disks of an attempt that was cut off after its images were on them: chosen as they were then. Nothing
/// is written to the disks; boot entries that the attempt did not write are added to the firmware's. A
/// further disk that cannot be found is a problem, because the system that starts must not wait for it.
pub(crate) async fn find_committed(
    ctx: &ImagingContext,
    assignment: &Assignment,
) -> Result<Committed, Failure> {
    let first = awake(again(ctx, assignment, &assignment.task, &[]).await?)?;
    let files = download::files(ctx, assignment, &first.image).await?;
    // Each keeps its disk from being chosen again.
    let mut targets = vec![first];
    let mut problems = Vec::new();
    for task in &assignment.also {
        match again(ctx, assignment, task, &targets).await {
            // The system that sleeps there may have mounted the first disk.
            Ok(found) => targets.push(awake(found)?),
            Err(failure) => problems.push(format!("the disk of {}: {}", task.id, failure.message)),
        }
    }
    let first = &targets[0];
    // The attempt may have been cut off before it wrote the firmware's entries.
    let missing = BootEntries::of(&first.plan, &first.claimed, &first.info.name);
    let written = missing.write_within(ctx.bounds.end).await;
    let mut loader = None;
    if let Err(why) = written {
        ctx.status.note(not_changed(&why));
        loader = entries::loader(&first.plan).map(str::to_owned);
    }
    let system = Places { loader, proved: false, ..first.system(files) };
    let also = targets.iter().skip(1);
    let also = also.map(|target| Places { proved: false, ..target.system(Vec::new()) }).collect();
    Ok(Committed { system: Some(system), also, problems })
}

/// A target, and where a Linux system is hibernated on its disk.
type Found = (Target, Option<String>);

/// The target if no system sleeps on its disk.
fn awake((target, hibernated): Found) -> Result<Target, Failure> {
    match hibernated {
        None => Ok(target),
        Some(place) => Err(Failure::refused(
            format!("a Linux system is hibernated in {place} of {}: nothing is changed", target.info.name),
            "Start it and shut it down; the terminal is finished at its next network boot.",
        )),
    }
}

/// The target of `task` once more, with the partitions that the attempt wrote there.
async fn again(
    ctx: &ImagingContext,
    assignment: &Assignment,
    task: &Task,
    others: &[Target],
) -> Result<Found, Failure> {
    ctx.status.stage(Stage::Manifest);
    let image = download::describe(ctx, task).await?;
    ctx.status.stage(Stage::Claim);
    let target = Target::claim(ctx, assignment, task, image, others).await?;
    if !target.has_its_table() {
        return Err(Failure::refused(
            "the disk's partitions are no longer those that the attempt wrote: nothing is changed",
            "Somebody has installed another system since. Give the terminal a new job if it shall be imaged.",
        ));
    }
    // Even a look at a filesystem that a sleeping system holds would destroy it.
    let pulse = target.claimed.disk().pulse();
    on_disk(ctx, pulse, move || {
        let hibernated = target.hibernated()?;
        Ok((target, hibernated))
    })
    .await
}

/// What a person should know where this attempt leaves the image as it was captured, and the disk had a
/// system that was made the terminal's own.
pub(super) fn undone(assignment: &Assignment, new: &[Installed]) -> Option<String> {
    let disk = &new.first()?.disk;
    let had = assignment.installed.iter().any(|old| old.disk == *disk && old.personalised);
    (had && assignment.personal.is_none()).then(|| {
        format!("the system on {disk} loses its own host name and files: the job leaves the image as it is")
    })
}

/// Does all that is left to do. `tell` hears of each step as it is done. Whether a later run has nothing left
/// to do: the work has ended, and the terminal's own file is where its system looks for it.
pub(crate) async fn make(
    ctx: &ImagingContext,
    places: Places,
    own: Option<OwnFile>,
    mut tell: impl AsyncFnMut(Told),
) -> bool {
    let (told, mut heard) = mpsc::unbounded_channel();
    let work = blocking(move || {
        load_filesystems(&places);
        let mut tell = |what| drop(told.send(what));
        grow::all(&places, &mut tell);
        let own = own.map(|own| OwnFile { grow: places.for_helper(), ..own });
        Ok(own.is_none_or(|own| personal::make(&places, &own, &mut tell)))
    });
    let mut deadline = std::pin::pin!(tokio::time::sleep(ctx.bounds.disk));
    // The sender is gone when the work is done; what it said before is heard first.
    let work = tokio::spawn(work);
    loop {
        tokio::select! {
            what = heard.recv() => match what {
                Some(what) => tell(what).await,
                None => break,
            },
            () = &mut deadline => {
                if grow_ntfs::is_writing() {
                    deadline.as_mut().reset(tokio::time::Instant::now() + LOOK_AGAIN);
                    continue;
                }
                let seconds = ctx.bounds.disk.as_secs();
                let why = format!("the disk did not finish within {seconds} s");
                tell(Told::Problem(why)).await;
                return false;
            }
        }
    }
    let why = match work.await {
        Ok(Ok(finished)) => return finished,
        Ok(Err(failure)) => failure.message,
        Err(e) => format!("it ended unexpectedly: {e}"),
    };
    tell(Told::Problem(why)).await;
    false
}

/// Loads the drivers of filesystems, because no program of this system does so when one is mounted.
fn load_filesystems(places: &Places) {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let tree = Path::new("/lib/modules").join(release.trim());
    let drivers = missing_drivers(places, &known);
    if drivers.is_empty() {
        return;
    }
    // The lists of a kernel's modules have megabytes.
    match Loader::open(&tree) {
        Ok(mut loader) => drivers
            .into_iter()
            .for_each(|driver| loader.load(driver).failed.iter().for_each(|why| log::warn!("{why}"))),
        Err(e) => log::warn!("{}: {e}", tree.display()),
    }
}

/// The drivers of the filesystems on `places` that are not among `known`, the text of `/proc/filesystems`.
fn missing_drivers<'a>(places: &'a Places, known: &str) -> BTreeSet<&'a str> {
    let kinds = places.linux().map(|part| part.filesystem.as_str());
    let missing = kinds.filter(|kind| !known.split_whitespace().any(|word| word == *kind));
    missing
        .map(|kind| DRIVERS.iter().find(|(name, _)| *name == kind).map_or(kind, |(_, driver)| *driver))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::personal::Part;
    use crate::manifest::Role;

    #[test]
    fn each_driver_that_is_missing_is_loaded_once() {
        let part = |filesystem: &str| Part {
            number: 1,
            start: 0,
            size: 0,
            room: 0,
            filesystem: filesystem.into(),
            role: Role::Data,
        };
        let kinds = ["ext4", "xfs", "ext2", "ext3", "xfs", "btrfs", "ntfs"];
        let places = Places { parts: kinds.map(part).into(), ..crate::testkit::attempts::system() };
        let missing = missing_drivers(&places, "nodev\tproc\n\tbtrfs\n");
        assert_eq!(missing.into_iter().collect::<Vec<_>>(), ["ext4", "xfs"]);
    }
}
