//! What a session and its torrents are started with.
//!
//! Invariant: plain values; whether they fit together is found out when a torrent is added.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Compress;
use crate::bitfield::Bitfield;
use crate::metainfo::Metainfo;
use crate::storage::Storage;
use crate::swarm::{PieceShape, WholePieces};
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
    /// Find out: hash what is wanted of it on all cores and skip what is right. (An unhashed torrent has
    /// nothing.)
    Check,
    /// These pieces, as the caller knows.
    Pieces(Bitfield),
}

/// A torrent to be fetched or seeded.
pub struct TorrentSpec {
    /// The torrent.
    pub meta: Arc<Metainfo>,
    /// Where the payload lies or shall lie; as long as the payload. Of pieces that are neither wanted nor
    /// there nothing is read or written.
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
    /// The SHA-256 of each piece, as the signed manifest has it: pieces are checked by them before they are
    /// written or served, whatever `verify` and the torrent say. They may come later, by
    /// [`Swarm::check_by`](super::Swarm::check_by).
    pub hashes: Option<Arc<Vec<Sha256>>>,
    /// Bytes for pieces and frames; at least six pieces are taken whatever it says, and with frames one more
    /// for each disk thread.
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
            hashes: None,
            memory,
        }
    }
}
