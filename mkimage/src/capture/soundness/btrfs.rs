//! Was a Btrfs unmounted, and how many devices does it lie on?

use super::volume::{REPAIR, Unsound, Volume, unsound};

/// Byte of the superblock.
const SUPERBLOCK: usize = 0x10000;

/// Why it is unsound.
pub(super) fn problem(volume: &Volume) -> Option<Unsound> {
    // log_root: something was written that only a mount carries out.
    let log = volume.number(SUPERBLOCK + 0x60, 8) != 0;
    log.then(|| unsound("its log was not carried out: it was not unmounted", REPAIR))
}

/// Number of devices, and the identity that all of them share.
pub(super) fn devices(volume: &Volume) -> (u64, Vec<u8>) {
    let id = volume.start.get(SUPERBLOCK + 0x20..SUPERBLOCK + 0x30).unwrap_or_default();
    (volume.number(SUPERBLOCK + 0x88, 8), id.to_vec())
}
