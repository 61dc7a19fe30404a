//! The first and the last writes of an attempt: what makes the old system unbootable, and what makes the new one
//! bootable.
//!
//! Invariant: an [`ImageStorage`] exists only on a disarmed disk, and a commit needs an [`ImageVerified`]. Each
//! write of both is synced and read back from the device before the next one, in the order of DESIGN §7, so that
//! an interruption at any moment leaves a disk that starts nothing half-written.

use std::sync::Arc;

use crate::event::{Class, Failure};
use crate::io::claim::ClaimedDisk;
use crate::io::disk::{Disk, STEP};
use crate::io::image_storage::ImageStorage;
use crate::io::readback::ImageVerified;
use crate::layout::plan::LayoutPlan;
use crate::manifest::{BootAreaKind, Role};
use crate::storage::StorageError;

const ADVICE: &str =
    "Replace the disk, or look at its cable and its health report (SMART); then run the job again.";

/// A failed access as a failure of the disk.
pub fn disk_failed(error: &StorageError) -> Failure {
    Failure::new(Class::Disk, error.to_string(), ADVICE)
}

/// A disk from which nothing starts any more.
#[derive(Debug)]
pub struct DisarmedDisk {
    claim: ClaimedDisk,
    plan: LayoutPlan,
}

impl DisarmedDisk {
    /// Disk and plan.
    pub fn into_parts(self) -> (ClaimedDisk, LayoutPlan) {
        (self.claim, self.plan)
    }
}

/// Wipes what the plan says, and looks whether it is gone. The first write of an attempt.
pub fn disarm(claim: ClaimedDisk, plan: LayoutPlan) -> Result<DisarmedDisk, Failure> {
    let disk = claim.disk();
    if disk.size() != plan.disk_size() || disk.sector() != plan.sector() {
        let message = format!("{} is not the disk that was planned for", disk.name());
        return Err(Failure::new(Class::Refused, message, "Run the job again."));
    }
    for range in plan.wipes() {
        disk.write_zeros(range.start, range.end - range.start).map_err(|e| disk_failed(&e))?;
    }
    disk.sync().map_err(|e| disk_failed(&e))?;
    let mut bytes = vec![0u8; STEP];
    for range in plan.wipes() {
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(STEP).min(STEP);
            disk.read_at(at, &mut bytes[..length]).map_err(|e| disk_failed(&e))?;
            if bytes[..length].iter().any(|byte| *byte != 0) {
                return Err(not_kept(disk, "the wiped head of a partition or table", at));
            }
            at += length as u64;
        }
    }
    Ok(DisarmedDisk { claim, plan })
}

fn not_kept(disk: &Disk, what: &str, at: u64) -> Failure {
    let message = format!(
        "{} does not keep what is written: {what} at byte {at} (sector {}) reads back differently",
        disk.name(),
        at / u64::from(disk.sector().get())
    );
    Failure::new(Class::Disk, message, ADVICE)
}

/// A disk that starts the new system.
pub struct CommittedDisk {
    storage: Arc<ImageStorage>,
}

impl CommittedDisk {
    /// The image on it, which can still be served to others.
    pub fn storage(&self) -> &Arc<ImageStorage> {
        &self.storage
    }
}

/// Writes what makes the image bootable: held-back heads except the ESP's, the table, the ESP's head, boot areas
/// with the boot code last. Then the kernel reads the table again; that it may refuse is told, not failed on.
pub fn commit(verified: ImageVerified) -> Result<(CommittedDisk, Option<String>), Failure> {
    let storage = verified.into_storage();
    let disk = storage.disk();
    let plan = storage.plan();
    write_heads(&storage, false)?;
    for write in plan.table() {
        write_proved(disk, &write.what, write.offset.0, &write.bytes)?;
    }
    write_heads(&storage, true)?;
    for area in plan.areas() {
        let what = match area.kind {
            BootAreaKind::Gap => "the boot area before the first partition",
            BootAreaKind::BootCode => "the boot code",
        };
        write_proved(disk, what, area.offset.0, &area.bytes)?;
    }
    let warning = if plan.table().is_empty() { None } else { storage.claim().reread_partitions().err() };
    let warning =
        warning.map(|e| format!("the kernel did not read the new partition table of {}: {e}", disk.name()));
    Ok((CommittedDisk { storage }, warning))
}

fn write_heads(storage: &ImageStorage, esp: bool) -> Result<(), Failure> {
    for (position, place) in storage.plan().places().iter().enumerate() {
        if (place.role == Role::Esp) != esp {
            continue;
        }
        if let Some(head) = storage.head(position) {
            let what = format!("the head of partition {}", place.number);
            write_proved(storage.disk(), &what, place.start.0, &head)?;
            storage.release_head(position);
        }
    }
    Ok(())
}

/// Writes, syncs, reads back from the device, compares.
fn write_proved(disk: &Disk, what: &str, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |e: StorageError| {
        let failure = disk_failed(&e);
        Failure { message: format!("committing {what}: {}", failure.message), ..failure }
    };
    // Boot code shares its sector with the table; everything else is whole sectors.
    disk.patch(offset, bytes).map_err(failed)?;
    disk.sync().map_err(failed)?;
    let mut back = vec![0u8; bytes.len()];
    disk.read_at(offset, &mut back).map_err(failed)?;
    if back != bytes {
        return Err(not_kept(disk, what, offset));
    }
    Ok(())
}
