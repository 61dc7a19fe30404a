//! Proved reads of a filesystem, and the doubts that end them.
//!
//! Invariant: no byte is returned before its piece is proved.

/// Most bytes of a table (of free space, of clusters) to read: 4 TiB of clusters of 4 KiB.
pub(super) const MOST: u64 = 128 << 20;

/// Why a partition is not known to be untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// It was changed, or cannot be read; for people.
    Changed(String),
    /// This filesystem is not known, or not understood.
    Unclear,
}

/// A partition, and its content when its record was made.
pub trait Untouched {
    /// Bytes of the partition.
    fn size(&self) -> u64;

    /// Proves that `len` bytes from `at` are unchanged. Bytes that were free then may have changed.
    fn prove(&mut self, at: u64, len: u64) -> Result<(), Doubt>;

    /// `len` unchanged bytes from `at`. Unclear if the record does not cover them.
    fn bytes(&mut self, at: u64, len: usize) -> Result<Vec<u8>, Doubt>;
}

/// Proves as much of `len` bytes as lies on the partition, and no more than [`MOST`].
pub(super) fn prove_at_most(volume: &mut dyn Untouched, at: u64, len: u64) -> Result<(), Doubt> {
    let len = len.min(MOST).min(volume.size().saturating_sub(at));
    if len == 0 { Ok(()) } else { volume.prove(at, len) }
}

/// A missing value means an unknown structure.
pub(super) fn clear<T>(found: Option<T>) -> Result<T, Doubt> {
    found.ok_or(Doubt::Unclear)
}

/// A little-endian number of up to 8 bytes.
pub fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}
