//! Was an F2FS unmounted, is it marked as damaged, and does it lie on one device?
//!
//! Only a mount recovers writes after the last checkpoint; partclone's map lacks them.

use super::volume::{REPAIR, Unsound, Volume, unsound};
use flashmob::layout::traces::number;

/// Fields of the superblock, which begins at 1024, and of a checkpoint (Linux, include/linux/f2fs_fs.h).
mod field {
    pub(super) const LOG_BLOCK: usize = 1024 + 16;
    pub(super) const LOG_SEGMENT: usize = 1024 + 20;
    pub(super) const CHECKPOINT: usize = 1024 + 76;
    /// The path of the second device; the first one's name may be there on a single one.
    pub(super) const SECOND_DEVICE: usize = 1024 + 2201 + 68;
    pub(super) const FLAGS: usize = 132;
    pub(super) const PACK_BLOCKS: usize = 136;
}

const UNMOUNTED: u64 = 0x1;
const ERROR: u64 = 0x8;
const NEEDS_FSCK: u64 = 0x10;

/// Whether a part is on another device.
pub(super) fn has_other_devices(volume: &Volume) -> bool {
    volume.number(field::SECOND_DEVICE, 1) != 0
}

/// Why it is unsound.
pub(super) fn problem(volume: &Volume) -> Option<Unsound> {
    if has_other_devices(volume) {
        return Some(unsound(
            "it lies on several devices, and an image has only this one",
            "Make it anew on one device.",
        ));
    }
    match checkpoint(volume) {
        None => Some(unsound("its checkpoints cannot be read", "Run fsck.f2fs.")),
        Some(flags) if flags & (ERROR | NEEDS_FSCK) != 0 => {
            Some(unsound("it is marked as damaged", "Run fsck.f2fs."))
        }
        Some(flags) if flags & UNMOUNTED == 0 => Some(unsound(
            "what was written after its last checkpoint was not carried out: it was not unmounted",
            REPAIR,
        )),
        Some(_) => None,
    }
}

/// The flags of the newer one of two checkpoints.
fn checkpoint(volume: &Volume) -> Option<u64> {
    let block = 1u64.checked_shl(u32::try_from(volume.number(field::LOG_BLOCK, 4)).ok()?)?;
    let segment = block.checked_shl(u32::try_from(volume.number(field::LOG_SEGMENT, 4)).ok()?)?;
    let first = volume.number(field::CHECKPOINT, 4).checked_mul(block)?;
    let version_and_flags = |at: u64| {
        let start = volume.bytes(at, 4096)?;
        let (version, flags) = (number(&start, 0, 8)?, number(&start, field::FLAGS, 4)?);
        let blocks = number(&start, field::PACK_BLOCKS, 4)?.checked_sub(1)?;
        // One that was written to its end says its version there again.
        let end = volume.bytes(at.checked_add(blocks.checked_mul(block)?)?, 8)?;
        (version != 0 && number(&end, 0, 8) == Some(version)).then_some((version, flags))
    };
    let packs = [Some(first), first.checked_add(segment)].into_iter().flatten();
    packs.filter_map(version_and_flags).max().map(|(_, flags)| flags)
}
