//! The first writes of an attempt: they make the old system unbootable.
//!
//! Invariant: the wiped ranges of a [`DisarmedDisk`] were read back from the device, and only such a disk can
//! be written. `commit` makes the new system bootable.

use std::ops::Range;

use crate::buf::{AlignedBuf, is_zero};
use crate::event::Failure;
use crate::io::disk::claim::ClaimedDisk;
use crate::io::storage::device::{Disk, STEP};
use crate::layout::order;
use crate::layout::plan::LayoutPlan;
use crate::storage::StorageError;

const ADVICE: &str =
    "Replace the disk, or look at its cable and its health report (SMART); then run the job again.";

/// A failed access as a failure of the disk.
pub(crate) fn disk_failed(error: &StorageError) -> Failure {
    Failure::disk(error.to_string(), ADVICE)
}

/// A disk from which nothing starts.
#[derive(Debug)]
pub struct DisarmedDisk {
    claim: ClaimedDisk,
    plan: LayoutPlan,
}

impl DisarmedDisk {
    pub(crate) fn into_parts(self) -> (ClaimedDisk, LayoutPlan) {
        (self.claim, self.plan)
    }
}

/// Wipes the plan's ranges in the steps of `layout::order`, and reads them back. These are the first writes
/// of an attempt.
pub(crate) fn disarm(claim: ClaimedDisk, plan: LayoutPlan) -> Result<DisarmedDisk, Failure> {
    let disk = claim.disk();
    if disk.size() != plan.disk_size() || disk.sector() != plan.sector() {
        let message = format!("{} is not the disk that was planned for", disk.name());
        return Err(Failure::refused(message, "Run the job again."));
    }
    let steps = order::disarm(&plan);
    for step in &steps {
        step.iter().try_for_each(|range| wipe(disk, range)).map_err(|e| disk_failed(&e))?;
        disk.sync().map_err(|e| disk_failed(&e))?;
    }
    let mut bytes = AlignedBuf::zeroed(STEP);
    for range in steps.iter().flatten() {
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(STEP).min(STEP);
            disk.read_at(at, &mut bytes[..length]).map_err(|e| disk_failed(&e))?;
            if !is_zero(&bytes[..length]) {
                return Err(not_kept(disk, "the wiped head of a partition or table", at));
            }
            at += length as u64;
        }
    }
    Ok(DisarmedDisk { claim, plan })
}

fn wipe(disk: &Disk, range: &Range<u64>) -> Result<(), StorageError> {
    let (sector, length) = (u64::from(disk.sector().get()), range.end - range.start);
    if range.start.is_multiple_of(sector) && length.is_multiple_of(sector) {
        return disk.write_zeros(range.start, length);
    }
    // Boot code shares its sector with the table.
    disk.patch(range.start, &vec![0; usize::try_from(length).unwrap_or(0)])
}

/// The failure of a disk that does not return the written bytes.
pub(super) fn not_kept(disk: &Disk, what: &str, at: u64) -> Failure {
    let message = format!(
        "{} does not keep what is written: {what} at byte {at} (sector {}) reads back differently",
        disk.name(),
        at / u64::from(disk.sector().get())
    );
    Failure::disk(message, ADVICE)
}
