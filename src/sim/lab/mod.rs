//! The lab at work: nodes, links, and a queue of events in virtual time.
//!
//! Without zones a tracker that names everybody is modelled; zones are in `zones`. Invariant: time never goes
//! back; equal specs give equal runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::agenda::Agenda;
use super::frames::{self, FrameStore};
use super::link::{Frame, Link, PipeId};
use super::spec::{Character, LabSpec, NodeSpec};
use super::zones::{Uplink, tracker};
use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::rng::Rng;
use crate::swarm::wire::{Handshake, Message};
use crate::swarm::{
    CloseReason, ConnId, Engine, EngineConfig, FrameState, Geometry, Input, Output, PieceShape, StoreResult,
};
use crate::tracker::Tracker;
use crate::units::{InfoHash, Now, PeerId, PieceIndex};

#[derive(Debug)]
pub(super) enum Event {
    Arrive(usize),
    Leave(usize),
    /// Its cable is pulled.
    Vanish(usize),
    /// The kernel of a node gives up sending to one that has vanished.
    TimedOut {
        conn: ConnId,
        node: usize,
    },
    /// A dial to a node that has vanished was given up.
    Unreachable {
        from: usize,
        to: SocketAddr,
    },
    Wake(usize),
    Connect {
        from: usize,
        to: SocketAddr,
    },
    /// Asks the tracker.
    Announce(usize),
    /// A block has left.
    UplinkDone {
        node: usize,
        conn: ConnId,
        frame: Frame,
    },
    /// Messages have left.
    UplinkIdle(usize),
    /// A frame has passed the uplink of its sender's zone.
    Crossed {
        conn: ConnId,
        from: usize,
        to: usize,
        frame: Frame,
    },
    Reached {
        conn: ConnId,
        from: usize,
        to: usize,
        frame: Frame,
    },
    Received {
        conn: ConnId,
        from: usize,
        to: usize,
        frame: Frame,
    },
    HungUp {
        conn: ConnId,
        node: usize,
    },
    Stored {
        node: usize,
        piece: PieceIndex,
        result: StoreResult,
    },
    /// The node has a frame, of this maker; or has found that a piece is not worth one.
    Framed {
        node: usize,
        piece: PieceIndex,
        maker: Option<usize>,
    },
}

/// One node at work.
pub struct Node {
    pub(super) spec: NodeSpec,
    pub(super) engine: Option<Engine>,
    link: Link,
    woken_at: Option<Now>,
    disk_free: Now,
    /// The frames that it keeps, and whose each is.
    frames: FrameStore,
    vanished: bool,
    pub finished: Option<Now>,
    pub payload_out: u64,
    pub closes: Vec<CloseReason>,
}

impl Node {
    /// What it is.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// The part of what it wants that it has.
    pub fn part_done(&self) -> f32 {
        let stats = self.engine.as_ref().map(Engine::stats).unwrap_or_default();
        if stats.pieces == 0 { 0.0 } else { stats.pieces_done as f32 / stats.pieces as f32 }
    }

    /// Its engine, while it is on.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }
}

/// An open connection: its two nodes, and its pipes there.
#[derive(Debug, Clone, Copy)]
struct Conn {
    ends: [usize; 2],
    pipes: [PipeId; 2],
}

impl Conn {
    fn pipe_of(&self, node: usize) -> PipeId {
        self.pipes[usize::from(self.ends[0] != node)]
    }

    fn other(&self, node: usize) -> usize {
        self.ends[usize::from(self.ends[0] == node)]
    }
}

/// A lab at work.
pub struct Lab {
    pub(super) spec: LabSpec,
    geometry: Geometry,
    payload: Vec<Bytes>,
    pub nodes: Vec<Node>,
    /// Connections that are open, by number.
    conns: Vec<Option<Conn>>,
    agenda: Agenda<Event>,
    /// Nodes that are on, by address.
    alive: BTreeMap<SocketAddr, usize>,
    pub(super) tracker: Option<Tracker>,
    /// Connections to nodes that have vanished on which something was lost.
    unacknowledged: BTreeSet<ConnId>,
    /// Each zone's uplink.
    pub(super) uplinks: BTreeMap<u8, Uplink>,
    pub(super) rng: Rng,
    pub now: Now,
}

/// As `io::torrent` has it: how long a kernel sends again what nobody acknowledges.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// As `io::torrent` has it: how long a dial may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that leave one after another are one event, up to this time.
const LONGEST_TRAIN: Duration = Duration::from_micros(100);
/// Events after which it is seen whether all have finished.
const EVENTS_BETWEEN_LOOKS: u32 = 64;

pub(super) const INFO_HASH: InfoHash = InfoHash([9; 20]);

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
        let nodes = spec.nodes.iter().map(|node| Node {
            spec: node.clone(),
            engine: None,
            link: Link::new(node.rate, spec.grain as usize),
            woken_at: None,
            disk_free: Now::ZERO,
            frames: FrameStore::new(node.frames),
            vanished: false,
            finished: None,
            payload_out: 0,
            closes: Vec::new(),
        });
        let mut lab = Lab {
            nodes: nodes.collect(),
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

    pub(super) fn at(&mut self, at: Now, event: Event) {
        self.agenda.plan(at, event);
    }

    /// Bytes of `frame` on the wire.
    fn len_of(&self, frame: &Frame) -> usize {
        frame.len(self.spec.grain as usize)
    }

    /// A connection, if it is open.
    fn conn(&self, conn: ConnId) -> Option<Conn> {
        *self.conns.get(usize::try_from(conn.0).ok()?)?
    }

    fn push(&mut self, node: usize, conn: ConnId, frame: Frame) {
        if let Some(open) = self.conn(conn) {
            self.nodes[node].link.push(open.pipe_of(node), frame);
        }
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
            Event::UplinkDone { node, conn, frame } => self.uplink_done(node, conn, frame),
            Event::UplinkIdle(node) => {
                self.nodes[node].link.idle();
                self.transmit(node);
            }
            Event::Announce(node) => self.announce(node),
            Event::Crossed { conn, from, to, frame } => {
                let at = self.enter(to, self.len_of(&frame)) + self.spec.latency;
                self.at(at, Event::Reached { conn, from, to, frame });
            }
            Event::Reached { conn, from, to, frame } => {
                let len = self.len_of(&frame);
                let at = self.nodes[to].link.receive(self.now, len);
                self.at(at, Event::Received { conn, from, to, frame });
            }
            Event::Received { conn, from, to, frame } => {
                let len = self.len_of(&frame);
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
                    let message = match frame {
                        Frame::Message(message) => message,
                        Frame::Block(block, data) => {
                            Message::Piece { piece: block.piece, offset: block.offset, data }
                        }
                    };
                    self.tell(to, Input::Message { conn, message });
                }
            }
            Event::HungUp { conn, node } => self.tell(node, Input::Closed { conn }),
            Event::Stored { node, piece, result } => self.tell(node, Input::Stored { piece, result }),
            Event::Framed { node, piece, maker } => self.framed(node, piece, maker),
        }
    }

    /// A block has left.
    fn uplink_done(&mut self, node: usize, conn: ConnId, frame: Frame) {
        self.nodes[node].link.idle();
        let block = if let Frame::Block(block, _) = &frame { Some(*block) } else { None };
        if self.depart(node, conn, frame, self.now)
            && let Some(block) = block
        {
            self.nodes[node].payload_out += u64::from(block.len);
            self.tell(node, Input::BlockSent { conn, block });
        }
        self.transmit(node);
    }

    /// A frame has left the uplink of `node` at `at`. False if its connection is closed.
    fn depart(&mut self, node: usize, conn: ConnId, frame: Frame, at: Now) -> bool {
        let Some(open) = self.conn(conn) else { return false };
        let (len, to) = (self.len_of(&frame), open.other(node));
        if self.crosses(node, to) {
            let at = self.leave_zone(node, len, at);
            self.at(at, Event::Crossed { conn, from: node, to, frame });
        } else {
            // All frames inside a zone are on their way for the same time, so they arrive in the order of
            // their departures.
            let at = self.nodes[to].link.receive(at + self.spec.latency, len);
            self.at(at, Event::Received { conn, from: node, to, frame });
        }
        true
    }

    fn arrive(&mut self, node: usize) {
        let spec = &self.nodes[node].spec;
        let pieces = self.spec.pieces;
        let wanted = Bitfield::of_range(pieces, spec.wanted.clone().unwrap_or(0..pieces));
        let have = if spec.seeder { wanted.clone() } else { Bitfield::none(pieces) };
        let total = self.geometry.total_length();
        let mut config = EngineConfig::new(INFO_HASH, self.id_of(node), self.spec.held_length(), total, have);
        config.seed = Rng::new(self.spec.seed.wrapping_add(node as u64)).next_u64();
        config.listen_port = 6881;
        config.grain = self.spec.grain;
        config.wanted = wanted;
        config.takes_frames = spec.frames > 0;
        config.frames_ahead = spec.frames.min(2);
        (self.spec.tune)(&mut config);
        let pool = BufPool::new(self.spec.held_length() as usize, spec.buffers);
        self.nodes[node].engine = Engine::new(config, pool, Arc::clone(&self.spec.shape));
        if self.tracker.is_some() {
            self.alive.insert(self.address(node), node);
            return if node > 0 { self.announce(node) } else { self.guide_home() };
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

    /// Its spec.
    pub fn spec(&self) -> &LabSpec {
        &self.spec
    }

    fn leave(&mut self, node: usize) {
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
    fn vanish(&mut self, node: usize) {
        self.nodes[node].engine = None;
        self.nodes[node].vanished = true;
    }

    fn has_vanished(&self, node: usize) -> bool {
        self.nodes[node].vanished
    }

    /// Something that `from` sent was lost. Its kernel closes the connection when nothing is acknowledged for
    /// a time.
    fn lose(&mut self, conn: ConnId, from: usize) {
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

    fn connect(&mut self, from: usize, to: SocketAddr) {
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
                    self.push(node, conn, Frame::Message(message));
                }
                self.transmit(node);
            }
        }
    }

    fn hang_up(&mut self, node: usize, conn: ConnId) {
        let open = usize::try_from(conn.0).ok().and_then(|at| self.conns.get_mut(at)?.take());
        let Some(open) = open else { return };
        for (end, pipe) in open.ends.into_iter().zip(open.pipes) {
            self.nodes[end].link.close(pipe);
        }
        self.at(self.now + self.spec.latency, Event::HungUp { conn, node: open.other(node) });
    }

    /// Gives an engine an input and does what it wants.
    pub(super) fn tell(&mut self, node: usize, input: Input) {
        let Some(engine) = self.nodes[node].engine.as_mut() else { return };
        engine.handle(self.now, input);
        while let Some(output) = self.nodes[node].engine.as_mut().and_then(Engine::poll) {
            self.act(node, output);
        }
        let deadline = self.nodes[node].engine.as_ref().and_then(Engine::deadline);
        if let Some(deadline) = deadline.map(|deadline| deadline.max(self.now + Duration::from_micros(1)))
            && self.nodes[node].woken_at.is_none_or(|planned| deadline < planned)
        {
            self.nodes[node].woken_at = Some(deadline);
            self.at(deadline, Event::Wake(node));
        }
        self.transmit(node);
    }

    fn act(&mut self, node: usize, output: Output) {
        let mute = matches!(self.nodes[node].spec.character, Character::Script(_));
        match output {
            Output::Dial(to) => self.at(self.now + 3 * self.spec.latency, Event::Connect { from: node, to }),
            Output::Send { .. } | Output::SendBlock { .. } if mute => {}
            Output::Send { conn, message } => {
                let takes_only = matches!(self.nodes[node].spec.character, Character::Taker);
                if !(takes_only && matches!(message, Message::Request(_))) {
                    self.push(node, conn, Frame::Message(message));
                }
            }
            Output::SendBlock { conn, block } => {
                let whole = if block.in_frame() {
                    let Some(frame) = self.nodes[node].frames.get(block.piece) else {
                        return self.tell(node, Input::BlockUnreadable { conn, block });
                    };
                    frame.clone()
                } else {
                    self.payload[block.piece.get()].clone()
                };
                let data = whole.slice(block.start() as usize..(block.start() + block.len) as usize);
                let lie = || Bytes::from(data.iter().map(|byte| !byte).collect::<Vec<_>>());
                let data = match self.nodes[node].spec.character {
                    Character::Stalling => return,
                    Character::Liar => lie(),
                    Character::Garbler if block.in_frame() => lie(),
                    _ => data,
                };
                self.push(node, conn, Frame::Block(block, data));
            }
            Output::Close { conn, why } => {
                self.nodes[node].closes.push(why);
                self.hang_up(node, conn);
            }
            Output::Store { piece, buf, frame } => {
                let len = self.geometry.len_of(piece) as usize;
                let right = if let Some(frame) = frame {
                    let maker = frames::maker(&buf[..frame as usize], piece, self.geometry.len_of(piece));
                    if maker.is_some() {
                        self.at(self.now, Event::Framed { node, piece, maker });
                    }
                    maker.is_some()
                } else {
                    buf[..len] == self.payload[piece.get()][..]
                };
                let result = if right { StoreResult::Ok } else { StoreResult::WrongHash };
                let start = self.nodes[node].disk_free.max(self.now);
                let time = self.nodes[node].spec.writing(len as u64 * u64::from(self.spec.grain));
                self.nodes[node].disk_free = start + time;
                self.at(self.nodes[node].disk_free, Event::Stored { node, piece, result });
            }
            Output::MakeFrame { piece, at_most } => {
                let len =
                    frames::len_of(piece, node, self.geometry.len_of(piece)).filter(|len| *len <= at_most);
                self.at(self.now + frames::TIME, Event::Framed { node, piece, maker: len.map(|_| node) });
            }
            Output::Complete => self.nodes[node].finished = Some(self.now),
        }
    }

    /// The node keeps a frame; one that it has no more room for is gone.
    fn framed(&mut self, node: usize, piece: PieceIndex, maker: Option<usize>) {
        let whole = self.geometry.len_of(piece);
        let len = maker.and_then(|maker| frames::len_of(piece, maker, whole));
        let frame = maker.map(|maker| frames::contents(piece, maker, whole));
        if let Some(gone) = frame.and_then(|frame| self.nodes[node].frames.keep(piece, frame)) {
            self.tell(node, Input::Frame { piece: gone, state: FrameState::Gone });
        }
        self.tell(node, Input::Frame { piece, state: len.map_or(FrameState::Useless, FrameState::Ready) });
    }

    /// Lets frames leave: messages together, up to the next block or for [`LONGEST_TRAIN`].
    fn transmit(&mut self, node: usize) {
        let mut end = self.now;
        while end.since(self.now) < LONGEST_TRAIN
            && let Some((conn, frame, time)) = self.nodes[node].link.next()
        {
            end = end + time;
            if matches!(frame, Frame::Block(..)) {
                return self.at(end, Event::UplinkDone { node, conn, frame });
            }
            self.nodes[node].link.idle();
            self.depart(node, conn, frame, end);
        }
        if end > self.now {
            self.nodes[node].link.occupy();
            self.at(end, Event::UplinkIdle(node));
        }
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
