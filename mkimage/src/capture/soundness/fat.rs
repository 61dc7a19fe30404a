//! Was a FAT unmounted?

use super::volume::{NOT_UNMOUNTED, REPAIR, Unsound, Volume, unsound};
use flashmob::layout::traces::number;

/// Looks at both places that say so: a flag in the boot sector (Windows since NT, Linux) and the second entry
/// of the table (Windows, firmware).
pub(super) fn problem(volume: &Volume) -> Option<Unsound> {
    let long = volume.start.get(82..87) == Some(b"FAT32");
    // BS_Reserved1 of FAT32, and of FAT12 and FAT16.
    let flags = if long { volume.number(0x41, 1) } else { volume.number(0x25, 1) };
    if flags & 1 != 0 {
        return Some(unsound(NOT_UNMOUNTED, REPAIR));
    }
    let (entry, clean, sound) = match volume.start.get(54..59) {
        _ if long => (4, 1 << 27, 1 << 26),
        Some(b"FAT16") => (2, 1 << 15, 1 << 14),
        // FAT12 has no room for it.
        _ => return None,
    };
    let table = volume.number(14, 2) * volume.number(11, 2);
    let start = volume.bytes(table, 2 * entry)?;
    let state = number(&start, entry, entry)?;
    if state & clean == 0 {
        return Some(unsound(NOT_UNMOUNTED, REPAIR));
    }
    (state & sound == 0).then(|| unsound("it is marked as damaged", REPAIR))
}
