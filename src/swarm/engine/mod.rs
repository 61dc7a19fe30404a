//! The engine itself: takes inputs, keeps peers and time, and lets the parts decide.
//!
//! `messages` reads what peers say, `fetch` decides which blocks are requested from which peer, `serve` which
//! requests are answered, `book` which addresses are dialled, `rules` which peers may be met. Invariant: each
//! peer's pieces are counted in the picker exactly while it is connected.

mod messages;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::rng::Rng;
use crate::rules::Rules;
use crate::swarm::download::fetch::{Fetcher, Giver};
use crate::swarm::interface::{
    CloseReason, ConnId, EngineConfig, Fault, Input, Output, StoreResult, SwarmStats,
};
use crate::swarm::peers::address_book::AddressBook;
use crate::swarm::peers::availability::Near;
use crate::swarm::peers::disk_rate::Medium;
use crate::swarm::peers::peer::{Peer, Peers};
use crate::swarm::peers::rate::{Capacity, RateMeter, Recent};
use crate::swarm::peers::zone_policy::Pace;
use crate::swarm::pieces::completion::Holdings;
use crate::swarm::pieces::compressed::Frames;
use crate::swarm::pieces::geometry::{Block, Geometry, PieceShape};
use crate::swarm::pieces::inflight::Landings;
use crate::swarm::upload::offers::Offers;
use crate::swarm::upload::queue::Server;
use crate::swarm::wire::extended::{ExtendedHandshake, OUR_EXTENSION_ID, OUR_EXTENSION_VERSION};
use crate::swarm::wire::handshake::Handshake;
use crate::swarm::wire::message::Message;
use crate::units::{Now, PieceIndex};

/// How often the engine looks after silent, stalled and choked peers.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often a keep-alive goes out; peers hang up after two minutes of silence (BEP 3).
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A peer that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(150);
/// A connection that lived so long was a good one: its address may be dialled again at once.
const PROVED: Duration = Duration::from_secs(30);

/// One torrent's state machine.
pub struct Engine {
    pub(in crate::swarm) config: EngineConfig,
    pub(in crate::swarm) geometry: Geometry,
    pub(in crate::swarm) now: Now,
    pub(in crate::swarm) holds: Holdings,
    pub(in crate::swarm) peers: Peers,
    pub(in crate::swarm) fetch: Fetcher,
    pub(in crate::swarm) serve: Server,
    pub(in crate::swarm) offers: Offers,
    pub(in crate::swarm) frames: Frames,
    /// What our links were seen to carry.
    pub(in crate::swarm) uplink: Capacity,
    pub(in crate::swarm) downlink: Capacity,
    /// What comes just now.
    pub(in crate::swarm) inflow: Recent,
    /// How fast our medium was seen to be.
    medium: Medium,
    pub(in crate::swarm) out: VecDeque<Output>,
    /// Blocks were given back: every peer may have something new to do.
    pub(in crate::swarm) wake: bool,
    /// Peers that sent blocks and can be asked for more.
    pub(in crate::swarm) hungry: Vec<ConnId>,
    pub(in crate::swarm) bytes_in: RateMeter,
    pub(in crate::swarm) wasted: u64,
    bytes_out: RateMeter,
    bad_pieces: u64,
    pub(in crate::swarm) book: AddressBook,
    /// Which peers we may meet.
    pub(in crate::swarm) rules: Option<Rules>,
    pub(in crate::swarm) pace: Pace,
    /// What peers of our own zone have.
    pub(in crate::swarm) near: Near,
    /// Connected peers that pieces cross to, from zone to zone.
    pub(in crate::swarm) crossing: usize,
    pub(in crate::swarm) rng: Rng,
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
        let holds = Holdings::new(geometry, config.have.clone(), config.wanted.clone())?;
        let mut rng = Rng::new(config.seed);
        let mut engine = Engine {
            fetch: Fetcher::new(geometry, pool, shape, &holds.missing(), config.request_depth, &mut rng),
            serve: Server::new(geometry.pieces()),
            offers: Offers::new(geometry.pieces()),
            frames: Frames::new(geometry.pieces()),
            uplink: Capacity::of_grain(config.grain),
            downlink: Capacity::of_grain(config.grain),
            inflow: Recent::default(),
            book: AddressBook::new(&config.own_addresses, config.listen_port),
            now: Now::ZERO,
            peers: Peers::new(),
            out: VecDeque::new(),
            wake: false,
            hungry: Vec::new(),
            bytes_in: RateMeter::default(),
            wasted: 0,
            bytes_out: RateMeter::default(),
            bad_pieces: 0,
            rules: None,
            pace: Pace::default(),
            near: Near::default(),
            medium: Medium::default(),
            crossing: 0,
            housekeeping: Now::ZERO,
            config,
            geometry,
            holds,
            rng,
        };
        if engine.holds.complete() {
            engine.out.push_back(Output::Complete);
        }
        Some(engine)
    }

    /// Takes what happened at `now`. Drain [`poll`](Self::poll) afterwards.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.handle_all(now, [input]);
    }

    /// The same for what happened at about the same time: what follows is thought of once.
    pub fn handle_all(&mut self, now: Now, inputs: impl IntoIterator<Item = Input>) {
        self.now = self.now.max(now);
        for input in inputs {
            self.take(input);
        }
        self.settle();
    }

    /// Where blocks are read into.
    pub fn landings(&self) -> Landings {
        self.fetch.landings.clone()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Candidates(addrs) => self.book.learn(addrs),
            Input::Rules(rules) => self.follow(rules),
            Input::DialFailed(addr) => self.book.failed(addr, self.now),
            Input::Connected { conn, addr, incoming, handshake } => {
                self.connected(conn, addr, incoming, &handshake);
            }
            Input::Message { conn, message } => {
                if let Err(fault) = self.message(conn, message) {
                    self.close(conn, fault.into());
                }
            }
            Input::Landed { conn, block } => {
                if let Err(fault) = self.block_came(conn, block, None) {
                    self.close(conn, fault.into());
                }
            }
            Input::Garbage { conn, error } => self.close(conn, Fault::from(error).into()),
            Input::Closed { conn } => self.forget(conn, false),
            Input::BlockSent { conn, block } => self.block_sent(conn, block),
            Input::BlockUnreadable { conn, block } => self.block_unreadable(conn, block),
            Input::Stored { piece, result } => self.stored(piece, result),
            Input::Frame { piece, state } => self.frame_changed(piece, state),
            Input::Tick => {}
        }
    }

    /// Does what follows from what was taken.
    fn settle(&mut self) {
        for conn in std::mem::take(&mut self.hungry) {
            self.fill(conn);
        }
        if self.now >= self.housekeeping {
            self.housekeeping = self.now + HOUSEKEEPING;
            self.keep_house();
        }
        self.medium.see(self.fetch.is_storing(), self.now);
        if self.fetch.take_starved() || self.wake {
            self.fill_all();
        }
        self.offer();
        self.serve.pump(
            &mut self.peers,
            &self.fetch.picker,
            &self.config,
            &self.uplink,
            self.now,
            &mut self.out,
        );
        self.dial();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Now> {
        let serve = self
            .serve
            .deadline(&self.peers, &self.config, &self.uplink, self.now)
            .map(|due| due.max(self.now + Duration::from_millis(1)));
        let offers = self.offers.deadline();
        [Some(self.housekeeping), self.fetch.deadline(self.now), serve, offers].into_iter().flatten().min()
    }

    /// The sizes of the torrent.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What is stored.
    pub fn have(&self) -> &Bitfield {
        self.holds.have()
    }

    /// A snapshot.
    pub fn stats(&self) -> SwarmStats {
        SwarmStats {
            pieces: self.holds.pieces_wanted(),
            pieces_done: self.holds.pieces_done(),
            bytes_total: self.holds.bytes_wanted(),
            bytes_done: self.holds.bytes_done(),
            bytes_in: self.bytes_in.total(),
            bytes_wasted: self.wasted + self.fetch.dropped,
            bytes_out: self.bytes_out.total(),
            rate_in: self.bytes_in.rate(self.now),
            rate_out: self.bytes_out.rate(self.now),
            peers: self.peers.len(),
            seeders: self.peers.values().filter(|peer| peer.seed).count(),
            pieces_active: self.fetch.active(),
            pieces_bad: self.bad_pieces,
            complete: self.holds.complete(),
            carries: self.carries(),
        }
    }

    /// What we can pass on: the better direction of our link (the other one may have been held up by others),
    /// unless the medium is slower.
    fn carries(&self) -> u64 {
        let link = self.uplink.get().max(self.downlink.get());
        self.medium.get().map_or(link, |medium| medium.min(link))
    }

    fn connected(&mut self, conn: ConnId, addr: SocketAddr, incoming: bool, handshake: &Handshake) {
        if !incoming {
            self.book.connected(addr);
        }
        if let Some(why) = self.unwelcome(addr, incoming, handshake) {
            self.out.push_back(Output::Close { conn, why });
            if !incoming {
                self.book.closed(addr, self.now, true);
            }
            return;
        }
        let mut peer = Peer::new(addr, incoming, handshake, self.geometry.pieces(), self.now);
        peer.standing = self.standing(addr.ip());
        self.crossing += usize::from(peer.standing.crosses());
        let fast = peer.fast;
        self.peers.insert(conn, peer);
        if !incoming {
            // Said again: giving up an older connection to the same peer has freed its address.
            self.book.connected(addr);
        }
        let have = self.holds.have();
        let first = match (fast, have.is_all(), have.is_none()) {
            (true, true, _) => Some(Message::HaveAll),
            (true, _, true) => Some(Message::HaveNone),
            (false, _, true) => None,
            _ => Some(Message::Bitfield(Bytes::copy_from_slice(have.as_wire()))),
        };
        if let Some(message) = first {
            self.send(conn, message);
        }
        if handshake.extended {
            self.introduce_to(conn);
        }
    }

    /// Why a new connection is not kept. May close an older one to the same peer instead.
    fn unwelcome(&mut self, addr: SocketAddr, incoming: bool, handshake: &Handshake) -> Option<CloseReason> {
        if handshake.peer_id == self.config.peer_id {
            if !incoming {
                self.book.never(addr);
            }
            return Some(CloseReason::Itself);
        }
        if self.config.ours_only && !handshake.peer_id.is_ours() {
            return Some(CloseReason::Foreign);
        }
        if self.book.is_banned(handshake.peer_id, self.now) {
            return Some(CloseReason::Banned);
        }
        if !Engine::may_dial(self.rules.as_ref(), addr) {
            return Some(CloseReason::NotAllowed);
        }
        let same = self.peers.iter().find(|(_, peer)| peer.id == handshake.peer_id);
        if let Some((old, peer)) = same.map(|(conn, peer)| (*conn, peer)) {
            // Both dialled each other: both sides keep what the one with the greater name dialled.
            let keep_incoming = handshake.peer_id > self.config.peer_id;
            if peer.incoming == incoming || incoming != keep_incoming {
                return Some(CloseReason::Duplicate);
            }
            self.close(old, CloseReason::Duplicate);
        }
        (self.peers.len() >= self.config.max_peers).then_some(CloseReason::Full)
    }

    /// The extension handshake (BEP 10), first or again when something changed.
    fn introduce_to(&mut self, conn: ConnId) {
        let said = ExtendedHandshake {
            request_queue: Some(self.config.request_queue),
            upload_only: Some(self.holds.complete()),
            client: Some(concat!("flashmob ", env!("CARGO_PKG_VERSION")).to_owned()),
            port: (self.config.listen_port != 0).then_some(self.config.listen_port),
            flashmob_id: Some(OUR_EXTENSION_ID),
            flashmob_version: Some(OUR_EXTENSION_VERSION),
            frames: self.takes_frames().then_some(1),
        };
        self.send(conn, Message::Extended { id: 0, payload: said.encode().into() });
    }

    /// The peer says where it listens: it need not be dialled.
    pub(in crate::swarm) fn listens_at(&mut self, addr: SocketAddr) {
        self.book.connected(addr);
    }

    fn block_sent(&mut self, conn: ConnId, block: Block) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if self.serve.sent(conn, peer, block, self.now) {
            let schedules = peer.schedules.is_some();
            self.bytes_out.add(self.now, u64::from(block.len));
            self.uplink.add(self.now, u64::from(block.len));
            // Scheduling peers were charged when the grant was made.
            if !schedules {
                self.sends_across(conn, block.len);
            }
            if self.serve.is_idle(&self.peers) {
                self.uplink.pause();
            }
        }
    }

    fn block_unreadable(&mut self, conn: ConnId, block: Block) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !self.serve.sent(conn, peer, block, self.now) {
            return;
        }
        // It is not offered to this peer again before it has rested.
        peer.decline(block.piece, self.now);
        if peer.fast {
            self.send(conn, Message::Reject(block));
        } else {
            self.close(conn, CloseReason::Unreadable);
        }
    }

    fn stored(&mut self, piece: PieceIndex, result: StoreResult) {
        self.medium.stored(u64::from(self.geometry.len_of(piece)), self.now);
        match result {
            StoreResult::Ok => self.piece_done(piece),
            StoreResult::WrongHash => self.piece_wrong(piece),
            StoreResult::Failed => self.fetch.halt(&mut self.peers, &mut self.out),
        }
        self.wake = true;
    }

    fn piece_done(&mut self, piece: PieceIndex) {
        let Some(givers) = self.fetch.stored(piece) else { return };
        for giver in givers {
            if let Some(peer) = self.peers.get_mut(&giver.conn) {
                peer.gave_right = true;
            }
        }
        if !self.holds.insert(piece) {
            return;
        }
        self.offers.wake();
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            self.send(conn, Message::Have(piece));
            if let Some(peer) = self.peers.get_mut(&conn).filter(|peer| peer.have.has(piece)) {
                peer.useful = peer.useful.saturating_sub(1);
                self.update_interest(conn);
            }
        }
        if self.holds.complete() {
            self.completed();
        }
    }

    /// Everything that is wanted is here. A peer that counts our pieces sees a seeder by itself; of one with
    /// a part of them it must be told (BEP 21).
    fn completed(&mut self) {
        self.out.push_back(Output::Complete);
        let conns: Vec<(ConnId, bool)> =
            self.peers.iter().map(|(conn, peer)| (*conn, peer.extended)).collect();
        for (conn, extended) in conns {
            if extended && !self.holds.have().is_all() {
                self.introduce_to(conn);
            }
            self.part_if_pointless(conn);
        }
    }

    fn piece_wrong(&mut self, piece: PieceIndex) {
        self.bad_pieces += 1;
        self.wasted += u64::from(self.geometry.len_of(piece));
        let Some(Giver { conn, id }) = self.fetch.wrong(piece, &mut self.rng) else { return };
        let gives = |peer: &Peer| peer.standing.fetch && peer.have.has(piece);
        let has_another = self.peers.iter().any(|(other, peer)| *other != conn && gives(peer));
        // Nobody else may give it to us: without this peer we would wait for ever. One that has sent right
        // pieces is asked again after a rest, because its disk may be mended meanwhile, or the fault be in
        // our own memory. One that never has loses the connection and may come again.
        if !has_another && let Some(peer) = self.peers.get_mut(&conn) {
            if peer.gave_right {
                peer.refuse(piece, self.now);
            } else {
                self.close(conn, CloseReason::BadPiece(piece));
            }
            return;
        }
        let listens = self.peers.get(&conn).and_then(|peer| peer.listen);
        self.book.ban(id, listens, self.now);
        self.close(conn, CloseReason::BadPiece(piece));
    }

    /// Tells the peer whether we want something of it, when that changes.
    pub(in crate::swarm) fn update_interest(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let want = peer.useful > 0 && peer.standing.fetch && !self.fetch.halted;
        if want != peer.we_are_interested {
            peer.we_are_interested = want;
            let message = if want { Message::Interested } else { Message::NotInterested };
            self.out.push_back(Output::Send { conn, message });
        }
    }

    /// Two peers that both have everything they want need no connection.
    pub(in crate::swarm) fn part_if_pointless(&mut self, conn: ConnId) {
        let done = |peer: &Peer| peer.seed || (peer.upload_only && !peer.interested);
        if self.holds.complete() && self.peers.get(&conn).is_some_and(done) {
            self.close(conn, CloseReason::NothingToTrade);
        }
    }

    pub(in crate::swarm) fn rechoke(&mut self) {
        self.serve.rechoke(&mut self.peers, &self.config, self.now, &mut self.out);
    }

    pub(in crate::swarm) fn send(&mut self, conn: ConnId, message: Message) {
        self.out.push_back(Output::Send { conn, message });
    }

    pub(in crate::swarm) fn fill(&mut self, conn: ConnId) {
        self.fetch.fill(conn, &mut self.peers, self.now, &mut self.out);
    }

    fn fill_all(&mut self) {
        self.wake = false;
        self.fetch.restart_orphans(&mut self.rng);
        // A scheduling peer is asked for the pieces it was granted, and for nothing else.
        let owners = self.fetch.owners();
        let able = |(conn, peer): &(&ConnId, &Peer)| peer.schedules.is_none() || owners.contains(conn);
        let conns: Vec<ConnId> = self.peers.iter().filter(able).map(|(conn, _)| *conn).collect();
        conns.into_iter().for_each(|conn| self.fill(conn));
    }

    fn keep_house(&mut self) {
        self.offers.wake();
        let silent: Vec<ConnId> = self
            .peers
            .iter()
            .filter(|(_, peer)| self.now.since(peer.heard) >= SILENCE || peer.is_gone(self.now))
            .map(|(conn, _)| *conn)
            .collect();
        silent.into_iter().for_each(|conn| self.close(conn, CloseReason::Silent));
        for (conn, peer) in &mut self.peers {
            if self.now.since(peer.kept_alive) >= KEEP_ALIVE {
                peer.kept_alive = self.now;
                self.out.push_back(Output::Send { conn: *conn, message: Message::KeepAlive });
            }
        }
        self.fetch.snub(&mut self.peers, self.config.stall_after, self.now, &mut self.out);
        self.rechoke();
        self.wake = true;
    }

    fn dial(&mut self) {
        while self.peers.len() + self.book.dialling() < self.config.dial_up_to.min(self.config.max_peers)
            && self.book.dialling() < self.config.max_dialling
        {
            let rules = self.rules.as_ref();
            let may = |addr: SocketAddr| Engine::may_dial(rules, addr);
            let Some(addr) = self.book.next_dial(self.now, &mut self.rng, may) else { return };
            self.out.push_back(Output::Dial(addr));
        }
    }

    /// Ends a connection from our side.
    pub(in crate::swarm) fn close(&mut self, conn: ConnId, why: CloseReason) {
        if self.peers.contains_key(&conn) {
            let pointless = matches!(why, CloseReason::NothingToTrade | CloseReason::Fault(_));
            self.out.push_back(Output::Close { conn, why });
            self.forget(conn, pointless);
        }
    }

    /// The connection is no more.
    fn forget(&mut self, conn: ConnId, pointless: bool) {
        let Some(peer) = self.peers.remove(&conn) else { return };
        if peer.seed {
            self.fetch.picker.count_seed(false);
        } else {
            peer.have.iter().for_each(|piece| self.fetch.picker.lost(piece));
        }
        self.crossing -= usize::from(peer.standing.crosses());
        if !peer.standing.beyond {
            self.near.went(&peer.have);
        }
        self.fetch.lose(conn, peer.asked);
        self.offers.forget(conn);
        let known_otherwise = self.peers.values().any(|other| other.id == peer.id);
        if let Some(addr) = peer.listen.filter(|_| !known_otherwise) {
            if self.now.since(peer.connected_at) >= PROVED {
                self.book.proved(addr);
            }
            self.book.closed(addr, self.now, pointless);
        }
        self.rechoke();
        self.wake = true;
    }
}
