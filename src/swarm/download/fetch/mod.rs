//! Downloading: which blocks are asked of which peer.
//!
//! A piece has one owner, the peer that is to send all of it. A peer with room for requests gets, in this
//! order: the rest of its own pieces; a piece whose owner was lost; a new piece, the rarest it has; blocks of
//! another peer's piece that nobody was asked for; a piece that waits at a seeder although this peer has it
//! too; in the end game, blocks that another peer was asked for.
//!
//! Invariant: a piece is begun only with a buffer from the pool; a block in a peer's `asked` list is marked
//! so in its piece, and the other way round; nothing is asked of a peer beyond its queue.

mod choose;
mod recover;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::rng::Rng;
use crate::slots::InflightPieces;
use crate::swarm::context::Context;
use crate::swarm::geometry::{Block, Geometry, PieceShape};
use crate::swarm::interface::{ConnId, Output};
use crate::swarm::pieces::active::{ActivePiece, Arrival, Delivery, slots_of};
use crate::swarm::pieces::compressed::longest;
use crate::swarm::pieces::picker::Picker;
use crate::swarm::wire::flashmob::Offered;
use crate::swarm::wire::message::Message;
use crate::units::{Now, PeerId, PieceIndex};

/// How soon the pool is asked again after it was empty.
const BUFFER_RETRY: Duration = Duration::from_millis(20);

/// A peer that sent blocks of a piece: enough to ban it after it is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contributor {
    /// The connection.
    pub conn: ConnId,
    /// The peer's name.
    pub id: PeerId,
}

/// The use of a received block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// Nothing.
    Wasted,
    /// It was missing.
    Kept,
    /// It completed a piece that one peer sent: these bytes came in this time.
    Measured { bytes: u64, time: Duration },
}

/// The downloading half of the engine.
pub(crate) struct Fetcher {
    geometry: Geometry,
    pool: BufPool,
    shape: Arc<dyn PieceShape>,
    /// Rarest first, over the pieces that are not being fetched yet.
    picker: Picker,
    active: BTreeMap<PieceIndex, ActivePiece>,
    /// The buffers of the active pieces.
    inflight: InflightPieces,
    storing: BTreeMap<PieceIndex, Vec<Contributor>>,
    /// Pieces that came with a wrong hash from several peers.
    suspect: Vec<PieceIndex>,
    /// The pool was empty when a piece was to be begun.
    starved: bool,
    /// The limit kept a standard client from being asked for more.
    throttled: bool,
    /// The medium failed.
    halted: bool,
    /// Bytes of frames whose sender was lost before they were whole.
    dropped: u64,
}

impl Fetcher {
    /// Wants the pieces of `missing`; no other piece is ever begun.
    pub(crate) fn new(
        geometry: Geometry,
        pool: BufPool,
        shape: Arc<dyn PieceShape>,
        missing: &Bitfield,
        rng: &mut Rng,
    ) -> Self {
        Fetcher {
            geometry,
            pool,
            shape,
            picker: Picker::new(missing, rng),
            active: BTreeMap::new(),
            inflight: InflightPieces::default(),
            storing: BTreeMap::new(),
            suspect: Vec::new(),
            starved: false,
            throttled: false,
            halted: false,
            dropped: 0,
        }
    }

    /// The pieces that are not being fetched yet, rarest first.
    pub(crate) fn picker(&self) -> &Picker {
        &self.picker
    }

    /// The same, for counting what peers have.
    pub(crate) fn picker_mut(&mut self) -> &mut Picker {
        &mut self.picker
    }

    /// The buffers that blocks are read into.
    pub(crate) fn inflight(&self) -> InflightPieces {
        self.inflight.clone()
    }

    /// The medium failed: nothing more is fetched.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted
    }

    /// The pool was empty when a piece was to be begun.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Bytes of compressed pieces whose sender was lost before they were whole.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Pieces that are being fetched.
    pub(crate) fn active(&self) -> usize {
        self.active.len()
    }

    /// When the pool, or a peer, is to be asked again.
    pub(crate) fn deadline(&self, ctx: &Context) -> Option<Now> {
        let buffer = self.starved.then(|| ctx.now + BUFFER_RETRY);
        let limit = self.throttled.then(|| ctx.now + ctx.receives_in());
        [buffer, limit].into_iter().flatten().min()
    }

    /// True once after the limit held requests back and lets them through again.
    pub(crate) fn take_throttled(&mut self, ctx: &Context) -> bool {
        let ready = self.throttled && ctx.receives_in().is_zero();
        self.throttled &= !ready;
        ready
    }

    /// True once after the pool was found empty.
    pub(crate) fn take_starved(&mut self) -> bool {
        std::mem::take(&mut self.starved)
    }

    /// Asks `conn` for as much as is good for it.
    pub(crate) fn fill(&mut self, conn: ConnId, ctx: &mut Context) {
        loop {
            let Some(peer) = ctx.peers.get(&conn) else { return };
            let room = peer.download.requests()
                < peer.download.depth(peer.scheduling.is_spoken(), ctx.now, ctx.config.request_depth);
            if self.halted || !peer.download.is_open() || !room {
                return;
            }
            let standard = !peer.scheduling.is_spoken();
            let more = standard && peer.download.requests() < peer.download.ahead(ctx.now);
            // The pieces of a scheduling peer were paid when they were granted.
            if standard && !ctx.receives_in().is_zero() {
                self.throttled = true;
                return;
            }
            let Some(block) =
                self.own_block(conn).or_else(|| more.then(|| self.find_block(conn, ctx)).flatten())
            else {
                return;
            };
            if standard {
                ctx.pay_received(block.len);
            }
            let Some(peer) = ctx.peers.get_mut(&conn) else { return };
            peer.download.ask(block, ctx.now);
            ctx.out.send(conn, Message::Request(block));
        }
    }

    /// The pieces that are being fetched.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &ActivePiece> {
        self.active.values()
    }

    /// `piece`, if it is being fetched.
    pub(crate) fn piece(&self, piece: PieceIndex) -> Option<&ActivePiece> {
        self.active.get(&piece)
    }

    /// Pieces wait for the medium.
    pub(crate) fn is_storing(&self) -> bool {
        !self.storing.is_empty()
    }

    /// Peers that have something of their pieces left that they were not asked for.
    pub(crate) fn owners(&self) -> Vec<ConnId> {
        self.active.values().filter(|active| active.free() > 0).filter_map(|active| active.owner()).collect()
    }

    /// Pieces that were begun and whose owner was lost.
    pub(crate) fn pieces_of_nobody(&self) -> impl Iterator<Item = PieceIndex> {
        self.active
            .iter()
            .filter(|(_, active)| active.owner().is_none() && active.free() > 0)
            .map(|(at, _)| *at)
    }

    /// Bytes of `piece` that travel when it is not compressed.
    pub(crate) fn travelling_bytes(&self, piece: PieceIndex) -> u64 {
        let ranges = self.shape.data_ranges(piece, self.geometry.len_of(piece));
        ranges.iter().map(|range| u64::from(range.end - range.start)).sum()
    }

    /// What is asked for to have `piece`: the blocks of its frame of `frame` bytes if it is worth it (0:
    /// there is none), else those of its bytes that travel.
    fn blocks_of(&self, piece: PieceIndex, frame: u32) -> Vec<Block> {
        if (1..=longest(self.travelling_bytes(piece))).contains(&frame) {
            return Block::of_frame(piece, frame);
        }
        self.geometry.blocks_of(piece, self.shape.as_ref())
    }

    /// `conn` is to send what is missing of `piece`, from `start`; if nothing came yet, its frame of `frame`
    /// bytes. False if it has an owner or is not being fetched.
    pub(crate) fn adopt_piece(
        &mut self,
        conn: ConnId,
        Offered { piece, frame }: Offered,
        start: Now,
    ) -> bool {
        let blocks = if frame > 0 { self.blocks_of(piece, frame) } else { Vec::new() };
        let Some(active) = self.active.get_mut(&piece) else { return false };
        if active.owner().is_some() || active.free() == 0 || !active.may_come_from(conn) {
            return false;
        }
        active.assign(conn, start);
        if !blocks.is_empty() && active.untouched() && active.free() == active.missing() {
            self.restart(piece, blocks);
        }
        true
    }

    /// `conn` is to send `piece` or its frame, from `start`; false if it is not wanted, there is no buffer
    /// for it, or nothing of it travels.
    pub(crate) fn begin_piece(
        &mut self,
        conn: ConnId,
        Offered { piece, frame }: Offered,
        start: Now,
        ctx: &mut Context,
    ) -> bool {
        if !self.picker.wants(piece) {
            return false;
        }
        let Some(buf) = self.pool.take() else {
            self.starved = true;
            return false;
        };
        self.picker.unwant(piece);
        let blocks = self.blocks_of(piece, frame);
        let nothing_travels = blocks.is_empty();
        let slots = slots_of(buf, &blocks);
        self.inflight.open(piece, slots.clone());
        if nothing_travels {
            self.store(piece, Vec::new(), None, ctx);
        } else {
            let solo = self.suspect.contains(&piece);
            self.active.insert(piece, ActivePiece::new(blocks, slots, conn, solo, start));
        }
        !nothing_travels
    }

    /// All of `piece` is here.
    fn store(
        &mut self,
        piece: PieceIndex,
        contributors: Vec<Contributor>,
        frame: Option<u32>,
        ctx: &mut Context,
    ) {
        if let Some(buf) = self.inflight.close(piece) {
            self.storing.insert(piece, contributors);
            ctx.out.push(Output::Store { piece, buf, frame });
        }
    }

    /// A block came from `conn`, which was asked for it (or had been).
    pub(crate) fn arrived(
        &mut self,
        conn: ConnId,
        block: Block,
        delivery: Delivery<'_>,
        ctx: &mut Context,
    ) -> Receipt {
        let Some(active) = self.active.get_mut(&block.piece) else { return Receipt::Wasted };
        if active.has_one_source() && active.owner() != Some(conn) {
            return Receipt::Wasted;
        }
        let recall = match active.accept(conn, block, delivery) {
            Arrival::New { recall } => recall,
            Arrival::Useless => return Receipt::Wasted,
            Arrival::Lost => {
                // It was asked for before, and again after the piece was begun anew: a second one may follow.
                active.release(conn, block);
                if let Some(peer) = ctx.peers.get_mut(&conn).filter(|_| !block.in_frame()) {
                    peer.download.remember_recalled(block);
                }
                return Receipt::Wasted;
            }
        };
        active.count(u64::from(block.len), ctx.now);
        if let Some(other) = recall
            && let Some(peer) = ctx.peers.get_mut(&other)
            && peer.download.take_asked(block)
        {
            peer.download.remember_recalled(block);
            ctx.out.send(other, Message::Cancel(block));
        }
        if active.missing() > 0 {
            return Receipt::Kept;
        }
        self.completed(block.piece, ctx)
    }

    /// All blocks of `piece` are here.
    fn completed(&mut self, piece: PieceIndex, ctx: &mut Context) -> Receipt {
        let Some(active) = self.active.remove(&piece) else { return Receipt::Kept };
        let known =
            |conn: &ConnId| ctx.peers.get(conn).map(|peer| Contributor { conn: *conn, id: peer.link.id() });
        let mut contributors: Vec<Contributor> = active.contributors().iter().filter_map(known).collect();
        if contributors.len() != active.contributors().len() {
            // A peer that sent some of it is gone, so none that stayed can be blamed alone.
            contributors.clear();
        }
        self.store(piece, contributors, active.frame(), ctx);
        match active.run(ctx.now) {
            Some((bytes, time)) if active.contributors().len() == 1 => Receipt::Measured { bytes, time },
            _ => Receipt::Kept,
        }
    }

    /// A piece was stored. Returns the peers that sent it, or `None` if it was not being stored.
    pub(crate) fn stored(&mut self, piece: PieceIndex) -> Option<Vec<Contributor>> {
        self.suspect.retain(|suspect| *suspect != piece);
        self.storing.remove(&piece)
    }

    /// A piece had a wrong hash: wants it again. Returns the only peer that sent it, if there is one.
    pub(crate) fn wrong(&mut self, piece: PieceIndex, rng: &mut Rng) -> Option<Contributor> {
        let contributors = self.storing.remove(&piece)?;
        self.picker.want(piece, rng);
        if let [only] = contributors[..] {
            return Some(only);
        }
        if !self.suspect.contains(&piece) {
            self.suspect.push(piece);
        }
        None
    }
}
