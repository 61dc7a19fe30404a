//! Torrents: bencoded bytes ↔ a checked description (BEP 3, 12, 19, 27).
//!
//! Invariant: a `Metainfo` that exists is consistent (lengths add up, there is a hash for each piece, no path
//! leaves its folder), and its info-hash is that of the exact bytes it was read from. Where the payload lies is
//! left to `io::storage`.

use crate::units::{InfoHash, Sha1};

/// Largest torrent that is read: a million pieces have 20 MB of hashes.
pub const MAX_TORRENT_BYTES: usize = 64 << 20;

/// One file of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below the torrent's name, one element a folder. Empty for a single-file torrent.
    pub path: Vec<String>,
    /// Bytes.
    pub length: u64,
}

/// A torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metainfo {
    /// SHA-1 of the info dictionary's bytes.
    pub info_hash: InfoHash,
    /// Name of the file (single-file) or folder (multi-file).
    pub name: String,
    /// Bytes of a piece (any positive number: other people's torrents need not be powers of two).
    pub piece_length: u32,
    /// SHA-1 of each piece; all zeros when `unhashed`.
    pub pieces: Vec<Sha1>,
    /// The files in order; one with an empty path for a single-file torrent.
    pub files: Vec<FileEntry>,
    /// BEP 27.
    pub private: bool,
    /// `flashmob-unhashed`: published without piece hashes; only flashmob peers take part.
    pub unhashed: bool,
    /// Announce URLs in order (`announce`, then `announce-list` flattened, without repeats).
    pub trackers: Vec<String>,
    /// BEP 19 web seeds.
    pub url_list: Vec<String>,
}
