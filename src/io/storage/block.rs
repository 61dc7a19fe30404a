//! A block device (a partition or a whole disk) as a storage, without the page cache.
//!
//! Invariant: for writing, the device is held `O_EXCL`, so the kernel has checked that it is neither mounted
//! nor held, and refuses a mount while it is open here. A write that covers a sector in part keeps the
//! sector's other bytes. The callers know the layout inside the device.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::event::Failure;
use crate::io::storage::access::{open_failure, within};
use crate::io::storage::device::Disk;
use crate::io::sysfs;
use crate::storage::{Attributes, Storage, StorageError};
use crate::sync;
use crate::units::show_bytes;

/// True when `path` names a block device.
pub fn is_block_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// The first `len` bytes of a block device.
pub struct BlockStorage {
    device: Disk,
    path: PathBuf,
    len: u64,
    writable: bool,
    /// Keeps two writes apart that change parts of one sector.
    partial: Mutex<()>,
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
        let file =
            OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path).map_err(failure)?;
        let number = file.metadata().map_err(failure)?.rdev();
        let rotational = sysfs::queue_fact(number, "rotational") == Some(1);
        let device = Disk::of(file, path.display().to_string(), rotational).map_err(failure)?;
        let size = device.size();
        let len = len.unwrap_or(size);
        if size < len {
            return Err(Failure::refused(
                format!(
                    "{} has {size} bytes ({}), and {len} ({}) are needed: {} too few",
                    path.display(),
                    show_bytes(size),
                    show_bytes(len),
                    len - size
                ),
                "Choose a larger partition or disk.",
            ));
        }
        Ok(BlockStorage { device, path: path.to_owned(), len, writable, partial: Mutex::default() })
    }
}

impl Storage for BlockStorage {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        within(self.len, "reading", &self.path, offset, into.len())?;
        self.device.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        within(self.len, "writing", &self.path, offset, from.len())?;
        if self.device.is_whole_sectors(offset, from.len() as u64) {
            return self.device.write_at(offset, from);
        }
        let sector = self.device.sector().get() as usize;
        let before = usize::try_from(offset.next_multiple_of(sector as u64) - offset).unwrap_or(sector);
        let (head, rest) = from.split_at(before.min(from.len()));
        let (whole, tail) = rest.split_at(rest.len() - rest.len() % sector);
        let _alone = sync::lock(&self.partial);
        let (whole_at, tail_at) = (offset + head.len() as u64, offset + (from.len() - tail.len()) as u64);
        if !head.is_empty() {
            self.device.patch(offset, head)?;
        }
        if !whole.is_empty() {
            self.device.write_at(whole_at, whole)?;
        }
        if !tail.is_empty() {
            self.device.patch(tail_at, tail)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        if !self.writable {
            return Ok(());
        }
        self.device.sync()
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            alignment: self.device.sector().get(),
            rotational: self.device.rotational(),
            read_only: !self.writable,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testkit::disks::LoopDisk;

    const SIZE: usize = 4 << 20;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn writes_of_any_alignment_change_their_own_bytes_alone(
            large in any::<bool>(),
            writes in proptest::collection::vec((0..SIZE, 1..3usize << 20, 0..4usize, any::<u8>()), 1..6),
        ) {
            let disk = LoopDisk::used(SIZE as u64, if large { 4096 } else { 512 });
            let storage = BlockStorage::claim(Path::new(&disk.path), SIZE as u64).expect("free");
            let mut expected = vec![0xaa; SIZE];
            for (at, len, shift, byte) in writes {
                let len = len.min(SIZE - at);
                // Memory that does not begin on a page either.
                let bytes = vec![byte; shift + len];
                storage.write_at(at as u64, &bytes[shift..]).expect("written");
                expected[at..at + len].fill(byte);
                let mut back = vec![0; shift + len + 1];
                let from = at.saturating_sub(1);
                storage.read_at(from as u64, &mut back[shift..shift + len]).expect("read");
                prop_assert!(back[shift..shift + len] == expected[from..from + len]);
            }
            storage.sync().expect("synced");
            prop_assert!(disk.bytes() == expected);
        }
    }
}
