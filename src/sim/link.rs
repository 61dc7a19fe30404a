//! Links: each node has one uplink and one downlink; connections share them fairly.
//!
//! Invariant: an uplink and a downlink carry one frame at a time; a connection has at most [`WINDOW`] bytes
//! between both, as TCP would with a slow receiver.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use crate::swarm::wire::Message;
use crate::swarm::{Block, ConnId};
use crate::units::Now;

/// Bytes of one direction of a connection that have left the sender and are not yet with the receiver.
const WINDOW: usize = 256 * 1024;

/// What travels.
#[derive(Debug, Clone)]
pub enum Frame {
    Message(Message),
    Block(Block, Bytes),
}

impl Frame {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        match self {
            Frame::Block(_, data) | Frame::Message(Message::Piece { data, .. }) => 13 + data.len(),
            Frame::Message(Message::Bitfield(bytes)) => 5 + bytes.len(),
            Frame::Message(Message::Extended { payload, .. }) => 6 + payload.len(),
            Frame::Message(Message::Request(_) | Message::Cancel(_) | Message::Reject(_)) => 17,
            Frame::Message(_) => 9,
        }
    }
}

/// One direction of a connection, at its sender.
#[derive(Debug, Default)]
struct Pipe {
    waiting: VecDeque<Frame>,
    under_way: usize,
}

impl Pipe {
    fn ready(&self) -> bool {
        let fits = |frame: &Frame| self.under_way == 0 || self.under_way + frame.len() <= WINDOW;
        self.waiting.front().is_some_and(fits)
    }
}

/// A node's two links.
#[derive(Debug)]
pub struct Link {
    rate: u64,
    pipes: BTreeMap<ConnId, Pipe>,
    last: ConnId,
    busy: bool,
    down_free: Now,
}

impl Link {
    /// `rate` in bytes a second, each way.
    pub fn new(rate: u64) -> Self {
        Link { rate, pipes: BTreeMap::new(), last: ConnId(0), busy: false, down_free: Now::ZERO }
    }

    pub fn open(&mut self, conn: ConnId) {
        self.pipes.insert(conn, Pipe::default());
    }

    pub fn close(&mut self, conn: ConnId) {
        self.pipes.remove(&conn);
    }

    pub fn push(&mut self, conn: ConnId, frame: Frame) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.waiting.push_back(frame);
        }
    }

    /// The next frame to carry, by turns over the connections, and how long that takes. The uplink is busy until
    /// [`idle`](Self::idle).
    pub fn next(&mut self) -> Option<(ConnId, Frame, Duration)> {
        if self.busy {
            return None;
        }
        let after = self.pipes.range((Bound::Excluded(self.last), Bound::Unbounded));
        let mut around = after.chain(self.pipes.range(..=self.last));
        let conn = around.find(|(_, pipe)| pipe.ready()).map(|(conn, _)| *conn)?;
        let pipe = self.pipes.get_mut(&conn)?;
        let frame = pipe.waiting.pop_front()?;
        pipe.under_way += frame.len();
        self.last = conn;
        self.busy = true;
        let time = self.time_of(frame.len());
        Some((conn, frame, time))
    }

    pub fn idle(&mut self) {
        self.busy = false;
    }

    /// When a frame that reaches the downlink now has been received.
    pub fn receive(&mut self, now: Now, len: usize) -> Now {
        self.down_free = self.down_free.max(now) + self.time_of(len);
        self.down_free
    }

    /// The receiver has `len` bytes more.
    pub fn acknowledge(&mut self, conn: ConnId, len: usize) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.under_way -= len.min(pipe.under_way);
        }
    }

    fn time_of(&self, len: usize) -> Duration {
        Duration::from_nanos(len as u64 * 1_000_000_000 / self.rate)
    }
}
