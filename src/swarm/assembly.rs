//! One piece on its way from blocks to a whole.
//!
//! Invariant: a block is written into the buffer once; `missing` counts the blocks that are not here, `free`
//! those that nobody was asked for; bytes that do not travel are zero from the start.

use super::geometry::Block;
use super::interface::ConnId;
use crate::buf::PieceBuf;
use crate::units::Now;
use std::time::Duration;

/// What is known about one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    Asked(ConnId),
    /// End game: two peers were asked.
    Twice(ConnId, ConnId),
    Here,
}

/// A piece that is being fetched.
#[derive(Debug)]
pub struct ActivePiece {
    buf: PieceBuf,
    blocks: Vec<Block>,
    slots: Vec<Slot>,
    missing: usize,
    free: usize,
    /// The peer that is to send all of it, if there is one.
    pub owner: Option<ConnId>,
    /// It came with a wrong hash before: only one peer sends it, so that the next time it is clear who is to blame.
    pub solo: bool,
    /// When the owner was asked first.
    pub since: Now,
    /// When its first block came, and how many bytes came since.
    run: Option<(Now, u64)>,
    /// Who sent blocks of it, each once.
    pub givers: Vec<ConnId>,
}

/// What a block that arrived was good for.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was here already, or is not a block of this piece.
    Useless,
    /// It was missing; the other peer that was asked for it need not send it.
    New {
        /// Who was asked as well.
        recall: Option<ConnId>,
    },
}

impl ActivePiece {
    /// A piece of `blocks` (ascending), of which nothing is here.
    pub fn new(mut buf: PieceBuf, blocks: Vec<Block>, owner: ConnId, solo: bool, now: Now) -> Self {
        let mut end = 0;
        for block in &blocks {
            buf[end..block.offset as usize].fill(0);
            end = (block.offset + block.len) as usize;
        }
        buf[end..].fill(0);
        let count = blocks.len();
        ActivePiece {
            buf,
            slots: vec![Slot::Free; count],
            blocks,
            missing: count,
            free: count,
            owner: Some(owner),
            solo,
            since: now,
            run: None,
            givers: Vec::new(),
        }
    }

    /// Blocks that are not here.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// A block of `bytes` came at `now`.
    pub fn count(&mut self, bytes: u64, now: Now) {
        self.run = Some(self.run.map_or((now, 0), |(first, before)| (first, before + bytes)));
    }

    /// Bytes that came after the first block, and the time they took: what one peer that sends the whole piece shows of
    /// our downlink.
    pub fn run(&self, now: Now) -> Option<(u64, Duration)> {
        let (first, bytes) = self.run.filter(|(_, bytes)| *bytes > 0)?;
        Some((bytes, now.since(first)))
    }

    /// Bytes that are not here.
    pub fn missing_bytes(&self) -> u64 {
        let lacking = self.slots.iter().zip(&self.blocks).filter(|(slot, _)| **slot != Slot::Here);
        lacking.map(|(_, block)| u64::from(block.len)).sum()
    }

    /// Bytes that nobody was asked for.
    pub fn free_bytes(&self) -> u32 {
        let free = self.slots.iter().zip(&self.blocks).filter(|(slot, _)| **slot == Slot::Free);
        free.map(|(_, block)| block.len).sum()
    }

    /// Blocks that nobody was asked for.
    pub fn free(&self) -> usize {
        self.free
    }

    /// True if no block arrived yet.
    pub fn untouched(&self) -> bool {
        self.missing == self.blocks.len()
    }

    /// Marks a block that nobody was asked for as asked of `conn`: the first, or the last for a helper.
    pub fn ask(&mut self, conn: ConnId, from_end: bool) -> Option<Block> {
        let is_free = |slot: &Slot| *slot == Slot::Free;
        let at =
            if from_end { self.slots.iter().rposition(is_free) } else { self.slots.iter().position(is_free) };
        let at = at?;
        self.slots[at] = Slot::Asked(conn);
        self.free -= 1;
        Some(self.blocks[at])
    }

    /// End game: the last block that only `from` was asked for is asked of `conn` too.
    pub fn ask_again(&mut self, conn: ConnId, from: impl Fn(ConnId) -> bool) -> Option<Block> {
        let at = self
            .slots
            .iter()
            .rposition(|slot| matches!(slot, Slot::Asked(other) if *other != conn && from(*other)))?;
        if let Slot::Asked(other) = self.slots[at] {
            self.slots[at] = Slot::Twice(other, conn);
        }
        Some(self.blocks[at])
    }

    /// `conn` will not send `block`.
    pub fn release(&mut self, conn: ConnId, block: Block) {
        let Some(at) = self.position(block) else { return };
        self.slots[at] = match self.slots[at] {
            Slot::Asked(asked) if asked == conn => {
                self.free += 1;
                Slot::Free
            }
            Slot::Twice(other, asked) | Slot::Twice(asked, other) if asked == conn => Slot::Asked(other),
            other => other,
        };
    }

    /// A block's bytes came from `conn`.
    pub fn accept(&mut self, conn: ConnId, block: Block, data: &[u8]) -> Arrival {
        let Some(at) = self.position(block).filter(|at| self.slots[*at] != Slot::Here) else {
            return Arrival::Useless;
        };
        let recall = match self.slots[at] {
            Slot::Free => {
                self.free -= 1;
                None
            }
            Slot::Asked(asked) => (asked != conn).then_some(asked),
            Slot::Twice(a, b) => Some(if a == conn { b } else { a }),
            Slot::Here => None,
        };
        let start = block.offset as usize;
        self.buf[start..start + block.len as usize].copy_from_slice(data);
        self.slots[at] = Slot::Here;
        self.missing -= 1;
        if !self.givers.contains(&conn) {
            self.givers.push(conn);
        }
        Arrival::New { recall }
    }

    /// The buffer, when all is here.
    pub fn into_buf(self) -> PieceBuf {
        self.buf
    }

    fn position(&self, block: Block) -> Option<usize> {
        self.blocks
            .binary_search_by_key(&block.offset, |known| known.offset)
            .ok()
            .filter(|at| self.blocks[*at] == block)
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
        let pool = BufPool::new(64, 1);
        pool.take().expect("a buffer").fill(0xee);
        let buf = pool.take().expect("the same buffer, still dirty");
        ActivePiece::new(buf, vec![block(8, 8), block(32, 4)], ConnId(1), false, Now::ZERO)
    }

    #[test]
    fn what_does_not_travel_is_zero() {
        let mut piece = piece();
        assert_eq!(piece.accept(ConnId(1), block(8, 8), &[1; 8]), Arrival::New { recall: None });
        assert_eq!(piece.accept(ConnId(1), block(32, 4), &[2; 4]), Arrival::New { recall: None });
        assert_eq!((piece.missing(), piece.free()), (0, 0));
        let buf = piece.into_buf();
        let expected: Vec<u8> = (0..64)
            .map(|i| match i {
                8..16 => 1,
                32..36 => 2,
                _ => 0,
            })
            .collect();
        assert_eq!(&buf[..], expected);
    }

    #[test]
    fn a_block_that_two_were_asked_for_is_recalled_from_the_other() {
        let mut piece = piece();
        let asked = piece.ask(ConnId(1), true).expect("the last");
        assert_eq!(asked, block(32, 4));
        assert_eq!(piece.ask_again(ConnId(1), |_| true), None);
        assert_eq!(piece.ask_again(ConnId(2), |_| true), Some(asked));
        assert_eq!(piece.accept(ConnId(2), asked, &[2; 4]), Arrival::New { recall: Some(ConnId(1)) });
        assert_eq!(piece.accept(ConnId(1), asked, &[3; 4]), Arrival::Useless);
        assert_eq!(piece.givers, [ConnId(2)]);
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
