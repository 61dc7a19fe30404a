//! Finds an image's pieces that lie on a disk already, in place or elsewhere: an older version, a damaged
//! one, an interrupted attempt.
//!
//! A few cells spread over the disk are read first. If none holds a piece of the image, the disk never had
//! it, and no more is read. Otherwise everything that will be written is read, on all cores. While pieces are
//! missing, other cells are read too, as long as that is quicker than fetching.
//!
//! Invariant: a piece counts as there only if its bytes were read from the device in this attempt and have
//! the SHA-256 in `pieces.sha256` (except [`believe`], which trusts a record for most). Nothing is written.
//! Unreadable cells count as missing: they are written again, and the read-back shows whether the disk can
//! still be used.

mod cells;
mod index;
mod proof;
mod record;
mod whole;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::io::disk::scan::{Buffers, scan};
use crate::io::storage::device::Disk;
use crate::layout::grid::Grid;
use crate::layout::moves::Move;
use crate::layout::plan::{Existing, LayoutPlan};
use crate::layout::present::{Present, is_disturbed, wanted};
use crate::sync;
use crate::units::{PieceIndex, Sha256};

use cells::{Cell, What, elsewhere, hash_of, owned, unused};
use index::Index;

pub use record::{Believed, believe};
pub use whole::Whole;

/// Cells that are read before all others.
const SAMPLES: usize = 64;
/// Bytes of read buffers; no piece buffers exist yet.
const ROOM: usize = 64 << 20;
/// How many times faster a disk reads than a link brings bytes; it bounds the reading for missing pieces.
const WORTH: u64 = 4;

/// The progress of a comparison, and the order to end it.
#[derive(Debug, Default)]
pub struct CompareProgress {
    /// Bytes that will be looked at.
    pub total: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// Set to end the search; pieces found until then count.
    pub stop: AtomicBool,
}

/// The pieces of the image of `plan` and `grid` that are on `disk`, whose table is `existing`, and whether
/// the disk is complete and committed. `hashes` is `pieces.sha256`.
pub fn compare(
    disk: &Disk,
    plan: &LayoutPlan,
    existing: Option<&Existing>,
    grid: &Grid,
    hashes: &[Sha256],
    progress: &CompareProgress,
) -> (Present, Option<Whole>) {
    let index = Index::new(hashes, grid.piece_length());
    let seen = Seen { present: Present::nothing(plan, grid), sources: HashMap::new() };
    let search = Search { disk, plan, grid, index: &index, progress, seen: Mutex::new(seen) };
    let own = owned(plan, grid);
    let other = elsewhere(plan, existing, disk.sector(), grid.piece_length());
    if !search.samples(&own) && !search.samples(&other) {
        return (Present::nothing(plan, grid), None);
    }
    progress.bytes.store(0, Ordering::Relaxed);
    progress.total.store(own.iter().map(|cell| u64::from(cell.len)).sum(), Ordering::Relaxed);
    search.read(&own);
    let mut left = search.missing().saturating_mul(WORTH);
    let more = other.into_iter().chain(unused(plan, grid)).take_while(|cell| {
        let affordable = left > 0;
        left = left.saturating_sub(u64::from(cell.len));
        affordable
    });
    let more: Vec<Cell> = more.collect();
    if !more.is_empty() {
        progress.total.fetch_add(more.iter().map(|cell| u64::from(cell.len)).sum(), Ordering::Relaxed);
        search.read(&more);
    }
    let present = search.finish();
    let whole = whole::look(disk, plan, grid, &index, &present);
    (present, whole)
}

struct Search<'a> {
    disk: &'a Disk,
    plan: &'a LayoutPlan,
    grid: &'a Grid,
    index: &'a Index<'a>,
    progress: &'a CompareProgress,
    seen: Mutex<Seen>,
}

/// The pieces found so far.
struct Seen {
    present: Present,
    /// By group of equal pieces: where such a piece lies, for those that are not kept.
    sources: HashMap<u32, Range<u64>>,
}

impl Search<'_> {
    /// Is a piece of the image in some of these cells, spread over all?
    fn samples(&self, cells: &[Cell]) -> bool {
        let step = cells.len().div_ceil(SAMPLES).max(1);
        // Not the first ones of partitions, which the disarm of an interrupted attempt has wiped.
        let chosen: Vec<Cell> = cells.iter().skip(step / 2).step_by(step).copied().collect();
        let found = AtomicBool::new(false);
        let go_on = || !found.load(Ordering::Relaxed);
        self.each(&chosen, go_on, |_, hash| {
            if hash.is_some_and(|hash| self.index.group(&hash).is_some()) {
                found.store(true, Ordering::Relaxed);
            }
        });
        found.into_inner()
    }

    /// Reads cells and remembers their pieces.
    fn read(&self, cells: &[Cell]) {
        self.each(cells, || true, |cell, hash| self.remember(cell, hash));
    }

    /// Hashes each of the cells; `None` where all is zero.
    fn each(
        &self,
        cells: &[Cell],
        go_on: impl Fn() -> bool + Sync,
        tell: impl Fn(&Cell, Option<Sha256>) + Sync,
    ) {
        let length = self.grid.piece_length();
        let buffers = Buffers { length: length.get() as usize, room: ROOM };
        let go_on = || go_on() && !self.progress.stop.load(Ordering::Relaxed);
        let read = |cell: &Cell, into: &mut [u8]| {
            let len = cell.len as usize;
            self.disk.read_at(cell.offset, &mut into[..len]).map(|()| len)
        };
        scan(self.disk, buffers, cells, go_on, read, |cell, bytes| {
            match bytes {
                Ok(bytes) => tell(cell, hash_of(bytes, length)),
                Err(error) => log::warn!("it counts as missing: {error}"),
            }
            self.progress.bytes.fetch_add(u64::from(cell.len), Ordering::Relaxed);
        });
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        sync::lock(&self.seen)
    }

    fn remember(&self, cell: &Cell, hash: Option<Sha256>) {
        if let (What::Zero(at), None) = (cell.what, hash) {
            self.seen().present.zeros.insert(PieceIndex(at));
            return;
        }
        let in_place = match cell.what {
            What::Piece(piece) => self.index.is(piece, hash).then_some(piece),
            What::Zero(_) | What::Spare => None,
        };
        let kept = in_place.filter(|_| !is_disturbed(self.plan, &cell.range()));
        let group = hash.and_then(|hash| self.index.group(&hash));
        let mut seen = self.seen();
        if let Some(piece) = kept {
            seen.present.kept.insert(piece);
        }
        match group {
            // A kept partition is never written over, so it is the best source.
            Some(group) if kept.is_some() && self.index.is_shared(group) => {
                seen.sources.insert(group, cell.range());
            }
            Some(group) if kept.is_none() => {
                seen.sources.entry(group).or_insert(cell.range());
            }
            _ => {}
        }
    }

    /// Pieces that are to be written and were not found, with where they were found.
    fn lacking(&self, seen: &Seen) -> impl Iterator<Item = (PieceIndex, Option<Range<u64>>)> {
        let lacking = wanted(self.plan, self.grid).without(&seen.present.kept);
        let source = |piece| self.index.group_of(piece).and_then(|group| seen.sources.get(&group)).cloned();
        let found: Vec<_> = lacking.iter().map(|piece| (piece, source(piece))).collect();
        found.into_iter()
    }

    /// Bytes of pieces that were not found on this disk.
    fn missing(&self) -> u64 {
        let missing = self.lacking(&self.seen()).filter(|(_, source)| source.is_none()).count();
        missing as u64 * self.grid.piece_length().bytes()
    }

    fn finish(self) -> Present {
        let found: Vec<_> = self.lacking(&self.seen()).collect();
        let moves = found.into_iter().filter_map(|(piece, source)| {
            let to = self.plan.range_of(&self.grid.span(piece)?)?;
            Some(Move { piece, from: source?, to })
        });
        let moves = moves.collect();
        let seen = sync::into_inner(self.seen);
        Present { moves, ..seen.present }
    }
}

#[cfg(test)]
mod tests;
