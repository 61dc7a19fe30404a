//! Sockets, clock and disk threads around the swarm engine: a session serves any number of torrents.
//!
//! ```text
//!  listener task ──accepts──► handshake tasks (≤ 256, 10 s each) ┐ by info-hash
//!                                                               ▼ incoming (16)
//!  tracker tasks ─candidates (16)─►┌──────────────────────────────────────┐
//!  dial tasks ────dialled (16)────►│ owner task, one for each torrent:     │
//!                                  │ the only one that touches its Engine  │
//!  reader task of each peer        │ and its cache of pieces               │
//!        ──messages (64, all)─────►│                                      │──queue (4096 each)─► writer task
//!  disk threads ──done────────────►│                                      │     of each peer
//!                                  └──────────────────────────────────────┘──jobs (≤ buffers)──► disk threads
//! ```
//!
//! Who waits for whom: readers and dialers wait for the owner, so a busy owner slows the network down; the
//! owner waits for nobody. A writer whose queue is full belongs to a peer that does not read: it is closed. Disk
//! jobs are bounded by the buffers they carry, and threads that compress get no more than the engine asks for ahead. Who stops whom: `stop` ends the owner; the owner, when it ends,
//! ends its readers, writers, dialers and trackers (which say `stopped`), and waits for the disk threads.
//!
//! Invariant: nothing a peer or tracker does ends a torrent; a failing storage does. What is fetched from whom
//! is left to `swarm`.

mod announcing;
mod cache;
mod check;
mod dial;
mod frames;
mod limits;
mod listen;
mod owner;
mod peer;
mod reader;
mod shares;
mod writer;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::Compress;
use crate::event::{Class, Failure};
use crate::io::handles;
use crate::metainfo::Metainfo;
use crate::rules::Rules;
use crate::storage::Storage;
use crate::swarm::{Bitfield, Geometry, PieceShape, SwarmStats, WholePieces};
use crate::units::{InfoHash, PeerId};

use dial::own_addresses;
use limits::Limits;
use listen::Accepted;

/// How a session behaves; start from [`SessionConfig::new`].
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Where peers are listened for; port 0 takes a free one. `[::]` takes IPv4 as well.
    pub listen: SocketAddr,
    /// Connections of all torrents at most.
    pub max_connections: usize,
    /// Connections with one address at most.
    pub max_per_address: usize,
    /// Dials under way at most, of all torrents.
    pub max_half_open: usize,
    /// How long a connection may take until both handshakes are through.
    pub handshake_timeout: Duration,
    /// Whether pieces travel compressed between flashmob peers.
    pub compress: Compress,
}

impl SessionConfig {
    /// Defaults for a lab.
    pub fn new(listen: SocketAddr) -> Self {
        SessionConfig {
            listen,
            max_connections: 2000,
            max_per_address: 64,
            max_half_open: 64,
            handshake_timeout: Duration::from_secs(10),
            compress: Compress::Auto,
        }
    }
}

/// What of a torrent is on its storage already.
#[derive(Debug, Clone)]
pub enum Have {
    /// Nothing.
    Nothing,
    /// Everything that is wanted: it is only seeded.
    Everything,
    /// Find out: hash what is wanted of it on all cores and skip what is right. (An unhashed torrent has nothing.)
    Check,
    /// These pieces, as the caller knows.
    Pieces(Bitfield),
}

/// A torrent to be fetched or seeded.
pub struct TorrentSpec {
    /// The torrent.
    pub meta: Arc<Metainfo>,
    /// Where the payload lies or shall lie; as long as the payload. Of pieces that are neither wanted nor there
    /// nothing is read or written.
    pub storage: Arc<dyn Storage>,
    /// Which bytes of a piece travel.
    pub shape: Arc<dyn PieceShape>,
    /// What is there.
    pub have: Have,
    /// What shall be there: other pieces are never asked for. `None`: all of it.
    pub wanted: Option<Bitfield>,
    /// Announce URLs; `meta`'s own are not used.
    pub trackers: Vec<String>,
    /// Check pieces before they are written.
    pub verify: bool,
    /// Bytes for pieces and frames; at least six pieces are taken whatever it says, and with frames one more for each
    /// disk thread.
    pub memory: u64,
}

impl TorrentSpec {
    /// All of a torrent, whose pieces travel whole and are checked; from nobody yet.
    pub fn new(meta: Arc<Metainfo>, storage: Arc<dyn Storage>, have: Have, memory: u64) -> Self {
        TorrentSpec {
            meta,
            storage,
            shape: Arc::new(WholePieces),
            have,
            wanted: None,
            trackers: Vec::new(),
            verify: true,
            memory,
        }
    }
}

/// What a swarm is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Hashing what is on the storage; so many bytes are done.
    Checking {
        /// Bytes hashed.
        bytes: u64,
    },
    /// Fetching (and serving).
    Fetching,
    /// Every wanted byte is written and synced; serving others.
    Complete,
    /// It ended because it was stopped.
    Stopped,
    /// It ended because it failed.
    Failed(Failure),
}

/// The peers' side of a program: one listener, many torrents. Dropping it stops all of them without waiting.
pub struct Session {
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

struct Shared {
    config: SessionConfig,
    local_addr: SocketAddr,
    peer_id: PeerId,
    http: reqwest::Client,
    limits: Arc<Limits>,
    swarms: Mutex<HashMap<InfoHash, Entry>>,
}

struct Entry {
    incoming: mpsc::Sender<Accepted>,
    swarm: Swarm,
}

impl Shared {
    fn swarms(&self) -> MutexGuard<'_, HashMap<InfoHash, Entry>> {
        // Nothing panics while the lock is held.
        self.swarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our private address, if there is just one way to say it.
    fn local_ipv4(&self) -> Option<Ipv4Addr> {
        let chosen = self.outgoing_address();
        let private = |ip: IpAddr| match ip {
            IpAddr::V4(ip) if ip.is_private() => Some(ip),
            _ => None,
        };
        let mut ours = own_addresses().into_iter().filter_map(private);
        chosen.map_or_else(|| ours.next().filter(|_| ours.next().is_none()), private)
    }

    /// The address that dials and announces go out from, when one was chosen.
    fn outgoing_address(&self) -> Option<IpAddr> {
        let ip = self.config.listen.ip();
        (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
    }
}

impl Session {
    /// Begins to listen, and lets this process have as many connections open as the system allows. Fails when the
    /// address is in use or not this machine's.
    pub async fn start(config: SessionConfig) -> std::io::Result<Session> {
        match handles::allow_all() {
            Ok(allowed) if allowed < 2 * config.max_connections as u64 => {
                log::warn!("only {allowed} files and connections may be open at once (ulimit -n)");
            }
            Ok(_) => {}
            Err(error) => log::warn!("cannot raise the limit on open connections: {error}"),
        }
        let listener = TcpListener::bind(config.listen).await?;
        let local_addr = listener.local_addr()?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("flashmob/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(15));
        let ip = config.listen.ip();
        if !ip.is_unspecified() && !ip.is_loopback() {
            http = http.local_address(ip);
        }
        let http = http.build().map_err(std::io::Error::other)?;
        let limits = Limits::new(config.max_connections, config.max_per_address, config.max_half_open);
        let peer_id = new_peer_id()?;
        let swarms = Mutex::default();
        let shared = Arc::new(Shared { config, local_addr, peer_id, http, limits, swarms });
        let listener = tokio::spawn(listen::accept_peers(listener, Arc::clone(&shared)));
        Ok(Session { shared, listener })
    }

    /// Where peers are listened for.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Our name in every swarm.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer_id
    }

    /// Begins to fetch or seed a torrent. Refused when it is there already or the storage does not fit it.
    pub fn add(&self, spec: TorrentSpec) -> Result<Swarm, Failure> {
        let refuse =
            |message: String| Failure::new(Class::Usage, message, "check the torrent and the target");
        let meta = Arc::clone(&spec.meta);
        let total = meta.total_length();
        if spec.storage.len() != total {
            return Err(refuse(format!(
                "the storage has {} bytes and the torrent {} has {total}",
                spec.storage.len(),
                meta.name
            )));
        }
        let geometry = Geometry::new(meta.piece_length, total)
            .filter(|geometry| geometry.pieces() == meta.piece_count())
            .ok_or_else(|| refuse(format!("the torrent {} has impossible lengths", meta.name)))?;
        let wanted = spec.wanted.clone().unwrap_or_else(|| Bitfield::all(geometry.pieces()));
        if wanted.pieces() != geometry.pieces() {
            return Err(refuse(format!("what is wanted of {} is of another torrent", meta.name)));
        }
        let mut swarms = self.shared.swarms();
        if swarms.get(&meta.info_hash).is_some_and(|entry| !entry.swarm.is_over()) {
            return Err(refuse(format!("the torrent {} is in this session already", meta.name)));
        }
        let (incoming, accepted) = mpsc::channel(16);
        let (swarm, ends) = Swarm::new(geometry, &wanted);
        let task = tokio::spawn(owner::run(Arc::clone(&self.shared), spec, geometry, wanted, accepted, ends));
        swarm.inner.set_task(task);
        swarms.insert(meta.info_hash, Entry { incoming, swarm: swarm.clone() });
        Ok(swarm)
    }

    /// Stops every torrent (each tells its trackers) and the listener.
    pub async fn shutdown(self) {
        self.listener.abort();
        let swarms: Vec<Swarm> = self.shared.swarms().drain().map(|(_, entry)| entry.swarm).collect();
        for swarm in &swarms {
            swarm.inner.stop.send_replace(true);
        }
        for swarm in &swarms {
            swarm.stop().await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.listener.abort();
        for entry in self.shared.swarms().values() {
            entry.swarm.inner.stop.send_replace(true);
        }
    }
}

/// A torrent of a session; clones are handles to the same one.
#[derive(Clone)]
pub struct Swarm {
    inner: Arc<Inner>,
}

struct Inner {
    stats: watch::Receiver<SwarmStats>,
    phase: watch::Receiver<Phase>,
    trouble: watch::Receiver<Option<String>>,
    stop: watch::Sender<bool>,
    candidates: mpsc::Sender<Found>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Inner {
    fn set_task(&self, task: JoinHandle<()>) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    fn take_task(&self) -> Option<JoinHandle<()>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a tracker or an administrator says: peers to dial, and what to keep to.
struct Found {
    peers: Vec<SocketAddr>,
    rules: Option<Rules>,
}

/// The owner task's ends of a swarm's channels.
struct Ends {
    stats: watch::Sender<SwarmStats>,
    phase: watch::Sender<Phase>,
    trouble: watch::Sender<Option<String>>,
    stop: watch::Receiver<bool>,
    found: mpsc::Sender<Found>,
    candidates: mpsc::Receiver<Found>,
}

impl Swarm {
    fn new(geometry: Geometry, wanted: &Bitfield) -> (Swarm, Ends) {
        let nothing = SwarmStats {
            pieces: wanted.count(),
            bytes_total: geometry.bytes_of(wanted),
            ..SwarmStats::default()
        };
        let (stats_sender, stats) = watch::channel(nothing);
        let (phase_sender, phase) = watch::channel(Phase::Checking { bytes: 0 });
        let (trouble_sender, trouble) = watch::channel(None);
        let (stop, stop_receiver) = watch::channel(false);
        let (found, candidates) = mpsc::channel(16);
        let ends = Ends {
            stats: stats_sender,
            phase: phase_sender,
            trouble: trouble_sender,
            stop: stop_receiver,
            found: found.clone(),
            candidates,
        };
        let task = Mutex::default();
        (Swarm { inner: Arc::new(Inner { stats, phase, trouble, stop, candidates: found, task }) }, ends)
    }

    /// The numbers of now (at most half a second old).
    pub fn stats(&self) -> SwarmStats {
        *self.inner.stats.borrow()
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.inner.phase.borrow().clone()
    }

    /// What is wrong with the trackers, while there is something.
    pub fn trouble(&self) -> Option<String> {
        self.inner.trouble.borrow().clone()
    }

    /// Says whom we may meet, and at which pace, as a tracker would.
    pub async fn guide(&self, rules: Rules) {
        // Fails only when the swarm has ended.
        let _ = self.inner.candidates.send(Found { peers: Vec::new(), rules: Some(rules) }).await;
    }

    /// Names peers to dial, beside those that trackers name.
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) {
        // Fails only when the swarm has ended.
        let _ = self.inner.candidates.send(Found { peers, rules: None }).await;
    }

    /// Returns when every wanted byte is written and synced, or with the failure that ended the swarm.
    pub async fn complete(&self) -> Result<(), Failure> {
        let mut phase = self.inner.phase.clone();
        let over = |phase: &Phase| matches!(phase, Phase::Complete | Phase::Stopped | Phase::Failed(_));
        match phase.wait_for(over).await.map(|phase| phase.clone()) {
            Ok(Phase::Complete) => Ok(()),
            Ok(Phase::Failed(failure)) => Err(failure),
            _ => Err(Failure::new(
                Class::Retry,
                "stopped before everything was there",
                "start again: it resumes",
            )),
        }
    }

    /// Returns when the swarm has ended, with its failure if it has one.
    pub async fn ended(&self) -> Option<Failure> {
        let mut phase = self.inner.phase.clone();
        let over = |phase: &Phase| matches!(phase, Phase::Stopped | Phase::Failed(_));
        match phase.wait_for(over).await.map(|phase| phase.clone()) {
            Ok(Phase::Failed(failure)) => Some(failure),
            _ => None,
        }
    }

    /// Leaves the swarm: tells the trackers (for two seconds at most), closes the connections, lets go of the
    /// storage. Returns when that is done.
    pub async fn stop(&self) {
        self.inner.stop.send_replace(true);
        let task = self.inner.take_task();
        match task {
            Some(task) => {
                if task.await.is_err_and(|error| error.is_panic()) {
                    log::error!("the owner task of a swarm panicked");
                }
            }
            None => {
                self.ended().await;
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(*self.inner.phase.borrow(), Phase::Stopped | Phase::Failed(_))
    }
}

/// `-FM0100-` and 12 random characters (BEP 20).
fn new_peer_id() -> std::io::Result<PeerId> {
    let mut id = *b"-FM0100-000000000000";
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    for (place, random) in id[8..].iter_mut().zip(random) {
        *place = b"0123456789abcdefghijklmnopqrstuv"[usize::from(random % 32)];
    }
    Ok(PeerId(id))
}
