//! The requests of one peer, and how we answer them.
//!
//! Invariant: a block is queued or being sent, never both, unless it is of a compressed piece.

use std::collections::VecDeque;

use crate::swarm::geometry::Block;
use crate::units::{Now, PieceIndex};

/// The requests of one peer.
#[derive(Debug)]
pub(crate) struct Upload {
    /// The peer wants something of ours.
    interested: bool,
    /// We answer no requests of the peer.
    choked: bool,
    /// Blocks it asked for.
    queue: VecDeque<Block>,
    /// Blocks handed to the network for it.
    sending: Vec<Block>,
    /// When we last choked or unchoked it.
    choke_changed: Now,
    /// When it was last served.
    served: Now,
    /// The piece it was served last.
    last_turn: Option<PieceIndex>,
    /// Requests that could not be answered.
    unanswerable: u32,
    /// It gets no new piece before: the uplink it is behind is at its limit.
    held_until: Now,
}

impl Upload {
    /// Nothing asked yet by a peer that connected at `now`.
    pub(crate) fn new(now: Now) -> Self {
        Upload {
            interested: false,
            choked: true,
            queue: VecDeque::new(),
            sending: Vec::new(),
            choke_changed: now,
            served: Now::ZERO,
            last_turn: None,
            unanswerable: 0,
            held_until: Now::ZERO,
        }
    }

    /// The peer wants something of ours.
    pub(crate) fn is_interested(&self) -> bool {
        self.interested
    }

    pub(crate) fn set_interested(&mut self, interested: bool) {
        self.interested = interested;
    }

    /// We answer no requests of the peer.
    pub(crate) fn is_choked(&self) -> bool {
        self.choked
    }

    /// When we last choked or unchoked it.
    pub(crate) fn choke_changed(&self) -> Now {
        self.choke_changed
    }

    pub(crate) fn unchoke(&mut self, now: Now) {
        self.choked = false;
        self.choke_changed = now;
        self.unanswerable = 0;
    }

    /// Chokes the peer. Returns the requests that will not be answered.
    pub(crate) fn choke(&mut self, now: Now) -> VecDeque<Block> {
        self.choked = true;
        self.choke_changed = now;
        std::mem::take(&mut self.queue)
    }

    /// True if nothing is to be sent to the peer that it asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.sending.is_empty()
    }

    /// Blocks that the peer waits for and that are not being sent.
    pub(crate) fn queued(&self) -> &VecDeque<Block> {
        &self.queue
    }

    /// Blocks in the network's hands.
    pub(crate) fn sending(&self) -> &[Block] {
        &self.sending
    }

    /// A request that cannot be answered. Returns how many these are since the last unchoke.
    pub(crate) fn count_unanswerable(&mut self) -> u32 {
        self.unanswerable += 1;
        self.unanswerable
    }

    /// Queues a request. False if it waits already.
    pub(crate) fn request(&mut self, block: Block) -> bool {
        // Each request for a block of a compressed piece has an answer of its own: the peer may have begun
        // anew with another compressed form.
        let new = !self.queue.contains(&block) && (block.in_frame() || !self.sending.contains(&block));
        if new {
            self.queue.push_back(block);
        }
        new
    }

    /// Removes a request. False if it does not wait.
    pub(crate) fn cancel(&mut self, block: Block) -> bool {
        let at = self.queue.iter().position(|queued| *queued == block);
        at.and_then(|at| self.queue.remove(at)).is_some()
    }

    /// Removes the requests for `piece` in compressed form, and returns them.
    pub(crate) fn withdraw_frame(&mut self, piece: PieceIndex) -> VecDeque<Block> {
        let of_it = |block: &Block| block.piece == piece && block.in_frame();
        let (gone, keep): (VecDeque<Block>, VecDeque<Block>) = self.queue.drain(..).partition(of_it);
        self.queue = keep;
        gone
    }

    /// Moves the first request for `piece` into the network's hands.
    pub(crate) fn send_next(&mut self, piece: PieceIndex) -> Option<Block> {
        let at = self.queue.iter().position(|block| block.piece == piece)?;
        let block = self.queue.remove(at)?;
        self.sending.push(block);
        Some(block)
    }

    /// A block left for the network (or could not be read). False if it was not being sent.
    pub(crate) fn sent(&mut self, block: Block, now: Now) -> bool {
        let Some(at) = self.sending.iter().position(|sending| *sending == block) else { return false };
        self.sending.remove(at);
        self.served = now;
        true
    }

    /// The peer is served `piece` from `now` on. True if it was served another piece before.
    pub(crate) fn begin_turn(&mut self, piece: PieceIndex, now: Now) -> bool {
        self.served = now;
        self.last_turn.replace(piece) != Some(piece)
    }

    /// The piece it was served last.
    pub(crate) fn last_turn(&self) -> Option<PieceIndex> {
        self.last_turn
    }

    /// When it was last served.
    pub(crate) fn served(&self) -> Now {
        self.served
    }

    /// It gets no new piece before `until`: the uplink it is behind is at its limit.
    pub(crate) fn hold(&mut self, until: Now) {
        self.held_until = until;
    }

    pub(crate) fn held_until(&self) -> Now {
        self.held_until
    }
}
