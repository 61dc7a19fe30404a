//! The engine itself: takes inputs, owns the parts, and connects their decisions.
//!
//! `messages` reads the messages of peers and `connections` admits and closes them. The parts decide: which
//! blocks are requested from which peer (`download::fetch`), which offers are granted
//! (`download::grants`), which requests are answered (`upload::queue`), which pieces are offered
//! (`upload::offers`), which addresses are dialled (`peers::address_book`), which peers may be met
//! (`peers::zone_policy`). Invariant: each peer's pieces are counted in the picker exactly while it is
//! connected.

mod connections;
mod messages;

use std::sync::Arc;
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::slots::InflightPieces;
use crate::swarm::context::Context;
use crate::swarm::download::fetch::{Contributor, Fetcher};
use crate::swarm::download::grants::Grants;
use crate::swarm::geometry::{Block, Geometry, PieceShape};
use crate::swarm::interface::{
    CloseReason, ConnId, EngineConfig, Fault, FrameState, Input, Output, StoreResult, SwarmStats,
};
use crate::swarm::peers::address_book::AddressBook;
use crate::swarm::peers::disk_rate::DiskRate;
use crate::swarm::peers::peer::Peer;
use crate::swarm::peers::zone_policy::ZonePolicy;
use crate::swarm::pieces::active::Delivery;
use crate::swarm::pieces::completion::Completion;
use crate::swarm::pieces::compressed::{CompressedPieces, longest};
use crate::swarm::rate::{Capacity, RateMeter};
use crate::swarm::upload::offers::{Offers, Supply};
use crate::swarm::upload::queue::UploadQueue;
use crate::swarm::wire::flashmob::{Offered, SchedulingMessage};
use crate::swarm::wire::message::Message;
use crate::units::{Now, PieceIndex};

/// How often the engine looks after silent, stalled and choked peers.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// One torrent's state machine.
pub struct Engine {
    ctx: Context,
    geometry: Geometry,
    completion: Completion,
    fetch: Fetcher,
    grants: Grants,
    queue: UploadQueue,
    offers: Offers,
    compressed: CompressedPieces,
    address_book: AddressBook,
    zones: ZonePolicy,
    /// Our uplink, as measured.
    uplink: Capacity,
    disk_rate: DiskRate,
    /// Blocks were given back: every peer may have something new to do.
    wake: bool,
    /// Peers that sent blocks and can be asked for more.
    to_refill: Vec<ConnId>,
    bytes_in: RateMeter,
    bytes_out: RateMeter,
    wasted: u64,
    bad_pieces: u64,
    housekeeping: Now,
}

impl Engine {
    /// An engine for one torrent. `None` if `config`'s lengths make no torrent, its bitfields are of another
    /// one, or the pool's buffers are shorter than a piece.
    pub fn new(config: EngineConfig, pool: BufPool, shape: Arc<dyn PieceShape>) -> Option<Self> {
        let geometry = Geometry::new(config.piece_length, config.total_length)?;
        if pool.buf_len() < config.piece_length as usize {
            return None;
        }
        let completion = Completion::new(geometry, config.have.clone(), config.wanted.clone())?;
        let mut ctx = Context::new(config);
        if completion.complete() {
            ctx.out.push(Output::Complete);
        }
        Some(Engine {
            geometry,
            fetch: Fetcher::new(geometry, pool, shape, &completion.missing(), &mut ctx.rng),
            completion,
            grants: Grants::new(&ctx.config),
            queue: UploadQueue::new(geometry.pieces()),
            offers: Offers::new(geometry.pieces()),
            compressed: CompressedPieces::new(geometry.pieces()),
            address_book: AddressBook::new(&ctx.config.own_addresses, ctx.config.listen_port),
            zones: ZonePolicy::default(),
            uplink: Capacity::of_scale(ctx.config.scale).within(ctx.config.limit.rate()),
            disk_rate: DiskRate::default(),
            wake: false,
            to_refill: Vec::new(),
            bytes_in: RateMeter::default(),
            bytes_out: RateMeter::default(),
            wasted: 0,
            bad_pieces: 0,
            housekeeping: Now::ZERO,
            ctx,
        })
    }

    /// Takes an event of time `now`. Drain [`poll`](Self::poll) afterwards.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.handle_all(now, [input]);
    }

    /// Takes several events of about the same time, and decides once about their consequences.
    pub(crate) fn handle_all(&mut self, now: Now, inputs: impl IntoIterator<Item = Input>) {
        self.ctx.now = self.ctx.now.max(now);
        for input in inputs {
            self.take(input);
        }
        self.settle();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.ctx.out.pop()
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Now> {
        let soonest = self.ctx.now + Duration::from_millis(1);
        let queue = self.queue.deadline(&self.uplink, &self.ctx).map(|due| due.max(soonest));
        let fetch = self.fetch.deadline(&self.ctx).map(|due| due.max(soonest));
        [Some(self.housekeeping), fetch, queue, self.offers.deadline()].into_iter().flatten().min()
    }

    /// The buffers that blocks are read into.
    pub(crate) fn inflight(&self) -> InflightPieces {
        self.fetch.inflight()
    }

    /// The sizes of the torrent.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The pieces that are stored.
    pub fn have(&self) -> &Bitfield {
        self.completion.have()
    }

    /// A snapshot.
    pub fn stats(&self) -> SwarmStats {
        let Context { now, peers, .. } = &self.ctx;
        SwarmStats {
            pieces: self.completion.pieces_wanted(),
            pieces_done: self.completion.pieces_done(),
            bytes_total: self.completion.bytes_wanted(),
            bytes_done: self.completion.bytes_done(),
            bytes_in: self.bytes_in.total(),
            bytes_wasted: self.wasted + self.fetch.dropped(),
            bytes_out: self.bytes_out.total(),
            rate_in: self.bytes_in.rate(*now),
            rate_out: self.bytes_out.rate(*now),
            peers: peers.len(),
            seeders: peers.values().filter(|peer| peer.link.is_seed()).count(),
            pieces_active: self.fetch.active(),
            pieces_bad: self.bad_pieces,
            complete: self.completion.complete(),
            capacity: self.capacity(),
        }
    }

    /// Bytes a second that we can pass on: the better direction of our link (the other one may have been held
    /// up by others), unless the medium is slower.
    fn capacity(&self) -> u64 {
        let link = self.uplink.get().max(self.grants.downlink());
        self.disk_rate.get().map_or(link, |disk| disk.min(link))
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Candidates(addrs) => self.address_book.learn(addrs),
            Input::Policy(policy) => self.follow(policy),
            Input::DialFailed(addr) => self.address_book.failed(addr, self.ctx.now),
            Input::Connected { conn, addr, incoming, handshake } => {
                self.connected(conn, addr, incoming, &handshake);
            }
            Input::Message { conn, message } => {
                if let Err(fault) = self.message(conn, message) {
                    self.close(conn, fault.into());
                }
            }
            Input::Landed { conn, block } => {
                if let Err(fault) = self.block_came(conn, block, Delivery::InSlot) {
                    self.close(conn, fault.into());
                }
            }
            Input::Garbage { conn, error } => self.close(conn, Fault::from(error).into()),
            Input::Closed { conn } => self.forget(conn, false),
            Input::BlockSent { conn, block } => self.block_sent(conn, block),
            Input::BlockUnreadable { conn, block } => self.block_unreadable(conn, block),
            Input::Stored { piece, result } => self.stored(piece, result),
            Input::Frame { piece, state } => {
                self.compressed.changed(piece, state);
                if state == FrameState::Gone {
                    self.queue.withdraw_frame(piece, &mut self.ctx);
                }
            }
            Input::Tick => {}
        }
    }

    /// Decides the consequences of the inputs that were taken.
    fn settle(&mut self) {
        for conn in std::mem::take(&mut self.to_refill) {
            self.fetch.fill(conn, &mut self.ctx);
        }
        if self.ctx.now >= self.housekeeping {
            self.housekeeping = self.ctx.now + HOUSEKEEPING;
            self.do_housekeeping();
        }
        self.disk_rate.see(self.fetch.is_storing(), self.ctx.now);
        if self.fetch.take_starved() || self.fetch.take_throttled(&self.ctx) || self.wake {
            self.fill_all();
        }
        self.offer();
        self.queue.pump(self.fetch.picker(), &self.uplink, &mut self.ctx);
        self.dial();
    }

    fn fill_all(&mut self) {
        self.wake = false;
        self.fetch.restart_orphans(&mut self.ctx.rng);
        // A scheduling peer is asked for the pieces it was granted, and for nothing else.
        let owners = self.fetch.owners();
        let able = |(conn, peer): &(&ConnId, &Peer)| !peer.scheduling.is_spoken() || owners.contains(conn);
        let conns: Vec<ConnId> = self.ctx.peers.iter().filter(able).map(|(conn, _)| *conn).collect();
        conns.into_iter().for_each(|conn| self.fetch.fill(conn, &mut self.ctx));
    }

    /// Offers a piece to a peer if the uplink will soon be free for it.
    fn offer(&mut self) {
        let supply = Supply {
            have: self.completion.have(),
            picker: self.fetch.picker(),
            zones: &self.zones,
            compressed: &self.compressed,
            queue: &self.queue,
            uplink: &self.uplink,
        };
        let Some(proposal) = self.offers.next(&supply, &mut self.ctx) else { return };
        let conn = proposal.conn;
        let pieces = if self.ctx.peers.get(&conn).is_some_and(|peer| peer.scheduling.takes_frames()) {
            let offered = self.compressed.offered(&proposal.pieces);
            for piece in self.compressed.next_to_make(&proposal.pieces, self.ctx.config.frames_ahead) {
                let at_most = longest(self.fetch.travelling_bytes(piece));
                self.ctx.out.push(Output::MakeFrame { piece, at_most });
            }
            offered
        } else {
            proposal.pieces.into_iter().map(Offered::whole).collect()
        };
        self.ctx.send_scheduling(conn, &SchedulingMessage::Offer { start_in: proposal.start_in, pieces });
    }

    fn block_sent(&mut self, conn: ConnId, block: Block) {
        if !self.queue.sent(conn, block, &mut self.ctx) {
            return;
        }
        let (now, bytes) = (self.ctx.now, u64::from(block.len));
        self.bytes_out.add(now, bytes);
        self.uplink.add(now, bytes);
        // Scheduling peers were charged when the grant was made.
        if self.ctx.peers.get(&conn).is_some_and(|peer| !peer.scheduling.is_spoken()) {
            self.zones.charge_sent(conn, block.len, &mut self.ctx.peers, now);
        }
        if self.queue.is_idle(&self.ctx.peers) {
            self.uplink.pause();
        }
    }

    fn block_unreadable(&mut self, conn: ConnId, block: Block) {
        if !self.queue.sent(conn, block, &mut self.ctx) {
            return;
        }
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return };
        // It is not offered to this peer again before it has rested.
        peer.scheduling.decline(block.piece, self.ctx.now);
        if peer.link.is_fast() {
            self.ctx.out.send(conn, Message::Reject(block));
        } else {
            self.close(conn, CloseReason::Unreadable);
        }
    }

    fn stored(&mut self, piece: PieceIndex, result: StoreResult) {
        self.disk_rate.stored(u64::from(self.geometry.len_of(piece)), self.ctx.now);
        match result {
            StoreResult::Ok => self.piece_done(piece),
            StoreResult::WrongHash => self.piece_wrong(piece),
            StoreResult::Failed => self.fetch.halt(&mut self.ctx),
        }
        self.wake = true;
    }

    fn piece_done(&mut self, piece: PieceIndex) {
        let Some(contributors) = self.fetch.stored(piece) else { return };
        for contributor in contributors {
            if let Some(peer) = self.ctx.peers.get_mut(&contributor.conn) {
                peer.download.sent_right();
            }
        }
        if !self.completion.insert(piece) {
            return;
        }
        self.offers.wake();
        for conn in self.ctx.conns() {
            self.ctx.out.send(conn, Message::Have(piece));
            if let Some(peer) = self.ctx.peers.get_mut(&conn).filter(|peer| peer.link.have().has(piece)) {
                peer.link.no_longer_needs(piece);
                self.update_interest(conn);
            }
        }
        if self.completion.complete() {
            self.completed();
        }
    }

    fn piece_wrong(&mut self, piece: PieceIndex) {
        self.bad_pieces += 1;
        self.wasted += u64::from(self.geometry.len_of(piece));
        let Some(Contributor { conn, id }) = self.fetch.wrong(piece, &mut self.ctx.rng) else { return };
        let gives = |peer: &Peer| peer.link.access().fetch && peer.link.have().has(piece);
        let has_another = self.ctx.peers.iter().any(|(other, peer)| *other != conn && gives(peer));
        // Nobody else may give it to us: without this peer we would wait for ever. One that has sent right
        // pieces is asked again after a rest, because its disk may be mended meanwhile, or the fault be in
        // our own memory. One that never has loses the connection and may come again.
        if !has_another && let Some(peer) = self.ctx.peers.get_mut(&conn) {
            if peer.download.has_sent_right() {
                peer.download.refuse(piece, self.ctx.now);
            } else {
                self.close(conn, CloseReason::BadPiece(piece));
            }
            return;
        }
        let listens = self.ctx.peers.get(&conn).and_then(|peer| peer.link.listen());
        self.address_book.ban(id, listens, self.ctx.now);
        self.close(conn, CloseReason::BadPiece(piece));
    }
}
