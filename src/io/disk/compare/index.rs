//! Finding pieces by their hash.
//!
//! Invariant: four bytes for each piece and nothing else beside the hashes themselves, so that a million
//! pieces fit into a small terminal. Equal pieces are one group, named by its first position in the order of
//! hashes.

use sha2::Digest;

use crate::units::{PieceIndex, PieceLength, Sha256};

/// Pieces in the order of their hashes.
pub(super) struct Index<'a> {
    hashes: &'a [Sha256],
    order: Vec<u32>,
    zeros: Sha256,
}

impl<'a> Index<'a> {
    pub(super) fn new(hashes: &'a [Sha256], length: PieceLength) -> Self {
        let mut order: Vec<u32> = (0..u32::try_from(hashes.len()).unwrap_or(u32::MAX)).collect();
        order.sort_unstable_by_key(|piece| hashes[*piece as usize].0);
        let zeros = sha2::Sha256::digest(vec![0u8; length.get() as usize]);
        Index { hashes, order, zeros: Sha256(zeros.into()) }
    }

    /// The group of the pieces with this hash.
    pub(super) fn group(&self, hash: &Sha256) -> Option<u32> {
        let first = self.order.partition_point(|piece| self.hashes[*piece as usize].0 < hash.0);
        let piece = self.order.get(first)?;
        (self.hashes[*piece as usize] == *hash).then(|| u32::try_from(first).ok()).flatten()
    }

    /// The group that this piece is in.
    pub(super) fn group_of(&self, piece: PieceIndex) -> Option<u32> {
        self.group(self.hashes.get(piece.get())?)
    }

    /// Has this group more than one piece?
    pub(super) fn is_shared(&self, group: u32) -> bool {
        let at = |position: usize| self.order.get(position).map(|piece| self.hashes[*piece as usize]);
        at(group as usize + 1).is_some_and(|next| Some(next) == at(group as usize))
    }

    /// Has this piece this hash (`None`: that of zeros)?
    pub(super) fn is(&self, piece: PieceIndex, hash: Option<Sha256>) -> bool {
        self.hashes.get(piece.get()) == Some(&hash.unwrap_or(self.zeros))
    }
}
