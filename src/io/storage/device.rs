//! A disk through its O_DIRECT handle: every read and write reaches the device.
//!
//! Invariant: a call either completes or returns an error that names disk and place. Unaligned memory is
//! copied; offsets and lengths of writes must be whole sectors, so that no write ever reads first (except
//! [`Disk::patch`], which says so).

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buf::{AlignedBuf, PAGE};
use crate::io::sys;
use crate::storage::StorageError;
use crate::units::SectorSize;

/// Bytes that are copied or zeroed at a time.
pub const STEP: usize = 1 << 20;

/// A disk, or another block device that is used as one.
#[derive(Debug)]
pub struct Disk {
    file: File,
    name: String,
    size: u64,
    sector: SectorSize,
    rotational: bool,
    requests: Arc<AtomicU64>,
}

/// The number of requests that a disk has completed, for the task that waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    /// The path the disk was opened by.
    pub name: String,
    /// Requests that have ended, well or badly.
    pub requests: Arc<AtomicU64>,
}

impl Disk {
    /// Opens the block device at `path`. Whether it is free was found out before (`io::disk::claim`).
    pub fn open(path: &str, rotational: bool) -> io::Result<Self> {
        let flags = nix::fcntl::OFlag::O_DIRECT.bits() | nix::fcntl::OFlag::O_CLOEXEC.bits();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Disk::of(file, path.to_string(), rotational)
    }

    /// Opens the block device at `path` for reading only, and exclusively unless it is `shared`: the kernel
    /// refuses each write.
    pub(crate) fn open_to_read(path: &str, rotational: bool, shared: bool) -> io::Result<Self> {
        let exclusive = if shared { 0 } else { nix::fcntl::OFlag::O_EXCL.bits() };
        let flags = nix::fcntl::OFlag::O_DIRECT.bits() | nix::fcntl::OFlag::O_CLOEXEC.bits() | exclusive;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Disk::of(file, path.to_string(), rotational)
    }

    /// The open device, for questions to the disk itself.
    pub(crate) fn device(&self) -> &File {
        &self.file
    }

    /// A block device that was opened with O_DIRECT.
    pub fn of(mut file: File, name: String, rotational: bool) -> io::Result<Self> {
        if !file.metadata()?.file_type().is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a block device"));
        }
        let size = file.seek(SeekFrom::End(0))?;
        let bytes = sys::logical_sector_size(&file)?;
        let sector = SectorSize::new(bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, format!("sectors of {bytes} bytes")))?;
        Ok(Disk { file, name, size, sector, rotational, requests: Arc::default() })
    }

    /// The path it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Logical sector size.
    pub fn sector(&self) -> SectorSize {
        self.sector
    }

    pub fn rotational(&self) -> bool {
        self.rotational
    }

    /// Tells whether it still does something.
    pub(crate) fn pulse(&self) -> Pulse {
        Pulse { name: self.name.clone(), requests: Arc::clone(&self.requests) }
    }

    /// Passes on how a request ended.
    fn ended<T>(&self, result: T) -> T {
        self.requests.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn error(
        &self,
        action: &'static str,
        offset: u64,
        length: usize,
    ) -> impl FnOnce(io::Error) -> StorageError {
        let target = self.name.clone();
        move |source| StorageError { action, target, offset, length: length as u64, source }
    }

    fn is_direct(&self, offset: u64, bytes: &[u8]) -> bool {
        // Nearly every device takes memory aligned to its logical sector (open(2)); a page satisfies all, and
        // piece buffers begin on one.
        self.is_whole_sectors(offset, bytes.len() as u64) && bytes.as_ptr().addr().is_multiple_of(PAGE)
    }

    /// Fills `into` from `offset`, with any alignment.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        if self.is_direct(offset, into) {
            let length = into.len();
            return self
                .ended(self.file.read_exact_at(into, offset))
                .map_err(self.error("reading", offset, length));
        }
        let sector = self.sector.get() as usize;
        let mut bounce = AlignedBuf::zeroed(STEP.min(into.len() + 2 * sector).next_multiple_of(sector));
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let skip = usize::try_from(at % u64::from(self.sector.get())).unwrap_or(0);
            let wanted = (into.len() - done).min(bounce.len() - skip);
            // Not beyond the buffer: its length is a whole number of sectors.
            let sectors = &mut bounce[..(skip + wanted).next_multiple_of(sector)];
            self.ended(self.file.read_exact_at(sectors, at - skip as u64))
                .map_err(self.error("reading", at, wanted))?;
            into[done..done + wanted].copy_from_slice(&sectors[skip..skip + wanted]);
            done += wanted;
        }
        Ok(())
    }

    /// Writes whole sectors.
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        if self.is_direct(offset, from) {
            return self.ended(self.file.write_all_at(from, offset)).map_err(self.error(
                "writing",
                offset,
                from.len(),
            ));
        }
        self.check_sectors(offset, from.len() as u64)?;
        let mut bounce = AlignedBuf::zeroed(STEP.min(from.len()));
        let mut at = offset;
        for part in from.chunks(STEP) {
            let copy = &mut bounce[..part.len()];
            copy.copy_from_slice(part);
            self.ended(self.file.write_all_at(copy, at)).map_err(self.error("writing", at, part.len()))?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Can these bytes be written without reading first?
    pub(crate) fn is_whole_sectors(&self, offset: u64, length: u64) -> bool {
        let sector = u64::from(self.sector.get());
        offset.is_multiple_of(sector) && length.is_multiple_of(sector)
    }

    fn check_sectors(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        if self.is_whole_sectors(offset, length) {
            return Ok(());
        }
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not whole sectors");
        Err(StorageError { action: "writing", target: self.name.clone(), offset, length, source })
    }

    /// Changes bytes inside sectors: reads the sectors and writes them back. The caller must be the only
    /// writer there.
    pub fn patch(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        let sector = u64::from(self.sector.get());
        let start = offset - offset % sector;
        let end = (offset + from.len() as u64).next_multiple_of(sector);
        let length = usize::try_from(end - start).unwrap_or(usize::MAX);
        let skip = usize::try_from(offset - start).unwrap_or(0);
        let mut sectors = AlignedBuf::zeroed(length);
        self.read_at(start, &mut sectors)?;
        sectors[skip..skip + from.len()].copy_from_slice(from);
        self.write_at(start, &sectors)
    }

    /// Makes whole sectors zero: by the device itself if it can, else by writing zeros. The read-back proves
    /// them like everything else.
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.check_sectors(offset, length)?;
        match self.ended(sys::zero_out(&self.file, offset, length)) {
            Ok(()) => Ok(()),
            Err(_) => self.write_zeros(offset, length),
        }
    }

    /// Tells the device that whole sectors are no longer needed. It may refuse or ignore that.
    pub fn discard(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.check_sectors(offset, length)?;
        let length_asked = usize::try_from(length).unwrap_or(usize::MAX);
        self.ended(sys::discard(&self.file, offset, length)).map_err(self.error(
            "discarding",
            offset,
            length_asked,
        ))
    }

    /// Writes zeros to whole sectors.
    pub(crate) fn write_zeros(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        self.check_sectors(offset, length)?;
        let step = STEP as u64;
        let zeros = AlignedBuf::zeroed(usize::try_from(length.min(step)).unwrap_or(STEP));
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let part = usize::try_from((end - at).min(step)).unwrap_or(STEP);
            self.write_at(at, &zeros[..part])?;
            at += part as u64;
        }
        Ok(())
    }

    /// Returns when everything written before is on the medium, beyond the device's own cache.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.ended(self.file.sync_data()).map_err(self.error("syncing", 0, 0))
    }
}
