//! Is an ext2, ext3 or ext4 whole: unmounted, all on this partition, not marked as damaged?

use flashmob::layout::traces::number;

use super::volume::{NOT_UNMOUNTED, REPAIR, Unsound, Volume, unsound};

/// Fields of the superblock, which begins at 1024 (Linux, fs/ext4/ext4.h).
mod field {
    pub(super) const STATE: usize = 1024 + 58;
    pub(super) const COMPATIBLE: usize = 1024 + 92;
    pub(super) const INCOMPATIBLE: usize = 1024 + 96;
    pub(super) const READ_ONLY: usize = 1024 + 100;
    pub(super) const JOURNAL_INODE: usize = 1024 + 224;
}

const HAS_JOURNAL: u64 = 0x4;
const RECOVER: u64 = 0x4;
const JOURNAL_DEVICE: u64 = 0x8;
const BIGALLOC: u64 = 0x200;
const VALID: u64 = 0x1;
const ERRORS: u64 = 0x2;

/// Why it is unsound.
pub(super) fn problem(volume: &Volume) -> Option<Unsound> {
    let incompatible = volume.number(field::INCOMPATIBLE, 4);
    let has_journal = volume.number(field::COMPATIBLE, 4) & HAS_JOURNAL != 0;
    let state = volume.number(field::STATE, 2);
    if incompatible & JOURNAL_DEVICE != 0 {
        return Some(unsound(
            "it is the journal of a filesystem that lies elsewhere",
            "Give that filesystem a journal of its own: tune2fs -O ^has_journal, then tune2fs -j.",
        ));
    }
    // An internal journal is a file, mostly inode 8.
    if has_journal && volume.number(field::JOURNAL_INODE, 4) == 0 {
        return Some(unsound(
            "its journal lies on another device, which an image does not have",
            "Give it a journal of its own: tune2fs -O ^has_journal, then tune2fs -j.",
        ));
    }
    if incompatible & RECOVER != 0 {
        return Some(unsound("the journal was not carried out: it was not unmounted", REPAIR));
    }
    if state & ERRORS != 0 {
        return Some(unsound("it is marked as damaged", REPAIR));
    }
    (!has_journal && state & VALID == 0).then(|| unsound(NOT_UNMOUNTED, REPAIR))
}

/// Do the bits of its maps stand for clusters of several blocks? `start` has the partition's first bytes.
pub(crate) fn has_clusters(start: &[u8]) -> bool {
    number(start, field::READ_ONLY, 4).is_some_and(|features| features & BIGALLOC != 0)
}
