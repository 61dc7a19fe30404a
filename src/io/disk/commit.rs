//! The last writes of an attempt: they make the new system bootable.
//!
//! Invariant: a commit needs an [`ImageVerified`]; a disk that is [`Whole`] was committed before. Each write
//! is synced and read back from the device before the next one, in the order of `layout::order`, so that an
//! interruption at any moment leaves a disk that starts nothing half-written.

use std::ops::Range;
use std::sync::Arc;

use crate::event::Failure;
use crate::io::disk::claim::ClaimedDisk;
use crate::io::disk::compare::Whole;
use crate::io::disk::disarm::{disk_failed, not_kept};
use crate::io::disk::readback::ImageVerified;
use crate::io::disk::target::ImageStorage;
use crate::io::storage::device::Disk;
use crate::layout::grid::Grid;
use crate::layout::order::{self, Step};
use crate::layout::plan::LayoutPlan;
use crate::manifest::BootAreaKind;
use crate::storage::StorageError;

/// A disk that starts the new system.
pub(crate) struct CommittedDisk {
    storage: Arc<ImageStorage>,
}

impl CommittedDisk {
    /// A disk that an earlier attempt has completed. Only its cache is flushed.
    pub(crate) fn found(
        claim: ClaimedDisk,
        plan: LayoutPlan,
        grid: Arc<Grid>,
        whole: Whole,
    ) -> Result<Self, Failure> {
        claim.disk().sync().map_err(|e| disk_failed(&e))?;
        Ok(CommittedDisk { storage: Arc::new(ImageStorage::whole(claim, plan, grid, whole)) })
    }

    /// The image on the disk, which can still be served to others.
    pub(crate) fn storage(&self) -> &Arc<ImageStorage> {
        &self.storage
    }
}

/// Writes the boot code, heads and table in the steps of `layout::order`. Then the kernel reads the table
/// again; its refusal is returned as a message, not as a failure.
pub(crate) fn commit(verified: ImageVerified) -> Result<(CommittedDisk, Option<String>), Failure> {
    let storage = verified.into_storage();
    let disk = storage.disk();
    let plan = storage.plan();
    for step in order::commit(plan) {
        match step {
            Step::Head { position, ranges, last } => write_head(&storage, position, &ranges, last)?,
            Step::Table(at) => {
                let write = &plan.table()[at];
                write_proved(disk, &write.what, &[(write.offset.0, &write.bytes)])?;
            }
            Step::Area(at) => {
                let area = &plan.areas()[at];
                let what = match area.kind {
                    BootAreaKind::Gap => "the boot area before the first partition",
                    BootAreaKind::BootCode => "the boot code",
                    BootAreaKind::Table => "the table",
                };
                write_proved(disk, what, &[(area.offset.0, &area.bytes)])?;
            }
        }
    }
    let warning = if plan.table().is_empty() { None } else { storage.claim().reread_partitions().err() };
    let warning =
        warning.map(|e| format!("the kernel did not read the new partition table of {}: {e}", disk.name()));
    Ok((CommittedDisk { storage }, warning))
}

/// Writes `ranges` of a held-back head; after the last one, the head is on the disk.
fn write_head(
    storage: &ImageStorage,
    position: usize,
    ranges: &[Range<u64>],
    last: bool,
) -> Result<(), Failure> {
    let Some(place) = storage.plan().places().get(position) else {
        return Err(disagree(format!("there is no partition at position {position}")));
    };
    // The disarm wiped it, and nothing of it travels.
    let Some(head) = storage.head(position) else { return Ok(()) };
    let what = format!("the head of partition {}", place.number);
    write_proved(storage.disk(), &what, &head_writes(&what, place.start.0, &head, ranges)?)?;
    if last {
        storage.release_head(position);
    }
    Ok(())
}

/// Offsets on the disk and bytes of `ranges` of the held-back `head` of a partition that begins at `start`.
fn head_writes<'a>(
    what: &str,
    start: u64,
    head: &'a [u8],
    ranges: &[Range<u64>],
) -> Result<Vec<(u64, &'a [u8])>, Failure> {
    let write = |range: &Range<u64>| {
        let bytes = head.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)?;
        Some((start + range.start, bytes))
    };
    ranges.iter().map(write).collect::<Option<_>>().ok_or_else(|| {
        disagree(format!("{what} has {} bytes, which do not reach to the end of {ranges:?}", head.len()))
    })
}

/// The steps of the commit and the held-back heads are not of one plan.
fn disagree(why: String) -> Failure {
    Failure::disk(
        format!("committing: {why}"),
        "This is a bug in flashmob: report it with the attempt's log.",
    )
}

/// Writes, syncs, reads back from the device, compares.
fn write_proved(disk: &Disk, what: &str, parts: &[(u64, &[u8])]) -> Result<(), Failure> {
    let failed = |e: StorageError| {
        let failure = disk_failed(&e);
        Failure { message: format!("committing {what}: {}", failure.message), ..failure }
    };
    for (offset, bytes) in parts {
        // Boot code shares its sector with the table; everything else is whole sectors.
        disk.patch(*offset, bytes).map_err(failed)?;
    }
    disk.sync().map_err(failed)?;
    for (offset, bytes) in parts {
        let mut back = vec![0u8; bytes.len()];
        disk.read_at(*offset, &mut back).map_err(failed)?;
        if back != *bytes {
            return Err(not_kept(disk, what, *offset));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_the_held_head_does_not_have_fails_the_commit() {
        let head = [7; 1024];
        let written = head_writes("the head", 1 << 20, &head, &[512..1024, 0..512]).expect("it has both");
        let half = &head[..512];
        assert_eq!(written, [((1 << 20) + 512, half), (1 << 20, half)]);
        for bad in [1024..1536, 512..1025] {
            let failure = head_writes("the head", 1 << 20, &head, &[0..512, bad]).expect_err("it has not");
            assert!(failure.message.contains("the head has 1024 bytes"), "{failure:?}");
        }
    }
}
