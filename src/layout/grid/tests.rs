//! Partitions of every shape, cut into pieces.

use super::*;
use crate::testkit::manifests::manifest_of;
use crate::testkit::manifests::runs_strategy;
use proptest::prelude::*;

proptest! {
    #[test]
    fn each_byte_is_in_one_cell_and_data_ranges_are_the_data_runs(
        parts in proptest::collection::vec(runs_strategy(), 1..5), power in 14u32..18
    ) {
        let extents = Extents { partitions: parts };
        let manifest = manifest_of(&extents, 1 << power, Policy::Replace);
        let grid = Grid::new(&manifest, extents.clone()).expect("they agree");
        let mut next = 0;
        for (i, runs) in extents.partitions.iter().enumerate() {
            prop_assert_eq!(grid.pieces_of(i).start, next);
            let mut data = 0u64;
            let mut end = 0u64;
            for (span, cell) in grid.cells(i) {
                prop_assert_eq!(span.offset, end);
                end += u64::from(span.len);
                let kinds: Vec<RangeKind> = runs.iter()
                    .filter(|r| r.start < end && r.end() > span.offset).map(|r| r.kind).collect();
                match cell {
                    Cell::Data => {
                        prop_assert!(kinds.contains(&RangeKind::Data));
                        prop_assert_eq!(grid.span(PieceIndex(next)), Some(span));
                        prop_assert_eq!(grid.piece_at(i, span.offset), Some(PieceIndex(next)));
                        let mut before = None;
                        for range in grid.data_ranges(PieceIndex(next)) {
                            prop_assert!(range.start < range.end && range.end <= span.len);
                            prop_assert!(before.is_none_or(|b| b < range.start));
                            before = Some(range.end);
                            let (from, to) = (span.offset + u64::from(range.start),
                                              span.offset + u64::from(range.end));
                            prop_assert!(runs.iter().any(|r| r.kind == RangeKind::Data
                                && r.start <= from && to <= r.end()));
                            data += to - from;
                        }
                        next += 1;
                    }
                    Cell::Zero => prop_assert!(!kinds.contains(&RangeKind::Data)
                        && kinds.contains(&RangeKind::Zero)),
                    Cell::Free => prop_assert!(kinds.iter().all(|k| *k == RangeKind::Free)),
                }
            }
            prop_assert_eq!(end, manifest.partitions[i].size);
            let expected: u64 =
                runs.iter().filter(|r| r.kind == RangeKind::Data).map(|r| r.len).sum();
            prop_assert_eq!(data, expected);
        }
        prop_assert_eq!(next, grid.pieces());
        prop_assert_eq!(grid.span(PieceIndex(next)), None);
    }
}

fn run(kind: RangeKind, start: u64, len: u64) -> Run {
    Run { kind, start, len }
}

#[test]
fn nothing_of_a_kept_partition_travels_or_is_written() {
    let runs = vec![run(RangeKind::Zero, 0, 16384), run(RangeKind::Data, 16384, 16384)];
    let extents = Extents { partitions: vec![runs] };
    let manifest = manifest_of(&extents, 16384, Policy::Keep);
    let grid = Grid::new(&manifest, extents).expect("they agree");
    assert_eq!(grid.pieces(), 0);
    assert_eq!(grid.zero_cells().count(), 0);
    assert_eq!(grid.data_bytes(), 0);
}

#[test]
fn free_inside_a_cell_with_zero_is_written_as_zero() {
    let runs = vec![run(RangeKind::Free, 0, 12288), run(RangeKind::Zero, 12288, 4096)];
    let extents = Extents { partitions: vec![runs] };
    let manifest = manifest_of(&extents, 16384, Policy::Replace);
    let grid = Grid::new(&manifest, extents).expect("they agree");
    let all: Vec<Span> = grid.zero_cells().collect();
    assert_eq!(all, [Span { partition: 0, offset: 0, len: 16384 }]);
}

#[test]
fn a_manifest_that_counts_other_pieces_is_refused() {
    let extents = Extents { partitions: vec![vec![run(RangeKind::Data, 0, 32768)]] };
    let mut manifest = manifest_of(&extents, 16384, Policy::Replace);
    manifest.partitions[0].pieces = PieceCount { data: 1, zero: 1, free: 0 };
    assert!(matches!(Grid::new(&manifest, extents.clone()), Err(ExtentsError::Contradiction(_))));
    let mut manifest = manifest_of(&extents, 16384, Policy::Replace);
    manifest.payload.pieces = 3;
    assert!(matches!(Grid::new(&manifest, extents), Err(ExtentsError::Contradiction(_))));
}

#[test]
fn runs_with_a_gap_are_refused() {
    let good = Extents { partitions: vec![vec![run(RangeKind::Data, 0, 32768)]] };
    let manifest = manifest_of(&good, 16384, Policy::Replace);
    let gap = vec![run(RangeKind::Data, 0, 4096), run(RangeKind::Data, 8192, 24576)];
    let gap = Extents { partitions: vec![gap] };
    assert!(matches!(Grid::new(&manifest, gap), Err(ExtentsError::Cover { .. })));
}
