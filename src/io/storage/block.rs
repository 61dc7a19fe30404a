//! A block device (a partition or a whole disk) as a storage, without the page cache.
//!
//! Invariant: for writing, the device is held `O_EXCL`, so the kernel has checked that it is neither mounted
//! nor held, and refuses a mount while it is open here. All transfers are O_DIRECT: aligned ones use the
//! caller's memory, others one aligned buffer, whose sectors are read first so that their other bytes stay.
//! The callers know the layout inside the device.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use memmap2::MmapMut;

use crate::event::{Class, Failure};
use crate::io::storage::access::{failed, open_failure, read_all, within, write_all};
use crate::io::sys;
use crate::storage::{Attributes, Storage, StorageError};
use crate::sync;
use crate::units::show_bytes;

/// Bytes of the buffer that unaligned transfers go through.
const BOUNCE_BYTES: usize = 1 << 20;

/// True when `path` names a block device.
pub fn is_block_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// The first `len` bytes of a block device.
pub struct BlockStorage {
    file: File,
    path: PathBuf,
    len: u64,
    sector: usize,
    rotational: bool,
    writable: bool,
    /// Also the lock that keeps two unaligned writes of one sector apart.
    bounce: Mutex<MmapMut>,
}

impl BlockStorage {
    /// Opens a device for reading. `len` is the payload's size, or `None` for the whole device. A mounted
    /// device may be read (it may also change meanwhile, which the pieces' hashes will tell).
    pub fn open(path: &Path, len: Option<u64>) -> Result<Self, Failure> {
        Self::with(path, len, false)
    }

    /// Claims a device for writing `len` bytes at its beginning; refuses one that is in use or too small.
    pub fn claim(path: &Path, len: u64) -> Result<Self, Failure> {
        Self::with(path, Some(len), true)
    }

    fn with(path: &Path, len: Option<u64>, writable: bool) -> Result<Self, Failure> {
        let doing = if writable { "cannot claim" } else { "cannot read" };
        let failure = |error| open_failure(doing, path, &error);
        if !is_block_device(path) {
            let missing = std::fs::metadata(path).err();
            let error = missing.unwrap_or_else(|| io::Error::other("it is not a block device"));
            return Err(failure(error));
        }
        let flags = libc::O_DIRECT | if writable { libc::O_EXCL } else { 0 };
        let mut file =
            OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path).map_err(failure)?;
        // The size of a block device is where its end is (BLKGETSIZE64 says the same).
        let size = file.seek(SeekFrom::End(0)).map_err(failure)?;
        let len = len.unwrap_or(size);
        if size < len {
            return Err(Failure::new(
                Class::Refused,
                format!(
                    "{} has {size} bytes ({}), and {len} ({}) are needed: {} too few",
                    path.display(),
                    show_bytes(size),
                    show_bytes(len),
                    len - size
                ),
                "choose a larger partition or disk",
            ));
        }
        let device = file.metadata().map_err(failure)?.rdev();
        let sector = sys::logical_sector_size(&file).map_err(failure)?;
        let sector = usize::try_from(sector).unwrap_or(4096).max(512);
        let rotational = queue_fact(device, "rotational") == Some(1);
        let bounce = Mutex::new(MmapMut::map_anon(BOUNCE_BYTES).map_err(failure)?);
        Ok(BlockStorage { file, path: path.to_owned(), len, sector, rotational, writable, bounce })
    }

    fn bounce(&self) -> MutexGuard<'_, MmapMut> {
        // Its contents are made anew by each use.
        sync::lock(&self.bounce)
    }

    fn is_aligned(&self, offset: u64, memory: &[u8]) -> bool {
        let sector = self.sector;
        offset.is_multiple_of(sector as u64)
            && memory.len().is_multiple_of(sector)
            && memory.as_ptr().addr().is_multiple_of(sector)
    }

    /// Splits `offset..offset + length` into windows of whole sectors that fit the bounce buffer: (the
    /// window's first byte, its bytes, the offset of the range in it, the bytes of the range in it).
    fn windows(&self, offset: u64, length: usize) -> impl Iterator<Item = Window> {
        let sector = self.sector as u64;
        let mut at = offset;
        let mut left = length;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let base = at - at % sector;
            let skip = usize::try_from(at - base).ok()?;
            let take = left.min(BOUNCE_BYTES - skip);
            let span = (skip + take).next_multiple_of(usize::try_from(sector).ok()?);
            at += u64::try_from(take).ok()?;
            left -= take;
            Some(Window { base, span, skip, take })
        })
    }
}

struct Window {
    base: u64,
    span: usize,
    skip: usize,
    take: usize,
}

/// A number from `/sys/dev/block/…/queue`, of the disk when `device` is a partition.
fn queue_fact(device: u64, name: &str) -> Option<usize> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    ["queue", "../queue"].iter().find_map(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/{name}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

impl Storage for BlockStorage {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        within(self.len, "reading", &self.path, offset, into.len())?;
        if self.is_aligned(offset, into) {
            return read_all(&self.file, &self.path, offset, into);
        }
        let mut bounce = self.bounce();
        let mut done = 0;
        for window in self.windows(offset, into.len()) {
            read_all(&self.file, &self.path, window.base, &mut bounce[..window.span])?;
            into[done..done + window.take].copy_from_slice(&bounce[window.skip..window.skip + window.take]);
            done += window.take;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        within(self.len, "writing", &self.path, offset, from.len())?;
        if self.is_aligned(offset, from) {
            return write_all(&self.file, &self.path, offset, from);
        }
        let mut bounce = self.bounce();
        let mut done = 0;
        for window in self.windows(offset, from.len()) {
            if window.take != window.span {
                read_all(&self.file, &self.path, window.base, &mut bounce[..window.span])?;
            }
            bounce[window.skip..window.skip + window.take].copy_from_slice(&from[done..done + window.take]);
            write_all(&self.file, &self.path, window.base, &bounce[..window.span])?;
            done += window.take;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        if !self.writable {
            return Ok(());
        }
        self.file.sync_all().map_err(|error| failed("syncing", &self.path, 0, 0, error))
    }

    fn attributes(&self) -> Attributes {
        let alignment = u32::try_from(self.sector).unwrap_or(4096);
        Attributes { alignment, rotational: self.rotational, read_only: !self.writable }
    }
}
