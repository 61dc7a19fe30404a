//! Whether a disk is, to the last byte, as a committed attempt leaves it, so that nothing need be written
//! again.
//!
//! Invariant: a [`Whole`] exists only if everything that an attempt would write or wipe was read from the
//! device in this attempt and is right. Records do not count here, and an unreadable disk is not whole.

use std::ops::Range;

use crate::io::disk::compare::cells::hash_of;
use crate::io::disk::compare::index::Index;
use crate::io::storage::device::Disk;
use crate::layout::grid::Grid;
use crate::layout::order::{self, Step};
use crate::layout::plan::LayoutPlan;
use crate::layout::present::{Present, wanted};
use crate::storage::StorageError;
use crate::units::PieceIndex;

/// The image is on the disk and committed.
#[derive(Debug)]
pub struct Whole(());

/// Looks whether `disk` has all of the image of `plan` and `grid`, where a comparison has found `present`.
pub(super) fn look(
    disk: &Disk,
    plan: &LayoutPlan,
    grid: &Grid,
    index: &Index<'_>,
    present: &Present,
) -> Option<Whole> {
    let whole = present.zeros.is_all()
        && disturbed_pieces(disk, plan, grid, index, present)?
        && wiped_and_written(disk, plan, grid).unwrap_or(false);
    whole.then_some(Whole(()))
}

/// Whether the pieces are right that every attempt writes, because it wipes or holds back some of their
/// bytes.
fn disturbed_pieces(
    disk: &Disk,
    plan: &LayoutPlan,
    grid: &Grid,
    index: &Index<'_>,
    present: &Present,
) -> Option<bool> {
    let mut buffer = vec![0u8; grid.piece_length().get() as usize];
    for piece in wanted(plan, grid).without(&present.kept).iter() {
        let range = plan.range_of(&grid.span(piece)?)?;
        let bytes = buffer.get_mut(..usize::try_from(range.end - range.start).ok()?)?;
        disk.read_at(range.start, bytes).ok()?;
        if !index.is(piece, hash_of(bytes, grid.piece_length())) {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether the table and the boot areas are as the commit writes them, and all other wiped ranges are zero.
fn wiped_and_written(disk: &Disk, plan: &LayoutPlan, grid: &Grid) -> Result<bool, StorageError> {
    let steps = order::commit(plan);
    let writes: Vec<(u64, &[u8])> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Head { .. } => None,
            Step::Table(at) => plan.table().get(*at).map(|write| (write.offset.0, &write.bytes[..])),
            Step::Area(at) => plan.areas().get(*at).map(|area| (area.offset.0, &area.bytes[..])),
        })
        .collect();
    let pieces: Vec<Range<u64>> = (0..grid.pieces())
        .filter_map(|piece| grid.span(PieceIndex(piece)))
        .filter(|span| plan.replaces(span.partition))
        .filter_map(|span| plan.range_of(&span))
        .collect();
    let written = writes.iter().map(|(offset, bytes)| *offset..offset + bytes.len() as u64);
    for range in plan.wipes().iter().cloned().chain(written) {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut expected = vec![0u8; length];
        let mut there = vec![0u8; length];
        disk.read_at(range.start, &mut there)?;
        // In their order: boot code shares its sector with the table and comes later.
        for (offset, bytes) in &writes {
            if let Some((to, from)) = common(&range, &(*offset..offset + bytes.len() as u64)) {
                expected[to].copy_from_slice(&bytes[from]);
            }
        }
        for piece in &pieces {
            if let Some((at, _)) = common(&range, piece) {
                expected[at.clone()].copy_from_slice(&there[at]);
            }
        }
        if expected != there {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The intersection of two ranges, counted from the beginning of each.
fn common(one: &Range<u64>, other: &Range<u64>) -> Option<(Range<usize>, Range<usize>)> {
    let (start, end) = (one.start.max(other.start), one.end.min(other.end));
    let from = |base: u64| -> Option<Range<usize>> {
        Some(usize::try_from(start - base).ok()?..usize::try_from(end - base).ok()?)
    };
    (start < end).then(|| Some((from(one.start)?, from(other.start)?))).flatten()
}
