//! Frames in memory, to be sent to peers.
//!
//! Invariant: they have at most `limit` bytes together. The least recently used goes first, but never the one
//! that was requested last, because it is on its way. A piece's frame stays the same until it is dropped, so
//! that a peer's blocks fit together.

use std::collections::HashMap;

use bytes::Bytes;

use crate::swarm::Block;
use crate::units::PieceIndex;

/// The frames of a swarm.
pub(super) struct FrameStore {
    limit: usize,
    bytes: usize,
    clock: u64,
    asked_last: Option<PieceIndex>,
    frames: HashMap<PieceIndex, Kept>,
}

struct Kept {
    bytes: Bytes,
    used: u64,
}

impl FrameStore {
    pub(super) fn new(limit: usize) -> Self {
        FrameStore { limit, bytes: 0, clock: 0, asked_last: None, frames: HashMap::new() }
    }

    /// The bytes of `block`, which is of a frame.
    pub(super) fn get(&mut self, block: Block) -> Option<Bytes> {
        self.clock += 1;
        let kept = self.frames.get_mut(&block.piece)?;
        kept.used = self.clock;
        self.asked_last = Some(block.piece);
        let end = block.end().map(|end| end as usize).filter(|end| *end <= kept.bytes.len())?;
        Some(kept.bytes.slice(block.start() as usize..end))
    }

    /// Keeps a frame, unless this piece has one. Returns the pieces whose frames were dropped; the piece
    /// itself if there is no room for it.
    pub(super) fn keep(&mut self, piece: PieceIndex, frame: Bytes) -> Vec<PieceIndex> {
        if self.frames.contains_key(&piece) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        while self.bytes + frame.len() > self.limit {
            let Some(oldest) = self.oldest() else {
                gone.push(piece);
                return gone;
            };
            if let Some(kept) = self.frames.remove(&oldest) {
                self.bytes -= kept.bytes.len();
            }
            gone.push(oldest);
        }
        self.clock += 1;
        self.bytes += frame.len();
        self.frames.insert(piece, Kept { bytes: frame, used: self.clock });
        gone
    }

    /// Gives up the frames of the pieces that `which` names, and returns those pieces.
    pub(super) fn forget_if(&mut self, which: impl Fn(PieceIndex) -> bool) -> Vec<PieceIndex> {
        let gone: Vec<PieceIndex> = self.frames.keys().copied().filter(|piece| which(*piece)).collect();
        for piece in &gone {
            self.bytes -= self.frames.remove(piece).map_or(0, |kept| kept.bytes.len());
        }
        gone
    }

    /// Bytes of the frame of `piece`.
    pub(super) fn len_of(&self, piece: PieceIndex) -> Option<usize> {
        self.frames.get(&piece).map(|kept| kept.bytes.len())
    }

    fn oldest(&self) -> Option<PieceIndex> {
        let others = self.frames.iter().filter(|(piece, _)| Some(**piece) != self.asked_last);
        others.min_by_key(|(_, kept)| kept.used).map(|(piece, _)| *piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_kept_within_the_limit_and_stay_what_they_are() {
        let piece = PieceIndex;
        let first = |piece| Block::of_frame(piece, 4)[0];
        let mut store = FrameStore::new(10);
        assert_eq!(store.keep(piece(1), Bytes::from_static(b"abcd")), []);
        assert_eq!(store.keep(piece(1), Bytes::from_static(b"other")), []);
        assert_eq!(store.keep(piece(2), Bytes::from_static(b"efgh")), []);
        assert_eq!(store.get(first(piece(1))).as_deref(), Some(&b"abcd"[..]));
        assert_eq!(store.keep(piece(3), Bytes::from_static(b"ijkl")), [piece(2)]);
        assert_eq!(store.get(first(piece(2))), None);
        assert_eq!(
            store.keep(piece(4), Bytes::from_static(b"1234567")),
            [piece(3), piece(4)],
            "1 is on its way"
        );
        assert_eq!(store.get(first(piece(1))).as_deref(), Some(&b"abcd"[..]));
        assert_eq!(store.get(Block { len: 5, ..first(piece(1)) }), None, "beyond its end");
        assert_eq!((store.len_of(piece(1)), store.len_of(piece(4))), (Some(4), None));
    }
}
