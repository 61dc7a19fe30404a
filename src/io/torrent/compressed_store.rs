//! Frames in memory, to be sent to peers.
//!
//! Invariant: they have at most `limit` bytes together. The least recently used goes first, but never the one
//! that was requested last, because it is on its way. A piece's frame stays the same until it is dropped, so
//! that a peer's blocks fit together.

use bytes::Bytes;
use lru::LruCache;

use crate::swarm::Block;
use crate::units::PieceIndex;

/// The frames of a swarm.
pub(super) struct FrameStore {
    limit: usize,
    bytes: usize,
    asked_last: Option<PieceIndex>,
    frames: LruCache<PieceIndex, Bytes>,
}

impl FrameStore {
    pub(super) fn new(limit: usize) -> Self {
        FrameStore { limit, bytes: 0, asked_last: None, frames: LruCache::unbounded() }
    }

    /// The bytes of `block`, which is of a frame.
    pub(super) fn get(&mut self, block: Block) -> Option<Bytes> {
        let frame = self.frames.get(&block.piece)?;
        self.asked_last = Some(block.piece);
        let end = block.end().map(|end| end as usize).filter(|end| *end <= frame.len())?;
        Some(frame.slice(block.start() as usize..end))
    }

    /// Keeps a frame, unless this piece has one. Returns the pieces whose frames were dropped; the piece
    /// itself if there is no room for it.
    pub(super) fn keep(&mut self, piece: PieceIndex, frame: Bytes) -> Vec<PieceIndex> {
        if self.frames.contains(&piece) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        while self.bytes + frame.len() > self.limit {
            let Some(oldest) = self.oldest() else {
                gone.push(piece);
                return gone;
            };
            self.drop_frame(oldest);
            gone.push(oldest);
        }
        self.bytes += frame.len();
        self.frames.put(piece, frame);
        gone
    }

    /// Gives up the frames of the pieces that `which` names, and returns those pieces.
    pub(super) fn forget_if(&mut self, which: impl Fn(PieceIndex) -> bool) -> Vec<PieceIndex> {
        let gone: Vec<PieceIndex> =
            self.frames.iter().map(|(piece, _)| *piece).filter(|piece| which(*piece)).collect();
        gone.iter().for_each(|piece| self.drop_frame(*piece));
        gone
    }

    /// Bytes of the frame of `piece`.
    pub(super) fn len_of(&self, piece: PieceIndex) -> Option<usize> {
        self.frames.peek(&piece).map(Bytes::len)
    }

    fn oldest(&self) -> Option<PieceIndex> {
        let mut pieces = self.frames.iter().rev().map(|(piece, _)| *piece);
        pieces.find(|piece| Some(*piece) != self.asked_last)
    }

    fn drop_frame(&mut self, piece: PieceIndex) {
        self.bytes -= self.frames.pop(&piece).map_or(0, |frame| frame.len());
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
