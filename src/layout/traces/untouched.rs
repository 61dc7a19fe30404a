//! What a look at a filesystem may read, and how it may doubt.
//!
//! Invariant: no byte is given before the pieces that it lies in are proved.

/// Of a table (of what is free, of clusters) so much is looked at: 4 TiB of clusters of 4 KiB.
pub(super) const MOST: u64 = 128 << 20;

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

/// Proves as much of `len` bytes as lies on the partition, and no more than [`MOST`].
pub(super) fn prove_at_most(volume: &mut dyn Untouched, at: u64, len: u64) -> Result<(), Doubt> {
    let len = len.min(MOST).min(volume.size().saturating_sub(at));
    if len == 0 { Ok(()) } else { volume.prove(at, len) }
}

/// What is missing was not understood.
pub(super) fn clear<T>(found: Option<T>) -> Result<T, Doubt> {
    found.ok_or(Doubt::Unclear)
}

/// A little-endian number of up to 8 bytes.
pub fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}
