//! Where a filesystem that was mounted, or written to, shows it: what to look at before a record is believed.
//!
//! Invariant: nothing is concluded from bytes that may have changed. Each step reads only through
//! [`Untouched`], which proves the pieces that bytes lie in before it gives them, so the next place is found
//! by what has just been proved. What is not understood is said to be so ([`Doubt::Unclear`]); then the
//! caller looks at more by chance.

mod ext;
mod fat;
pub mod ntfs;
mod xfs;

/// Of a table (of what is free, of clusters) so much is looked at: 4 TiB of clusters of 4 KiB.
const MOST: u64 = 128 << 20;
/// What is looked at of every partition: each filesystem has something in there that it changes.
const HEAD: u64 = 128 << 10;
/// Btrfs has its superblock here, and a copy.
const BTRFS: [u64; 2] = [64 << 10, 64 << 20];
const PAGE: u64 = 4096;

/// Why a partition is not known to be untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// It was changed, or cannot be read; for people.
    Changed(String),
    /// This filesystem is not known, or not understood.
    Unclear,
}

/// A partition, and what it had when its record was made.
pub trait Untouched {
    /// Bytes of the partition.
    fn size(&self) -> u64;

    /// Finds that `len` bytes from `at` are what they were. What then belonged to nobody may have changed.
    fn prove(&mut self, at: u64, len: u64) -> Result<(), Doubt>;

    /// `len` bytes from `at`, which are what they were. Unclear if nothing is known of them.
    fn bytes(&mut self, at: u64, len: usize) -> Result<Vec<u8>, Doubt>;
}

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
        // Every commit writes them: a log of what it did, the number of the commit, the roots of its trees.
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

/// Proves as much of `len` bytes as lies on the partition, and no more than [`MOST`].
fn prove_at_most(volume: &mut dyn Untouched, at: u64, len: u64) -> Result<(), Doubt> {
    let len = len.min(MOST).min(volume.size().saturating_sub(at));
    if len == 0 { Ok(()) } else { volume.prove(at, len) }
}

/// What is missing was not understood.
fn clear<T>(found: Option<T>) -> Result<T, Doubt> {
    found.ok_or(Doubt::Unclear)
}

/// A little-endian number of up to 8 bytes.
pub fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests;
