//! Where blocks land: the buffers of pieces under way, shared by the engine, which owns them, and by those
//! who read from the network straight into them.
//!
//! Invariant: what a block's place holds counts only once the engine took it from the one connection that
//! claimed the place and filled it, or wrote it itself; from then on nobody writes there. Whether a
//! connection was asked for a block is the engine's business: a stranger can claim a place and only makes the
//! others' bytes go the long way.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use crate::buf::PieceBuf;
use crate::swarm::interface::ConnId;
use crate::swarm::pieces::geometry::Block;
use crate::swarm::wire::codec::{PIECE_HEADER_LEN, encode_piece_header};
use crate::units::PieceIndex;

/// Blocks behind the one under way that are read with the same call, if they come as expected.
const LOOK_AHEAD: usize = 15;
/// Bytes of a block that nobody needs any more, read at once.
const SINK: usize = 4096;

/// State of a place: nobody's, or here, or a connection's (its number, shifted) and one of the two below.
const OPEN: u64 = 0;
const HERE: u64 = 1;
const CLAIMED: u64 = 2;
const FULL: u64 = 3;

fn state(conn: ConnId, what: u64) -> u64 {
    conn.0 << 2 | what
}

/// One piece's buffer and the places of its blocks.
#[derive(Debug)]
pub struct Landing {
    /// Ascending.
    blocks: Vec<Block>,
    places: Vec<AtomicU64>,
    /// `None` when the piece is whole or given up. Held while bytes are written, by whomever.
    buf: Mutex<Option<PieceBuf>>,
}

impl Landing {
    pub(in crate::swarm) fn new(mut buf: PieceBuf, blocks: Vec<Block>) -> Self {
        if !blocks.last().is_some_and(Block::in_frame) {
            let mut end = 0;
            for block in blocks.iter().map(range) {
                buf[end..block.start].fill(0);
                end = block.end;
            }
            buf[end..].fill(0);
        }
        let places = blocks.iter().map(|_| AtomicU64::new(OPEN)).collect();
        Landing { blocks, places, buf: Mutex::new(Some(buf)) }
    }

    pub(in crate::swarm) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(in crate::swarm) fn position(&self, block: Block) -> Option<usize> {
        let at = self.blocks.binary_search_by_key(&block.offset, |known| known.offset).ok()?;
        (self.blocks[at] == block).then_some(at)
    }

    /// `conn` has filled the place: it is here from now on. False if `conn` has not, or has lost it to
    /// another.
    pub(in crate::swarm) fn settle(&self, at: usize, conn: ConnId) -> bool {
        self.change(at, state(conn, FULL), HERE)
    }

    /// Writes a block that came another way. False if there is no place for it.
    pub(in crate::swarm) fn write(&self, at: usize, data: &[u8]) -> bool {
        let mut buf = self.lock();
        let start = self.blocks[at].start() as usize;
        let Some(place) = buf.as_mut().and_then(|buf| buf.get_mut(start..start + data.len())) else {
            return false;
        };
        if self.places[at].swap(HERE, Ordering::AcqRel) != HERE {
            place.copy_from_slice(data);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<PieceBuf>> {
        // What is half written when somebody panics does not count as here.
        self.buf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, at: usize, state: u64) -> bool {
        self.places[at].load(Ordering::Acquire) == state
    }

    fn change(&self, at: usize, from: u64, to: u64) -> bool {
        self.places[at].compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// All pieces under way; clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub struct Landings {
    pieces: Arc<Mutex<BTreeMap<PieceIndex, Arc<Landing>>>>,
}

impl Landings {
    /// Claims the place of a block that is about to be read from `conn`. `None` if it has none, or not any
    /// more.
    pub fn claim(&self, conn: ConnId, block: Block) -> Option<Descent> {
        let landing = Arc::clone(self.lock().get(&block.piece)?);
        let at = landing.position(block)?;
        landing.change(at, OPEN, state(conn, CLAIMED)).then_some(Descent { conn, landing, at, done: 0 })
    }

    pub(in crate::swarm) fn open(&self, piece: PieceIndex, landing: Arc<Landing>) {
        self.lock().insert(piece, landing);
    }

    /// The piece is whole, or given up: its buffer. A reader of one of its blocks will find no place.
    pub(in crate::swarm) fn shut(&self, piece: PieceIndex) -> Option<PieceBuf> {
        let landing = self.lock().remove(&piece)?;
        landing.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PieceIndex, Arc<Landing>>> {
        // The map is whole after each line.
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block on its way from the network into its place. Dropped before it is full, it gives the place back.
#[derive(Debug)]
pub struct Descent {
    conn: ConnId,
    landing: Arc<Landing>,
    at: usize,
    done: usize,
}

impl Descent {
    /// The block.
    pub fn block(&self) -> Block {
        self.landing.blocks[self.at]
    }

    /// Bytes that have not come.
    pub fn rest(&self) -> usize {
        self.block().len as usize - self.done
    }

    /// Takes the first of bytes that were read already; returns how many. A block that is full is appended to
    /// `arrived`.
    pub fn put(&mut self, bytes: &[u8], arrived: &mut Vec<Block>) -> usize {
        let count = bytes.len().min(self.rest());
        let mut buf = self.landing.lock();
        if let Some(buf) = buf.as_mut().filter(|_| self.keeps_place()) {
            let start = self.block().start() as usize + self.done;
            buf[start..start + count].copy_from_slice(&bytes[..count]);
        }
        drop(buf);
        self.advance(count, arrived);
        count
    }

    /// Calls `read` once, with places for the rest of the block and for those that are expected behind it.
    /// Blocks that are full now are appended to `arrived`; bytes that are no block's go to `others`. Returns
    /// what `read` did.
    pub fn read(
        &mut self,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
        arrived: &mut Vec<Block>,
        others: &mut BytesMut,
    ) -> io::Result<usize> {
        let landing = Arc::clone(&self.landing);
        let mut buf = landing.lock();
        let Some(buf) = buf.as_mut().filter(|_| self.keeps_place()) else {
            let mut sink = [0; SINK];
            let most = self.rest().min(SINK);
            let count = read(&mut [IoSliceMut::new(&mut sink[..most])])?;
            self.advance(count, arrived);
            return Ok(count);
        };
        let expected = self.expected();
        let mut heads = [[0; PIECE_HEADER_LEN]; LOOK_AHEAD + 1];
        let count = read(&mut self.places(&expected, buf, &mut heads))?;
        let mut left = count - self.advance(count, arrived);
        for (block, head) in expected.iter().zip(&heads) {
            if left < PIECE_HEADER_LEN || *head != encode_piece_header(*block) || !self.go_on() {
                break;
            }
            left -= PIECE_HEADER_LEN;
            left -= self.advance(left, arrived);
        }
        // What came behind the last block that was expected right: also what lies where blocks were expected
        // and others came.
        let behind = expected.iter().position(|block| *block > self.block()).unwrap_or(expected.len());
        for (number, head) in heads.iter().enumerate().skip(behind) {
            let block = expected.get(number).map_or(0..0, range);
            for part in [&head[..], &buf[block]] {
                let taken = part.len().min(left);
                others.extend_from_slice(&part[..taken]);
                left -= taken;
            }
        }
        Ok(count)
    }

    /// The blocks behind this one that have not come.
    fn expected(&self) -> Vec<Block> {
        let open = (self.at + 1..self.landing.blocks.len()).take_while(|at| self.landing.is(*at, OPEN));
        open.take(LOOK_AHEAD).map(|at| self.landing.blocks[at]).collect()
    }

    /// The rest of this block, and a header and the block for each that is expected; at last a header.
    fn places<'a>(
        &self,
        expected: &[Block],
        buf: &'a mut PieceBuf,
        heads: &'a mut [[u8; PIECE_HEADER_LEN]],
    ) -> Vec<IoSliceMut<'a>> {
        let mut places = Vec::with_capacity(2 * LOOK_AHEAD + 2);
        let own = range(&self.block());
        let (mut tail, mut from) = (&mut buf[..], 0);
        let mut heads = heads.iter_mut();
        for block in std::iter::once(own.start + self.done..own.end).chain(expected.iter().map(range)) {
            let (_, behind) = std::mem::take(&mut tail).split_at_mut(block.start - from);
            let (place, behind) = behind.split_at_mut(block.len());
            (tail, from) = (behind, block.end);
            places.push(IoSliceMut::new(place));
            places.extend(heads.next().map(|head| IoSliceMut::new(head)));
        }
        places
    }

    /// Counts bytes of this block, `most` at most; returns how many.
    fn advance(&mut self, most: usize, arrived: &mut Vec<Block>) -> usize {
        let count = most.min(self.rest());
        self.done += count;
        if count > 0 && self.rest() == 0 {
            self.landing.change(self.at, state(self.conn, CLAIMED), state(self.conn, FULL));
            arrived.push(self.block());
        }
        count
    }

    /// This block is full and the next one has begun.
    fn go_on(&mut self) -> bool {
        let next = self.landing.change(self.at + 1, OPEN, state(self.conn, CLAIMED));
        if next {
            self.at += 1;
            self.done = 0;
        }
        next
    }

    fn keeps_place(&self) -> bool {
        self.landing.is(self.at, state(self.conn, CLAIMED))
    }
}

impl Drop for Descent {
    fn drop(&mut self) {
        self.landing.change(self.at, state(self.conn, CLAIMED), OPEN);
    }
}

fn range(block: &Block) -> std::ops::Range<usize> {
    block.start() as usize..(block.start() + block.len) as usize
}
