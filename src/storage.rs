//! Where payload bytes live: a file, a folder, a partition, an image's runs on a disk.
//!
//! Invariant: offsets are payload offsets, `0..len()`; a call either completes or returns an error (short is
//! an error). The trait is synchronous on purpose: disks are, and the threads that call it belong to
//! `io::torrent::disk_threads`. Implementations live in `io::storage`.

use std::io;

/// Facts that tell a user of a storage how to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Offsets, lengths and memory must be multiples of this for the fast path (1 where nothing is required).
    pub alignment: u32,
    /// The medium seeks slowly: read-back waits for idle time.
    pub rotational: bool,
    /// Writes are refused.
    pub read_only: bool,
}

/// A failed storage call: the action, the target and the place.
#[derive(Debug, thiserror::Error)]
#[error("{action} {length} bytes at {offset} of {target}: {source}")]
pub struct StorageError {
    /// "reading", "writing", "syncing".
    pub action: &'static str,
    /// The path, with the partition if there is one.
    pub target: String,
    /// Offset in the target (not in the payload), in bytes.
    pub offset: u64,
    /// Bytes asked for.
    pub length: u64,
    /// The kernel's error.
    #[source]
    pub source: io::Error,
}

/// A random-access store of exactly `len()` bytes.
pub trait Storage: Send + Sync {
    /// Size in bytes; fixed for the life of the value.
    fn len(&self) -> u64;

    /// True when there is nothing to store.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` from `offset`.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError>;

    /// Writes all of `from` at `offset`. Durable only after `sync`.
    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError>;

    /// Whether reads are served from the page cache, as for files: callers need not cache them.
    fn uses_page_cache(&self) -> bool {
        false
    }

    /// Reads `length` bytes from `offset` into the page cache, and returns when they are there. Useful only
    /// if [`uses_page_cache`](Self::uses_page_cache).
    fn prefetch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        let _ = (offset, length);
        Ok(())
    }

    /// Returns when everything written before is on the medium.
    fn sync(&self) -> Result<(), StorageError>;

    /// Facts about the medium.
    fn attributes(&self) -> Attributes;
}
