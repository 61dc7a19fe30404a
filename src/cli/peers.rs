//! Common parts of `get` and `seed`: the torrent, the trackers, the session, its end.
//!
//! Invariant: the swarm is left properly for every reason to end: trackers get `stopped` and the storage is
//! synced.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::Compress;
use crate::event::Failure;
use crate::io::host::memory;
use crate::io::torrent::{Session, SessionConfig};
use crate::metainfo::{MAX_TORRENT_BYTES, Metainfo};
use crate::units::parse_bytes;

/// The ports that are tried when none was chosen.
const PORTS: std::ops::RangeInclusive<u16> = 6881..=6889;
/// Bytes of memory for piece buffers by default, or half of the available memory if that is less.
const MEMORY: u64 = 512 << 20;

/// Arguments of `get` and `seed`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeerArgs {
    /// Announce here, beside the torrent's own trackers (may be repeated).
    #[arg(long = "tracker", value_name = "URL")]
    pub trackers: Vec<String>,
    /// Dial this peer, tracker or not (may be repeated).
    #[arg(long = "peer", value_name = "ADDR:PORT")]
    pub peers: Vec<SocketAddr>,
    /// Where other peers reach this one [default: all addresses, the first free port from 6881].
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Memory for pieces [default: 512MiB, or half of the free memory if that is less].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// The torrent is an image's: manifest.json of its folder. Needs --partition.
    #[arg(long, value_name = "FILE", requires = "partition")]
    pub manifest: Option<PathBuf>,
    /// Number of the image's partition that TARGET or SOURCE is.
    #[arg(long, value_name = "N", requires = "manifest")]
    pub partition: Option<u32>,
    /// Let pieces travel compressed between flashmob peers: on, off, or auto: if the processor is fast enough
    /// for the link.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub compress: Compress,
    /// Print one event a line, as JSON, on the standard output.
    #[arg(long)]
    pub json: bool,
}

impl PeerArgs {
    /// The torrent's trackers and those of the command line, each once.
    pub(crate) fn all_trackers(&self, meta: &Metainfo) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for url in meta.trackers.iter().chain(&self.trackers) {
            if !all.contains(url) {
                all.push(url.clone());
            }
        }
        all
    }

    /// Bytes for piece buffers.
    pub(super) fn memory(&self) -> u64 {
        let half = memory::available().map_or(MEMORY, |available| available / 2);
        self.memory.unwrap_or(MEMORY).min(half)
    }

    fn config(&self, listen: SocketAddr) -> SessionConfig {
        SessionConfig { compress: self.compress, ..SessionConfig::new(listen) }
    }

    /// Begins to listen for peers.
    pub(crate) async fn start_session(&self) -> Result<Session, Failure> {
        if let Some(listen) = self.listen {
            return Session::start(self.config(listen)).await.map_err(|error| {
                listen_failure(
                    &listen.to_string(),
                    &error,
                    "Choose another --listen ADDR:PORT, or port 0 for any.",
                )
            });
        }
        let mut last = None;
        for port in PORTS {
            for listen in
                [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), (Ipv4Addr::UNSPECIFIED, port).into()]
            {
                match Session::start(self.config(listen)).await {
                    Ok(session) => return Ok(session),
                    // The port is taken, or there is no IPv6 here.
                    Err(error) => last = Some(error),
                }
            }
        }
        let error = last.unwrap_or_else(|| std::io::Error::other("no port was tried"));
        Err(listen_failure("ports 6881 to 6889", &error, "Choose a port with --listen ADDR:PORT."))
    }
}

fn listen_failure(place: &str, error: &std::io::Error, advice: &str) -> Failure {
    Failure::usage(format!("cannot listen for peers on {place}: {error}"), advice)
}

/// Reads a torrent from a file.
pub(crate) fn read_torrent(path: &Path) -> Result<Arc<Metainfo>, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::usage(format!("cannot read the torrent {}: {error}", path.display()), "Check the path.")
    };
    let too_large = |length: u64| length > MAX_TORRENT_BYTES as u64;
    let length = std::fs::metadata(path).map_err(cannot)?.len();
    if too_large(length) {
        let message = format!("{} has {length} bytes: that is no torrent", path.display());
        return Err(Failure::usage(message, "The torrent comes first, then the target."));
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    let meta = Metainfo::parse(&bytes).map_err(|error| {
        let message = format!("cannot use the torrent {}: {error}", path.display());
        Failure::usage(message, "Fetch the torrent again, or make it anew with 'flashmob make'.")
    })?;
    Ok(Arc::new(meta))
}

/// Ctrl-C, or a service manager's wish.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Takes both signals from now on.
    pub(super) fn new() -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::retry(format!("cannot wait for signals: {error}"), "Look at this machine's limits.")
        };
        let interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        Ok(Interrupts { interrupt, terminate })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
