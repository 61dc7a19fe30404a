//! One regular file as a storage.
//!
//! Invariant: the file has exactly the payload's size while it is open here; a new one is sparse. Reads and
//! writes go through the page cache.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::event::Failure;
use crate::io::storage::access::{
    Opened, Resize, failed, open_failure, parent_of, prefetch_file, read_all, sync_folder, within, write_all,
};
use crate::storage::{Attributes, Storage, StorageError};
use crate::units::show_bytes;

#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
    len: u64,
    writable: bool,
}

impl FileStorage {
    /// Opens an existing file for reading; its size is the storage's.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failure = |error| open_failure("cannot read", path, &error);
        let file = File::open(path).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        if !metadata.is_file() {
            let message = format!("{} is not a regular file", path.display());
            return Err(Failure::usage(message, "Name a file, a folder or a block device."));
        }
        Ok(FileStorage { file, path: path.to_owned(), len: metadata.len(), writable: false })
    }

    /// Opens an existing file of exactly `len` bytes for reading.
    pub(crate) fn open_exact(path: &Path, len: u64) -> Result<Self, Failure> {
        let storage = Self::open(path)?;
        if storage.len == len {
            return Ok(storage);
        }
        Err(Failure::usage(
            format!("{} has {} bytes and the torrent {len}", path.display(), storage.len),
            "Name the file that this torrent was made of.",
        ))
    }

    /// Opens a file of `len` bytes for writing, makes it when it is missing. One that exists with another
    /// size is refused unless it is empty or `resize` allows it.
    pub fn create(path: &Path, len: u64, resize: Resize) -> Result<Opened<Self>, Failure> {
        let failure = |error| open_failure("cannot write", path, &error);
        let existed = path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        if !metadata.is_file() {
            let message = format!("{} is not a regular file", path.display());
            return Err(Failure::usage(message, "Name a file, a folder or a block device."));
        }
        let had = metadata.len();
        if had != len && had != 0 && resize == Resize::Refuse {
            return Err(Failure::refused(
                format!("{} exists with {had} bytes and the torrent has {len}", path.display()),
                "Remove it or choose another target.",
            ));
        }
        if had != len {
            file.set_len(len).map_err(|error| {
                open_failure(&format!("cannot make room for {} in", show_bytes(len)), path, &error)
            })?;
        }
        if !existed {
            sync_folder(parent_of(path)).map_err(|error| open_failure("cannot make", path, &error.source))?;
        }
        let storage = FileStorage { file, path: path.to_owned(), len, writable: true };
        Ok(Opened { storage, fresh: had == 0 })
    }
}

impl Storage for FileStorage {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        within(self.len, "reading", &self.path, offset, into.len())?;
        read_all(&self.file, &self.path, offset, into)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        within(self.len, "writing", &self.path, offset, from.len())?;
        write_all(&self.file, &self.path, offset, from)
    }

    fn uses_page_cache(&self) -> bool {
        true
    }

    fn prefetch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        prefetch_file(&self.file, &self.path, offset, length)
    }

    fn sync(&self) -> Result<(), StorageError> {
        if !self.writable {
            return Ok(());
        }
        self.file.sync_all().map_err(|error| failed("syncing", &self.path, 0, 0, error))
    }

    fn attributes(&self) -> Attributes {
        Attributes { alignment: 1, rotational: false, read_only: !self.writable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;

    #[test]
    fn a_new_file_is_sparse_and_has_its_size_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let opened = FileStorage::create(&path, 1 << 30, Resize::Refuse).unwrap();
        assert!(opened.fresh);
        opened.storage.write_at((1 << 30) - 4, b"tail").unwrap();
        opened.storage.sync().unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 1 << 30);
        assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 < 1 << 20);
        let mut tail = [1; 8];
        opened.storage.read_at((1 << 30) - 8, &mut tail).unwrap();
        assert_eq!(&tail, b"\0\0\0\0tail");
    }

    #[test]
    fn a_file_of_another_size_is_refused_unless_it_may_be_resized() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        std::fs::write(&path, b"precious").unwrap();
        let refused = FileStorage::create(&path, 100, Resize::Refuse).err().unwrap();
        assert_eq!(refused.class, Class::Refused);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let opened = FileStorage::create(&path, 100, Resize::Allow).unwrap();
        assert!(!opened.fresh, "what it held may be a part of the payload");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100);
    }

    #[test]
    fn nothing_beyond_the_end_is_read_or_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let storage = FileStorage::create(&path, 100, Resize::Refuse).unwrap().storage;
        assert!(storage.write_at(99, b"ab").is_err());
        assert!(storage.write_at(u64::MAX, b"a").is_err());
        assert!(storage.read_at(98, &mut [0; 3]).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100);
        assert!(storage.read_at(97, &mut [0; 3]).is_ok());
    }

    #[test]
    fn a_missing_source_and_a_wrong_size_are_errors_of_usage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        assert_eq!(FileStorage::open(&path).unwrap_err().class, Class::Usage);
        std::fs::write(&path, b"12345").unwrap();
        assert!(FileStorage::open_exact(&path, 5).is_ok());
        assert_eq!(FileStorage::open_exact(&path, 6).unwrap_err().class, Class::Usage);
    }
}
