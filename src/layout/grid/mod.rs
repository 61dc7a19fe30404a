//! The grid: an image's pieces, their places on the partitions, and their data ranges.
//!
//! Invariant: a [`Grid`] exists only where extents and manifest agree: each partition is cut at multiples of
//! the piece length from its first byte, the cells of each kind are as many as the manifest counts, and the
//! payload's pieces are the `data` cells of replaced partitions in partition order. All arithmetic between
//! pieces and partitions is here; `layout::plan` places partitions on a disk.

use std::ops::Range;

use crate::layout::extents::{Extents, ExtentsError, RangeKind, Run, RunBuilder};
use crate::manifest::{Manifest, PieceCount, Policy};
use crate::units::{PieceIndex, PieceLength};

/// More cells are refused: it bounds the memory of a grid (64 TiB at 4 MiB a piece).
pub(crate) const MAX_CELLS: u64 = 1 << 24;

/// The treatment of a cell of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cell {
    /// It has data, so it is a piece of the payload (its free ranges count as zero).
    Data,
    /// It has no data and some `zero`: written completely as zeros.
    Zero,
    /// Completely free: left alone.
    Free,
}

/// A piece-sized part of a partition. `len` is less than the piece length only at the partition's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Position of the partition in the manifest's list (not its number).
    pub partition: usize,
    /// First byte, from the partition's first byte.
    pub offset: u64,
    /// Bytes on the partition.
    pub len: u32,
}

/// The grid of an image.
#[derive(Debug, Clone)]
pub struct Grid {
    piece_length: PieceLength,
    partitions: Vec<PartitionGrid>,
    pieces: u32,
}

#[derive(Debug, Clone)]
struct PartitionGrid {
    size: u64,
    replaced: bool,
    runs: Vec<Run>,
    cells: Vec<Cell>,
    /// Index of this partition's first payload piece.
    first_piece: u32,
    /// Cells that are payload pieces, in order: piece `first_piece + i` is cell `data[i]`.
    data: Vec<u32>,
}

impl Grid {
    /// Lays the pieces of an image. Fails where extents and manifest contradict each other.
    pub fn new(manifest: &Manifest, extents: Extents) -> Result<Self, ExtentsError> {
        let contradiction = |text: String| Err(ExtentsError::Contradiction(text));
        if extents.partitions.len() != manifest.partitions.len() {
            return contradiction(format!(
                "{} partitions, and the manifest has {}",
                extents.partitions.len(),
                manifest.partitions.len()
            ));
        }
        let cells: u64 = manifest
            .partitions
            .iter()
            .map(|p| p.size.div_ceil(manifest.piece_length.bytes()))
            .fold(0, u64::saturating_add);
        if cells > MAX_CELLS {
            return contradiction(format!("{cells} pieces on the grids; at most {MAX_CELLS} are handled"));
        }
        let mut pieces = 0u32;
        let mut partitions = Vec::with_capacity(manifest.partitions.len());
        for (partition, runs) in manifest.partitions.iter().zip(extents.partitions) {
            let n = partition.number;
            check_cover(n, partition.size, &runs)?;
            let cells = classify(&runs, partition.size, manifest.piece_length);
            let counted = count(&cells);
            if counted != partition.pieces {
                return contradiction(format!(
                    "partition {n} has {counted:?}, and the manifest says {:?}",
                    partition.pieces
                ));
            }
            let replaced = partition.policy == Policy::Replace;
            let data: Vec<u32> = if replaced {
                (0u32..).zip(&cells).filter(|(_, cell)| **cell == Cell::Data).map(|(i, _)| i).collect()
            } else {
                Vec::new()
            };
            let first_piece = pieces;
            // Cannot saturate: there are at most MAX_CELLS.
            pieces = pieces.saturating_add(u32::try_from(data.len()).unwrap_or(u32::MAX));
            let size = partition.size;
            partitions.push(PartitionGrid { size, replaced, runs, cells, first_piece, data });
        }
        if pieces != manifest.payload.pieces {
            return contradiction(format!(
                "{pieces} pieces travel, and the manifest says {}",
                manifest.payload.pieces
            ));
        }
        Ok(Grid { piece_length: manifest.piece_length, partitions, pieces })
    }

    /// Pieces of the payload.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Length of every piece.
    pub fn piece_length(&self) -> PieceLength {
        self.piece_length
    }

    /// Bytes of the payload.
    pub fn payload_len(&self) -> u64 {
        u64::from(self.pieces) * self.piece_length.bytes()
    }

    /// Bytes of the payload that are data, and therefore travel to a flashmob peer.
    pub fn data_bytes(&self) -> u64 {
        let replaced = self.partitions.iter().filter(|p| p.replaced);
        replaced.flat_map(|p| &p.runs).filter(|run| run.kind == RangeKind::Data).map(|run| run.len).sum()
    }

    /// Where a payload piece lies; `None` if there is no such piece.
    pub fn span(&self, piece: PieceIndex) -> Option<Span> {
        if piece.0 >= self.pieces {
            return None;
        }
        // The last partition that begins at or before this piece; ones without data begin where the next
        // does.
        let partition = self.partitions.partition_point(|p| p.first_piece <= piece.0).checked_sub(1)?;
        let grid = self.partitions.get(partition)?;
        let cell = *grid.data.get(usize::try_from(piece.0 - grid.first_piece).ok()?)?;
        Some(self.cell_span(partition, grid, cell))
    }

    /// The payload piece that has this byte of a partition, if that byte travels in one.
    pub fn piece_at(&self, partition: usize, offset: u64) -> Option<PieceIndex> {
        let grid = self.partitions.get(partition)?;
        let cell = u32::try_from(offset / self.piece_length.bytes()).ok()?;
        let position = grid.data.binary_search(&cell).ok()?;
        Some(PieceIndex(grid.first_piece + u32::try_from(position).ok()?))
    }

    /// The payload pieces of a partition.
    pub fn pieces_of(&self, partition: usize) -> Range<u32> {
        self.partitions.get(partition).map_or(0..0, |grid| {
            let count = u32::try_from(grid.data.len()).unwrap_or(0);
            grid.first_piece..grid.first_piece + count
        })
    }

    /// Ranges of a payload piece that are data, in bytes from the piece's first byte, in order, never
    /// touching. Every other byte of the piece is zero. Empty if there is no such piece.
    pub fn data_ranges(&self, piece: PieceIndex) -> Vec<Range<u32>> {
        let Some(span) = self.span(piece) else { return Vec::new() };
        let end = span.offset + u64::from(span.len);
        let runs = &self.partitions[span.partition].runs;
        let first = runs.partition_point(|run| run.end() <= span.offset);
        let here = runs[first..].iter().take_while(|run| run.start < end);
        here.filter(|run| run.kind == RangeKind::Data)
            .filter_map(|run| {
                // Both lie inside the piece, so both fit.
                let from = u32::try_from(run.start.max(span.offset) - span.offset).ok()?;
                let to = u32::try_from(run.end().min(end) - span.offset).ok()?;
                Some(from..to)
            })
            .collect()
    }

    /// All cells of a partition with their treatment, in order.
    pub fn cells(&self, partition: usize) -> impl Iterator<Item = (Span, Cell)> + '_ {
        self.partitions.get(partition).into_iter().flat_map(move |grid| {
            (0u32..).zip(&grid.cells).map(move |(i, cell)| (self.cell_span(partition, grid, i), *cell))
        })
    }

    /// Cells of replaced partitions that must be written as zeros.
    pub fn zero_cells(&self) -> impl Iterator<Item = Span> + '_ {
        self.cells_of_kind(Cell::Zero)
    }

    /// Cells of replaced partitions that are left alone and may be discarded.
    pub fn free_cells(&self) -> impl Iterator<Item = Span> + '_ {
        self.cells_of_kind(Cell::Free)
    }

    /// The runs of a partition.
    pub fn runs(&self, partition: usize) -> &[Run] {
        self.partitions.get(partition).map_or(&[], |grid| &grid.runs)
    }

    fn cells_of_kind(&self, kind: Cell) -> impl Iterator<Item = Span> + '_ {
        let replaced = (0..self.partitions.len()).filter(|i| self.partitions[*i].replaced);
        replaced.flat_map(|i| self.cells(i)).filter(move |(_, cell)| *cell == kind).map(|(span, _)| span)
    }

    fn cell_span(&self, partition: usize, grid: &PartitionGrid, cell: u32) -> Span {
        let offset = u64::from(cell) * self.piece_length.bytes();
        let len = (grid.size - offset).min(self.piece_length.bytes());
        Span { partition, offset, len: u32::try_from(len).unwrap_or(self.piece_length.get()) }
    }
}

/// The treatment of each cell of a partition of `size` bytes whose `runs` cover it.
pub fn classify(runs: &[Run], size: u64, piece_length: PieceLength) -> Vec<Cell> {
    let length = piece_length.bytes();
    let mut first = 0;
    let cells = 0..size.div_ceil(length);
    cells
        .map(|cell| {
            let (start, end) = (cell * length, ((cell + 1) * length).min(size));
            while runs.get(first).is_some_and(|run| run.end() <= start) {
                first += 1;
            }
            let here = || runs[first..].iter().take_while(|run| run.start < end);
            if here().any(|run| run.kind == RangeKind::Data) {
                Cell::Data
            } else if here().any(|run| run.kind == RangeKind::Zero) {
                Cell::Zero
            } else {
                Cell::Free
            }
        })
        .collect()
}

/// How many cells there are of each kind.
pub fn count(cells: &[Cell]) -> PieceCount {
    let of = |kind| u32::try_from(cells.iter().filter(|cell| **cell == kind).count()).unwrap_or(u32::MAX);
    PieceCount { data: of(Cell::Data), zero: of(Cell::Zero), free: of(Cell::Free) }
}

/// Extents can be built by hand, so the guarantees of `decode` are checked again here.
fn check_cover(partition: u32, size: u64, runs: &[Run]) -> Result<(), ExtentsError> {
    let mut builder = RunBuilder::default();
    for run in runs {
        if run.start != builder.end() || run.len > size - builder.end() {
            break;
        }
        builder.push(run.kind, run.len);
    }
    if builder.end() == size && builder.finish() == runs {
        return Ok(());
    }
    Err(ExtentsError::Cover { partition, what: "runs do not cover the partition exactly" })
}

#[cfg(test)]
mod tests;
