//! The cells of a disk to read when looking for an image, and how a cell is hashed.
//!
//! Invariant: the lists are in the order of the disk, so that rotating disks do not seek, and no cell leaves
//! its partition.

use std::ops::Range;

use sha2::Digest;

use crate::buf::{ZEROS, is_zero};
use crate::layout::grid::{Cell as Kind, Grid};
use crate::layout::plan::{Existing, LayoutPlan};
use crate::units::{PieceIndex, PieceLength, SectorSize, Sha256};

/// A part of the disk of at most a piece's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) what: What,
}

/// A cell's part in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The place of this piece.
    Piece(PieceIndex),
    /// It must be zero; the number is its position among those cells.
    Zero(u32),
    /// It is not written, but may have something.
    Spare,
}

impl Cell {
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }
}

/// The cells that the image writes.
pub(super) fn owned(plan: &LayoutPlan, grid: &Grid) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut zeros = 0;
    for partition in (0..plan.places().len()).filter(|i| plan.replaces(*i)) {
        let mut piece = grid.pieces_of(partition).start;
        for (span, kind) in grid.cells(partition) {
            let what = match kind {
                Kind::Free => continue,
                Kind::Zero => {
                    zeros += 1;
                    What::Zero(zeros - 1)
                }
                Kind::Data => {
                    piece += 1;
                    What::Piece(PieceIndex(piece - 1))
                }
            };
            if let Some(range) = plan.range_of(&span) {
                cells.push(Cell { offset: range.start, len: span.len, what });
            }
        }
    }
    cells
}

/// Cells of the image's partitions that it leaves alone: an older version may have had something there.
pub(super) fn unused<'a>(plan: &'a LayoutPlan, grid: &'a Grid) -> impl Iterator<Item = Cell> + 'a {
    let free = grid.free_cells().filter(|span| plan.replaces(span.partition));
    free.filter_map(|span| {
        Some(Cell { offset: plan.range_of(&span)?.start, len: span.len, what: What::Spare })
    })
}

/// Cells of partitions that are on the disk now and begin elsewhere than the image's, because the disk may
/// have been partitioned otherwise when the older version came. Kept partitions are not the job's.
pub(super) fn elsewhere(
    plan: &LayoutPlan,
    existing: Option<&Existing>,
    sector: SectorSize,
    length: PieceLength,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    let partitions = existing.into_iter().flat_map(|existing| &existing.partitions);
    for partition in partitions {
        let Some(start) = sector.offset_of(partition.first).map(|offset| offset.0) else { continue };
        let Some(end) = start.checked_add(partition.size).filter(|end| *end <= plan.disk_size()) else {
            continue;
        };
        let known = plan.places().iter().any(|place| {
            place.start.0 == start || (!place.replaced && place.start.0 < end && start < place.end())
        });
        if known {
            continue;
        }
        let mut offset = start;
        while offset < end {
            let len = u32::try_from((end - offset).min(length.bytes())).unwrap_or(length.get());
            cells.push(Cell { offset, len, what: What::Spare });
            offset += length.bytes();
        }
    }
    cells.sort_by_key(|cell| cell.offset);
    cells
}

/// The SHA-256 of `bytes`, filled up with zeros to `length`; `None` if all bytes are zero.
pub(super) fn hash_of(bytes: &[u8], length: PieceLength) -> Option<Sha256> {
    // A zero start mostly means a zero cell, which costs no hashing.
    if is_zero(bytes) {
        return None;
    }
    let mut hasher = sha2::Sha256::new();
    hasher.update(bytes);
    pad(&mut hasher, length.bytes().saturating_sub(bytes.len() as u64));
    Some(Sha256(hasher.finalize().into()))
}

fn pad(hasher: &mut sha2::Sha256, zeros: u64) {
    let mut left = zeros;
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(ZEROS.len()).min(ZEROS.len());
        hasher.update(&ZEROS[..step]);
        left -= step as u64;
    }
}
