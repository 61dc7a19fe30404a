//! The disk of an attempt: chosen, claimed, planned for, and disarmed.
//!
//! Invariant: a [`Target`] has passed all checks that can refuse; a [`Ready`] disk starts nothing.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bounds::{on_disk, timely};
use super::context::{ImagingContext, blocking};
use super::download::Description;
use crate::agent::hidden;
use crate::api::{Assignment, Compare, DiskInfo, Task};
use crate::boot::start;
use crate::event::{Chosen, Failure, Installed};
use crate::io::disk::claim::{ClaimedDisk, claim};
use crate::io::disk::disarm::disarm;
use crate::io::disk::list;
use crate::io::disk::partition_reader::PartitionReader;
use crate::io::disk::relocate::Saved;
use crate::io::disk::target::ImageStorage;
use crate::io::host::devices;
use crate::layout::hibernation;
use crate::layout::identity::Identity;
use crate::layout::known;
use crate::layout::personal::{GivenFile, Places};
use crate::layout::plan::LayoutPlan;
use crate::layout::present::{Present, wanted};
use crate::layout::rule::{self, Rule, describe};
use crate::manifest::{Manifest, Policy, Table};

/// An image and the disk that it will be on.
pub(super) struct Target {
    pub(super) task: Task,
    pub(super) info: DiskInfo,
    pub(super) image: Description,
    pub(super) claimed: ClaimedDisk,
    pub(super) plan: LayoutPlan,
}

/// A disk that waits for the image's pieces.
pub(super) struct Ready {
    pub(super) image: Description,
    pub(super) storage: Arc<ImageStorage>,
    pub(super) present: Present,
    pub(super) saved: Saved,
    /// Pieces on it were not looked for.
    pub(super) afresh: bool,
}

impl Ready {
    /// Bytes of the pieces that are to be on the disk.
    pub(super) fn bytes(&self) -> u64 {
        let pieces = wanted(self.storage.plan(), self.storage.grid()).count();
        u64::from(pieces) * self.storage.grid().piece_length().bytes()
    }
}

impl Target {
    /// Are the partitions on the disk now those of the plan, to the last GUID? After another installation
    /// they are not.
    pub(super) fn has_its_table(&self) -> bool {
        let facts = self.claimed.facts();
        match &facts.table {
            Ok(existing) => self.plan.is_on(existing),
            Err(_) => matches!(self.image.manifest().disk.table, Table::None),
        }
    }

    /// Where on the disk a Linux system is hibernated, if there is one.
    pub(super) fn hibernated(&self) -> Result<Option<String>, Failure> {
        let disk = self.claimed.disk();
        let look = |start: u64, size: u64| {
            let failed = Cell::new(None);
            let part = PartitionReader::new(disk, start, size);
            let read = |offset: u64, into: &mut [u8]| {
                // Damaged structures may lead beyond the end.
                let inside = offset.checked_add(into.len() as u64).is_some_and(|end| end <= size);
                inside && part.read_exact_at(offset, into).map_err(|e| failed.set(Some(e))).is_ok()
            };
            let found = hibernation::find(size, &read);
            match failed.take() {
                Some(e) => Err(Failure::disk(e.to_string(), "Replace the disk: it cannot be read.")),
                None => Ok(found),
            }
        };
        let Ok(table) = self.claimed.facts().table.as_ref() else {
            return Ok(look(0, disk.size())?.map(|place| format!("the disk{place}")));
        };
        for partition in &table.partitions {
            let Some(start) = disk.sector().offset_of(partition.first) else { continue };
            if let Some(place) = look(start.0, partition.size)? {
                return Ok(Some(format!("partition {}{place}", partition.number)));
            }
        }
        Ok(None)
    }

    /// Chooses and claims the disk of `task`, and plans `image` onto it. `others` of the same attempt have
    /// theirs already.
    pub(super) async fn claim(
        ctx: &ImagingContext,
        assignment: &Assignment,
        task: &Task,
        image: Description,
        others: &[Target],
    ) -> Result<Self, Failure> {
        let mut task = task.clone();
        // A disk on the command line is for the image that starts.
        let named = ctx.disk_override.clone().filter(|_| others.is_empty());
        task.disk = named.unwrap_or(task.disk);
        let info = choose(ctx, &task, image.manifest(), assignment, list).await.map_err(explained)?;
        if let Some(other) = others.iter().find(|other| other.info.name == info.name) {
            return Err(Failure::refused(
                format!(
                    "{} and {} of the same job both choose the disk {}",
                    other.task.id,
                    task.id,
                    describe(&info)
                ),
                "Name each disk in the job by a rule that fits no other: serial=…, bus=…, size=….",
            ));
        }
        let partitions = &image.manifest().partitions;
        let chosen = |number: &u32| task.partitions.as_ref().is_none_or(|only| only.contains(number));
        let replaced = partitions.iter().filter(|p| p.policy == Policy::Replace).map(|p| p.number);
        let replaced: Vec<u32> = replaced.filter(chosen).collect();
        let what = format!("claiming the disk {}", describe(&info));
        let claiming = blocking(move || {
            let claimed = claim(&info, task.layout, &replaced)?;
            let (facts, only) = (claimed.facts(), task.partitions.as_deref());
            let plan = LayoutPlan::new(&image.trusted, &image.boot, facts, task.layout, only)?;
            Ok(Target { task, info, image, claimed, plan })
        });
        timely(ctx.bounds.disk, &what, claiming).await
    }

    /// The disk, and the identity that it will have.
    pub(super) fn identity(&self) -> (DiskInfo, Identity) {
        (self.info.clone(), self.plan.identity().clone())
    }

    /// The disk's content once this attempt is done.
    pub(super) fn will_be_installed(&self) -> Installed {
        let Task { id, partitions, .. } = self.task.clone();
        Installed {
            id,
            disk: describe(&self.info),
            partitions,
            starts: start::of(&self.plan),
            personalised: false,
        }
    }

    /// Where its system lies, to make it the terminal's own with `files`.
    pub(super) fn system(&self, files: Vec<GivenFile>) -> Places {
        Places { files, ..Places::of(&self.plan, &self.info) }
    }

    /// Which disk the rule chose.
    pub(super) fn chosen(&self) -> Chosen {
        let rule = parse(&self.task.disk).map_or_else(|_| self.task.disk.clone(), |rule| rule.to_string());
        Chosen { rule, disk: describe(&self.info), identity: self.info.identity() }
    }

    /// Does the rule still mean this disk?
    pub(super) fn look_again(&self, ctx: &ImagingContext) -> Result<(), Failure> {
        still_means(ctx, &self.task, self.image.manifest(), &self.info, &list()?)
    }

    /// Wipes boot code and partition heads. Any reusable pieces there were saved first.
    pub(super) async fn disarm(self, ctx: &ImagingContext, present: Present) -> Result<Ready, Failure> {
        let Target { task, image, claimed, plan, .. } = self;
        on_disk(ctx, claimed.disk().pulse(), move || {
            let saved = Saved::read(claimed.disk(), plan.wipes(), &present.moves);
            let storage = Arc::new(ImageStorage::new(disarm(claimed, plan)?, Arc::clone(&image.grid)));
            Ok(Ready { image, storage, present, saved, afresh: task.compare == Compare::Full })
        })
        .await
    }
}

/// Whether the rule still means `chosen`, checked just before the first wipe. On a terminal that the server
/// has never seen, a disk with a late driver may have appeared, and then a vague rule means no disk.
pub(super) fn still_means(
    ctx: &ImagingContext,
    task: &Task,
    manifest: &Manifest,
    chosen: &DiskInfo,
    present: &[DiskInfo],
) -> Result<(), Failure> {
    if ctx.attended {
        return Ok(());
    }
    let now = among(task, manifest, present)?;
    if now.name == chosen.name && now.identity().same(&chosen.identity()) {
        return Ok(());
    }
    Err(Failure::refused(
        format!("the rule '{}' meant {} and means {} now", task.disk, describe(chosen), describe(&now)),
        "Nothing was written. Name the disk by serial=… in the job's disk rule.",
    ))
}

/// Why no disk could be chosen, with controllers that hide disks.
fn explained(failure: Failure) -> Failure {
    hidden::explain(failure, &devices::read(Path::new("/")), &list().unwrap_or_default())
}

/// How often a disk that comes late is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

fn parse(text: &str) -> Result<Rule, Failure> {
    text.trim().parse().map_err(|why: String| Failure::usage(why, "Correct the job's disk rule."))
}

/// The disk that the rule means among those that `list` finds. A disk that the terminal had is waited for,
/// because drivers find disks one after another.
pub(super) async fn choose(
    ctx: &ImagingContext,
    task: &Task,
    manifest: &Manifest,
    assignment: &Assignment,
    list: impl Fn() -> Result<Vec<DiskInfo>, Failure>,
) -> Result<DiskInfo, Failure> {
    if ctx.attended {
        // An administrator who names a device at this machine has seen its disks.
        return among(task, manifest, &list()?);
    }
    let begun = Instant::now();
    let Assignment { known_disks, chosen: before, .. } = assignment;
    loop {
        let present = list()?;
        let all_there = known::missing(known_disks, &present).is_empty();
        if all_there || begun.elapsed() >= ctx.late_disks {
            let chosen = among(task, manifest, &present)?;
            known::check(&parse(&task.disk)?, &chosen, &present, known_disks, before)?;
            return Ok(chosen);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub(super) fn list() -> Result<Vec<DiskInfo>, Failure> {
    list::all()
        .map_err(|e| Failure::retry(format!("listing the disks: {e}"), "Look whether /sys is mounted."))
}

/// The disk that the rule means among those that are there.
pub(super) fn among(task: &Task, manifest: &Manifest, present: &[DiskInfo]) -> Result<DiskInfo, Failure> {
    let text = task.disk.trim();
    let needed = manifest.disk.minimum_size;
    if text.starts_with("/dev/disk/by-") {
        // Such a link belongs to one disk, or one place, under any kernel name.
        let info = list::find(text)?;
        return rule::usable(&info, needed).cloned();
    }
    if text.starts_with("/dev/") && !text.contains(',') {
        // May be a loop device or a partition, which are not in the list of disks.
        let info = list::find(text)?;
        return parse(&format!("name={}", info.name))?.choose(&[info], needed).cloned();
    }
    let rule = parse(text)?;
    if matches!(manifest.disk.table, Table::None) && rule.name().is_none() {
        // It would lie over the table and all partitions of a disk that was only described.
        return Err(Failure::refused(
            format!("{} is a single partition, and the rule '{rule}' chooses a whole disk", manifest.id()),
            "Name the partition, or the bare disk, in the job's disk rule: /dev/….",
        ));
    }
    let mut all = present.to_vec();
    if let Some(name) = rule.name()
        && !all.iter().any(|disk| disk.name == name)
        && let Ok(info) = list::find(&format!("/dev/{name}"))
    {
        all.push(info);
    }
    rule.choose(&all, needed).cloned()
}
