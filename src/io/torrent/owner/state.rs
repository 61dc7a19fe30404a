//! The state of an owner task, and its start: divides memory and cores, starts the engine and the threads.
//!
//! Invariant: no message is under way yet when this returns. `memory_budget` decides the shares.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::soundness::Soundness;
use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::event::Failure;
use crate::io::torrent::cache::PieceCache;
use crate::io::torrent::compressed_store::FrameStore;
use crate::io::torrent::compression_policy;
use crate::io::torrent::compressor::FrameMaker;
use crate::io::torrent::connection::PeerHandle;
use crate::io::torrent::dial::Dialled;
use crate::io::torrent::disk_threads::{DiskQueue, Done};
use crate::io::torrent::handshake::Accepted;
use crate::io::torrent::memory_budget::Shares;
use crate::io::torrent::receive_window::ReceiveWindow;
use crate::io::torrent::report::PeerEvent;
use crate::io::torrent::shared::{Shared, own_addresses};
use crate::io::torrent::spec::TorrentSpec;
use crate::swarm::{ConnId, Engine, EngineConfig, Geometry, Input};
use crate::units::Now;

/// Events of all peers that may wait for the owner; each is the result of one system call.
pub(super) const EVENTS: usize = 64;

/// Pieces that are being brought into the system's memory at once.
pub(super) const WARMING: usize = 16;

/// The pieces that exist, and those that are wanted.
pub(super) struct Pieces {
    pub(super) have: Bitfield,
    pub(super) wanted: Bitfield,
}

/// Where events come from.
pub(super) struct Channels {
    pub(super) accepted: mpsc::Receiver<Accepted>,
    pub(super) events: mpsc::Receiver<PeerEvent>,
    pub(super) dialled: mpsc::Receiver<Dialled>,
    pub(super) done: mpsc::UnboundedReceiver<Done>,
}

pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
    pub(super) spec: TorrentSpec,
    pub(super) geometry: Geometry,
    pub(super) engine: Engine,
    pub(super) started: Instant,
    pub(super) conns: HashMap<ConnId, PeerHandle>,
    pub(super) window: ReceiveWindow,
    pub(super) next_conn: u64,
    pub(super) dials: JoinSet<()>,
    /// Buffers that the engine fills.
    pub(super) pool: BufPool,
    /// Buffers that pieces are read into for peers.
    pub(super) load_pool: BufPool,
    pub(super) cache: PieceCache,
    /// Pieces that are being brought into the system's memory.
    pub(super) warming: usize,
    pub(super) frames: FrameStore,
    /// Compresses pieces for the peers that take frames.
    pub(super) frame_maker: Option<FrameMaker>,
    pub(super) soundness: Soundness,
    pub(super) disk: DiskQueue,
    /// The engine found no buffer in its pool, and must hear when one is free.
    pub(super) starved: bool,
    pub(super) syncing: bool,
    pub(super) complete: bool,
    pub(super) to_owner: mpsc::Sender<PeerEvent>,
    pub(super) to_owner_dialled: mpsc::Sender<Dialled>,
}

impl Owner {
    pub(super) fn new(
        shared: &Arc<Shared>,
        spec: TorrentSpec,
        geometry: Geometry,
        Pieces { have, wanted }: Pieces,
        accepted: mpsc::Receiver<Accepted>,
    ) -> Result<(Owner, Channels), Failure> {
        let cannot = |what: String| {
            Failure::retry(
                format!("cannot start the swarm: {what}"),
                "Check the process's limits ('ulimit -a') and the free memory.",
            )
        };
        let buffer = geometry.piece_length() as usize;
        let fetches = wanted.has_more_than(&have);
        let part = compression_policy::part(shared.config.compress, !fetches);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let shares = Shares::of(spec.memory, geometry.piece_length(), fetches, part, cores);
        let pool = BufPool::new(buffer, shares.engine + shares.undoing);
        let load_pool = BufPool::new(buffer, shares.loading);
        let soundness = Soundness::new(&spec, &have);
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
        config.limit = shared.config.limit.clone();
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
            started: shared.started,
            conns: HashMap::new(),
            window: ReceiveWindow::default(),
            next_conn: 0,
            dials: JoinSet::new(),
            pool,
            load_pool,
            cache: PieceCache::new(shares.cached),
            warming: 0,
            frames: FrameStore::new(shares.frames),
            frame_maker,
            soundness,
            disk,
            starved: false,
            syncing: false,
            complete: false,
            to_owner,
            to_owner_dialled,
        };
        Ok((owner, Channels { accepted, events, dialled, done }))
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.engine.handle(Now(self.started.elapsed()), input);
    }

    /// Everything is stored: makes it durable, once.
    pub(super) fn begin_sync(&mut self) {
        if !self.syncing && !self.complete {
            self.syncing = true;
            self.disk.sync();
        }
    }
}
