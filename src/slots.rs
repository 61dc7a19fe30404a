//! Buffers of pieces that are being fetched, divided into slots, one for each block. The engine owns them;
//! the tasks that read from connections fill slots straight from the network.
//!
//! Invariant: the bytes of a slot count only once the engine committed them for the one connection that
//! claimed the slot and filled it, or wrote them itself; from then on nobody writes there. Whether a
//! connection was asked for a block is the engine's business: a stranger can claim a slot, and then the bytes
//! of the others only take the longer way through a message.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::buf::PieceBuf;
use crate::sync;
use crate::units::PieceIndex;

/// The place of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The block's offset as peers name it.
    pub offset: u32,
    /// Where its bytes begin in the buffer.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

impl Slot {
    /// Its bytes in the buffer.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

/// State of a slot: free, or committed, or a connection's (its number, shifted) and one of the two below.
const FREE: u64 = 0;
const COMMITTED: u64 = 1;
const CLAIMED: u64 = 2;
const FILLED: u64 = 3;

fn state(conn: u64, what: u64) -> u64 {
    conn << 2 | what
}

/// One piece's buffer and its slots; clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct PieceSlots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// In the order of their offsets.
    slots: Vec<Slot>,
    states: Vec<AtomicU64>,
    /// `None` when the piece is complete or given up. Locked while bytes are written.
    buf: Mutex<Option<PieceBuf>>,
}

impl PieceSlots {
    /// A buffer whose `slots` are all free.
    pub(crate) fn new(buf: PieceBuf, slots: Vec<Slot>) -> Self {
        let states = slots.iter().map(|_| AtomicU64::new(FREE)).collect();
        PieceSlots(Arc::new(Shared { slots, states, buf: Mutex::new(Some(buf)) }))
    }

    /// The slots, in the order of their offsets.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.0.slots
    }

    /// Which slot is that of a block.
    pub(crate) fn position(&self, offset: u32, len: u32) -> Option<usize> {
        let slots = self.slots();
        let at = slots.binary_search_by_key(&offset, |slot| slot.offset).ok()?;
        (slots[at].len == len).then_some(at)
    }

    /// Commits the slot that `conn` has filled. False if `conn` has not, or has lost it to another.
    pub(crate) fn commit(&self, at: usize, conn: u64) -> bool {
        self.change(at, state(conn, FILLED), COMMITTED)
    }

    /// Writes and commits a block that came as a message. False if the buffer is gone.
    pub(crate) fn write(&self, at: usize, data: &[u8]) -> bool {
        let mut buf = self.buf();
        let start = self.slots()[at].start as usize;
        let Some(place) = buf.as_mut().and_then(|buf| buf.get_mut(start..start + data.len())) else {
            return false;
        };
        if self.0.states[at].swap(COMMITTED, Ordering::AcqRel) != COMMITTED {
            place.copy_from_slice(data);
        }
        true
    }

    /// Locks the buffer. Bytes that are half written when a thread panics are not committed.
    pub(crate) fn buf(&self) -> MutexGuard<'_, Option<PieceBuf>> {
        sync::lock(&self.0.buf)
    }

    fn is(&self, at: usize, state: u64) -> bool {
        self.0.states[at].load(Ordering::Acquire) == state
    }

    fn change(&self, at: usize, from: u64, to: u64) -> bool {
        self.0.states[at].compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// All pieces that are being fetched; clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct InflightPieces(Arc<Mutex<BTreeMap<PieceIndex, PieceSlots>>>);

impl InflightPieces {
    /// Claims the slot of a block that is about to be read from `conn`. `None` if it has none, or another
    /// connection has it.
    pub(crate) fn claim(&self, conn: u64, piece: PieceIndex, offset: u32, len: u32) -> Option<BlockWriter> {
        let slots = sync::lock(&self.0).get(&piece)?.clone();
        let at = slots.position(offset, len)?;
        let claimed = slots.change(at, FREE, state(conn, CLAIMED));
        claimed.then_some(BlockWriter { conn, piece, slots, at, done: 0 })
    }

    /// `piece` is being fetched from now on.
    pub(crate) fn open(&self, piece: PieceIndex, slots: PieceSlots) {
        sync::lock(&self.0).insert(piece, slots);
    }

    /// The piece is complete, or given up: its buffer. A reader of one of its blocks will find no slot.
    pub(crate) fn close(&self, piece: PieceIndex) -> Option<PieceBuf> {
        let slots = sync::lock(&self.0).remove(&piece)?;
        slots.buf().take()
    }
}

/// A claimed slot that is being filled. Dropped before it is full, it frees the slot.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    conn: u64,
    piece: PieceIndex,
    slots: PieceSlots,
    at: usize,
    done: usize,
}

impl BlockWriter {
    pub(crate) fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// The buffer that it writes to.
    pub(crate) fn slots(&self) -> &PieceSlots {
        &self.slots
    }

    /// The slot.
    pub(crate) fn slot(&self) -> Slot {
        self.slots.slots()[self.at]
    }

    /// Bytes that have not come.
    pub(crate) fn rest(&self) -> usize {
        self.slot().len as usize - self.done
    }

    /// Where they belong in the buffer.
    pub(crate) fn rest_range(&self) -> Range<usize> {
        let all = self.slot().range();
        all.start + self.done..all.end
    }

    /// The slots after this one that are free, `most` at most.
    pub(crate) fn following(&self, most: usize) -> impl Iterator<Item = Slot> {
        let slots = self.slots.slots();
        let free = (self.at + 1..slots.len()).take_while(|at| self.slots.is(*at, FREE));
        free.take(most).map(|at| slots[at])
    }

    /// Whether the slot is still its own. The engine may have committed the same block from another peer.
    pub(crate) fn keeps_slot(&self) -> bool {
        self.slots.is(self.at, state(self.conn, CLAIMED))
    }

    /// Counts bytes of this block that were written, `most` at most; returns how many. At the last of them
    /// the slot is filled.
    pub(crate) fn advance(&mut self, most: usize) -> usize {
        let count = most.min(self.rest());
        self.done += count;
        if count > 0 && self.rest() == 0 {
            self.slots.change(self.at, state(self.conn, CLAIMED), state(self.conn, FILLED));
        }
        count
    }

    /// Goes on with the slot after this one, which is full. False if that is no longer free.
    pub(crate) fn claim_next(&mut self) -> bool {
        let next = self.slots.change(self.at + 1, FREE, state(self.conn, CLAIMED));
        if next {
            self.at += 1;
            self.done = 0;
        }
        next
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        self.slots.change(self.at, state(self.conn, CLAIMED), FREE);
    }
}
