//! The owner task of a torrent: feeds its engine and does what the engine says.
//!
//! Invariant: only this task touches the engine and the cache; it waits for nobody but for events. It ends when it
//! is told to stop or when a write fails, and then everything it started has ended too. A piece that cannot be
//! read is refused to the peer who asked; the torrent goes on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::cache::{Data, PieceCache, Wanted};
use super::check::check;
use super::dial::{self, Dialled};
use super::frames::FrameStore;
use super::limits::Permit;
use super::listen::Accepted;
use super::peer::{self, Outgoing, PeerEvent, PeerHandle, Torrent};
use super::reader::Heard;
use super::shares::Shares;
use super::{Ends, Found, Have, Phase, Shared, TorrentSpec, announcing};
use crate::buf::{BufPool, PieceBuf};
use crate::event::{Class, Failure};
use crate::io::diskio::{DiskQueue, Done};
use crate::io::frames::{self, FrameMaker};
use crate::io::storage::disk_failure;
use crate::swarm::wire::Handshake;
use crate::swarm::{
    Bitfield, Block, ConnId, Engine, EngineConfig, FrameState, Geometry, Input, Output, StoreResult,
    SwarmStats,
};
use crate::units::{Now, PieceIndex};

/// How often the numbers are made known.
pub(super) const PUBLISH: Duration = Duration::from_millis(500);
/// Events of all peers that may wait for the owner; each is what came, or what left, with one system call.
const EVENTS: usize = 64;
/// Pieces that are being brought into the system's memory at once.
const WARMING: usize = 16;

/// Runs a torrent until it is stopped or fails.
pub(super) async fn run(
    shared: Arc<Shared>,
    spec: TorrentSpec,
    geometry: Geometry,
    wanted: Bitfield,
    accepted: mpsc::Receiver<Accepted>,
    mut ends: Ends,
) {
    let end = match check(&spec, geometry, &wanted, &mut ends).await {
        Ok(Some(have)) => work(&shared, spec, geometry, Pieces { have, wanted }, accepted, &mut ends).await,
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    ends.phase.send_replace(match end {
        Ok(()) => Phase::Stopped,
        Err(failure) => Phase::Failed(failure),
    });
}

/// What is there, and what shall be.
struct Pieces {
    have: Bitfield,
    wanted: Bitfield,
}

/// Fetches and serves. Returns when everything it started has ended.
async fn work(
    shared: &Arc<Shared>,
    spec: TorrentSpec,
    geometry: Geometry,
    pieces: Pieces,
    accepted: mpsc::Receiver<Accepted>,
    ends: &mut Ends,
) -> Result<(), Failure> {
    let nothing_to_sync = matches!(spec.have, Have::Everything);
    let storage = Arc::clone(&spec.storage);
    let trackers = spec.trackers.clone();
    let (mut owner, channels) = Owner::new(shared, spec, geometry, pieces, accepted)?;
    owner.publish(ends);
    if !owner.engine.stats().complete {
        ends.phase.send_replace(Phase::Fetching);
    } else if nothing_to_sync {
        owner.complete = true;
        ends.phase.send_replace(Phase::Complete);
    } else {
        owner.begin_sync();
    }
    let mut announcers = announcing::start(shared, owner.spec.meta.info_hash, trackers, ends);
    let result = owner.serve(channels, ends).await;
    if let Err(failure) = &result {
        ends.phase.send_replace(Phase::Failed(failure.clone()));
    }
    owner.publish(ends);
    let Owner { disk, complete, frame_maker, .. } = owner;
    let finished = tokio::task::spawn_blocking(move || {
        if let Some(maker) = frame_maker {
            maker.finish();
        }
        disk.finish();
        // What was written before a stop is kept: the next start finds it.
        if complete { Ok(()) } else { storage.sync() }
    });
    while announcers.join_next().await.is_some() {}
    match (result, finished.await) {
        (Ok(()), Ok(Err(error))) => Err(disk_failure(&error)),
        (result, _) => result,
    }
}

/// Where events come from.
struct Channels {
    accepted: mpsc::Receiver<Accepted>,
    events: mpsc::Receiver<PeerEvent>,
    dialled: mpsc::Receiver<Dialled>,
    done: mpsc::UnboundedReceiver<Done>,
}

struct Owner {
    shared: Arc<Shared>,
    spec: TorrentSpec,
    geometry: Geometry,
    engine: Engine,
    started: Instant,
    conns: HashMap<ConnId, PeerHandle>,
    next_conn: u64,
    dials: JoinSet<()>,
    /// Buffers that the engine fills.
    pool: BufPool,
    /// Buffers that pieces are read into for peers.
    load_pool: BufPool,
    cache: PieceCache,
    /// Pieces that are being brought into the system's memory.
    warming: usize,
    frames: FrameStore,
    /// Compresses for those who take frames.
    frame_maker: Option<FrameMaker>,
    disk: DiskQueue,
    /// The engine found no buffer in its pool; it is told when there is one.
    starved: bool,
    syncing: bool,
    complete: bool,
    to_owner: mpsc::Sender<PeerEvent>,
    to_owner_dialled: mpsc::Sender<Dialled>,
}

impl Owner {
    fn new(
        shared: &Arc<Shared>,
        spec: TorrentSpec,
        geometry: Geometry,
        Pieces { have, wanted }: Pieces,
        accepted: mpsc::Receiver<Accepted>,
    ) -> Result<(Owner, Channels), Failure> {
        let cannot =
            |what: String| Failure::new(Class::Retry, format!("cannot start the swarm: {what}"), "try again");
        let buffer = geometry.piece_length() as usize;
        let fetches = wanted.has_more_than(&have);
        let part = frames::part(shared.config.compress, !fetches);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let shares = Shares::of(spec.memory, geometry.piece_length(), fetches, part, cores);
        let pool = BufPool::new(buffer, shares.engine + shares.undoing);
        let load_pool = BufPool::new(buffer, shares.loading);
        let mut config = EngineConfig::new(
            spec.meta.info_hash,
            shared.peer_id,
            geometry.piece_length(),
            geometry.total_length(),
            have,
        );
        config.wanted = wanted;
        config.ours_only = spec.meta.unhashed;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| cannot(error.to_string()))?;
        config.seed = u64::from_le_bytes(seed);
        config.listen_port = shared.local_addr.port();
        config.own_addresses = own_addresses();
        config.takes_frames = part.takes;
        config.frames_ahead = part.ahead;
        let engine = Engine::new(config, pool.clone(), Arc::clone(&spec.shape))
            .ok_or_else(|| cannot("the torrent's sizes contradict each other".into()))?;
        let (to_owner, events) = mpsc::channel(EVENTS);
        let (to_owner_dialled, dialled) = mpsc::channel(16);
        let (done_sender, done) = mpsc::unbounded_channel();
        let failed = |error: std::io::Error| cannot(error.to_string());
        let frame_maker = (part.ahead > 0)
            .then(|| FrameMaker::start(&spec.storage, shares.frame_threads, part.ahead, &done_sender));
        let frame_maker = frame_maker.transpose().map_err(failed)?;
        let undo_in = (shares.undoing > 0).then_some(&pool);
        let depth = shares.engine + shares.loading + WARMING + 1;
        let disk =
            DiskQueue::start(Arc::clone(&spec.storage), shares.disk_threads, depth, undo_in, done_sender)
                .map_err(failed)?;
        let owner = Owner {
            shared: Arc::clone(shared),
            spec,
            geometry,
            engine,
            started: Instant::now(),
            conns: HashMap::new(),
            next_conn: 0,
            dials: JoinSet::new(),
            pool,
            load_pool,
            cache: PieceCache::new(shares.cached),
            warming: 0,
            frames: FrameStore::new(shares.frames),
            frame_maker,
            disk,
            starved: false,
            syncing: false,
            complete: false,
            to_owner,
            to_owner_dialled,
        };
        Ok((owner, Channels { accepted, events, dialled, done }))
    }

    /// The loop: waits for an event, tells the engine, does what it says.
    async fn serve(&mut self, mut from: Channels, ends: &mut Ends) -> Result<(), Failure> {
        let mut ticks = interval(PUBLISH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut batch = Vec::with_capacity(EVENTS);
        let mut stop = ends.stop.clone();
        self.tell(Input::Tick);
        loop {
            self.obey();
            let deadline = self.engine.deadline().map(|now| self.started + now.0);
            let wake = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                _ = from.events.recv_many(&mut batch, EVENTS) => self.peer_events(&mut batch),
                Some(done) = from.done.recv() => {
                    self.disk_event(done, ends)?;
                    while let Ok(done) = from.done.try_recv() {
                        self.disk_event(done, ends)?;
                    }
                }
                Some(accepted) = from.accepted.recv() => {
                    let Accepted { stream, address, handshake, permit } = accepted;
                    self.connected(stream, address, true, handshake, permit);
                }
                Some(Dialled { address, outcome }) = from.dialled.recv() => match outcome {
                    Some((stream, handshake, permit)) => {
                        self.connected(stream, address, false, handshake, permit);
                    }
                    None => self.tell(Input::DialFailed(address)),
                },
                Some(found) = ends.candidates.recv() => self.heard_of(found),
                () = sleep_until(wake) => self.tell(Input::Tick),
                _ = ticks.tick() => {
                    while self.dials.try_join_next().is_some() {}
                    self.publish(ends);
                }
            }
        }
    }

    /// Rules first: who must not be met is not dialled.
    fn heard_of(&mut self, found: Found) {
        if let Some(rules) = found.rules {
            self.tell(Input::Rules(rules));
        }
        self.tell(Input::Candidates(found.peers));
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(Now(self.started.elapsed()), input);
    }

    /// Does what the engine says until it says nothing more.
    fn obey(&mut self) {
        loop {
            while let Some(output) = self.engine.poll() {
                self.carry_out(output);
            }
            self.load_wanted();
            if self.starved && self.pool.available() > 0 {
                self.starved = false;
                self.tell(Input::Tick);
                continue;
            }
            self.starved = self.pool.available() == 0;
            return;
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial(address) => {
                let (shared, dialled) = (Arc::clone(&self.shared), self.to_owner_dialled.clone());
                self.dials.spawn(dial::dial(shared, address, self.spec.meta.info_hash, dialled));
            }
            Output::Send { conn, message } => self.send(conn, Outgoing::Message(message)),
            Output::SendBlock { conn, block } if block.in_frame() => {
                let data = self.frames.get(block).map(Data::Here);
                self.serve_block(conn, block, data);
            }
            Output::SendBlock { conn, block } => {
                if let Some(data) = self.cache.get(conn, block) {
                    self.send(conn, Outgoing::Block(block, data));
                }
            }
            Output::Close { conn, why } => {
                if let Some(peer) = self.conns.remove(&conn) {
                    log::debug!("{}: closing: {why}", peer.address);
                }
            }
            Output::Store { piece, buf, frame } => self.store(piece, buf, frame),
            Output::MakeFrame { piece, at_most } => self.make_frame(piece, at_most),
            Output::Complete => self.begin_sync(),
        }
    }

    fn store(&mut self, piece: PieceIndex, buf: PieceBuf, frame: Option<u32>) {
        let hash = (self.spec.verify && !self.spec.meta.unhashed)
            .then(|| self.spec.meta.pieces.get(piece.get()).copied())
            .flatten();
        let len = self.geometry.len_of(piece) as usize;
        let start = self.geometry.start_of(piece);
        match frame {
            None => self.disk.store(piece, start, len, buf, hash),
            Some(frame) => self.disk.store_frame(piece, start, len, (buf, frame as usize), hash),
        }
    }

    /// Has a piece compressed, from memory if it is there.
    fn make_frame(&mut self, piece: PieceIndex, at_most: u32) {
        let (start, len) = (self.geometry.start_of(piece), self.geometry.len_of(piece) as usize);
        let bytes = self.cache.peek(piece);
        let maker = self.frame_maker.as_ref();
        if !maker.is_some_and(|maker| maker.make(piece, start, len, at_most as usize, bytes)) {
            self.tell(Input::Frame { piece, state: FrameState::Gone });
        }
    }

    /// Keeps a frame for peers, as far as there is memory.
    fn keep_frame(&mut self, piece: PieceIndex, frame: Bytes) {
        for gone in self.frames.keep(piece, frame) {
            self.tell(Input::Frame { piece: gone, state: FrameState::Gone });
        }
        if let Some(len) = self.frames.len_of(piece).and_then(|len| u32::try_from(len).ok()) {
            self.tell(Input::Frame { piece, state: FrameState::Ready(len) });
        }
    }

    /// Everything is stored: makes it durable, once.
    fn begin_sync(&mut self) {
        if !self.syncing && !self.complete {
            self.syncing = true;
            self.disk.sync();
        }
    }

    fn send(&mut self, conn: ConnId, outgoing: Outgoing) {
        let Some(peer) = self.conns.get(&conn) else { return };
        if !peer.send(outgoing) {
            log::debug!("{}: it does not read what is sent to it", peer.address);
            self.conns.remove(&conn);
            self.tell(Input::Closed { conn });
        }
    }

    fn connected(
        &mut self,
        stream: tokio::net::TcpStream,
        address: std::net::SocketAddr,
        incoming: bool,
        handshake: Handshake,
        permit: Permit,
    ) {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let torrent = Torrent {
            geometry: self.geometry,
            landings: self.engine.landings(),
            storage: Arc::clone(&self.spec.storage),
        };
        let peer = peer::start(conn, stream, address, torrent, permit, &self.to_owner);
        self.conns.insert(conn, peer);
        self.tell(Input::Connected { conn, addr: address, incoming, handshake });
    }

    /// Tells the engine all of what happened, and lets it think once. (It takes no notice of what a closed connection said last.)
    fn peer_events(&mut self, events: &mut Vec<PeerEvent>) {
        let mut inputs = Vec::new();
        for event in events.drain(..) {
            match event {
                PeerEvent::Heard(conn, heard) => inputs.extend(heard.into_iter().map(|heard| match heard {
                    Heard::Message(message) => Input::Message { conn, message },
                    Heard::Landed(block) => Input::Landed { conn, block },
                })),
                PeerEvent::Garbage(conn, error) => inputs.push(Input::Garbage { conn, error }),
                PeerEvent::Sent(conn, blocks) => {
                    inputs.extend(blocks.into_iter().map(|block| Input::BlockSent { conn, block }));
                }
                PeerEvent::Unreadable(conn, block, error) => {
                    log::error!("{block} cannot be served: {error}");
                    inputs.push(Input::BlockUnreadable { conn, block });
                }
                PeerEvent::Closed(conn, why) => {
                    if let Some(peer) = self.conns.remove(&conn) {
                        log::debug!("{}: {why}", peer.address);
                        inputs.push(Input::Closed { conn });
                    }
                }
            }
        }
        self.engine.handle_all(Now(self.started.elapsed()), inputs);
    }

    fn disk_event(&mut self, done: Done, ends: &mut Ends) -> Result<(), Failure> {
        match done {
            Done::Stored(piece, bytes, frame) => {
                if let Some(frame) = frame {
                    self.keep_frame(piece, frame);
                }
                let data = if self.spec.storage.is_kept() { Data::Kept } else { Data::Here(bytes) };
                let waited = self.cache.insert(piece, data);
                // Half of the pool is for pieces under way, whatever else could be kept.
                while self.pool.available() < self.pool.capacity() / 2 && self.cache.evict() {}
                self.tell(Input::Stored { piece, result: StoreResult::Ok });
                self.serve_waiting(waited);
            }
            Done::WrongHash(piece) => {
                log::warn!("{piece} came with a wrong hash and is fetched again");
                self.tell(Input::Stored { piece, result: StoreResult::WrongHash });
            }
            Done::Framed(piece, Some(frame)) => self.keep_frame(piece, frame),
            Done::Framed(piece, None) => self.tell(Input::Frame { piece, state: FrameState::Useless }),
            Done::Loaded(piece, bytes) => {
                let waited = self.cache.insert(piece, Data::Here(bytes));
                self.serve_waiting(waited);
            }
            Done::Warm(piece) => {
                self.warming = self.warming.saturating_sub(1);
                let waited = self.cache.insert(piece, Data::Kept);
                self.serve_waiting(waited);
            }
            Done::Unreadable(piece, error) => {
                // Either kind of reading: one that carried a buffer was not counted.
                self.warming = self.warming.saturating_sub(1);
                log::error!("{piece} cannot be served: {error}");
                ends.trouble.send_replace(Some(format!("{piece} cannot be read: {error}")));
                for (conn, block) in self.cache.give_up(piece) {
                    self.tell(Input::BlockUnreadable { conn, block });
                }
            }
            Done::Synced => {
                self.complete = true;
                self.publish(ends);
                ends.phase.send_replace(Phase::Complete);
            }
            Done::Failed(error) => {
                return Err(disk_failure(&error));
            }
        }
        self.obey();
        Ok(())
    }

    fn serve_waiting(&mut self, waited: Vec<(Wanted, Option<Data>)>) {
        for ((conn, block), data) in waited {
            self.serve_block(conn, block, data);
        }
    }

    fn serve_block(&mut self, conn: ConnId, block: Block, data: Option<Data>) {
        match data {
            Some(data) => self.send(conn, Outgoing::Block(block, data)),
            None => self.tell(Input::BlockUnreadable { conn, block }),
        }
    }

    /// Begins to read the pieces that peers wait for, as far as there are buffers.
    fn load_wanted(&mut self) {
        if self.spec.storage.is_kept() {
            while self.warming < WARMING {
                let Some(piece) = self.cache.next_load() else { return };
                let len = self.geometry.len_of(piece) as usize;
                self.disk.warm(piece, self.geometry.start_of(piece), len);
                self.warming += 1;
            }
            return;
        }
        while self.cache.wants_load() {
            let buffer = loop {
                match self.load_pool.take() {
                    Some(buffer) => break Some(buffer),
                    None if self.cache.evict() => {}
                    None => break None,
                }
            };
            // Without a buffer all are on their way to peers; the next block sent brings us here again.
            let Some(buffer) = buffer else { return };
            let Some(piece) = self.cache.next_load() else { return };
            let len = self.geometry.len_of(piece) as usize;
            self.disk.load(piece, self.geometry.start_of(piece), len, buffer);
        }
    }

    fn publish(&self, ends: &Ends) {
        let stats: SwarmStats = self.engine.stats();
        ends.stats.send_replace(stats);
    }
}

/// The addresses of this machine, so that it does not dial itself.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}
