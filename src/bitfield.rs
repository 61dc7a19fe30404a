//! One bit for each piece, as the wire has it: the highest bit of the first byte is piece 0 (BEP 3).
//!
//! Invariant: bits behind the last piece are zero, and the number of set bits is known without counting.

use std::ops::Range;

use crate::units::PieceIndex;

/// Bytes that are compared at a time.
const WORD: usize = 8;

/// The pieces that a peer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Vec<u8>,
    pieces: u32,
    set: u32,
}

/// Why bytes are no bitfield for a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Not `pieces / 8` bytes, rounded up.
    #[error("a bitfield of {0} bytes where {1} are needed")]
    Length(usize, usize),
    /// A bit behind the last piece is set.
    #[error("a bitfield with bits behind the last piece")]
    Spare,
}

impl Bitfield {
    /// Nothing of `pieces` pieces.
    pub fn none(pieces: u32) -> Self {
        Bitfield { bytes: vec![0; byte_len(pieces)], pieces, set: 0 }
    }

    /// All of `pieces` pieces.
    pub fn all(pieces: u32) -> Self {
        let mut bytes = vec![0xff; byte_len(pieces)];
        if let Some(last) = bytes.last_mut() {
            *last &= !spare_mask(pieces);
        }
        Bitfield { bytes, pieces, set: pieces }
    }

    /// Of `pieces` pieces, those in `range`; numbers past the last piece are ignored.
    pub(crate) fn of_range(pieces: u32, range: Range<u32>) -> Self {
        let mut field = Bitfield::none(pieces);
        for piece in range.start..range.end.min(pieces) {
            field.insert(PieceIndex(piece));
        }
        field
    }

    /// Reads the bytes of a bitfield message.
    pub(crate) fn from_wire(bytes: &[u8], pieces: u32) -> Result<Self, BitfieldError> {
        if bytes.len() != byte_len(pieces) {
            return Err(BitfieldError::Length(bytes.len(), byte_len(pieces)));
        }
        if bytes.last().is_some_and(|last| last & spare_mask(pieces) != 0) {
            return Err(BitfieldError::Spare);
        }
        let set = bytes.iter().map(|byte| byte.count_ones()).sum();
        Ok(Bitfield { bytes: bytes.to_vec(), pieces, set })
    }

    /// The bytes of a bitfield message.
    pub fn as_wire(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of pieces, set or not.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Number of pieces that are set.
    pub fn count(&self) -> u32 {
        self.set
    }

    /// True when every piece is set (also when there are no pieces).
    pub(crate) fn is_all(&self) -> bool {
        self.set == self.pieces
    }

    /// True when no piece is set.
    pub fn is_none(&self) -> bool {
        self.set == 0
    }

    /// Whether `piece` is set; pieces that do not exist are not.
    pub fn has(&self, piece: PieceIndex) -> bool {
        piece.0 < self.pieces
            && self.bytes.get(piece.get() / 8).is_some_and(|byte| byte & mask_of(piece) != 0)
    }

    /// Sets `piece`; true if it was not set. Pieces that do not exist are ignored.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        if piece.0 >= self.pieces || self.has(piece) {
            return false;
        }
        self.bytes[piece.get() / 8] |= mask_of(piece);
        self.set += 1;
        true
    }

    /// Clears `piece`; true if it was set.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        if !self.has(piece) {
            return false;
        }
        self.bytes[piece.get() / 8] &= !mask_of(piece);
        self.set -= 1;
        true
    }

    /// The pieces that are set, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        (0..self.pieces).map(PieceIndex).filter(|piece| self.has(*piece))
    }

    /// The pieces that `self` has and `other` lacks.
    pub fn without(&self, other: &Bitfield) -> Bitfield {
        let mut rest = self.clone();
        for piece in other.iter() {
            rest.remove(piece);
        }
        rest
    }

    /// The pieces that `self` has and `other` lacks, in order, from `start` once around.
    pub fn beyond<'a>(
        &'a self,
        other: &'a Bitfield,
        start: PieceIndex,
    ) -> impl Iterator<Item = PieceIndex> + 'a {
        let words = self.bytes.len().div_ceil(WORD);
        let first = (start.get() / (8 * WORD)).min(words);
        let late = u64::MAX >> (start.get() % (8 * WORD));
        let rounds =
            [(first, late)].into_iter().chain((first + 1..words).chain(0..first).map(|at| (at, u64::MAX)));
        rounds.chain([(first, !late)]).flat_map(move |(at, mask)| {
            let base = u32::try_from(at * 8 * WORD).unwrap_or(u32::MAX);
            let mut rest = self.word(at) & !other.word(at) & mask;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.leading_zeros())?;
                rest &= !(1 << (63 - bit));
                Some(PieceIndex(base + bit))
            })
        })
    }

    /// The bytes of word `at`, the first one highest; zeros behind the end.
    fn word(&self, at: usize) -> u64 {
        let rest = self.bytes.get(at * WORD..).unwrap_or_default();
        if let Some(word) = rest.first_chunk() {
            return u64::from_be_bytes(*word);
        }
        let mut word = [0; WORD];
        word[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(word)
    }

    /// True if `self` has a piece that `other` lacks.
    pub(crate) fn has_more_than(&self, other: &Bitfield) -> bool {
        self.bytes.iter().zip(&other.bytes).any(|(mine, theirs)| mine & !theirs != 0)
    }
}

fn byte_len(pieces: u32) -> usize {
    pieces.div_ceil(8) as usize
}

fn mask_of(piece: PieceIndex) -> u8 {
    0x80 >> (piece.0 % 8)
}

fn spare_mask(pieces: u32) -> u8 {
    match pieces % 8 {
        0 => 0,
        used => 0xff >> used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_piece_is_the_highest_bit() {
        let mut field = Bitfield::none(10);
        assert!(field.insert(PieceIndex(0)) && field.insert(PieceIndex(9)));
        assert!(!field.insert(PieceIndex(0)) && !field.insert(PieceIndex(10)));
        assert_eq!(field.as_wire(), [0x80, 0x40]);
        assert_eq!(field.iter().collect::<Vec<_>>(), [PieceIndex(0), PieceIndex(9)]);
    }

    #[test]
    fn wrong_lengths_and_spare_bits_are_refused() {
        assert_eq!(Bitfield::from_wire(&[0], 10), Err(BitfieldError::Length(1, 2)));
        assert_eq!(Bitfield::from_wire(&[0, 0x20], 10), Err(BitfieldError::Spare));
        assert_eq!(Bitfield::from_wire(&[0xff, 0xc0], 10), Ok(Bitfield::all(10)));
        assert!(Bitfield::all(16).is_all() && Bitfield::none(0).is_all());
    }

    #[test]
    fn ranges_and_differences_stay_inside() {
        let field = Bitfield::of_range(10, 7..12);
        assert_eq!(field.as_wire(), [0x01, 0xc0]);
        assert_eq!(Bitfield::all(10).without(&field), Bitfield::of_range(10, 0..7));
        assert!(field.without(&Bitfield::all(10)).is_none());
    }

    #[test]
    fn what_another_lacks_is_found_once_around_from_anywhere() {
        for pieces in [1u32, 9, 64, 65, 130, 200] {
            let mine = Bitfield::of_range(pieces, pieces / 3..pieces);
            let theirs = Bitfield::of_range(pieces, pieces / 2..pieces - pieces / 4);
            let expected: Vec<_> = mine.without(&theirs).iter().collect();
            for start in 0..pieces {
                let found: Vec<_> = mine.beyond(&theirs, PieceIndex(start)).collect();
                let (before, after): (Vec<_>, Vec<_>) = expected.iter().partition(|piece| piece.0 < start);
                assert_eq!(found, [after, before].concat(), "{pieces} {start}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_count_is_that_of_the_set_bits(pieces in 1u32..70,
            edits in proptest::collection::vec((0u32..70, any::<bool>()), 0..80)) {
            let mut field = Bitfield::none(pieces);
            let mut model = std::collections::BTreeSet::new();
            for (piece, add) in edits {
                let index = PieceIndex(piece);
                let changed = if add { field.insert(index) } else { field.remove(index) };
                let expected = if add { piece < pieces && model.insert(piece) } else { model.remove(&piece) };
                prop_assert_eq!(changed, expected);
            }
            prop_assert_eq!(field.count() as usize, model.len());
            prop_assert_eq!(field.iter().map(|p| p.0).collect::<Vec<_>>(),
                model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Bitfield::from_wire(field.as_wire(), pieces), Ok(field));
        }
    }
}
