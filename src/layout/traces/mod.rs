//! The areas in which a mount or a write shows: they are read before a record is believed.
//!
//! Invariant: nothing is concluded from bytes that may have changed. Each step reads only through
//! [`Untouched`], which proves the pieces around bytes before it returns them, so that proved bytes lead to
//! the next place. An unknown structure is [`Doubt::Unclear`]; the caller then reads more random pieces.

mod ext;
mod fat;
pub mod ntfs;
mod untouched;
mod xfs;

pub use untouched::{Doubt, Untouched, number};
use untouched::{clear, prove_at_most};
/// Bytes to read of every partition: each filesystem changes some of them.
const HEAD: u64 = 128 << 10;
/// Btrfs has its superblock here, and a copy.
const BTRFS: [u64; 2] = [64 << 10, 64 << 20];
const PAGE: u64 = 4096;

/// Looks at all that a mount must change, or a write.
pub fn look(volume: &mut dyn Untouched) -> Result<(), Doubt> {
    prove_at_most(volume, 0, HEAD)?;
    let head = volume.bytes(0, usize::try_from(PAGE.min(volume.size())).unwrap_or(0))?;
    let is = |at: usize, mark: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(mark));
    if is(3, b"NTFS    ") {
        return ntfs::look(volume, &head);
    }
    if is(3, b"EXFAT   ") {
        return fat::look_exfat(volume, &head);
    }
    if is(82, b"FAT32") || is(54, b"FAT1") {
        return fat::look(volume, &head);
    }
    if is(0, b"XFSB") {
        return xfs::look(volume, &head);
    }
    if is(1024 + 56, &[0x53, 0xef]) {
        return ext::look(volume, &head[1024..]);
    }
    if is(1024, &[0x10, 0x20, 0xf5, 0xf2]) {
        return f2fs(volume, &head[1024..]);
    }
    let mark = volume.size() > BTRFS[0] + PAGE && volume.bytes(BTRFS[0] + 64, 8)? == b"_BHRfS_M";
    if mark {
        // Every commit writes them: its log, its number, the roots of its trees.
        return BTRFS.into_iter().try_for_each(|at| prove_at_most(volume, at, PAGE));
    }
    Err(Doubt::Unclear)
}

/// F2FS: one of the two checkpoints is written when it is unmounted, and whenever it syncs (Linux,
/// include/linux/f2fs_fs.h).
fn f2fs(volume: &mut dyn Untouched, superblock: &[u8]) -> Result<(), Doubt> {
    let shift = |at: usize| Some(1u64 << u32::try_from(number(superblock, at, 4)?).ok().filter(|n| *n < 32)?);
    let (block, segment) = (clear(shift(16))?, clear(shift(20))?);
    let first = clear(number(superblock, 76, 4))?;
    for checkpoint in [first, first.saturating_add(segment)] {
        volume.prove(checkpoint.saturating_mul(block), block)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
