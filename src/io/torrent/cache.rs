//! Pieces in memory, so that a piece is read from the disk once for all requests of its blocks.
//!
//! Invariant: at most `limit` pieces are kept, the least recently used goes first; a piece that is being read
//! is not read a second time. The engine's window for each peer bounds the waiting requests.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use lru::LruCache;

use crate::swarm::{Block, ConnId};
use crate::units::PieceIndex;

/// A block that a peer waits for.
pub(super) type Wanted = (ConnId, Block);

/// Recently written and read pieces, and the reads under way.
pub(super) struct PieceCache {
    limit: usize,
    pieces: LruCache<PieceIndex, Data>,
    waiting: HashMap<PieceIndex, Vec<Wanted>>,
    /// Pieces to be read that have no buffer yet.
    to_load: VecDeque<PieceIndex>,
}

/// Where the bytes of a block are.
#[derive(Debug, Clone)]
pub(super) enum Data {
    Here(Bytes),
    /// In memory that the system keeps: reading the storage gives them at once.
    Kept,
}

impl PieceCache {
    pub(super) fn new(limit: usize) -> Self {
        PieceCache {
            limit: limit.max(1),
            pieces: LruCache::unbounded(),
            waiting: HashMap::new(),
            to_load: VecDeque::new(),
        }
    }

    /// The bytes of `block`, or `None` after the waiting peer was noted.
    pub(super) fn get(&mut self, conn: ConnId, block: Block) -> Option<Data> {
        if let Some(data) = self.pieces.get(&block.piece) {
            return slice(data, block);
        }
        let waiting = self.waiting.entry(block.piece).or_default();
        if waiting.is_empty() {
            self.to_load.push_back(block.piece);
        }
        waiting.push((conn, block));
        None
    }

    /// The bytes of a piece that is here.
    pub(super) fn peek(&self, piece: PieceIndex) -> Option<Bytes> {
        self.pieces.peek(&piece).and_then(|data| match data {
            Data::Here(bytes) => Some(bytes.clone()),
            Data::Kept => None,
        })
    }

    /// Keeps a piece; returns the blocks that waited for it, with their bytes.
    pub(super) fn insert(&mut self, piece: PieceIndex, data: Data) -> Vec<(Wanted, Option<Data>)> {
        while self.pieces.len() >= self.limit && self.pieces.pop_lru().is_some() {}
        let waited = self.waiting.remove(&piece).unwrap_or_default();
        self.to_load.retain(|other| *other != piece);
        let served = waited.into_iter().map(|wanted| (wanted, slice(&data, wanted.1))).collect();
        self.pieces.put(piece, data);
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

    /// Drops the least recently used piece in memory; false if there is none.
    pub(super) fn evict(&mut self) -> bool {
        let oldest = self.pieces.iter().rev().find(|(_, data)| matches!(data, Data::Here(_)));
        let oldest = oldest.map(|(piece, _)| *piece);
        oldest.is_some_and(|piece| self.pieces.pop(&piece).is_some())
    }

    /// Forgets the pieces that `which` names.
    pub(super) fn forget_if(&mut self, which: impl Fn(PieceIndex) -> bool) {
        let gone: Vec<PieceIndex> =
            self.pieces.iter().map(|(piece, _)| *piece).filter(|piece| which(*piece)).collect();
        gone.iter().for_each(|piece| drop(self.pieces.pop(piece)));
    }
}

/// The block's part of a piece; `None` if it does not lie inside.
fn slice(piece: &Data, block: Block) -> Option<Data> {
    let Data::Here(piece) = piece else { return Some(Data::Kept) };
    let start = block.offset as usize;
    let end = start.checked_add(block.len as usize)?;
    (end <= piece.len()).then(|| Data::Here(piece.slice(start..end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId(1);

    fn here(bytes: &'static [u8]) -> Data {
        Data::Here(Bytes::from_static(bytes))
    }

    fn bytes(data: Option<&Data>) -> &[u8] {
        match data {
            Some(Data::Here(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

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
        let served = cache.insert(PieceIndex(3), here(b"abcd"));
        let parts: Vec<_> = served.iter().map(|(_, data)| bytes(data.as_ref())).collect();
        assert_eq!(parts, [b"ab", b"cd", b"bc"]);
        assert_eq!(bytes(cache.get(CONN, block(3, 2)).as_ref()), b"cd");
    }

    #[test]
    fn the_piece_that_was_not_used_for_longest_is_forgotten() {
        let mut cache = PieceCache::new(2);
        cache.insert(PieceIndex(1), here(b"abcd"));
        cache.insert(PieceIndex(2), here(b"abcd"));
        assert!(cache.get(CONN, block(1, 0)).is_some());
        cache.insert(PieceIndex(3), here(b"abcd"));
        assert!(cache.get(CONN, block(1, 0)).is_some());
        assert!(cache.get(CONN, block(2, 0)).is_none());
    }

    #[test]
    fn what_the_system_keeps_is_not_given_up_for_buffers() {
        let mut cache = PieceCache::new(2);
        cache.insert(PieceIndex(1), Data::Kept);
        cache.insert(PieceIndex(2), here(b"abcd"));
        assert!(cache.evict());
        assert!(!cache.evict());
        assert!(matches!(cache.get(CONN, block(1, 0)), Some(Data::Kept)));
    }
}
