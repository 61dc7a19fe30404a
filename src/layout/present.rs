//! The parts of an image that need not be fetched: pieces that are on the disk, in place or elsewhere, and
//! zeros that are zero already. Also computes them from the record of an older version, without reading the
//! disk.
//!
//! Invariant: pure arithmetic. [`Present`] covers only pieces and zero cells that a plan replaces. A kept
//! piece has no byte in the ranges that the disarm wipes or the commit writes. `io::disk::compare` reads the
//! disk.

use std::collections::HashMap;
use std::ops::Range;

use crate::bitfield::Bitfield;
use crate::layout::grid::{Cell, Grid, Span};
use crate::layout::moves::Move;
use crate::layout::plan::{Existing, LayoutPlan, same_type};
use crate::manifest::{Manifest, Partition, Policy, Table};
use crate::units::{PieceIndex, Sha256};

/// The parts of an image that are on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Pieces that are right where they are; nothing is written there.
    pub kept: Bitfield,
    /// Pieces that are on the disk but must be written, because they lie elsewhere or are wiped.
    pub moves: Vec<Move>,
    /// Zero cells that are zero, by their position in [`zero_cells`].
    pub zeros: Bitfield,
}

impl Present {
    pub fn nothing(plan: &LayoutPlan, grid: &Grid) -> Self {
        let zeros = u32::try_from(zero_cells(plan, grid).count()).unwrap_or(u32::MAX);
        Present { kept: Bitfield::none(grid.pieces()), moves: Vec::new(), zeros: Bitfield::none(zeros) }
    }
}

/// The cells that are written as zeros, in order.
pub fn zero_cells<'a>(plan: &'a LayoutPlan, grid: &'a Grid) -> impl Iterator<Item = Span> + 'a {
    grid.zero_cells().filter(|span| plan.replaces(span.partition))
}

/// The pieces that are written.
pub fn wanted(plan: &LayoutPlan, grid: &Grid) -> Bitfield {
    let mut wanted = Bitfield::none(grid.pieces());
    for partition in (0..plan.places().len()).filter(|i| plan.replaces(*i)) {
        for piece in grid.pieces_of(partition) {
            wanted.insert(PieceIndex(piece));
        }
    }
    wanted
}

/// Is any byte of `range` wiped at the start or held back until the commit?
pub(crate) fn is_disturbed(plan: &LayoutPlan, range: &Range<u64>) -> bool {
    let overlaps = |other: Range<u64>| other.start < range.end && range.start < other.end;
    let held = plan.places().iter().map(|place| place.start.0..place.start.0 + place.held);
    plan.wipes().iter().cloned().chain(held).any(overlaps)
}

/// A version of an image that a disk has according to its record.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    pub manifest: &'a Manifest,
    pub grid: &'a Grid,
    pub hashes: &'a [Sha256],
    /// The partitions that are its; `None`: all.
    pub only: Option<&'a [u32]>,
}

/// A cell of an older version.
#[derive(Debug, Clone)]
pub struct OldCell {
    /// Where it lies on the disk.
    pub range: Range<u64>,
    /// Of a piece; `None`: zeros.
    pub hash: Option<Sha256>,
}

impl Version<'_> {
    fn has(&self, partition: &Partition) -> bool {
        partition.policy == Policy::Replace && self.only.is_none_or(|only| only.contains(&partition.number))
    }

    /// The content of a disk with this version, partition by partition, without free ranges.
    pub fn cells(&self) -> Vec<OldCell> {
        let mut cells = Vec::new();
        for (i, partition) in self.manifest.partitions.iter().enumerate() {
            let Some(start) = self.manifest.disk.sector_size.offset_of(partition.first) else { continue };
            if !self.has(partition) {
                continue;
            }
            let mut piece = self.grid.pieces_of(i).start as usize;
            for (span, cell) in self.grid.cells(i) {
                let hash = match cell {
                    Cell::Free => continue,
                    Cell::Zero => None,
                    Cell::Data => {
                        piece += 1;
                        match self.hashes.get(piece - 1) {
                            Some(hash) => Some(*hash),
                            None => continue,
                        }
                    }
                };
                let from = start.0 + span.offset;
                cells.push(OldCell { range: from..from + u64::from(span.len), hash });
            }
        }
        cells
    }

    /// Where its partitions lie on the disk.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let ranges =
            self.manifest.partitions.iter().filter(|partition| self.has(partition)).filter_map(|p| {
                let start = self.manifest.disk.sector_size.offset_of(p.first)?.0;
                Some(start..start.checked_add(p.size)?)
            });
        ranges.collect()
    }

    /// Whether this version can be on a disk with the table `existing`, so that `grid` can be compared with
    /// it; otherwise the reason.
    pub fn fits(
        &self,
        existing: &Result<Existing, String>,
        plan: &LayoutPlan,
        grid: &Grid,
    ) -> Result<(), String> {
        if self.grid.piece_length() != grid.piece_length() {
            return Err("its pieces have another length".into());
        }
        if self.manifest.disk.sector_size != plan.sector() {
            return Err("it is for another sector size".into());
        }
        if matches!(self.manifest.disk.table, Table::None) {
            return Ok(());
        }
        let existing = existing.as_ref().map_err(Clone::clone)?;
        for partition in &self.manifest.partitions {
            let there = existing.partitions.iter().find(|there| there.number == partition.number);
            let same = there.is_some_and(|there| {
                (there.first, there.size) == (partition.first, partition.size)
                    && same_type(&there.entry, &partition.entry)
            });
            if !same {
                return Err(format!("partition {} of the disk is not that version's", partition.number));
            }
        }
        Ok(())
    }

    /// The parts of the image of `plan` and `grid` that are on a disk with this version.
    pub fn difference(&self, plan: &LayoutPlan, grid: &Grid, hashes: &[Sha256]) -> Present {
        let cells = self.cells();
        let mut by_hash: HashMap<Sha256, &OldCell> = HashMap::new();
        let mut by_place: HashMap<u64, &OldCell> = HashMap::new();
        for cell in &cells {
            by_place.insert(cell.range.start, cell);
            if let Some(hash) = cell.hash {
                by_hash.entry(hash).or_insert(cell);
            }
        }
        let mut present = Present::nothing(plan, grid);
        for piece in wanted(plan, grid).iter() {
            let Some(to) = grid.span(piece).and_then(|span| plan.range_of(&span)) else { continue };
            let Some(hash) = hashes.get(piece.get()) else { continue };
            let there =
                by_place.get(&to.start).filter(|old| old.range.end >= to.end && old.hash == Some(*hash));
            match there.or_else(|| by_hash.get(hash)) {
                Some(old) if old.range.start == to.start && !is_disturbed(plan, &to) => {
                    present.kept.insert(piece);
                }
                Some(old) => present.moves.push(Move { piece, from: old.range.clone(), to }),
                None => {}
            }
        }
        for (at, span) in (0u32..).zip(zero_cells(plan, grid)) {
            let Some(range) = plan.range_of(&span) else { continue };
            let is_zero = |old: &&OldCell| old.hash.is_none() && old.range.end >= range.end;
            if by_place.get(&range.start).is_some_and(is_zero) {
                present.zeros.insert(PieceIndex(at));
            }
        }
        present
    }
}
