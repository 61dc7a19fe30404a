//! The lab at work: nodes, links, and a queue of events in virtual time.
//!
//! Without zones a tracker that names everybody is modelled; zones are in `zones`. Invariant: time never goes
//! back; equal specs give equal runs.

mod driver;
mod event;
mod node;
mod presence;
mod traffic;
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use self::event::Event;
use self::node::Conn;
pub use self::node::Node;
use super::agenda::Agenda;
use super::spec::{Character, LabSpec};
use super::uplink::{Uplink, tracker};
use crate::rng::Rng;
use crate::swarm::{ConnId, Geometry, Input, PieceShape};
use crate::tracker::Tracker;
use crate::units::{Now, PieceIndex};

/// A lab at work.
pub struct Lab {
    spec: LabSpec,
    geometry: Geometry,
    payload: Vec<Bytes>,
    pub nodes: Vec<Node>,
    /// Connections that are open, by number.
    conns: Vec<Option<Conn>>,
    agenda: Agenda<Event>,
    /// Nodes that are on, by address.
    alive: BTreeMap<SocketAddr, usize>,
    tracker: Option<Tracker>,
    /// Connections to nodes that have vanished on which something was lost.
    unacknowledged: BTreeSet<ConnId>,
    /// Each zone's uplink.
    uplinks: BTreeMap<u8, Uplink>,
    rng: Rng,
    pub now: Now,
}

/// Events after which it is seen whether all have finished.
const EVENTS_BETWEEN_LOOKS: u32 = 64;

impl Lab {
    pub fn new(spec: LabSpec) -> Self {
        let total = u64::from(spec.pieces) * u64::from(spec.held_length()) - spec.short;
        let geometry = Geometry::new(spec.held_length(), total).expect("a torrent");
        let pieces = (0..spec.pieces).map(PieceIndex);
        let zeros = Bytes::from(vec![0; spec.held_length() as usize]);
        let blank = |piece| zeros.slice(..geometry.len_of(piece) as usize);
        let random = |piece| contents(geometry, spec.shape.as_ref(), piece);
        let payload = pieces.map(|piece| if spec.blank { blank(piece) } else { random(piece) }).collect();
        let tracker = spec.zones.as_ref().map(tracker);
        let nodes = spec.nodes.iter().map(|node| Node::new(node, spec.scale)).collect();
        let mut lab = Lab {
            nodes,
            geometry,
            payload,
            conns: vec![None],
            agenda: Agenda::new(),
            alive: BTreeMap::new(),
            tracker,
            unacknowledged: BTreeSet::new(),
            uplinks: BTreeMap::new(),
            rng: Rng::new(spec.seed ^ 0x7ac4e4),
            now: Now::ZERO,
            spec,
        };
        for node in 0..lab.nodes.len() {
            lab.at(Now(lab.nodes[node].spec.arrives), Event::Arrive(node));
            if let Some(vanishes) = lab.nodes[node].spec.vanishes {
                lab.at(Now(vanishes), Event::Vanish(node));
            }
            if let Some(leaves) = lab.nodes[node].spec.leaves {
                lab.at(Now(leaves), Event::Leave(node));
            }
        }
        lab
    }

    /// Runs until every honest terminal that stays has finished, or until `limit`. True if all have.
    pub fn run(&mut self, limit: Duration) -> bool {
        while !self.all_finished() {
            // Looking at all of them takes longer than a few events more.
            for _ in 0..EVENTS_BETWEEN_LOOKS {
                let Some((at, event)) = self.agenda.next(Now(limit)) else { return self.all_finished() };
                self.now = at;
                self.happen(event);
            }
        }
        true
    }

    /// Time until the last one had everything, relative to the best that any scheme can do (docs/bench.md).
    pub fn ratio(&self) -> f64 {
        let terminals = self.nodes.iter().filter(|node| !node.spec.seeder).count();
        let best = yardstick(terminals, self.spec.pieces, self.spec.piece_length, self.nodes[0].spec.rate);
        let last = self.nodes.iter().filter_map(|node| node.finished).max().unwrap_or_default();
        last.0.as_secs_f64() / best
    }

    /// Bytes that left the first seeder, relative to the payload.
    pub fn seeder_share(&self) -> f64 {
        self.nodes[0].payload_out as f64 / self.geometry.total_length() as f64
    }

    fn all_finished(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.finished.is_some()
                || node.spec.seeder
                || node.spec.leaves.is_some()
                || node.spec.vanishes.is_some()
                || node.spec.character != Character::Honest
        })
    }

    fn at(&mut self, at: Now, event: Event) {
        self.agenda.plan(at, event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(node) => self.arrive(node),
            Event::Leave(node) => self.leave(node),
            Event::Vanish(node) => self.vanish(node),
            Event::TimedOut { conn, node } => {
                if let Some(open) = self.conn(conn) {
                    self.hang_up(open.other(node), conn);
                }
            }
            Event::Unreachable { from, to } => self.tell(from, Input::DialFailed(to)),
            Event::Wake(node) => {
                if self.nodes[node].woken_at == Some(self.now) {
                    self.nodes[node].woken_at = None;
                    self.tell(node, Input::Tick);
                }
            }
            Event::Connect { from, to } => self.connect(from, to),
            Event::UplinkDone { node, conn, packet } => self.uplink_done(node, conn, packet),
            Event::UplinkIdle(node) => {
                self.nodes[node].link.idle();
                self.transmit(node);
            }
            Event::Announce(node) => self.announce(node),
            Event::Crossed { conn, from, to, packet } => {
                let at = self.enter(to, self.len_of(&packet)) + self.spec.latency;
                self.at(at, Event::Reached { conn, from, to, packet });
            }
            Event::Reached { conn, from, to, packet } => {
                let len = self.len_of(&packet);
                let at = self.nodes[to].link.receive(self.now, len);
                self.at(at, Event::Received { conn, from, to, packet });
            }
            Event::Received { conn, from, to, packet } => self.received(conn, from, to, packet),
            Event::HungUp { conn, node } => self.tell(node, Input::Closed { conn }),
            Event::Stored { node, piece, result } => self.tell(node, Input::Stored { piece, result }),
            Event::Framed { node, piece, maker } => self.framed(node, piece, maker),
        }
    }

    /// Its spec.
    pub fn spec(&self) -> &LabSpec {
        &self.spec
    }
}

/// The smallest time in which everybody can have everything (docs/bench.md), for links of `rate`.
pub fn yardstick(terminals: usize, pieces: u32, piece_length: u32, rate: u64) -> f64 {
    let tau = f64::from(piece_length) / rate as f64;
    (f64::from(pieces) - 1.0 + ((terminals + 1) as f64).log2().ceil()) * tau
}

/// Bytes that differ from piece to piece and are zero where the shape says so.
fn contents(geometry: Geometry, shape: &dyn PieceShape, piece: PieceIndex) -> Bytes {
    let len = geometry.len_of(piece);
    let mut bytes = vec![0u8; len as usize];
    let mut rng = Rng::new(0x5eed ^ (u64::from(piece.0) << 32));
    for range in shape.data_ranges(piece, len) {
        for part in bytes[range.start as usize..range.end as usize].chunks_mut(8) {
            part.copy_from_slice(&rng.next_u64().to_le_bytes()[..part.len()]);
        }
    }
    bytes.into()
}
