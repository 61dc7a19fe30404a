//! Bytes of a table that no field of the manifest holds: boot flags of protective entries, places in
//! cylinders and heads, code in extended boot records, additional entries of a hybrid table, remains of
//! deleted entries.
//!
//! Invariant: a patch never changes a partition's place or type.

use std::ops::Range;

use super::described::{ENTRIES_AT, MARK_AT};

use crate::buf::is_zero;

/// Bytes of the golden disk's table, at their place on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// First byte on the disk.
    pub offset: u64,
    pub bytes: Vec<u8>,
}

impl Patch {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }
}

/// A generated part of a table.
#[derive(Debug, Clone)]
pub(super) struct Region {
    /// Its purpose, for people.
    pub(super) what: String,
    /// First byte on the disk.
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    /// The fields that the manifest says nothing about, in order.
    pub(super) free: Vec<Range<usize>>,
}

impl Region {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }

    /// Nothing is generated there but room for a record.
    pub(super) fn is_empty_record(&self) -> bool {
        is_zero(&self.bytes)
    }
}

/// The fields of the entry `index` (from 0) of a boot record: flag, first CHS, type, last CHS, first sector,
/// sectors.
pub(super) fn entry_fields(index: usize) -> [Range<usize>; 6] {
    let at = ENTRIES_AT + 16 * index;
    [at..at + 1, at + 1..at + 4, at + 4..at + 5, at + 5..at + 8, at + 8..at + 12, at + 12..at + 16]
}

/// The bytes after the signature in a sector of more than 512 bytes.
pub(super) fn behind_mark(sector: usize) -> Option<Range<usize>> {
    (sector > MARK_AT + 2).then_some(MARK_AT + 2..sector)
}

/// Whole fields of `region` that are otherwise in `there`.
pub(super) fn differences(region: &Region, there: &[u8]) -> Vec<Patch> {
    let mut found: Vec<Patch> = Vec::new();
    for field in &region.free {
        let (Some(generated), Some(bytes)) = (region.bytes.get(field.clone()), there.get(field.clone()))
        else {
            continue;
        };
        if generated == bytes {
            continue;
        }
        let offset = region.offset + field.start as u64;
        match found.last_mut() {
            Some(last) if last.end() == offset => last.bytes.extend_from_slice(bytes),
            _ => found.push(Patch { offset, bytes: bytes.to_vec() }),
        }
    }
    found
}

/// Puts the patches that lie in `regions` there, and returns the others.
pub(super) fn apply<'a>(regions: &mut [Region], patches: &[&'a Patch]) -> Result<Vec<&'a Patch>, String> {
    let mut others = Vec::new();
    for patch in patches {
        let Some(region) =
            regions.iter_mut().find(|region| region.offset < patch.end() && patch.offset < region.end())
        else {
            others.push(*patch);
            continue;
        };
        let from = patch.offset.checked_sub(region.offset).and_then(|from| usize::try_from(from).ok());
        let range =
            from.map(|from| from..from + patch.bytes.len()).filter(|range| covers(&region.free, range));
        let place = range.and_then(|range| region.bytes.get_mut(range)).ok_or_else(|| {
            format!(
                "bytes {} to {} are to be kept as they were, and say where partitions lie",
                patch.offset,
                patch.end()
            )
        })?;
        place.copy_from_slice(&patch.bytes);
    }
    Ok(others)
}

/// Is every byte of `range` in one of `fields`?
fn covers(fields: &[Range<usize>], range: &Range<usize>) -> bool {
    let mut at = range.start;
    for field in fields {
        if field.start <= at && at < field.end {
            at = field.end;
        }
    }
    at >= range.end
}
