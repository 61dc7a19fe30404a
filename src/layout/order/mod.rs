//! The order of the first and the last writes of an attempt, so that no power cut leaves a half-written
//! system that starts.
//!
//! A device may keep any part of the unsynced writes, sector by sector. So the code and tables that start a
//! system are wiped before the rest of the system, with a sync in between, and written after it:
//!
//! ```text
//! disarm   1. the first sector: boot code, MBR                              ── sync
//!          2. GPT headers                                                   ── sync
//!          3. sectors by which partitions that start something are found    ── sync after each kind
//!          4. everything that is wiped                                      ── sync
//! commit   1. heads of partitions, the one that starts last            ── sync after each part
//!          2. the table   3. the ESP's head   4. boot areas, boot code last
//! ```
//!
//! A head is not written in one go. The few sectors that make a filesystem findable follow one by one after
//! all others, so that a torn write leaves a partition that looks empty, and not one that looks whole.
//!
//! Invariant: pure. Each step's writes may reach the medium in any order; a step begins when the one before
//! it is synced. The manifest says which partitions start; a kept partition is never touched.

use std::ops::Range;

use crate::api::LayoutMode;
use crate::layout::plan::{HEAD, LayoutPlan, Place, is_booted};
use crate::manifest::{BootAreaKind, Role};

/// Bytes of boot code in the first sector; the table follows.
const BOOT_CODE: u64 = 440;

/// Offsets at which filesystems are found in a partition, in the order of the commit; the disarm goes the
/// other way. No filesystem needs bytes after the place by which it is found. The least telling place comes
/// first: the superblock of Btrfs (64 KiB), the second one of F2FS (5 KiB), the label of LVM (512), the
/// superblock of ext and F2FS (1 KiB), and the first sector of all others (FAT, NTFS, exFAT, XFS, LUKS).
const FINDABLE: [u64; 5] = [64 << 10, 5 << 10, 512, 1 << 10, 0];

/// The ranges of the disk that the disarm wipes, step by step.
pub(crate) fn disarm(plan: &LayoutPlan) -> Vec<Vec<Range<u64>>> {
    let sector = u64::from(plan.sector().get());
    let whole = plan.mode() == LayoutMode::WholeDisk;
    let has_boot_code = plan.areas().iter().any(|area| area.kind == BootAreaKind::BootCode);
    let first = match (whole, has_boot_code) {
        (true, _) => one(0..sector.min(plan.disk_size())),
        // The table stays. The boot code would load sectors that are about to be wiped.
        (false, true) => one(0..BOOT_CODE),
        (false, false) => Vec::new(),
    };
    // The old system's partitions may lie elsewhere than the new ones, and one header is enough to find them.
    // So all headers are gone before a sector is wiped that may be the old system's data.
    let headers = match whole {
        true => plan.gpt_headers().iter().map(|at| *at..(*at + sector).min(plan.disk_size())).collect(),
        false => Vec::new(),
    };
    let mut steps = vec![first, headers];
    steps.extend(FINDABLE.into_iter().rev().map(|at| found_at(plan, at - at % sector)));
    steps.push(plan.wipes().to_vec());
    steps.dedup();
    steps.retain(|step| !step.is_empty());
    steps
}

/// The sectors at byte `at` of the partitions from which the old system starts. The boot loader may be in a
/// kept partition, and find its system in any of the replaced ones.
fn found_at(plan: &LayoutPlan, at: u64) -> Vec<Range<u64>> {
    let replaced = || plan.places().iter().filter(|place| place.replaced);
    let known = replaced().any(|place| starts_something(plan, place));
    let starts = replaced().filter(|place| at < place.size && (!known || starts_something(plan, place)));
    let sector = u64::from(plan.sector().get());
    starts.map(|place| place.start.0 + at..(place.start.0 + at + sector).min(place.end())).collect()
}

/// One step of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These ranges of the held-back head of the partition at this position.
    Head {
        /// Position in the plan's list.
        position: usize,
        /// Bytes from the partition's first byte.
        ranges: Vec<Range<u64>>,
        /// This was the head's last part.
        last: bool,
    },
    /// This one of the table's writes.
    Table(usize),
    /// This one of the boot areas.
    Area(usize),
}

/// The steps of the commit.
pub(crate) fn commit(plan: &LayoutPlan) -> Vec<Step> {
    let of = |wanted: fn(&LayoutPlan, &Place) -> bool| {
        let places = plan.places().iter().enumerate();
        places.filter(move |(_, place)| place.held > 0 && wanted(plan, place)).map(|(position, _)| position)
    };
    let is_esp = |_: &LayoutPlan, place: &Place| place.role == Role::Esp;
    let rests = |plan: &LayoutPlan, place: &Place| place.role != Role::Esp && !starts_something(plan, place);
    let starts = |plan: &LayoutPlan, place: &Place| place.role != Role::Esp && starts_something(plan, place);
    let head = |position: usize| head_steps(plan, position);
    let before = of(rests).chain(of(starts)).flat_map(head);
    let table = (0..plan.table().len()).map(Step::Table);
    let after = of(is_esp).flat_map(head);
    before.chain(table).chain(after).chain((0..plan.areas().len()).map(Step::Area)).collect()
}

/// Whether a firmware, or boot code in the first sector, finds its system in this partition.
fn is_found_by_firmware(plan: &LayoutPlan, place: &Place) -> bool {
    place.role == Role::Esp || plan.manifest().partition(place.number).is_some_and(is_booted)
}

/// The same, or a loader elsewhere finds its kernel there.
fn starts_something(plan: &LayoutPlan, place: &Place) -> bool {
    let linux = &plan.manifest().boot.linux;
    is_found_by_firmware(plan, place) || linux.as_ref().is_some_and(|linux| linux.partition == place.number)
}

fn head_steps(plan: &LayoutPlan, position: usize) -> Vec<Step> {
    let held = plan.places().get(position).map_or(0, |place| place.held);
    let steps = head_parts(held, u64::from(plan.sector().get()));
    let count = steps.len();
    let step = |(i, ranges)| Step::Head { position, ranges, last: i + 1 == count };
    steps.into_iter().enumerate().map(step).collect()
}

/// A head of `held` bytes in steps: everything but the sectors by which a filesystem is found, then those one
/// by one.
fn head_parts(held: u64, sector: u64) -> Vec<Vec<Range<u64>>> {
    let mut findable: Vec<u64> = Vec::new();
    for at in FINDABLE.into_iter().rev().map(|at| at - at % sector).filter(|at| *at < held) {
        // A sector of 4 KiB holds several such places: it is written with the most telling one.
        if !findable.contains(&at) {
            findable.insert(0, at);
        }
    }
    let mut places = findable.clone();
    places.sort_unstable();
    let mut rest = Vec::new();
    let mut at = 0;
    for place in places {
        rest.push(at..place);
        at = (place + sector).min(held);
    }
    rest.push(at..held);
    rest.retain(|range| !range.is_empty());
    let single = findable.into_iter().map(|at| one(at..(at + sector).min(held)));
    std::iter::once(rest).filter(|rest| !rest.is_empty()).chain(single).collect()
}

fn one(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

// A head has to reach beyond the last place that makes a filesystem findable.
const _: () = assert!(FINDABLE[0] + 4096 <= HEAD);

#[cfg(test)]
mod tests;
