//! Frames: pieces compressed with zstd, as they may travel between flashmob peers.
//!
//! The driver of the engine keeps the frames; the engine knows only their lengths. Frames that came from
//! peers are passed on. Others are asked for when their pieces are about to be offered, and no offer waits
//! for one: a piece without a frame travels as it is.
//!
//! Invariant: a frame that was named in an offer is served until the driver says that it is gone, and from
//! then on requests for it are rejected; at most `frames_ahead` are being made. The driver compresses, and
//! decides which frames are worth keeping.

use std::collections::{BTreeMap, BTreeSet};

use crate::bitfield::Bitfield;
use crate::swarm::geometry::Block;
use crate::swarm::interface::FrameState;
use crate::swarm::ratio::Ratio;
use crate::swarm::wire::flashmob::Offered;
use crate::units::PieceIndex;

/// Frames are taken that have at most this part of the bytes that travel otherwise: for less it is not worth
/// the work.
const WORTH: Ratio = Ratio(9, 10);

/// The state of our pieces' frames.
#[derive(Debug)]
pub(crate) struct CompressedPieces {
    ready: BTreeMap<PieceIndex, u32>,
    useless: Bitfield,
    making: BTreeSet<PieceIndex>,
}

impl CompressedPieces {
    /// None yet.
    pub(crate) fn new(pieces: u32) -> Self {
        CompressedPieces { ready: BTreeMap::new(), useless: Bitfield::none(pieces), making: BTreeSet::new() }
    }

    /// Bytes of the frame of `piece`; 0 without a frame.
    pub(crate) fn len_of(&self, piece: PieceIndex) -> u32 {
        self.ready.get(&piece).copied().unwrap_or(0)
    }

    /// The pieces that have frames, from `start` on and around.
    pub(crate) fn around(&self, start: PieceIndex) -> impl Iterator<Item = PieceIndex> {
        self.ready.range(start..).chain(self.ready.range(..start)).map(|(piece, _)| *piece)
    }

    /// Whether `block` is of a frame that is there.
    pub(crate) fn has(&self, block: Block) -> bool {
        block.end().is_some_and(|end| end <= self.len_of(block.piece))
    }

    /// The driver says that a frame is ready, useless or gone.
    pub(crate) fn changed(&mut self, piece: PieceIndex, state: FrameState) {
        self.making.remove(&piece);
        match state {
            FrameState::Ready(len) => {
                self.ready.insert(piece, len);
            }
            FrameState::Useless => {
                self.useless.insert(piece);
            }
            FrameState::Gone => {
                self.ready.remove(&piece);
            }
        }
    }

    /// How `pieces` are offered to a peer that takes frames.
    pub(crate) fn offered(&self, pieces: &[PieceIndex]) -> Vec<Offered> {
        pieces.iter().map(|piece| Offered { piece: *piece, frame: self.len_of(*piece) }).collect()
    }

    /// `pieces` are being offered to a peer that takes frames: the pieces of which frames shall be made for
    /// the next offers, so that `ahead` are ready or being made.
    pub(crate) fn next_to_make(&mut self, pieces: &[PieceIndex], ahead: usize) -> Vec<PieceIndex> {
        let ready = pieces.iter().filter(|piece| self.len_of(**piece) > 0).count();
        let room = ahead.saturating_sub(ready).min(ahead.saturating_sub(self.making.len()));
        let mut begun = Vec::new();
        for piece in pieces {
            if begun.len() < room && !self.is_settled(*piece) && self.making.insert(*piece) {
                begun.push(*piece);
            }
        }
        begun
    }

    fn is_settled(&self, piece: PieceIndex) -> bool {
        self.ready.contains_key(&piece) || self.useless.has(piece)
    }
}

/// The longest frame that is taken for a piece of which `travels` bytes travel otherwise.
pub(crate) fn longest(travels: u64) -> u32 {
    u32::try_from(WORTH.of(travels)).unwrap_or(u32::MAX)
}
