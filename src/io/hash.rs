//! Hashes a storage on all cores.
//!
//! Invariant: each piece is read once, whole, by one thread. The callers compare the hashes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use sha1::Digest;

use crate::buf::AlignedBuf;
pub use crate::digest::{sha1, sha256, sha256_of_hashes};
use crate::storage::{Storage, StorageError};
use crate::sync;
use crate::units::{PieceIndex, Sha1, Sha256};

/// The hash that a piece's bytes must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceHash {
    /// The torrent's (BEP 3).
    Sha1(Sha1),
    /// The signed manifest's.
    Sha256(Sha256),
}

impl PieceHash {
    /// Do these bytes have it?
    pub(crate) fn fits(&self, bytes: &[u8]) -> bool {
        match self {
            PieceHash::Sha1(hash) => sha1(bytes) == *hash,
            PieceHash::Sha256(hash) => sha256(bytes) == *hash,
        }
    }

    /// Do the `len` bytes at `offset` of `storage` have it? They are read a part at a time.
    pub(crate) fn fits_stored(
        &self,
        storage: &dyn Storage,
        offset: u64,
        len: usize,
    ) -> Result<bool, StorageError> {
        Ok(match self {
            PieceHash::Sha1(hash) => digest_stored::<sha1::Sha1>(storage, offset, len)?[..] == hash.0,
            PieceHash::Sha256(hash) => digest_stored::<sha2::Sha256>(storage, offset, len)?[..] == hash.0,
        })
    }
}

/// The hash of `len` bytes at `offset`, which are read a part at a time.
fn digest_stored<D: Digest>(
    storage: &dyn Storage,
    offset: u64,
    len: usize,
) -> Result<sha1::digest::Output<D>, StorageError> {
    let (mut hasher, mut buffer, mut done) = (D::new(), vec![0; len.min(PART)], 0);
    while done < len {
        let part = &mut buffer[..PART.min(len - done)];
        storage.read_at(offset + done as u64, part)?;
        hasher.update(&*part);
        done += part.len();
    }
    Ok(hasher.finalize())
}

/// Bytes of one read when a hash is made of bytes that need not stay in memory.
const PART: usize = 1 << 20;

/// How far a [`hash_pieces`] is, and the means to end it early; shared with the display.
#[derive(Debug, Default)]
pub struct HashProgress {
    /// Bytes read and hashed.
    pub bytes: AtomicU64,
    /// Set to end early: the rest is left out.
    pub stop: AtomicBool,
}

/// The SHA-1 of each piece of `storage`, cut at multiples of `piece_length`, that passes `which`; the others
/// are not read. `None` for pieces that were left out, so or because `progress.stop` was set. Fails with the
/// first error of the storage.
pub fn hash_pieces(
    storage: &dyn Storage,
    piece_length: u32,
    which: impl Fn(PieceIndex) -> bool + Sync,
    progress: &HashProgress,
) -> Result<Vec<Option<Sha1>>, StorageError> {
    let count = u32::try_from(storage.len().div_ceil(u64::from(piece_length.max(1)))).unwrap_or(u32::MAX);
    let next = AtomicU32::new(0);
    let found = Mutex::new((vec![None; count as usize], None));
    let lock = || sync::lock(&found);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count.max(1) as usize) {
            scope.spawn(|| {
                let take = || loop {
                    let index = PieceIndex(next.fetch_add(1, Ordering::Relaxed));
                    if index.0 >= count || which(index) {
                        return (index.0 < count).then_some(index);
                    }
                };
                let found = |piece: PieceIndex, hash| lock().0[piece.get()] = Some(hash);
                if let Err(error) = hash_some(storage, piece_length, take, progress, found) {
                    progress.stop.store(true, Ordering::Relaxed);
                    lock().1.get_or_insert(error);
                }
            });
        }
    });
    match sync::into_inner(found) {
        (_, Some(error)) => Err(error),
        (hashes, None) => Ok(hashes),
    }
}

/// The work of one thread: takes the next piece until all are taken.
fn hash_some(
    storage: &dyn Storage,
    piece_length: u32,
    take: impl Fn() -> Option<PieceIndex>,
    progress: &HashProgress,
    found: impl Fn(PieceIndex, Sha1),
) -> Result<(), StorageError> {
    let mut buffer = AlignedBuf::zeroed(piece_length as usize);
    while !progress.stop.load(Ordering::Relaxed) {
        let Some(index) = take() else { break };
        let start = u64::from(index.0) * u64::from(piece_length);
        let len = (storage.len() - start).min(u64::from(piece_length));
        let piece = &mut buffer[..usize::try_from(len).unwrap_or(0)];
        storage.read_at(start, piece)?;
        found(index, sha1(piece));
        progress.bytes.fetch_add(len, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::storage::{FileStorage, Resize};

    #[test]
    fn every_piece_has_its_own_hash_and_the_last_may_be_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let storage = FileStorage::open(&path).unwrap();
        let progress = HashProgress::default();
        let hashes = hash_pieces(&storage, 16384, |_| true, &progress).unwrap();
        let expected: Vec<_> = bytes.chunks(16384).map(|piece| Some(sha1(piece))).collect();
        assert_eq!(hashes, expected);
        assert_eq!(progress.bytes.load(Ordering::Relaxed), 100_000);
        let one = hash_pieces(&storage, 16384, |piece| piece.0 == 5, &HashProgress::default()).unwrap();
        assert_eq!(one.iter().filter(|hash| hash.is_some()).count(), 1, "the others are not read");
        assert_eq!(one[5], expected[5]);
    }

    #[test]
    fn an_unreadable_piece_is_an_error_and_stop_ends_early() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let storage = FileStorage::create(&path, 100_000, Resize::Refuse).unwrap().storage;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(50_000).unwrap();
        assert!(hash_pieces(&storage, 16384, |_| true, &HashProgress::default()).is_err());
        let stopped = HashProgress::default();
        stopped.stop.store(true, Ordering::Relaxed);
        assert_eq!(hash_pieces(&storage, 16384, |_| true, &stopped).unwrap(), vec![None; 7]);
    }
}
