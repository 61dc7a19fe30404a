//! The settings of a session and its torrents.
//!
//! Invariant: plain values, which are checked against each other when a torrent is added.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Compress;
use crate::bitfield::Bitfield;
use crate::metainfo::Metainfo;
use crate::storage::Storage;
use crate::swarm::{PieceShape, RateLimit, WholePieces};
use crate::units::Sha256;

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
    /// What all torrents together may send, and receive.
    pub limit: RateLimit,
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
            limit: RateLimit::default(),
        }
    }
}

/// The pieces that are on a torrent's storage already.
#[derive(Debug, Clone)]
pub enum Have {
    Nothing,
    /// Everything that is wanted: it is only seeded.
    Everything,
    /// Hash all wanted pieces on all cores and skip those that are right. (An unhashed torrent has none.)
    Check,
    /// These pieces, as the caller knows.
    Pieces(Bitfield),
}

/// A torrent to be fetched or seeded.
pub struct TorrentSpec {
    pub meta: Arc<Metainfo>,
    /// The payload's place; as long as the payload. Pieces that are neither wanted nor present are neither
    /// read nor written.
    pub storage: Arc<dyn Storage>,
    /// Which bytes of a piece travel.
    pub shape: Arc<dyn PieceShape>,
    /// The pieces that exist.
    pub have: Have,
    /// The wanted pieces; others are never requested. `None` means all.
    pub wanted: Option<Bitfield>,
    /// Announce URLs; `meta`'s own are not used.
    pub trackers: Vec<String>,
    /// Check pieces before they are written.
    pub verify: bool,
    /// The SHA-256 of each piece from the signed manifest. Pieces are checked by them before they are written
    /// or served, regardless of `verify` and the torrent. They may come later, by
    /// [`Swarm::check_by`](super::Swarm::check_by).
    pub hashes: Option<Arc<Vec<Sha256>>>,
    /// Bytes for pieces and frames. At least six pieces are taken, and with frames one more for each disk
    /// thread.
    pub memory: u64,
}

impl TorrentSpec {
    /// A whole torrent, whose pieces travel whole and are checked, without peers yet.
    pub fn new(meta: Arc<Metainfo>, storage: Arc<dyn Storage>, have: Have, memory: u64) -> Self {
        TorrentSpec {
            meta,
            storage,
            shape: Arc::new(WholePieces),
            have,
            wanted: None,
            trackers: Vec::new(),
            verify: true,
            hashes: None,
            memory,
        }
    }
}
