//! How many peers of our own zone have each piece, where the tracker's rules tell zones apart.
//!
//! Invariant: while it is kept, each count is that of the connected peers that are not beyond the zone.

use crate::bitfield::Bitfield;
use crate::swarm::peers::peer::Peers;
use crate::units::PieceIndex;

/// The counts; none where there are no rules.
#[derive(Debug, Default)]
pub(crate) struct ZoneAvailability {
    copies: Vec<u16>,
}

impl ZoneAvailability {
    /// Counts from the beginning, because the access to peers has changed.
    pub(crate) fn recount(&mut self, peers: &Peers, pieces: u32) {
        self.copies = vec![0; pieces as usize];
        peers
            .values()
            .filter(|peer| !peer.link.access().remote_zone)
            .for_each(|peer| self.came(peer.link.have()));
    }

    /// A peer of the zone has `piece` as well.
    pub(crate) fn gained(&mut self, piece: PieceIndex) {
        if let Some(copies) = self.copies.get_mut(piece.get()) {
            *copies = copies.saturating_add(1);
        }
    }

    /// A peer of the zone that has `field` came.
    pub(crate) fn came(&mut self, field: &Bitfield) {
        if !self.copies.is_empty() {
            field.iter().for_each(|piece| self.gained(piece));
        }
    }

    /// It went.
    pub(crate) fn went(&mut self, field: &Bitfield) {
        if !self.copies.is_empty() {
            for piece in field.iter() {
                self.copies[piece.get()] = self.copies[piece.get()].saturating_sub(1);
            }
        }
    }

    /// How many of the zone have `piece`.
    pub(crate) fn copies(&self, piece: PieceIndex) -> usize {
        self.copies.get(piece.get()).map_or(0, |copies| usize::from(*copies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_who_comes_and_goes() {
        let mut near = ZoneAvailability::default();
        near.came(&Bitfield::all(9));
        assert_eq!(near.copies(PieceIndex(3)), 0, "without policy nothing is kept");
        near.recount(&Peers::new(), 9);
        near.came(&Bitfield::of_range(9, 2..5));
        near.gained(PieceIndex(4));
        near.gained(PieceIndex(9));
        let counts = |near: &ZoneAvailability| [1, 2, 4, 9].map(|piece| near.copies(PieceIndex(piece)));
        assert_eq!(counts(&near), [0, 1, 2, 0]);
        near.went(&Bitfield::of_range(9, 2..5));
        assert_eq!(counts(&near), [0, 0, 1, 0]);
    }
}
