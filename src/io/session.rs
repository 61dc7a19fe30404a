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
//! Which task waits for which: readers and dialers wait for the owner, so a busy owner slows the network
//! down; the owner waits for nobody. A writer whose queue is full belongs to a peer that does not read: it is
//! closed. Disk jobs are bounded by the buffers they carry, and threads that compress get no more than the
//! engine asks for ahead. Which one stops which: `stop` ends the owner; the owner, when it ends, ends its
//! readers, writers, dialers and trackers (which say `stopped`), and waits for the disk threads.
//!
//! Invariant: nothing a peer or tracker does ends a torrent; a failing storage does. What is fetched from
//! whom is left to `swarm`.

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
mod receive_window;
mod shares;
mod spec;
mod swarm;
mod writer;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::event::{Class, Failure};
use crate::io::handles;
use crate::swarm::{Bitfield, Geometry};
use crate::units::{InfoHash, PeerId};

use dial::own_addresses;
use limits::Limits;
use listen::Accepted;
pub use spec::{Have, SessionConfig, TorrentSpec};
use swarm::{Ends, Found};
pub use swarm::{Phase, Swarm};

/// How often the numbers of a swarm are made known.
const PUBLISH: Duration = Duration::from_millis(500);

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
    /// Begins to listen, and lets this process have as many connections open as the system allows. Fails when
    /// the address is in use or not this machine's.
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
        swarm.is_run_by(task);
        swarms.insert(meta.info_hash, Entry { incoming, swarm: swarm.clone() });
        Ok(swarm)
    }

    /// Stops every torrent (each tells its trackers) and the listener.
    pub async fn shutdown(self) {
        self.listener.abort();
        let swarms: Vec<Swarm> = self.shared.swarms().drain().map(|(_, entry)| entry.swarm).collect();
        for swarm in &swarms {
            swarm.ask_to_stop();
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
            entry.swarm.ask_to_stop();
        }
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
