//! Compares a disk with the record of its last attempt, cell by cell, on demand.
//!
//! Invariant: a cell counts as proved only if all of its bytes were read from the device and match the
//! record. Memory is one piece, and a number for each proved cell.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::buf::AlignedBuf;
use crate::digest::sha256;
use crate::io::disk::compare::cells::hash_of;
use crate::io::storage::device::Disk;
use crate::layout::present::OldCell;
use crate::layout::traces::{Doubt, Untouched};
use crate::units::{PieceLength, Sha256};

/// A disk, and the cells that it has by its record.
pub(super) struct Proof<'a> {
    disk: &'a Disk,
    /// In the order of the disk.
    cells: Vec<OldCell>,
    length: PieceLength,
    /// The SHA-256 of a piece of zeros.
    zeros: Sha256,
    buffer: AlignedBuf,
    /// First bytes of the unchanged cells.
    proved: BTreeSet<u64>,
}

impl<'a> Proof<'a> {
    /// Nothing is proved yet.
    pub(super) fn new(disk: &'a Disk, mut cells: Vec<OldCell>, length: PieceLength) -> Self {
        cells.sort_by_key(|cell| cell.range.start);
        let buffer = AlignedBuf::zeroed(length.get() as usize);
        let zeros = sha256(&buffer);
        Proof { disk, cells, length, zeros, buffer, proved: BTreeSet::new() }
    }

    /// Is the cell that begins there proved?
    pub(super) fn has(&self, start: u64) -> bool {
        self.proved.contains(&start)
    }

    /// Where the pieces of this range of the disk begin.
    pub(super) fn pieces_in(&self, range: &Range<u64>) -> impl Iterator<Item = u64> {
        let inside = self.cells.iter().filter(|cell| range.contains(&cell.range.start));
        inside.filter(|cell| cell.hash.is_some()).map(|cell| cell.range.start)
    }

    /// Proves the cell that begins there, if there is one.
    pub(super) fn cell_at(&mut self, start: u64) -> Result<(), String> {
        let at = self.cells.partition_point(|cell| cell.range.start < start);
        match self.cells.get(at) {
            Some(cell) if cell.range.start == start => self.prove(at),
            _ => Ok(()),
        }
    }

    fn prove(&mut self, at: usize) -> Result<(), String> {
        let OldCell { range: Range { start, end }, hash } = self.cells[at].clone();
        if self.has(start) {
            return Ok(());
        }
        let len = usize::try_from(end - start).unwrap_or(usize::MAX).min(self.buffer.len());
        let bytes = &mut self.buffer[..len];
        self.disk.read_at(start, bytes).map_err(|error| error.to_string())?;
        let is_same = match (hash, hash_of(bytes, self.length)) {
            (None, found) => found.is_none(),
            (Some(hash), found) => hash == found.unwrap_or(self.zeros),
        };
        if !is_same {
            return Err(format!("the disk was changed at byte {start}"));
        }
        self.proved.insert(start);
        Ok(())
    }

    /// Proves the cells that have a byte of this range; false where there is a gap between them.
    fn cells_of(&mut self, range: &Range<u64>) -> Result<bool, String> {
        let mut at = self.cells.partition_point(|cell| cell.range.end <= range.start);
        let mut covered = range.start;
        while let Some(cell) = self.cells.get(at).filter(|cell| cell.range.start < range.end) {
            if cell.range.start <= covered {
                covered = cell.range.end;
            }
            self.prove(at)?;
            at += 1;
        }
        Ok(covered >= range.end)
    }
}

/// A partition of such a disk.
pub(super) struct Volume<'p, 'd> {
    proof: &'p mut Proof<'d>,
    range: Range<u64>,
}

impl<'p, 'd> Volume<'p, 'd> {
    /// The partition that is these bytes of the disk.
    pub(super) fn new(proof: &'p mut Proof<'d>, range: Range<u64>) -> Self {
        Volume { proof, range }
    }

    fn on_disk(&self, at: u64, len: u64) -> Result<Range<u64>, Doubt> {
        let start = self.range.start.checked_add(at).ok_or(Doubt::Unclear)?;
        let end = start.checked_add(len).filter(|end| *end <= self.range.end).ok_or(Doubt::Unclear)?;
        Ok(start..end)
    }
}

impl Untouched for Volume<'_, '_> {
    fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn prove(&mut self, at: u64, len: u64) -> Result<(), Doubt> {
        let range = self.on_disk(at, len)?;
        self.proof.cells_of(&range).map(|_| ()).map_err(Doubt::Changed)
    }

    fn bytes(&mut self, at: u64, len: usize) -> Result<Vec<u8>, Doubt> {
        let range = self.on_disk(at, len as u64)?;
        if !self.proof.cells_of(&range).map_err(Doubt::Changed)? {
            return Err(Doubt::Unclear);
        }
        let mut bytes = vec![0; len];
        let read = self.proof.disk.read_at(range.start, &mut bytes);
        read.map(|()| bytes).map_err(|error| Doubt::Changed(error.to_string()))
    }
}
