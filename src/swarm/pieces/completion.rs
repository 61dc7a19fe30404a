//! The pieces that are stored, and those that are wanted.
//!
//! Invariant: `done` and `bytes_done` count the wanted pieces that are here, and nothing else. Pieces that
//! are here and not wanted are served like all others.

use crate::bitfield::Bitfield;
use crate::swarm::geometry::Geometry;
use crate::units::PieceIndex;

/// Pieces that are stored and pieces that are wanted.
#[derive(Debug)]
pub(crate) struct Completion {
    geometry: Geometry,
    have: Bitfield,
    wanted: Bitfield,
    done: u32,
    bytes_done: u64,
    bytes_wanted: u64,
}

impl Completion {
    /// `None` if a bitfield is of another torrent.
    pub(crate) fn new(geometry: Geometry, have: Bitfield, wanted: Bitfield) -> Option<Self> {
        if have.pieces() != geometry.pieces() || wanted.pieces() != geometry.pieces() {
            return None;
        }
        let bytes_wanted = geometry.bytes_of(&wanted);
        let missing = wanted.without(&have);
        let done = wanted.count() - missing.count();
        let bytes_done = bytes_wanted - geometry.bytes_of(&missing);
        Some(Completion { geometry, have, wanted, done, bytes_done, bytes_wanted })
    }

    /// Everything that is here.
    pub(crate) fn have(&self) -> &Bitfield {
        &self.have
    }

    /// The pieces that are wanted and not here.
    pub(crate) fn missing(&self) -> Bitfield {
        self.wanted.without(&self.have)
    }

    /// Whether `piece` is wanted and not here.
    pub(crate) fn lacks(&self, piece: PieceIndex) -> bool {
        self.wanted.has(piece) && !self.have.has(piece)
    }

    /// `piece` is here; true if it was not before.
    pub(crate) fn insert(&mut self, piece: PieceIndex) -> bool {
        let was_lacking = self.lacks(piece);
        if was_lacking {
            self.done += 1;
            self.bytes_done += u64::from(self.geometry.len_of(piece));
        }
        self.have.insert(piece)
    }

    /// True when everything that is wanted is here.
    pub(crate) fn complete(&self) -> bool {
        self.done == self.wanted.count()
    }

    /// Number of wanted pieces.
    pub(crate) fn pieces_wanted(&self) -> u32 {
        self.wanted.count()
    }

    /// Number of wanted pieces that are here.
    pub(crate) fn pieces_done(&self) -> u32 {
        self.done
    }

    /// Bytes of the wanted pieces.
    pub(crate) fn bytes_wanted(&self) -> u64 {
        self.bytes_wanted
    }

    /// Bytes of the wanted pieces that are here.
    pub(crate) fn bytes_done(&self) -> u64 {
        self.bytes_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_counts() {
        let geometry = Geometry::new(100, 950).expect("a torrent");
        let (have, wanted) = (Bitfield::of_range(10, 0..6), Bitfield::of_range(10, 5..10));
        let mut completion = Completion::new(geometry, have, wanted).expect("they fit");
        assert_eq!((completion.pieces_wanted(), completion.bytes_wanted()), (5, 450));
        assert_eq!((completion.pieces_done(), completion.bytes_done()), (1, 100));
        assert_eq!(completion.missing(), Bitfield::of_range(10, 6..10));
        for (piece, lacked) in [(4, false), (5, false), (6, true), (7, true), (8, true), (9, true)] {
            assert!(!completion.complete());
            assert_eq!(completion.lacks(PieceIndex(piece)), lacked, "{piece}");
            completion.insert(PieceIndex(piece));
        }
        assert!(completion.complete() && !completion.have().has(PieceIndex(10)));
        assert_eq!(completion.bytes_done(), 450);
        assert!(Completion::new(geometry, Bitfield::none(10), Bitfield::all(9)).is_none());
    }
}
