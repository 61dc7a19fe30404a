//! Believing a record: according to the server the disk has a version of an image, so that only the
//! difference of two manifests has to be fetched.
//!
//! Invariant: it is believed only if the areas that every mount or write changes are unchanged ([`traces`]),
//! and if random pieces are right. The former show a machine that was used, the latter find other changes,
//! the sooner the more there are. The number of reads is bounded and does not grow with the believed pieces.
//! A single piece that was changed past the filesystem may go unnoticed.

use std::collections::BTreeSet;

use crate::io::disk::compare::proof::{Proof, Volume};
use crate::io::storage::device::Disk;
use crate::layout::grid::Grid;
use crate::layout::plan::{Existing, LayoutPlan};
use crate::layout::present::{Present, Version, zero_cells};
use crate::layout::traces::{self, Doubt};
use crate::rng::Rng;
use crate::units::{PieceIndex, Sha256};

/// Random kept pieces to read. If one in twenty was changed, they include a changed one eleven times out of
/// twelve.
const SAMPLES: usize = 48;
/// Cells that are thought to be zero.
const ZEROS: usize = 16;
/// More random kept pieces of a partition with an unknown filesystem, and the number of its first pieces.
const MORE: usize = 32;
const FIRST: usize = 4;

/// A disk's content according to its record.
#[derive(Debug)]
pub struct Believed {
    /// All that the record says.
    pub present: Present,
    /// Believed pieces that were not read.
    pub unread: u32,
}

/// The pieces of the image of `plan` and `grid` that are on `disk`, if it holds `old`; otherwise why the
/// record cannot be believed.
pub fn believe(
    disk: &Disk,
    plan: &LayoutPlan,
    existing: &Result<Existing, String>,
    (grid, hashes): (&Grid, &[Sha256]),
    old: &Version<'_>,
    chance: &mut Rng,
) -> Result<Believed, String> {
    old.fits(existing, plan, grid)?;
    let present = old.difference(plan, grid, hashes);
    let mut proof = Proof::new(disk, old.cells(), old.grid.piece_length());
    let mut unclear = Vec::new();
    for range in old.ranges() {
        match traces::look(&mut Volume::new(&mut proof, range.clone())) {
            Ok(()) => {}
            Err(Doubt::Unclear) => unclear.push(range),
            Err(Doubt::Changed(why)) => return Err(why),
        }
    }
    let start = |span| Some(plan.range_of(&span)?.start);
    let kept: Vec<u64> = present.kept.iter().filter_map(|piece| grid.span(piece)).filter_map(start).collect();
    let zeros = zero_cells(plan, grid).zip(0u32..).filter(|(_, at)| present.zeros.has(PieceIndex(*at)));
    let mut samples = BTreeSet::new();
    samples.extend(some(kept.clone(), SAMPLES, chance));
    samples.extend(some(zeros.filter_map(|(span, _)| start(span)).collect(), ZEROS, chance));
    for range in unclear {
        samples.extend(proof.pieces_in(&range).take(FIRST));
        let inside = kept.iter().copied().filter(|start| range.contains(start)).collect();
        samples.extend(some(inside, MORE, chance));
    }
    for start in samples {
        proof.cell_at(start)?;
    }
    let unread = kept.iter().filter(|start| !proof.has(**start)).count();
    Ok(Believed { present, unread: u32::try_from(unread).unwrap_or(u32::MAX) })
}

/// At most `count` random elements of `all`.
fn some(mut all: Vec<u64>, count: usize, chance: &mut Rng) -> Vec<u64> {
    let count = count.min(all.len());
    for i in 0..count {
        let other = i + chance.below(all.len() - i);
        all.swap(i, other);
    }
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_takes_each_piece_about_equally_often_and_none_twice() {
        let all: Vec<u64> = (0..200).map(|piece| piece * 4096).collect();
        let mut taken = vec![0u32; all.len()];
        for seed in 0..1000 {
            let found = some(all.clone(), SAMPLES, &mut Rng::new(seed));
            assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), SAMPLES);
            found.iter().for_each(|start| taken[usize::try_from(start / 4096).unwrap()] += 1);
        }
        // 240 of each are expected, give or take 14.
        assert!(taken.iter().all(|times| (170..310).contains(times)), "{taken:?}");
        assert_eq!(some(all[..5].to_vec(), SAMPLES, &mut Rng::new(1)).len(), 5);
        assert_eq!(some(Vec::new(), SAMPLES, &mut Rng::new(1)), Vec::<u64>::new());
    }
}
