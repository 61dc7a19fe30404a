//! Reads the cells of a capture. A disk on the network is asked ahead of time, and only for ranges in use.
//!
//! Invariant: ranges are asked for in the order in which they are read, and each is read, so nothing that was
//! asked for is left over.

use std::iter::Peekable;
use std::ops::Range;

use flashmob::event::Failure;
use flashmob::manifest::Lost;
use flashmob::nbd::MAX_READ;

use super::plan::Plan;
use crate::source::Source;

/// An unused range of a disk on the network that is shorter than this is read with its neighbours: a request
/// of its own would cost as much.
const GAP: u64 = 16 << 10;

/// A cell of a partition's grid.
pub(super) struct Cell {
    pub partition: usize,
    /// Byte of the partition.
    pub offset: u64,
    /// Byte of the source.
    pub start: u64,
    pub len: u64,
}

pub(super) struct Reader<'a> {
    source: &'a Source,
    plan: &'a Plan,
    /// The parts of all cells, for a disk on the network.
    ahead: Option<Peekable<Box<dyn Iterator<Item = Range<u64>> + Send + 'a>>>,
    rescue: bool,
    lost: Vec<Lost>,
}

impl<'a> Reader<'a> {
    /// Reads `cells` of `source`, each with [`Reader::read`], in their order.
    pub(super) fn new(
        source: &'a Source,
        plan: &'a Plan,
        cells: impl Iterator<Item = Cell> + Send + 'a,
        rescue: bool,
    ) -> Self {
        let ahead = source.is_lent().then(|| {
            let parts = cells.flat_map(move |cell| ranges(plan, &cell)).flat_map(parts);
            (Box::new(parts) as Box<dyn Iterator<Item = _> + Send>).peekable()
        });
        Reader { source, plan, ahead, rescue, lost: Vec::new() }
    }

    /// Fills `into`, which has the length of `cell`. Ranges that are not in use may have any content.
    pub(super) fn read(&mut self, cell: &Cell, into: &mut [u8]) -> Result<(), Failure> {
        let Some(ahead) = &mut self.ahead else {
            return self.fill(cell.start, into);
        };
        while ahead.next_if(|part| self.source.ask(part.start, part.end - part.start)).is_some() {}
        for range in ranges(self.plan, cell) {
            let inside = |at: u64| usize::try_from(at - cell.start).unwrap_or(usize::MAX);
            let into = &mut into[inside(range.start)..inside(range.end)];
            self.fill(range.start, into)?;
        }
        // A cell that is longer than what may be under way was not asked for completely.
        if let Some(ahead) = &mut self.ahead {
            while ahead.next_if(|part| part.start < cell.start + cell.len).is_some() {}
        }
        Ok(())
    }

    fn fill(&mut self, start: u64, into: &mut [u8]) -> Result<(), Failure> {
        match self.source.read(start, into) {
            Err(_) if self.rescue => self.lost.extend(self.source.rescue(start, into)?),
            read => read?,
        }
        Ok(())
    }

    /// The ranges that could not be read.
    pub(super) fn lost(self) -> Vec<Lost> {
        self.lost
    }
}

/// The ranges of the source that a cell is read from.
fn ranges(plan: &Plan, cell: &Cell) -> Vec<Range<u64>> {
    let Some(used) = &plan.used[cell.partition] else {
        return std::iter::once(cell.start..cell.start + cell.len).collect();
    };
    let partition = cell.start - cell.offset;
    let used = used.inside(cell.offset, cell.len, GAP).into_iter();
    used.map(|range| partition + range.start..partition + range.end).collect()
}

/// A range in parts that one request can have.
fn parts(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let step = u64::from(MAX_READ);
    (0..(range.end - range.start).div_ceil(step)).map(move |i| {
        let start = range.start + i * step;
        start..(start + step).min(range.end)
    })
}
