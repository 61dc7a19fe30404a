//! One piece on its way from blocks to a whole, as it is or as a frame.
//!
//! Invariant: `missing` counts the blocks that are not here, `free` those that nobody was asked for. Where
//! their bytes lie is for [`PieceSlots`] to know. A frame comes from one peer: others' frames of the same
//! piece are other bytes.

use crate::buf::PieceBuf;
use crate::slots::{PieceSlots, Slot};
use crate::swarm::geometry::Block;
use crate::swarm::interface::ConnId;
use crate::swarm::rate::SWALLOWED;
use crate::units::Now;
use std::time::Duration;

/// The state of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockState {
    Free,
    Asked(ConnId),
    /// End game: two peers were asked.
    Twice(ConnId, ConnId),
    Here,
}

/// A piece that is being fetched.
#[derive(Debug)]
pub(crate) struct ActivePiece {
    /// Ascending.
    blocks: Vec<Block>,
    states: Vec<BlockState>,
    slots: PieceSlots,
    missing: usize,
    free: usize,
    /// No block before this one is free.
    first: usize,
    /// The peer that is to send all of it, if there is one.
    owner: Option<ConnId>,
    /// It came with a wrong hash before: only one peer sends it, so that the next time it is clear who is to
    /// blame.
    solo: bool,
    /// When the owner was asked first.
    since: Now,
    /// Bytes that are still to come before the run.
    head: u64,
    /// When its run began, and how many bytes came since.
    run: Option<(Now, u64)>,
    /// The peers that sent blocks of it, each once.
    contributors: Vec<ConnId>,
}

/// How a block came.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Delivery<'a> {
    /// Its connection claimed its slot and filled it.
    InSlot,
    /// As a message with these bytes.
    Bytes(&'a [u8]),
}

/// Divides `buf` into slots for `blocks`. Bytes of a piece that do not travel are zeros.
pub(crate) fn slots_of(mut buf: PieceBuf, blocks: &[Block]) -> PieceSlots {
    if !blocks.last().is_some_and(Block::in_frame) {
        let mut end = 0;
        for block in blocks {
            buf[end..block.start() as usize].fill(0);
            end = (block.start() + block.len) as usize;
        }
        buf[end..].fill(0);
    }
    let slot = |block: &Block| Slot { offset: block.offset, start: block.start(), len: block.len };
    PieceSlots::new(buf, blocks.iter().map(slot).collect())
}

/// The use of a block that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It was here already, or is not a block of this piece.
    Useless,
    /// Its place was not its sender's when it came: its bytes are nowhere. It is still missing.
    Lost,
    /// It was missing; the other peer that was asked for it need not send it.
    New {
        /// Another peer that was asked for the block.
        recall: Option<ConnId>,
    },
}

impl ActivePiece {
    /// A piece (or its frame) of which nothing is here.
    pub(crate) fn new(blocks: Vec<Block>, slots: PieceSlots, owner: ConnId, solo: bool, now: Now) -> Self {
        let count = blocks.len();
        let travels: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
        ActivePiece {
            blocks,
            states: vec![BlockState::Free; count],
            slots,
            missing: count,
            free: count,
            first: 0,
            owner: Some(owner),
            solo,
            since: now,
            head: SWALLOWED.min(travels / 4),
            run: None,
            contributors: Vec::new(),
        }
    }

    /// Begins anew where other blocks land. Returns how many bytes were here in vain.
    pub(crate) fn restart(&mut self, blocks: Vec<Block>, slots: PieceSlots) -> u64 {
        let here = self.states.iter().zip(&self.blocks).filter(|(slot, _)| **slot == BlockState::Here);
        let dropped = here.map(|(_, block)| u64::from(block.len)).sum();
        let count = blocks.len();
        (self.blocks, self.slots) = (blocks, slots);
        self.states = vec![BlockState::Free; count];
        (self.missing, self.free, self.first) = (count, count, 0);
        self.run = None;
        self.contributors.clear();
        dropped
    }

    /// The peer that is to send all of it, if there is one.
    pub(crate) fn owner(&self) -> Option<ConnId> {
        self.owner
    }

    /// When the owner was asked first.
    pub(crate) fn since(&self) -> Now {
        self.since
    }

    /// `owner` is to send all of it from `since` on.
    pub(crate) fn assign(&mut self, owner: ConnId, since: Now) {
        (self.owner, self.since) = (Some(owner), since);
    }

    /// Takes it away from its owner.
    pub(crate) fn disown(&mut self) {
        self.owner = None;
    }

    /// Only one peer may send it, because it came with a wrong hash before.
    pub(crate) fn is_solo(&self) -> bool {
        self.solo
    }

    /// The peers that sent blocks of it, each once.
    pub(crate) fn contributors(&self) -> &[ConnId] {
        &self.contributors
    }

    /// Whether `conn` may send blocks of it: with one sender only, the next wrong hash has a known cause.
    pub(crate) fn may_come_from(&self, conn: ConnId) -> bool {
        !self.solo || self.contributors.is_empty() || self.contributors == [conn]
    }

    /// It may come from its owner only.
    pub(crate) fn has_one_source(&self) -> bool {
        self.solo || self.frame().is_some()
    }

    fn position(&self, block: Block) -> Option<usize> {
        let at = self.blocks.binary_search_by_key(&block.offset, |known| known.offset).ok()?;
        (self.blocks[at] == block).then_some(at)
    }

    /// The length of the frame that is being fetched in place of the piece.
    pub(crate) fn frame(&self) -> Option<u32> {
        self.blocks.last().filter(|block| block.in_frame()).and_then(Block::end)
    }

    /// Blocks that are not here.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// A block of `bytes` came at `now`.
    pub(crate) fn count(&mut self, bytes: u64, now: Now) {
        if self.head > 0 || self.run.is_none() {
            self.head = self.head.saturating_sub(bytes);
            self.run = Some((now, 0));
        } else if let Some((_, came)) = &mut self.run {
            *came += bytes;
        }
    }

    /// Bytes that came after the first of them, which queues may have held, and the time they took: what one
    /// peer that sends the whole piece shows of our downlink.
    pub(crate) fn run(&self, now: Now) -> Option<(u64, Duration)> {
        let (first, bytes) = self.run.filter(|(_, bytes)| *bytes > 0)?;
        Some((bytes, now.since(first)))
    }

    /// Bytes a second that came since its owner was to begin.
    pub(crate) fn pace(&self, now: Now) -> u64 {
        let here = self.states.iter().zip(&self.blocks).filter(|(slot, _)| **slot == BlockState::Here);
        let bytes: u128 = here.map(|(_, block)| u128::from(block.len)).sum();
        u64::try_from(bytes * 1_000_000 / now.since(self.since).as_micros().max(1)).unwrap_or(u64::MAX)
    }

    /// Bytes that are not here.
    pub(crate) fn missing_bytes(&self) -> u64 {
        let lacking = self.states.iter().zip(&self.blocks).filter(|(slot, _)| **slot != BlockState::Here);
        lacking.map(|(_, block)| u64::from(block.len)).sum()
    }

    /// Bytes that no peer was asked for.
    pub(crate) fn free_bytes(&self) -> u32 {
        let free = self.states.iter().zip(&self.blocks).filter(|(slot, _)| **slot == BlockState::Free);
        free.map(|(_, block)| block.len).sum()
    }

    /// Blocks that no peer was asked for.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// True if no block arrived yet.
    pub(crate) fn untouched(&self) -> bool {
        self.missing == self.states.len()
    }

    /// Marks a block that nobody was asked for as asked of `conn`: the first, or the last for a helper.
    pub(crate) fn ask(&mut self, conn: ConnId, from_end: bool) -> Option<Block> {
        let is_free = |slot: &BlockState| *slot == BlockState::Free;
        let slots = &self.states[self.first..];
        let at = if from_end { slots.iter().rposition(is_free) } else { slots.iter().position(is_free) };
        let at = self.first + at?;
        if !from_end {
            self.first = at + 1;
        }
        self.states[at] = BlockState::Asked(conn);
        self.free -= 1;
        Some(self.blocks[at])
    }

    /// End game: the last block that only `from` was asked for is asked of `conn` too.
    pub(crate) fn ask_again(&mut self, conn: ConnId, from: impl Fn(ConnId) -> bool) -> Option<Block> {
        let at = self
            .states
            .iter()
            .rposition(|slot| matches!(slot, BlockState::Asked(other) if *other != conn && from(*other)))?;
        if let BlockState::Asked(other) = self.states[at] {
            self.states[at] = BlockState::Twice(other, conn);
        }
        Some(self.blocks[at])
    }

    /// `conn` will not send `block`.
    pub(crate) fn release(&mut self, conn: ConnId, block: Block) {
        let Some(at) = self.position(block) else { return };
        self.states[at] = match self.states[at] {
            BlockState::Asked(asked) if asked == conn => {
                self.free += 1;
                self.first = self.first.min(at);
                BlockState::Free
            }
            BlockState::Twice(other, asked) | BlockState::Twice(asked, other) if asked == conn => {
                BlockState::Asked(other)
            }
            other => other,
        };
    }

    /// A block came from `conn`.
    pub(crate) fn accept(&mut self, conn: ConnId, block: Block, delivery: Delivery<'_>) -> Arrival {
        let Some(at) = self.position(block).filter(|at| self.states[*at] != BlockState::Here) else {
            return Arrival::Useless;
        };
        let here = match delivery {
            Delivery::InSlot => self.slots.commit(at, conn.0),
            Delivery::Bytes(data) => self.slots.write(at, data),
        };
        if !here {
            return Arrival::Lost;
        }
        let recall = match self.states[at] {
            BlockState::Free => {
                self.free -= 1;
                None
            }
            BlockState::Asked(asked) => (asked != conn).then_some(asked),
            BlockState::Twice(a, b) => Some(if a == conn { b } else { a }),
            BlockState::Here => None,
        };
        self.states[at] = BlockState::Here;
        self.missing -= 1;
        if !self.contributors.contains(&conn) {
            self.contributors.push(conn);
        }
        Arrival::New { recall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::BufPool;
    use crate::units::PieceIndex;

    fn block(offset: u32, len: u32) -> Block {
        Block { piece: PieceIndex(0), offset, len }
    }

    fn piece() -> ActivePiece {
        let buf = BufPool::new(64, 1).take().expect("a buffer");
        let blocks = vec![block(8, 8), block(32, 4)];
        let slots = slots_of(buf, &blocks);
        ActivePiece::new(blocks, slots, ConnId(1), false, Now::ZERO)
    }

    #[test]
    fn a_block_that_did_not_land_is_still_missing() {
        let mut piece = piece();
        assert_eq!(piece.accept(ConnId(1), block(8, 8), Delivery::InSlot), Arrival::Lost);
        assert_eq!(
            piece.accept(ConnId(1), block(8, 8), Delivery::Bytes(&[1; 8])),
            Arrival::New { recall: None }
        );
        assert_eq!(piece.accept(ConnId(2), block(8, 8), Delivery::Bytes(&[1; 8])), Arrival::Useless);
        assert_eq!((piece.missing(), piece.free()), (1, 1));
    }

    #[test]
    fn a_frame_gives_way_to_the_piece_itself() {
        let slots = |blocks: &[Block]| {
            let mut buf = BufPool::new(64, 1).take().expect("a buffer");
            buf.fill(0xee);
            slots_of(buf, blocks)
        };
        let mut piece = piece();
        let frame = Block::of_frame(PieceIndex(0), 5);
        piece.restart(frame.clone(), slots(&frame));
        assert_eq!((piece.frame(), piece.has_one_source()), (Some(5), true));
        let asked = piece.ask(ConnId(1), false).expect("all of it");
        assert_eq!(piece.accept(ConnId(1), asked, Delivery::Bytes(&[9; 5])), Arrival::New { recall: None });
        assert_eq!(piece.missing(), 0);
        assert_eq!(piece.restart(vec![block(8, 8)], slots(&[block(8, 8)])), 5);
        assert_eq!((piece.frame(), piece.missing_bytes(), piece.untouched()), (None, 8, true));
        assert_eq!(piece.accept(ConnId(1), asked, Delivery::Bytes(&[9; 5])), Arrival::Useless);
        piece.accept(ConnId(2), block(8, 8), Delivery::Bytes(&[1; 8]));
        assert_eq!(piece.contributors, [ConnId(2)]);
    }

    #[test]
    fn a_block_that_two_were_asked_for_is_recalled_from_the_other() {
        let mut piece = piece();
        let asked = piece.ask(ConnId(1), true).expect("the last");
        assert_eq!(asked, block(32, 4));
        assert_eq!(piece.ask_again(ConnId(1), |_| true), None);
        assert_eq!(piece.ask_again(ConnId(2), |_| true), Some(asked));
        assert_eq!(
            piece.accept(ConnId(2), asked, Delivery::Bytes(&[2; 4])),
            Arrival::New { recall: Some(ConnId(1)) }
        );
        assert_eq!(piece.accept(ConnId(1), asked, Delivery::Bytes(&[3; 4])), Arrival::Useless);
        assert_eq!(piece.contributors, [ConnId(2)]);
    }

    #[test]
    fn released_blocks_can_be_asked_for_again() {
        let mut piece = piece();
        let asked = piece.ask(ConnId(1), false).expect("the first");
        piece.release(ConnId(2), asked);
        assert_eq!(piece.free(), 1);
        piece.release(ConnId(1), asked);
        assert_eq!(piece.free(), 2);
        assert_eq!(piece.ask(ConnId(2), false), Some(asked));
    }
}
