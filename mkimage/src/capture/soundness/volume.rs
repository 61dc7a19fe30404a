//! The bytes of one partition or logical volume, and the problems that it can have.
//!
//! Invariant: a read beyond its end fails.

use super::super::backing::Backing;
use flashmob::event::Failure;
use flashmob::layout::traces::number;

/// Shows a partition or logical volume to `look`.
pub(super) fn with_volume<T>(backing: &Backing<'_>, look: impl FnOnce(&Volume) -> T) -> Result<T, Failure> {
    let start = backing.start()?;
    let read = |offset: u64, into: &mut [u8]| backing.read(offset, into);
    Ok(look(&Volume { start: &start, size: backing.size(), read: &read }))
}

/// The bytes of one partition or logical volume.
pub(super) struct Volume<'a> {
    /// The first 128 KiB, or less where it is smaller.
    pub(super) start: &'a [u8],
    /// Bytes of it.
    pub(super) size: u64,
    /// False where it cannot read.
    pub(super) read: &'a dyn Fn(u64, &mut [u8]) -> bool,
}

impl Volume<'_> {
    /// A little-endian number of `len` bytes in `start`; 0 if it is too short.
    pub(super) fn number(&self, at: usize, len: usize) -> u64 {
        number(self.start, at, len).unwrap_or_default()
    }

    /// Some bytes, if they can be read.
    pub(super) fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        (self.read)(at, &mut bytes).then_some(bytes)
    }
}

/// A filesystem's problem, and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsound {
    pub(super) problem: String,
    pub(super) advice: &'static str,
}

pub(super) fn unsound(problem: impl Into<String>, advice: &'static str) -> Unsound {
    Unsound { problem: problem.into(), advice }
}

pub(super) const REPAIR: &str = "Mount and unmount it, or run fsck, on the golden machine.";

pub(super) const NOT_UNMOUNTED: &str = "it was not unmounted";
