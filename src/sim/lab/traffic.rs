//! How messages and blocks travel: out of the sender's link, through uplinks of zones, into the receiver's.

use std::time::Duration;

use super::Lab;
use super::event::Event;
use super::node::Conn;
use crate::sim::link::Packet;
use crate::sim::spec::Character;
use crate::swarm::wire::Message;
use crate::swarm::{ConnId, Input};
use crate::units::Now;

/// Messages that leave one after another are one event, up to this time.
const LONGEST_TRAIN: Duration = Duration::from_micros(100);

impl Lab {
    /// Bytes of `packet` on the wire.
    pub(super) fn len_of(&self, packet: &Packet) -> usize {
        packet.len(self.spec.scale as usize)
    }

    /// A connection, if it is open.
    pub(super) fn conn(&self, conn: ConnId) -> Option<Conn> {
        *self.conns.get(usize::try_from(conn.0).ok()?)?
    }

    pub(super) fn push(&mut self, node: usize, conn: ConnId, packet: Packet) {
        if let Some(open) = self.conn(conn) {
            self.nodes[node].link.push(open.pipe_of(node), packet);
        }
    }

    /// A block has left.
    pub(super) fn uplink_done(&mut self, node: usize, conn: ConnId, packet: Packet) {
        self.nodes[node].link.idle();
        let block = if let Packet::Block(block, _) = &packet { Some(*block) } else { None };
        if self.depart(node, conn, packet, self.now)
            && let Some(block) = block
        {
            self.nodes[node].payload_out += u64::from(block.len);
            self.tell(node, Input::BlockSent { conn, block });
        }
        self.transmit(node);
    }

    /// A packet has left the uplink of `node` at `at`. False if its connection is closed.
    pub(super) fn depart(&mut self, node: usize, conn: ConnId, packet: Packet, at: Now) -> bool {
        let Some(open) = self.conn(conn) else { return false };
        let (len, to) = (self.len_of(&packet), open.other(node));
        if self.crosses(node, to) {
            let at = self.leave_zone(node, len, at);
            self.at(at, Event::Crossed { conn, from: node, to, packet });
        } else {
            // All packets inside a zone are on their way for the same time, so they arrive in the order of
            // their departures.
            let at = self.nodes[to].link.receive(at + self.spec.latency, len);
            self.at(at, Event::Received { conn, from: node, to, packet });
        }
        true
    }

    /// A packet has arrived at `to`.
    pub(super) fn received(&mut self, conn: ConnId, from: usize, to: usize, packet: Packet) {
        let len = self.len_of(&packet);
        let open = self.conn(conn);
        if self.has_vanished(to) || self.has_vanished(from) {
            // The sender tries again, and gives up after a time without an answer.
            if open.is_some() && !self.has_vanished(from) {
                self.lose(conn, from);
            }
            return;
        }
        if let Some(open) = open {
            self.nodes[from].link.acknowledge(open.pipe_of(from), len);
            self.transmit(from);
        }
        let deaf = matches!(self.nodes[to].spec.character, Character::Script(_));
        if open.is_some() && !deaf {
            let message = match packet {
                Packet::Message(message) => message,
                Packet::Block(block, data) => {
                    Message::Piece { piece: block.piece, offset: block.offset, data }
                }
            };
            self.tell(to, Input::Message { conn, message });
        }
    }

    /// Lets packets leave: messages together, up to the next block or for [`LONGEST_TRAIN`].
    pub(super) fn transmit(&mut self, node: usize) {
        let mut end = self.now;
        while end.since(self.now) < LONGEST_TRAIN
            && let Some((conn, packet, time)) = self.nodes[node].link.next()
        {
            end = end + time;
            if matches!(packet, Packet::Block(..)) {
                return self.at(end, Event::UplinkDone { node, conn, packet });
            }
            self.nodes[node].link.idle();
            self.depart(node, conn, packet, end);
        }
        if end > self.now {
            self.nodes[node].link.occupy();
            self.at(end, Event::UplinkIdle(node));
        }
    }
}
