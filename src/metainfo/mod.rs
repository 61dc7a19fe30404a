//! Torrents: bencoded bytes ↔ a checked description (BEP 3, 12, 19, 27, 47).
//!
//! Invariant: a `Metainfo` that exists is consistent (lengths add up, there is a hash for each piece, no path
//! leaves its folder), and its info-hash is that of the exact bytes it was read from, which it keeps: with
//! other trackers or web seeds it still names the same swarm. `io::storage` holds the payload.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha1::Digest;

use crate::bencode::{self, BencodeError, Dict, Value};
use crate::units::{InfoHash, Sha1};

/// Largest torrent that is read: a million pieces have 20 MB of hashes.
pub(crate) const MAX_TORRENT_BYTES: usize = 64 << 20;
/// Most files in one torrent.
pub(crate) const MAX_FILES: usize = 100_000;
/// Longest piece that is accepted: a whole piece is held in memory before it is checked.
pub(crate) const MAX_PIECE_LENGTH: u32 = 256 << 20;
/// Most folders above a file.
const MAX_PATH_DEPTH: usize = 32;
/// Longest name of a file or folder in bytes, as filesystems have it.
const MAX_NAME: usize = 255;
/// Most announce URLs or web seeds that are kept.
const MAX_URLS: usize = 100;
/// The most bencoded values of a torrent; each file takes `4 + path`.
const MAX_VALUES: usize = 1_000_000;
/// Nesting that a torrent may have. The `file tree` of a hybrid torrent (BEP 52) nests a dictionary for each
/// folder, inside the top-level dictionary and `info`, and ends with the file's own two.
const MAX_TORRENT_DEPTH: usize = MAX_PATH_DEPTH + 5;

/// The meaning of an entry in the file list (its `attr`, BEP 47).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file with its own bytes.
    Data,
    /// Zeros that align the next file to a piece. They exist on no disk.
    Padding,
    /// A symbolic link, which has no bytes. It is never made, because its target may lie outside the folder.
    Link,
}

/// One entry of the payload's file list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below the torrent's name, one element a folder. Empty for a single-file torrent and for padding.
    pub path: Vec<String>,
    /// Bytes.
    pub length: u64,
    /// Whether it is on disk.
    pub kind: FileKind,
}

impl FileEntry {
    /// A file with its own bytes.
    pub fn data(path: Vec<String>, length: u64) -> Self {
        FileEntry { path, length, kind: FileKind::Data }
    }
}

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
    /// The unchanged info dictionary.
    info: Arc<[u8]>,
}

/// Why bytes are not a usable torrent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// Over [`MAX_TORRENT_BYTES`].
    #[error("it has {0} bytes; a torrent has at most {MAX_TORRENT_BYTES}")]
    TooLarge(usize),
    /// Not bencoded.
    #[error("it is not a torrent or it is damaged: {0}")]
    Bencode(#[from] BencodeError),
    /// A key that must be there is not, or has the wrong type.
    #[error("it is not a torrent or it is damaged: '{0}' is missing or not {1}")]
    Field(&'static str, &'static str),
    /// BEP 52 without the parts of BEP 3.
    #[error("it is a BitTorrent v2 torrent; only v1 and hybrid torrents can be used")]
    OnlyV2,
    /// The piece length is zero, negative or larger than can be held.
    #[error("its piece length {0} is not between 1 and {MAX_PIECE_LENGTH}")]
    PieceLength(i64),
    /// Lengths and hashes do not go together.
    #[error("its {bytes} bytes make {expected} pieces of {piece_length}, but it has {found} hashes")]
    HashCount {
        /// Sum of the files' lengths.
        bytes: u64,
        /// Bytes of a piece.
        piece_length: u32,
        /// Pieces that many bytes make.
        expected: u64,
        found: usize,
    },
    /// A file's length is negative or all together are over 2^63.
    #[error("the length of '{0}' is not possible")]
    Length(String),
    /// A name that would lead out of the folder, or that no filesystem takes.
    #[error("it has a file name that cannot be used: {0:?}")]
    Path(String),
    /// Two files of one name, or a file where a folder must be.
    #[error("it names '{0}' twice")]
    Duplicate(String),
    /// Over [`MAX_FILES`].
    #[error("it has {0} files; at most {MAX_FILES} can be used")]
    TooManyFiles(usize),
}

impl Metainfo {
    /// Reads a torrent; the info-hash is taken over the very bytes of `info`.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > MAX_TORRENT_BYTES {
            return Err(MetainfoError::TooLarge(bytes.len()));
        }
        let value = Value::parse_nested(bytes, MAX_VALUES, MAX_TORRENT_DEPTH)?;
        let top = value.as_dict().ok_or(MetainfoError::Field("info", "a dictionary"))?;
        let raw = bencode::raw_dict(bytes, b"info", MAX_TORRENT_DEPTH)?
            .ok_or(MetainfoError::Field("info", "a dictionary"))?;
        let info =
            get(top, "info").and_then(Value::as_dict).ok_or(MetainfoError::Field("info", "a dictionary"))?;
        let mut metainfo = read_info(info, raw)?;
        metainfo.trackers = read_trackers(top);
        metainfo.url_list = match get(top, "url-list") {
            Some(list @ Value::List(_)) => texts(list),
            Some(Value::Bytes(url)) => String::from_utf8(url.to_vec()).into_iter().collect(),
            _ => Vec::new(),
        };
        metainfo.url_list.retain(|url| !url.is_empty());
        metainfo.url_list.truncate(MAX_URLS);
        Ok(metainfo)
    }

    /// The torrent as a file: `info` byte for byte, with the present trackers and web seeds. Other keys
    /// beside `info` (comments, dates) are dropped.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut entries = vec![("info", Value::Raw(&self.info))];
        if let Some(first) = self.trackers.first() {
            entries.push(("announce", Value::text(first)));
        }
        if self.trackers.len() > 1 {
            let tiers = self.trackers.iter().map(|url| Value::List(vec![Value::text(url)])).collect();
            entries.push(("announce-list", Value::List(tiers)));
        }
        if !self.url_list.is_empty() {
            let urls = self.url_list.iter().map(|url| Value::text(url)).collect();
            entries.push(("url-list", Value::List(urls)));
        }
        bencode::dict(entries).encode()
    }

    /// The same torrent, announced at `trackers` in that order. The info-hash stays.
    pub fn with_trackers(mut self, trackers: Vec<String>) -> Self {
        self.trackers = trackers;
        self
    }

    /// The same torrent with these web seeds (BEP 19). The info-hash stays.
    pub(crate) fn with_url_list(mut self, urls: Vec<String>) -> Self {
        self.url_list = urls;
        self
    }

    /// Bytes of the whole payload.
    pub fn total_length(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }

    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.pieces.len()).unwrap_or(u32::MAX)
    }

    /// True for a torrent of one file without a folder.
    pub(crate) fn is_single_file(&self) -> bool {
        matches!(&self.files[..], [only] if only.path.is_empty() && only.kind == FileKind::Data)
    }

    /// Symbolic links that the torrent names, which are never made.
    pub fn links(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().filter(|file| file.kind == FileKind::Link)
    }
}

/// Piece hashes of a torrent that is being made.
#[derive(Debug, Clone)]
pub enum Pieces {
    /// The SHA-1 of each piece in order.
    Hashed(Vec<Sha1>),
    /// No hashes (docs/formats.md): `nonce` must be random, or equal sizes would share an info-hash.
    Unhashed {
        /// 16 random bytes.
        nonce: [u8; 16],
    },
}

/// The parts of a new torrent.
#[derive(Debug, Clone)]
pub struct MetainfoBuilder {
    /// Name of the file or folder.
    pub name: String,
    /// Bytes of a piece.
    pub piece_length: u32,
    /// The files in order; exactly one with an empty path makes a single-file torrent.
    pub files: Vec<FileEntry>,
    pub pieces: Pieces,
    /// BEP 27.
    pub private: bool,
}

impl MetainfoBuilder {
    /// Writes `info`, reads it back as a check, and names it by its hash.
    pub fn build(self) -> Result<Metainfo, MetainfoError> {
        let total = sum_lengths(&self.files)?;
        let hashes = match &self.pieces {
            Pieces::Hashed(hashes) => hashes.iter().flat_map(|hash| hash.0).collect(),
            Pieces::Unhashed { .. } => {
                let count = total.div_ceil(u64::from(self.piece_length.max(1)));
                let bytes = usize::try_from(count.saturating_mul(20)).unwrap_or(usize::MAX);
                if bytes > MAX_TORRENT_BYTES {
                    return Err(MetainfoError::TooLarge(bytes));
                }
                vec![0; bytes]
            }
        };
        let mut entries = vec![
            ("name", Value::text(&self.name)),
            ("piece length", Value::Int(i64::from(self.piece_length))),
            ("pieces", Value::bytes(&hashes)),
        ];
        if self.private {
            entries.push(("private", Value::Int(1)));
        }
        if let Pieces::Unhashed { nonce } = &self.pieces {
            entries.push(("flashmob-unhashed", Value::Int(1)));
            entries.push(("flashmob-nonce", Value::bytes(nonce)));
        }
        match self.files.as_slice() {
            [only] if only.path.is_empty() && only.kind == FileKind::Data => {
                entries.push(("length", length_value(only.length)))
            }
            files => {
                let list = files.iter().map(|file| {
                    let path = file.path.iter().map(|element| Value::text(element)).collect();
                    let mut entry = vec![("length", length_value(file.length)), ("path", Value::List(path))];
                    match file.kind {
                        FileKind::Data => {}
                        FileKind::Padding => entry.push(("attr", Value::text("p"))),
                        FileKind::Link => entry.push(("attr", Value::text("l"))),
                    }
                    bencode::dict(entry)
                });
                entries.push(("files", Value::List(list.collect())));
            }
        }
        let info = bencode::dict(entries).encode();
        Metainfo::parse(&bencode::dict([("info", Value::Raw(&info))]).encode())
    }
}

fn length_value(length: u64) -> Value<'static> {
    // `sum_lengths` has refused anything over 2^63.
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

fn get<'d, 'a>(dict: &'d Dict<'a>, key: &str) -> Option<&'d Value<'a>> {
    dict.get(key.as_bytes())
}

fn texts(list: &Value<'_>) -> Vec<String> {
    list.as_list().into_iter().flatten().filter_map(Value::as_text).map(str::to_owned).collect()
}

/// `announce` and then every URL of `announce-list` (BEP 12), each once.
fn read_trackers(top: &Dict<'_>) -> Vec<String> {
    let first = get(top, "announce").and_then(Value::as_text).map(str::to_owned);
    let tiers = get(top, "announce-list").and_then(Value::as_list).unwrap_or_default();
    let mut trackers: Vec<String> = Vec::new();
    for url in first.into_iter().chain(tiers.iter().flat_map(texts)) {
        if !url.is_empty() && !trackers.contains(&url) && trackers.len() < MAX_URLS {
            trackers.push(url);
        }
    }
    trackers
}

fn read_info(info: &Dict<'_>, raw: &[u8]) -> Result<Metainfo, MetainfoError> {
    if get(info, "pieces").is_none() && get(info, "meta version").is_some() {
        return Err(MetainfoError::OnlyV2);
    }
    let name = text_of(info, "name.utf-8", "name").ok_or(MetainfoError::Field("name", "a text"))?;
    check_element(&name)?;
    let piece_length = get(info, "piece length")
        .and_then(Value::as_int)
        .ok_or(MetainfoError::Field("piece length", "a number"))?;
    let piece_length = u32::try_from(piece_length)
        .ok()
        .filter(|length| (1..=MAX_PIECE_LENGTH).contains(length))
        .ok_or(MetainfoError::PieceLength(piece_length))?;
    let files = read_files(info, &name)?;
    let bytes = sum_lengths(&files)?;
    let hashes = get(info, "pieces")
        .and_then(Value::as_bytes)
        .ok_or(MetainfoError::Field("pieces", "a string of hashes"))?;
    let (hashes, rest) = hashes.as_chunks::<20>();
    let expected = bytes.div_ceil(u64::from(piece_length));
    if !rest.is_empty() || u64::try_from(hashes.len()) != Ok(expected) {
        return Err(MetainfoError::HashCount { bytes, piece_length, expected, found: hashes.len() });
    }
    let flag = |key| get(info, key).and_then(Value::as_int) == Some(1);
    Ok(Metainfo {
        info_hash: InfoHash(sha1::Sha1::digest(raw).into()),
        name,
        piece_length,
        pieces: hashes.iter().map(|hash| Sha1(*hash)).collect(),
        files,
        private: flag("private"),
        unhashed: flag("flashmob-unhashed"),
        trackers: Vec::new(),
        url_list: Vec::new(),
        info: raw.into(),
    })
}

fn read_files(info: &Dict<'_>, name: &str) -> Result<Vec<FileEntry>, MetainfoError> {
    let Some(list) = get(info, "files") else {
        return Ok(vec![FileEntry::data(Vec::new(), read_length(info, name)?)]);
    };
    let list = list.as_list().ok_or(MetainfoError::Field("files", "a list"))?;
    if list.is_empty() {
        return Err(MetainfoError::Field("files", "a list of at least one file"));
    }
    if list.len() > MAX_FILES {
        return Err(MetainfoError::TooManyFiles(list.len()));
    }
    let entry = |entry: &Value<'_>| {
        read_entry(entry.as_dict().ok_or(MetainfoError::Field("files", "a list of dictionaries"))?)
    };
    let files = list.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    check_distinct(&files)?;
    Ok(files)
}

fn read_length(dict: &Dict<'_>, what: &str) -> Result<u64, MetainfoError> {
    let length =
        get(dict, "length").and_then(Value::as_int).ok_or(MetainfoError::Field("length", "a number"))?;
    u64::try_from(length).map_err(|_| MetainfoError::Length(what.to_owned()))
}

fn read_entry(entry: &Dict<'_>) -> Result<FileEntry, MetainfoError> {
    let attributes = get(entry, "attr").and_then(Value::as_bytes).unwrap_or_default();
    if attributes.contains(&b'p') {
        // Several paddings may share a path, and some clients write none: it says nothing.
        let length = read_length(entry, "padding")?;
        return Ok(FileEntry { path: Vec::new(), length, kind: FileKind::Padding });
    }
    let path = read_path(entry)?;
    if attributes.contains(&b'l') && get(entry, "length").and_then(Value::as_int).unwrap_or(0) == 0 {
        return Ok(FileEntry { path, length: 0, kind: FileKind::Link });
    }
    Ok(FileEntry { length: read_length(entry, &path.join("/"))?, path, kind: FileKind::Data })
}

/// `path.utf-8` where it can be read, else `path`.
fn read_path(entry: &Dict<'_>) -> Result<Vec<String>, MetainfoError> {
    let texts = |list: &Value<'_>, read: fn(&Value<'_>) -> Option<String>| {
        list.as_list()?.iter().map(read).collect::<Option<Vec<String>>>()
    };
    let path = get(entry, "path.utf-8")
        .and_then(|list| texts(list, |element| element.as_text().map(str::to_owned)))
        .or_else(|| get(entry, "path").and_then(|list| texts(list, lossy)))
        .filter(|path| (1..=MAX_PATH_DEPTH).contains(&path.len()))
        .ok_or(MetainfoError::Field("path", "a list of names"))?;
    path.iter().try_for_each(|element| check_element(element))?;
    Ok(path)
}

/// The text under `utf8`, where a client wrote the UTF-8 form of a name in another encoding, else that under
/// `plain`.
fn text_of(dict: &Dict<'_>, utf8: &str, plain: &str) -> Option<String> {
    let preferred = get(dict, utf8).and_then(Value::as_text).map(str::to_owned);
    preferred.or_else(|| get(dict, plain).and_then(lossy))
}

/// A name in an unknown encoding: bytes that are not UTF-8 become U+FFFD, because a strange name still
/// reaches its payload.
fn lossy(value: &Value<'_>) -> Option<String> {
    value.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A name that stays inside its folder on every filesystem.
fn check_element(element: &str) -> Result<(), MetainfoError> {
    let bad = element.is_empty()
        || element.len() > MAX_NAME
        || element == "."
        || element == ".."
        || element.contains(['/', '\\', '\0']);
    if bad { Err(MetainfoError::Path(element.chars().take(80).collect())) } else { Ok(()) }
}

/// No two files at one path, and no file where another one needs a folder.
fn check_distinct(files: &[FileEntry]) -> Result<(), MetainfoError> {
    let mut seen: BTreeMap<&[String], bool> = BTreeMap::new();
    for file in files.iter().filter(|file| file.kind != FileKind::Padding) {
        for depth in 1..=file.path.len() {
            let is_file = depth == file.path.len();
            match seen.insert(&file.path[..depth], is_file) {
                Some(was_file) if was_file || is_file => {
                    return Err(MetainfoError::Duplicate(file.path[..depth].join("/")));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn sum_lengths(files: &[FileEntry]) -> Result<u64, MetainfoError> {
    files.iter().try_fold(0u64, |sum, file| {
        sum.checked_add(file.length)
            .filter(|sum| i64::try_from(*sum).is_ok())
            .ok_or_else(|| MetainfoError::Length(file.path.join("/")))
    })
}

#[cfg(test)]
mod tests;
