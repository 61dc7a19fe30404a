//! What tests of whole swarms share: payloads, torrents, sessions, deadlines.

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flashmob::io::hash::sha1;
use flashmob::io::torrent::{Have, Session, SessionConfig, Swarm, TorrentSpec};
use flashmob::metainfo::{FileEntry, Metainfo, MetainfoBuilder, Pieces};
use flashmob::storage::Storage;

/// Ends a test that hangs.
pub async fn within<T>(seconds: u64, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), what).await.expect("it ends before the deadline")
}

/// Bytes that look random and are the same each time.
pub fn payload(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A torrent of `bytes`, cut into `files` (empty: a single file called `name`).
pub fn torrent(name: &str, bytes: &[u8], piece_length: usize, files: Vec<FileEntry>) -> Arc<Metainfo> {
    let whole = FileEntry::data(Vec::new(), bytes.len() as u64);
    let builder = MetainfoBuilder {
        name: name.into(),
        piece_length: u32::try_from(piece_length).expect("a piece's length"),
        files: if files.is_empty() { vec![whole] } else { files },
        pieces: Pieces::Hashed(bytes.chunks(piece_length).map(sha1).collect()),
        private: true,
    };
    Arc::new(builder.build().expect("a torrent"))
}

/// Writes a torrent with one tracker to a file.
pub fn write_torrent(path: &Path, meta: &Metainfo, tracker: &str) {
    std::fs::write(path, meta.clone().with_trackers(vec![tracker.into()]).to_bytes())
        .expect("a torrent file");
}

/// A session on a free port of the loopback interface.
pub async fn session() -> Session {
    Session::start(SessionConfig::new((Ipv4Addr::LOCALHOST, 0).into())).await.expect("a free port")
}

/// Adds a torrent to a session.
pub fn add(
    session: &Session,
    meta: &Arc<Metainfo>,
    storage: Arc<dyn Storage>,
    have: Have,
    tracker: Option<String>,
) -> Swarm {
    let mut spec = TorrentSpec::new(Arc::clone(meta), storage, have, 4 << 20);
    spec.trackers.extend(tracker);
    session.add(spec).expect("it fits")
}
