//! How nodes come, go, and connect to each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Lab;
use super::event::Event;
use super::node::Conn;
use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::rng::Rng;
use crate::sim::link::Packet;
use crate::sim::spec::Character;
use crate::sim::uplink::INFO_HASH;
use crate::swarm::wire::Handshake;
use crate::swarm::{ConnId, Engine, EngineConfig, Input, RateLimit};
use crate::units::PeerId;

/// How long a kernel sends again what is not acknowledged: as `io::torrent` sets it.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How long a dial may take: as `io::torrent` sets it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl Lab {
    pub(super) fn arrive(&mut self, node: usize) {
        let spec = &self.nodes[node].spec;
        let pieces = self.spec.pieces;
        let wanted = Bitfield::of_range(pieces, spec.wanted.clone().unwrap_or(0..pieces));
        let have = if spec.seeder { wanted.clone() } else { Bitfield::none(pieces) };
        let total = self.geometry.total_length();
        let mut config = EngineConfig::new(INFO_HASH, self.id_of(node), self.spec.held_length(), total, have);
        config.seed = Rng::new(self.spec.seed.wrapping_add(node as u64)).next_u64();
        config.listen_port = 6881;
        config.scale = self.spec.scale;
        config.wanted = wanted;
        config.takes_frames = spec.frames > 0;
        config.frames_ahead = spec.frames.min(2);
        config.limit = spec.limit.map(RateLimit::new).unwrap_or_default();
        (self.spec.tune)(&mut config);
        let pool = BufPool::new(self.spec.held_length() as usize, spec.buffers);
        self.nodes[node].engine = Engine::new(config, pool, Arc::clone(&self.spec.shape));
        if self.tracker.is_some() {
            self.alive.insert(self.address(node), node);
            return if node > 0 { self.announce(node) } else { self.guide_seeder() };
        }
        self.alive.insert(self.address(node), node);
        let others = self.alive.keys().copied().collect();
        self.tell(node, Input::Candidates(others));
    }

    pub(super) fn address(&self, node: usize) -> SocketAddr {
        let number = u32::try_from(node).expect("few nodes") + 1;
        let zone = u32::from(self.nodes[node].spec.zone);
        SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + (zone << 16) + number).into(), 6881)
    }

    pub(super) fn leave(&mut self, node: usize) {
        self.nodes[node].engine = None;
        self.alive.remove(&self.address(node));
        let of_node = |open: &Option<Conn>| open.is_some_and(|open| open.ends.contains(&node));
        let gone: Vec<ConnId> = (0u64..)
            .zip(&self.conns)
            .filter(|(_, open)| of_node(open))
            .map(|(conn, _)| ConnId(conn))
            .collect();
        gone.into_iter().for_each(|conn| self.hang_up(node, conn));
    }

    /// The cable of `node` is pulled.
    pub(super) fn vanish(&mut self, node: usize) {
        self.nodes[node].engine = None;
        self.nodes[node].vanished = true;
    }

    pub(super) fn has_vanished(&self, node: usize) -> bool {
        self.nodes[node].vanished
    }

    /// Something that `from` sent was lost. Its kernel closes the connection when nothing is acknowledged for
    /// a time.
    pub(super) fn lose(&mut self, conn: ConnId, from: usize) {
        if self.unacknowledged.insert(conn) {
            self.at(self.now + UNACKNOWLEDGED, Event::TimedOut { conn, node: from });
        }
    }

    pub(super) fn id_of(&self, node: usize) -> PeerId {
        let mut id = *b"-FM0100-............";
        let number = Rng::new(self.spec.seed ^ ((node as u64) << 32)).next_u64();
        id[8..16].copy_from_slice(&number.to_be_bytes());
        PeerId(id)
    }

    pub(super) fn connect(&mut self, from: usize, to: SocketAddr) {
        if self.alive.get(&to).is_some_and(|node| self.has_vanished(*node)) {
            return self.at(self.now + HANDSHAKE_TIMEOUT, Event::Unreachable { from, to });
        }
        let Some(target) = self.alive.get(&to).copied() else {
            return self.tell(from, Input::DialFailed(to));
        };
        let conn = ConnId(self.conns.len() as u64);
        let ends = [from, target];
        let pipes = ends.map(|node| self.nodes[node].link.open(conn));
        self.conns.push(Some(Conn { ends, pipes }));
        for (node, other, incoming) in [(from, target, false), (target, from, true)] {
            if incoming && from == target {
                break;
            }
            let mut addr = self.address(other);
            if incoming {
                addr.set_port(40_000);
            }
            let both = !self.nodes[node].spec.standard && !self.nodes[other].spec.standard;
            let handshake = Handshake { extended: both, ..Handshake::ours(INFO_HASH, self.id_of(other)) };
            self.tell(node, Input::Connected { conn, addr, incoming, handshake });
            if let Character::Script(messages) = self.nodes[node].spec.character.clone() {
                for message in messages {
                    self.push(node, conn, Packet::Message(message));
                }
                self.transmit(node);
            }
        }
    }

    pub(super) fn hang_up(&mut self, node: usize, conn: ConnId) {
        let open = usize::try_from(conn.0).ok().and_then(|at| self.conns.get_mut(at)?.take());
        let Some(open) = open else { return };
        for (end, pipe) in open.ends.into_iter().zip(open.pipes) {
            self.nodes[end].link.close(pipe);
        }
        self.at(self.now + self.spec.latency, Event::HungUp { conn, node: open.other(node) });
    }
}
