//! Links: each node has one uplink and one downlink; connections share them fairly.
//!
//! Invariant: an uplink and a downlink carry one packet at a time; a connection has at most [`WINDOW`] bytes
//! between both, as TCP would with a slow receiver.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::swarm::wire::Message;
use crate::swarm::{Block, ConnId};
use crate::units::Now;

/// Bytes of one direction of a connection that have left the sender and are not yet with the receiver.
const WINDOW: usize = 256 * 1024;

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    Message(Message),
    Block(Block, Bytes),
}

impl Packet {
    /// Bytes on the wire, when one of the payload stands for `scale`.
    pub(super) fn len(&self, scale: usize) -> usize {
        match self {
            Packet::Block(_, data) | Packet::Message(Message::Piece { data, .. }) => 13 + data.len() * scale,
            Packet::Message(Message::Bitfield(bytes)) => 5 + bytes.len(),
            Packet::Message(Message::Extended { payload, .. }) => 6 + payload.len(),
            Packet::Message(Message::Request(_) | Message::Cancel(_) | Message::Reject(_)) => 17,
            Packet::Message(_) => 9,
        }
    }
}

/// One direction of a connection, at its sender.
#[derive(Debug)]
struct Pipe {
    conn: ConnId,
    waiting: VecDeque<Packet>,
    under_way: usize,
}

impl Pipe {
    fn ready(&self, scale: usize) -> bool {
        let fits = |packet: &Packet| self.under_way == 0 || self.under_way + packet.len(scale) <= WINDOW;
        self.waiting.front().is_some_and(fits)
    }
}

/// Names a pipe of one link, for as long as its connection is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PipeId(usize);

/// A node's two links.
#[derive(Debug)]
pub(super) struct Link {
    rate: u64,
    scale: usize,
    pipes: Vec<Option<Pipe>>,
    /// One bit for each pipe that has a packet which may leave.
    ready: Vec<u64>,
    last: usize,
    busy: bool,
    down_free: Now,
}

impl Link {
    /// `rate` in bytes a second, each way; a byte of the payload stands for `scale` on the wire.
    pub(super) fn new(rate: u64, scale: usize) -> Self {
        let (pipes, ready) = (Vec::new(), Vec::new());
        Link { rate, scale, pipes, ready, last: 0, busy: false, down_free: Now::ZERO }
    }

    pub(super) fn open(&mut self, conn: ConnId) -> PipeId {
        let pipe = Some(Pipe { conn, waiting: VecDeque::new(), under_way: 0 });
        let at = self.pipes.iter().position(Option::is_none).unwrap_or(self.pipes.len());
        if at == self.pipes.len() {
            self.pipes.push(pipe);
            self.ready.resize(self.pipes.len().div_ceil(64), 0);
        } else {
            self.pipes[at] = pipe;
        }
        PipeId(at)
    }

    pub(super) fn close(&mut self, PipeId(at): PipeId) {
        self.pipes[at] = None;
        self.ready[at / 64] &= !(1 << (at % 64));
    }

    pub(super) fn push(&mut self, PipeId(at): PipeId, packet: Packet) {
        if let Some(pipe) = &mut self.pipes[at] {
            pipe.waiting.push_back(packet);
            self.see(at);
        }
    }

    /// The next packet to carry, by turns over the connections, and how long that takes. The uplink is busy
    /// until [`idle`](Self::idle).
    pub(super) fn next(&mut self) -> Option<(ConnId, Packet, Duration)> {
        if self.busy {
            return None;
        }
        let at = self.next_ready()?;
        let pipe = self.pipes[at].as_mut()?;
        let (conn, packet) = (pipe.conn, pipe.waiting.pop_front()?);
        let len = packet.len(self.scale);
        pipe.under_way += len;
        self.see(at);
        self.last = at;
        self.busy = true;
        Some((conn, packet, self.time_of(len)))
    }

    /// The first pipe that is ready behind the last one, once around.
    fn next_ready(&self) -> Option<usize> {
        let words = self.ready.len();
        let first = (self.last + 1) / 64;
        let late = u64::MAX << ((self.last + 1) % 64);
        for (round, word) in (first..words).chain(0..words.min(first + 1)).enumerate() {
            let mask = if round == 0 && first < words { late } else { u64::MAX };
            let bits = self.ready[word] & mask;
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
        }
        None
    }

    /// Notes whether a pipe has a packet that may leave.
    fn see(&mut self, at: usize) {
        let ready = self.pipes[at].as_ref().is_some_and(|pipe| pipe.ready(self.scale));
        let bit = 1 << (at % 64);
        if ready {
            self.ready[at / 64] |= bit;
        } else {
            self.ready[at / 64] &= !bit;
        }
    }

    pub(super) fn idle(&mut self) {
        self.busy = false;
    }

    pub(crate) fn occupy(&mut self) {
        self.busy = true;
    }

    /// When a packet that reaches the downlink now has been received.
    pub(super) fn receive(&mut self, now: Now, len: usize) -> Now {
        self.down_free = self.down_free.max(now) + self.time_of(len);
        self.down_free
    }

    /// The receiver has `len` bytes more.
    pub(crate) fn acknowledge(&mut self, PipeId(at): PipeId, len: usize) {
        if let Some(pipe) = &mut self.pipes[at] {
            pipe.under_way -= len.min(pipe.under_way);
            self.see(at);
        }
    }

    fn time_of(&self, len: usize) -> Duration {
        Duration::from_nanos(len as u64 * 1_000_000_000 / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PieceIndex;

    #[test]
    fn connections_take_turns_and_wait_while_their_window_is_full() {
        let mut link = Link::new(1_000_000, 1);
        let pipes: Vec<PipeId> = (0..130).map(|conn| link.open(ConnId(conn))).collect();
        let block = Block { piece: PieceIndex(0), offset: 0, len: 0 };
        let packet = || Packet::Block(block, Bytes::from(vec![0; WINDOW - 13]));
        for at in [129, 3, 64, 3] {
            link.push(pipes[at], packet());
        }
        let mut next = || {
            let (conn, ..) = link.next()?;
            link.idle();
            Some(conn.0)
        };
        assert_eq!([next(), next(), next(), next()], [Some(3), Some(64), Some(129), None]);
        link.acknowledge(pipes[3], WINDOW);
        link.close(pipes[64]);
        link.push(pipes[129], Packet::Message(Message::Choke));
        assert_eq!(link.next().map(|(conn, ..)| conn), Some(ConnId(3)));
        assert_eq!(link.open(ConnId(500)), pipes[64]);
    }
}
