//! The peers' side of a program: starts the listener, adds torrents, stops them all.
//!
//! Invariant: a torrent is added once; its owner task, not the session, touches it afterwards.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::handle::Swarm;
use super::limits::Limits;
use super::shared::{Entry, Shared};
use super::spec::{SessionConfig, TorrentSpec};
use super::{listen, owner};
use crate::bitfield::Bitfield;
use crate::event::Failure;
use crate::io::host::handles;
use crate::swarm::Geometry;
use crate::units::PeerId;

/// The peers' side of a program: one listener, many torrents. Dropping it stops all torrents without waiting.
pub struct Session {
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
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
        let started = Instant::now();
        let shared = Arc::new(Shared { config, started, local_addr, peer_id, http, limits, swarms });
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
        let refuse = |message: String| Failure::usage(message, "Check the torrent and the target.");
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
            return Err(refuse(format!("the wanted pieces of {} belong to another torrent", meta.name)));
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

/// Client and version at the head of every peer id (BEP 20): major, minor and patch number, and a zero.
const CLIENT: [u8; 8] = *b"-FM0200-";

/// [`CLIENT`] and 12 random characters.
fn new_peer_id() -> std::io::Result<PeerId> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let mut id = [0; 20];
    id[..8].copy_from_slice(&CLIENT);
    for (place, random) in id[8..].iter_mut().zip(random) {
        *place = b"0123456789abcdefghijklmnopqrstuv"[usize::from(random % 32)];
    }
    Ok(PeerId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_says_this_version_of_this_client() {
        let version = env!("CARGO_PKG_VERSION").replace('.', "");
        let id = new_peer_id().expect("random numbers");
        assert_eq!(&id.0[..8], format!("-FM{version}0-").as_bytes());
        assert!(id.0[8..].iter().all(u8::is_ascii_alphanumeric));
    }
}
