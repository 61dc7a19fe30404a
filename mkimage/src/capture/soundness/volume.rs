//! The bytes of one partition, and the problems that it can have.
//!
//! Invariant: a read beyond the partition fails.

use super::super::plan::PartitionPlan;
use crate::source::Source;
use flashmob::event::Failure;
use flashmob::layout::traces::number;

/// So much of a partition is at hand.
pub(super) const START: u64 = 128 << 10;

/// Shows a partition to `look`.
pub(super) fn with_volume<T>(
    source: &Source,
    partition: &PartitionPlan,
    look: impl FnOnce(&Volume) -> T,
) -> Result<T, Failure> {
    let mut start = vec![0; usize::try_from(partition.size.min(START)).unwrap_or(0)];
    source.read(partition.start, &mut start)?;
    let read = |offset: u64, into: &mut [u8]| {
        let fits = offset.checked_add(into.len() as u64).is_some_and(|end| end <= partition.size);
        fits && source.read(partition.start + offset, into).is_ok()
    };
    Ok(look(&Volume { start: &start, size: partition.size, read: &read }))
}

/// The bytes of one partition.
pub(super) struct Volume<'a> {
    /// The first 128 KiB, or less where it is smaller.
    pub(super) start: &'a [u8],
    /// Bytes of the partition.
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
