//! Our requests at one peer, and how it answers them.
//!
//! Invariant: every list is bounded: requests by the peer's `reqq`, recalled blocks and refused pieces by
//! constants.

use std::collections::VecDeque;
use std::time::Duration;

use crate::swarm::geometry::Block;
use crate::swarm::peers::resting::RestingPieces;
use crate::swarm::rate::RateMeter;
use crate::units::{BLOCK_LEN, Now, PieceIndex};

/// Requests in flight at a peer whose rate is not known yet: one MiB.
const FIRST_DEPTH: usize = 64;
/// The queue of a peer that does not give its length (BEP 10 `reqq`): libtorrent assumes the same.
const DEFAULT_REQUEST_QUEUE: u32 = 250;
/// Below this much of time, at the peer's rate, the next piece is asked for, so that the peer never idles.
const AHEAD: Duration = Duration::from_millis(50);
/// Fewest requests in flight before the next piece is asked for.
const MIN_AHEAD: usize = 4;
/// Requests in flight at a peer that stalled and is being tried again.
const SNUBBED_DEPTH: usize = 4;
/// Recalled blocks that may still arrive, remembered for each peer.
const MAX_RECALLED: usize = 4096;

/// Our requests at one peer.
#[derive(Debug)]
pub(crate) struct Download {
    /// Requests the peer keeps in its queue (BEP 10 `reqq`).
    request_queue: u32,
    /// The peer answers no requests of ours.
    choking_us: bool,
    /// We told it that we want something.
    interested: bool,
    /// Blocks we asked for, in order.
    asked: VecDeque<Block>,
    /// Blocks we asked for and no longer count on; they may come all the same.
    recalled: VecDeque<Block>,
    /// Pieces it refused lately.
    refused: RestingPieces,
    /// When it last sent a block, or was first asked after having sent all.
    progress: Now,
    /// It stalled: not asked before this time, and little after it until it sends again.
    snubbed: Option<Now>,
    rate: RateMeter,
    /// When it will begin to send what we granted it.
    begins: Now,
    /// It has sent a piece that was right, or blocks of one.
    sent_right: bool,
    /// Its last whole piece came at less than half of our downlink's rate: others may send beside it.
    slow: bool,
}

impl Download {
    /// Nothing asked yet of a peer that connected at `now`.
    pub(crate) fn new(now: Now) -> Self {
        Download {
            request_queue: DEFAULT_REQUEST_QUEUE,
            choking_us: true,
            interested: false,
            asked: VecDeque::new(),
            recalled: VecDeque::new(),
            refused: RestingPieces::default(),
            progress: now,
            snubbed: None,
            rate: RateMeter::default(),
            begins: Now::ZERO,
            sent_right: false,
            slow: false,
        }
    }

    /// The peer says how many requests it keeps.
    pub(crate) fn set_request_queue(&mut self, requests: u32) {
        self.request_queue = requests.max(1);
    }

    /// Whether requests make sense: the peer answers them and we want something.
    pub(crate) fn is_open(&self) -> bool {
        !self.choking_us && self.interested
    }

    /// Whether we told the peer that we want something.
    pub(crate) fn is_interested(&self) -> bool {
        self.interested
    }

    /// We want something of the peer, or nothing. True if the peer must be told.
    pub(crate) fn set_interested(&mut self, interested: bool) -> bool {
        std::mem::replace(&mut self.interested, interested) != interested
    }

    /// The peer will answer requests.
    pub(crate) fn unchoked(&mut self) {
        self.choking_us = false;
        self.refused.clear();
    }

    /// The peer will answer no requests. Returns those that it had.
    pub(crate) fn choked(&mut self) -> Vec<Block> {
        self.choking_us = true;
        let asked: Vec<Block> = self.asked.drain(..).collect();
        // With BEP 6 each will be rejected; without, what is on its way still comes.
        asked.iter().for_each(|block| self.remember_recalled(*block));
        asked
    }

    /// Requests in flight.
    pub(crate) fn requests(&self) -> usize {
        self.asked.len()
    }

    /// Whether a request is in flight.
    pub(crate) fn has_requests(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The blocks that were asked for, when the peer is gone.
    pub(crate) fn into_requests(self) -> VecDeque<Block> {
        self.asked
    }

    /// Requests that may be in flight: a second of the peer's rate, never more than it queues. A scheduling
    /// peer is asked at once for all that was granted.
    pub(crate) fn depth(&self, scheduling: bool, now: Now, limit: usize) -> usize {
        if scheduling {
            return usize::try_from(self.request_queue).unwrap_or(usize::MAX);
        }
        if let Some(until) = self.snubbed {
            return if now < until { 0 } else { SNUBBED_DEPTH };
        }
        let second = usize::try_from(self.rate.rate(now) / u64::from(BLOCK_LEN)).unwrap_or(limit);
        let queue = usize::try_from(self.request_queue).unwrap_or(limit);
        second.max(FIRST_DEPTH).min(limit).min(queue)
    }

    /// Requests in flight below which the next piece is begun.
    pub(crate) fn ahead(&self, now: Now) -> usize {
        let bytes = u128::from(self.rate.rate(now)) * AHEAD.as_millis() / 1000;
        usize::try_from(bytes / u128::from(BLOCK_LEN)).unwrap_or(MIN_AHEAD).max(MIN_AHEAD)
    }

    /// `block` is asked for.
    pub(crate) fn ask(&mut self, block: Block, now: Now) {
        if self.asked.is_empty() {
            self.progress = now.max(self.begins);
        }
        self.asked.push_back(block);
    }

    /// A block came that counts.
    pub(crate) fn received(&mut self, bytes: u64, now: Now) {
        self.progress = now;
        self.snubbed = None;
        self.rate.add(now, bytes);
    }

    /// The block will come or was recalled: removes it from the requests. True if it was one.
    pub(crate) fn take_asked(&mut self, block: Block) -> bool {
        let at = self.asked.iter().position(|asked| *asked == block);
        at.and_then(|at| self.asked.remove(at)).is_some()
    }

    /// The same for recalled blocks.
    pub(crate) fn take_recalled(&mut self, block: Block) -> bool {
        let at = self.recalled.iter().position(|recalled| *recalled == block);
        at.and_then(|at| self.recalled.remove(at)).is_some()
    }

    /// Remembers that `block` may come although it is not waited for.
    pub(crate) fn remember_recalled(&mut self, block: Block) {
        if self.recalled.len() >= MAX_RECALLED {
            self.recalled.pop_front();
        }
        self.recalled.push_back(block);
    }

    /// Takes back the requests that pass `test`, and remembers that they may still be answered.
    pub(crate) fn recall(&mut self, test: impl Fn(&Block) -> bool) -> VecDeque<Block> {
        let (back, keep): (VecDeque<Block>, VecDeque<Block>) = self.asked.drain(..).partition(test);
        self.asked = keep;
        back.iter().for_each(|block| self.remember_recalled(*block));
        back
    }

    /// The peer refused `piece`.
    pub(crate) fn refuse(&mut self, piece: PieceIndex, now: Now) {
        self.refused.add(piece, now);
    }

    /// Whether the peer refused `piece` lately.
    pub(crate) fn is_refused(&self, piece: PieceIndex, now: Now) -> bool {
        self.refused.has(piece, now)
    }

    /// When the peer last sent a block, or was first asked after having sent all.
    pub(crate) fn progress(&self) -> Now {
        self.progress
    }

    /// The peer stalled: it is left alone until then.
    pub(crate) fn snub(&mut self, until: Now) {
        self.snubbed = Some(until);
    }

    pub(crate) fn is_snubbed(&self) -> bool {
        self.snubbed.is_some()
    }

    /// The peer is to begin to send a granted piece at `start`.
    pub(crate) fn granted(&mut self, start: Now) {
        self.begins = start;
        self.progress = self.progress.max(start);
    }

    /// When the peer will begin to send what we granted it.
    pub(crate) fn begins(&self) -> Now {
        self.begins
    }

    /// The peer sent a piece that was right, or blocks of one.
    pub(crate) fn sent_right(&mut self) {
        self.sent_right = true;
    }

    pub(crate) fn has_sent_right(&self) -> bool {
        self.sent_right
    }

    /// Whether its last whole piece came slowly.
    pub(crate) fn set_slow(&mut self, slow: bool) {
        self.slow = slow;
    }

    /// Its last whole piece came at less than half of our downlink's rate.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow
    }
}
