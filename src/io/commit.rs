//! The last writes of an attempt: what makes the new system bootable.
//!
//! Invariant: a commit needs an [`ImageVerified`]. Each write is synced and read back from the device before the next one, in
//! the order of DESIGN §7, so that an interruption at any moment leaves a disk that starts nothing half-written.

use std::sync::Arc;

use crate::event::Failure;
use crate::io::disarm::{disk_failed, not_kept};
use crate::io::disk::Disk;
use crate::io::image_storage::ImageStorage;
use crate::io::readback::ImageVerified;
use crate::manifest::{BootAreaKind, Role};
use crate::storage::StorageError;

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
