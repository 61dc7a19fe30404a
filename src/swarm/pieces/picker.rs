//! Which piece is the rarest: wanted pieces in order of how many connected peers have them.
//!
//! Invariant: `order` holds exactly the wanted pieces, sorted by availability; pieces of one availability are
//! in random order. Every update is constant work for each step of availability, so that a torrent of a
//! million pieces costs no more for each piece than a small one.

use crate::bitfield::Bitfield;
use crate::rng::Rng;
use crate::units::PieceIndex;

const ABSENT: u32 = u32::MAX;
/// Pieces that [`Picker::rarest_few`] looks at.
const LOOKED_AT: usize = 1024;

/// Rarest first.
#[derive(Debug)]
pub(crate) struct Picker {
    /// Wanted pieces, rarest first.
    order: Vec<u32>,
    /// Where each piece is in `order`.
    place: Vec<u32>,
    /// How many connected peers, those with everything apart, have each piece.
    copies: Vec<u32>,
    /// `ends[n]` is where the pieces of availability `n` end in `order`.
    ends: Vec<u32>,
    /// Connected peers that have everything.
    seeds: u32,
}

impl Picker {
    /// Wants the pieces of `missing`.
    pub(crate) fn new(missing: &Bitfield, rng: &mut Rng) -> Self {
        let pieces = missing.pieces();
        let mut picker = Picker {
            order: Vec::new(),
            place: vec![ABSENT; pieces as usize],
            copies: vec![0; pieces as usize],
            ends: vec![0],
            seeds: 0,
        };
        for piece in missing.iter() {
            picker.want(piece, rng);
        }
        picker
    }

    /// Number of wanted pieces.
    pub(crate) fn wanted(&self) -> usize {
        self.order.len()
    }

    /// How many connected peers have `piece`.
    pub(crate) fn availability(&self, piece: PieceIndex) -> u32 {
        self.copies.get(piece.get()).map_or(0, |copies| copies + self.seeds)
    }

    /// A peer that has everything came or went.
    pub(crate) fn count_seed(&mut self, came: bool) {
        self.seeds = if came { self.seeds + 1 } else { self.seeds.saturating_sub(1) };
    }

    /// One more peer has `piece`.
    pub(crate) fn gained(&mut self, piece: PieceIndex) {
        let count = self.copies[piece.get()];
        self.copies[piece.get()] = count + 1;
        if self.place[piece.get()] != ABSENT {
            self.ensure_bucket(count + 1);
            self.lift(piece, count);
        }
    }

    /// One peer less has `piece`.
    pub(crate) fn lost(&mut self, piece: PieceIndex) {
        let Some(count) = self.copies[piece.get()].checked_sub(1) else { return };
        self.copies[piece.get()] = count;
        if self.place[piece.get()] != ABSENT {
            self.lower(piece, count);
        }
    }

    /// `piece` is to be fetched (again).
    pub(crate) fn want(&mut self, piece: PieceIndex, rng: &mut Rng) {
        if self.place[piece.get()] != ABSENT {
            return;
        }
        let count = self.copies[piece.get()];
        self.ensure_bucket(count);
        let last = u32::try_from(self.order.len()).unwrap_or(ABSENT);
        self.place[piece.get()] = last;
        self.order.push(piece.0);
        // It stands at the end, in the last bucket: lower it step by step to its own.
        let top = self.ends.len() - 1;
        self.ends[top] += 1;
        for bucket in (count as usize..top).rev() {
            self.lower(piece, u32::try_from(bucket).unwrap_or(0));
        }
        // A random place inside its bucket, so that ties are random.
        let start = self.start_of(count);
        let width = self.ends[count as usize] - start;
        let target = start + u32::try_from(rng.below(width as usize)).unwrap_or(0);
        self.swap(self.place[piece.get()], target);
    }

    /// `piece` is being fetched, or here.
    pub(crate) fn unwant(&mut self, piece: PieceIndex) {
        if self.place[piece.get()] == ABSENT {
            return;
        }
        let top = u32::try_from(self.ends.len() - 1).unwrap_or(0);
        for bucket in self.copies[piece.get()]..top {
            self.lift(piece, bucket);
        }
        let last = u32::try_from(self.order.len() - 1).unwrap_or(0);
        self.swap(self.place[piece.get()], last);
        self.order.pop();
        self.place[piece.get()] = ABSENT;
        self.ends[top as usize] -= 1;
    }

    /// The rarest wanted piece that passes `test`.
    pub(crate) fn rarest(&self, mut test: impl FnMut(PieceIndex) -> bool) -> Option<PieceIndex> {
        self.order.iter().copied().map(PieceIndex).find(|piece| test(*piece))
    }

    /// The same, of the [`LOOKED_AT`] rarest: bounded work, whatever the number of pieces.
    pub(crate) fn rarest_few(&self, mut test: impl FnMut(PieceIndex) -> bool) -> Option<PieceIndex> {
        self.order.iter().take(LOOKED_AT).copied().map(PieceIndex).find(|piece| test(*piece))
    }

    /// Whether `piece` is wanted: neither here nor being fetched.
    pub(crate) fn wants(&self, piece: PieceIndex) -> bool {
        self.place.get(piece.get()).is_some_and(|place| *place != ABSENT)
    }

    fn start_of(&self, bucket: u32) -> u32 {
        bucket.checked_sub(1).map_or(0, |below| self.ends[below as usize])
    }

    fn ensure_bucket(&mut self, bucket: u32) {
        let all = self.ends.last().copied().unwrap_or(0);
        while self.ends.len() <= bucket as usize {
            self.ends.push(all);
        }
    }

    /// Moves `piece` from the end of bucket `from` into the bucket above.
    fn lift(&mut self, piece: PieceIndex, from: u32) {
        let last = self.ends[from as usize] - 1;
        self.swap(self.place[piece.get()], last);
        self.ends[from as usize] = last;
    }

    /// Moves `piece` from the bucket above `to` into `to`.
    fn lower(&mut self, piece: PieceIndex, to: u32) {
        let first = self.ends[to as usize];
        self.swap(self.place[piece.get()], first);
        self.ends[to as usize] = first + 1;
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.order.swap(a as usize, b as usize);
        self.place[self.order[a as usize] as usize] = a;
        self.place[self.order[b as usize] as usize] = b;
    }
}

#[cfg(test)]
mod tests {
    use super::{Bitfield, Picker, PieceIndex, Rng};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    const PIECES: u32 = 12;

    proptest! {
        #[test]
        fn the_order_is_always_that_of_a_plain_sort(edits in proptest::collection::vec((0u8..4, 0..PIECES),
            0..200), seed in any::<u64>()) {
            let mut rng = Rng::new(seed);
            let mut picker = Picker::new(&Bitfield::all(PIECES), &mut rng);
            let mut copies = vec![0u32; PIECES as usize];
            let mut wanted: std::collections::BTreeSet<u32> = (0..PIECES).collect();
            for (edit, piece) in edits {
                let (index, at) = (PieceIndex(piece), piece as usize);
                match edit {
                    0 => { picker.gained(index); copies[at] += 1; }
                    1 => { picker.lost(index); copies[at] = copies[at].saturating_sub(1); }
                    2 => { picker.want(index, &mut rng); wanted.insert(piece); }
                    _ => { picker.unwant(index); wanted.remove(&piece); }
                }
                let order: Vec<_> = picker.order.clone();
                prop_assert!(order.is_sorted_by_key(|piece| copies[*piece as usize]), "{:?} \
                    {:?}", order, copies);
                prop_assert_eq!(order.iter().copied().collect::<std::collections::BTreeSet<_>>(),
                    wanted.clone());
                for (place, piece) in order.iter().enumerate() {
                    prop_assert_eq!(picker.place[*piece as usize] as usize, place);
                }
                prop_assert_eq!(*picker.ends.last().expect("one") as usize, wanted.len());
            }
        }
    }

    #[test]
    fn ties_are_broken_by_chance() {
        let first = |seed| Picker::new(&Bitfield::all(64), &mut Rng::new(seed)).rarest(|_| true);
        let firsts: std::collections::BTreeSet<_> = (0..32).map(first).collect();
        assert!(firsts.len() > 12, "{firsts:?}");
    }

    #[test]
    fn the_rarest_piece_comes_first() {
        let mut picker = Picker::new(&Bitfield::all(3), &mut Rng::new(1));
        picker.gained(PieceIndex(0));
        picker.gained(PieceIndex(2));
        picker.gained(PieceIndex(2));
        assert_eq!(picker.rarest(|piece| piece.0 != 1), Some(PieceIndex(0)));
        picker.count_seed(true);
        assert_eq!(picker.availability(PieceIndex(2)), 3);
    }
}
