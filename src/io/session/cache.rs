//! Pieces in memory, so that a piece is read from the disk once for the many blocks that peers ask of it.
//!
//! Invariant: at most `limit` pieces are kept, the least recently used goes first; a piece that is being read is
//! read once, however many ask. The blocks that wait for it are bounded by the engine's window for each peer.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::swarm::{Block, ConnId};
use crate::units::PieceIndex;

/// A block that a peer waits for.
pub(super) type Wanted = (ConnId, Block);

/// Recently written and read pieces, and the reads under way.
pub(super) struct PieceCache {
    limit: usize,
    pieces: HashMap<PieceIndex, Kept>,
    clock: u64,
    waiting: HashMap<PieceIndex, Vec<Wanted>>,
    /// Pieces to be read that have no buffer yet.
    to_load: VecDeque<PieceIndex>,
}

struct Kept {
    bytes: Bytes,
    used: u64,
}

impl PieceCache {
    pub(super) fn new(limit: usize) -> Self {
        PieceCache {
            limit: limit.max(1),
            pieces: HashMap::new(),
            clock: 0,
            waiting: HashMap::new(),
            to_load: VecDeque::new(),
        }
    }

    /// The bytes of `block`, or `None` after it was noted who waits for them.
    pub(super) fn get(&mut self, conn: ConnId, block: Block) -> Option<Bytes> {
        self.clock += 1;
        if let Some(kept) = self.pieces.get_mut(&block.piece) {
            kept.used = self.clock;
            return slice(&kept.bytes, block);
        }
        let waiting = self.waiting.entry(block.piece).or_default();
        if waiting.is_empty() {
            self.to_load.push_back(block.piece);
        }
        waiting.push((conn, block));
        None
    }

    /// Keeps a piece; returns the blocks that waited for it, with their bytes.
    pub(super) fn insert(&mut self, piece: PieceIndex, bytes: Bytes) -> Vec<(Wanted, Option<Bytes>)> {
        while self.pieces.len() >= self.limit && self.evict() {}
        self.clock += 1;
        let waited = self.waiting.remove(&piece).unwrap_or_default();
        self.to_load.retain(|other| *other != piece);
        let served = waited.into_iter().map(|wanted| (wanted, slice(&bytes, wanted.1))).collect();
        self.pieces.insert(piece, Kept { bytes, used: self.clock });
        served
    }

    /// The piece cannot be read; returns the blocks that waited for it.
    pub(super) fn give_up(&mut self, piece: PieceIndex) -> Vec<Wanted> {
        self.waiting.remove(&piece).unwrap_or_default()
    }

    /// The next piece to be read, once there is a buffer for it.
    pub(super) fn next_load(&mut self) -> Option<PieceIndex> {
        self.to_load.pop_front()
    }

    /// True if a piece waits to be read.
    pub(super) fn wants_load(&self) -> bool {
        !self.to_load.is_empty()
    }

    /// Forgets the piece that was not used for the longest time; false if there is none.
    pub(super) fn evict(&mut self) -> bool {
        let oldest = self.pieces.iter().min_by_key(|(_, kept)| kept.used).map(|(piece, _)| *piece);
        oldest.is_some_and(|piece| self.pieces.remove(&piece).is_some())
    }
}

/// The block's part of a piece; `None` if it does not lie inside.
fn slice(piece: &Bytes, block: Block) -> Option<Bytes> {
    let start = block.offset as usize;
    let end = start.checked_add(block.len as usize)?;
    (end <= piece.len()).then(|| piece.slice(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId(1);

    fn block(piece: u32, offset: u32) -> Block {
        Block { piece: PieceIndex(piece), offset, len: 2 }
    }

    #[test]
    fn a_piece_is_loaded_once_for_all_who_wait() {
        let mut cache = PieceCache::new(2);
        assert!(cache.get(CONN, block(3, 0)).is_none());
        assert!(cache.get(ConnId(2), block(3, 2)).is_none());
        assert_eq!(cache.next_load(), Some(PieceIndex(3)));
        assert_eq!(cache.next_load(), None);
        assert!(cache.get(CONN, block(3, 1)).is_none(), "it is still being read");
        assert_eq!(cache.next_load(), None);
        let served = cache.insert(PieceIndex(3), Bytes::from_static(b"abcd"));
        let bytes: Vec<_> = served.iter().map(|(_, bytes)| bytes.as_deref().unwrap()).collect();
        assert_eq!(bytes, [b"ab", b"cd", b"bc"]);
        assert_eq!(cache.get(CONN, block(3, 2)).as_deref(), Some(&b"cd"[..]));
    }

    #[test]
    fn the_piece_that_was_not_used_for_longest_is_forgotten() {
        let mut cache = PieceCache::new(2);
        cache.insert(PieceIndex(1), Bytes::from_static(b"abcd"));
        cache.insert(PieceIndex(2), Bytes::from_static(b"abcd"));
        assert!(cache.get(CONN, block(1, 0)).is_some());
        cache.insert(PieceIndex(3), Bytes::from_static(b"abcd"));
        assert!(cache.get(CONN, block(1, 0)).is_some());
        assert!(cache.get(CONN, block(2, 0)).is_none());
    }
}
