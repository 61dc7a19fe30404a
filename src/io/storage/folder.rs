//! A multi-file torrent in a folder: its files, one after another, are the payload.
//!
//! Invariant: no path leaves the folder (each element is a plain name, looked at again here); every file has
//! its size while the storage is open. Not more than [`MAX_OPEN`] files are open at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::{Class, Failure};
use crate::io::storage::file::FileStorage;
use crate::io::storage::{
    Opened, Resize, failed, open_failure, parent_of, read_all, sync_folder, warm_file, within, write_all,
};
use crate::metainfo::FileEntry;
use crate::storage::{Attributes, Storage, StorageError};

/// File handles kept at once: far below the usual limit of 1024 for a process.
const MAX_OPEN: usize = 128;

/// The files of a torrent in a folder.
pub struct FolderStorage {
    folder: PathBuf,
    files: Vec<Placed>,
    len: u64,
    writable: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Placed {
    path: PathBuf,
    /// First byte in the payload.
    start: u64,
    len: u64,
}

#[derive(Default)]
struct State {
    open: BTreeMap<usize, Arc<File>>,
    /// In the order they were opened: the oldest is closed first.
    order: VecDeque<usize>,
    /// Files written to since the last sync.
    dirty: BTreeSet<usize>,
    /// Folders that got new names since the last sync.
    new_names: BTreeSet<PathBuf>,
}

impl FolderStorage {
    /// Opens the files below `folder` for reading; each must exist with its size.
    pub fn open(folder: &Path, files: &[FileEntry]) -> Result<Self, Failure> {
        let storage = Self::place(folder, files, false)?;
        for file in &storage.files {
            FileStorage::open_exact(&file.path, file.len)?;
        }
        Ok(storage)
    }

    /// Opens the files below `folder` for writing; missing ones and the folders above them are made, sparse.
    pub fn create(folder: &Path, files: &[FileEntry], resize: Resize) -> Result<Opened<Self>, Failure> {
        let storage = Self::place(folder, files, true)?;
        let mut fresh = true;
        let mut new_names = BTreeSet::new();
        for file in &storage.files {
            let parent = parent_of(&file.path);
            std::fs::create_dir_all(parent).map_err(|error| open_failure("cannot make", parent, &error))?;
            new_names.extend(parent.ancestors().take_while(|a| a.starts_with(folder)).map(Path::to_owned));
            fresh &= FileStorage::create(&file.path, file.len, resize)?.fresh;
        }
        storage.lock().new_names = new_names;
        Ok(Opened { storage, fresh })
    }

    /// The folder of a torrent called `name`: `source` itself or the one of that name in it.
    pub fn find(source: &Path, name: &str, files: &[FileEntry]) -> PathBuf {
        let inside = source.join(name);
        let holds = |folder: &Path| {
            files
                .first()
                .is_some_and(|file| file.path.iter().fold(folder.to_owned(), |p, e| p.join(e)).exists())
        };
        if is_plain(name) && !holds(source) && holds(&inside) { inside } else { source.to_owned() }
    }

    fn place(folder: &Path, files: &[FileEntry], writable: bool) -> Result<Self, Failure> {
        let mut start = 0u64;
        let mut placed = Vec::with_capacity(files.len());
        for file in files {
            let unusable = || {
                let name = file.path.join("/");
                Failure::new(
                    Class::Usage,
                    format!("the torrent names a file that cannot be used: {name:?}"),
                    "do not use this torrent: it is damaged or malicious",
                )
            };
            if file.path.is_empty() || !file.path.iter().all(|element| is_plain(element)) {
                return Err(unusable());
            }
            let path = file.path.iter().fold(folder.to_owned(), |path, element| path.join(element));
            placed.push(Placed { path, start, len: file.length });
            start = start.checked_add(file.length).ok_or_else(unusable)?;
        }
        let folder = folder.to_owned();
        Ok(FolderStorage { folder, files: placed, len: start, writable, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after each line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of a file, opened when it is not, with the oldest closed when there are too many.
    fn handle(&self, index: usize, for_write: bool) -> Result<Arc<File>, StorageError> {
        let path = &self.files[index].path;
        let mut state = self.lock();
        if for_write {
            state.dirty.insert(index);
        }
        if let Some(file) = state.open.get(&index) {
            return Ok(Arc::clone(file));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(self.writable)
            .open(path)
            .map_err(|error| failed("opening", path, 0, 0, error))?;
        let file = Arc::new(file);
        if state.open.len() >= MAX_OPEN
            && let Some(oldest) = state.order.pop_front()
        {
            state.open.remove(&oldest);
        }
        state.open.insert(index, Arc::clone(&file));
        state.order.push_back(index);
        Ok(file)
    }

    /// The parts of files that `offset..offset + length` lies in: (file, offset in it, bytes).
    fn parts(&self, offset: u64, length: usize) -> impl Iterator<Item = (usize, u64, usize)> {
        let first = self.files.partition_point(|file| file.start + file.len <= offset);
        let mut at = offset;
        let mut left = length;
        self.files.iter().enumerate().skip(first).map_while(move |(index, file)| {
            if left == 0 {
                return None;
            }
            let inside = at - file.start;
            let take = usize::try_from(file.len - inside).unwrap_or(usize::MAX).min(left);
            at += u64::try_from(take).ok()?;
            left -= take;
            Some((index, inside, take))
        })
    }
}

/// A name that is one element of a path and nothing else.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

impl Storage for FolderStorage {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        within(self.len, "reading", &self.folder, offset, into.len())?;
        let mut done = 0;
        for (index, inside, take) in self.parts(offset, into.len()) {
            if take > 0 {
                let file = self.handle(index, false)?;
                read_all(&file, &self.files[index].path, inside, &mut into[done..done + take])?;
                done += take;
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        within(self.len, "writing", &self.folder, offset, from.len())?;
        let mut done = 0;
        for (index, inside, take) in self.parts(offset, from.len()) {
            if take > 0 {
                let file = self.handle(index, true)?;
                write_all(&file, &self.files[index].path, inside, &from[done..done + take])?;
                done += take;
            }
        }
        Ok(())
    }

    fn is_kept(&self) -> bool {
        true
    }

    fn warm(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.parts(offset, length).try_for_each(|(index, inside, take)| {
            let file = self.handle(index, false)?;
            warm_file(&file, &self.files[index].path, inside, take as u64)
        })
    }

    fn sync(&self) -> Result<(), StorageError> {
        let (dirty, folders) = {
            let state = self.lock();
            (state.dirty.clone(), state.new_names.clone())
        };
        for index in &dirty {
            let file = self.handle(*index, false)?;
            file.sync_all().map_err(|error| failed("syncing", &self.files[*index].path, 0, 0, error))?;
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))?;
        self.lock().new_names.clear();
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        Attributes { alignment: 1, rotational: false, read_only: !self.writable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[&str], length: u64) -> FileEntry {
        FileEntry { path: path.iter().map(ToString::to_string).collect(), length }
    }

    #[test]
    fn files_follow_one_another_and_empty_ones_take_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let files = [entry(&["a"], 3), entry(&["empty"], 0), entry(&["sub", "b"], 5), entry(&["z"], 0)];
        let opened = FolderStorage::create(folder.path(), &files, Resize::Refuse).unwrap();
        assert!(opened.fresh);
        opened.storage.write_at(0, b"abcdefgh").unwrap();
        opened.storage.sync().unwrap();
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"abc");
        assert_eq!(std::fs::read(folder.path().join("sub/b")).unwrap(), b"defgh");
        assert_eq!(std::fs::read(folder.path().join("empty")).unwrap(), b"");
        let mut middle = [0; 4];
        opened.storage.read_at(2, &mut middle).unwrap();
        assert_eq!(&middle, b"cdef");
        assert!(opened.storage.read_at(6, &mut middle).is_err());
        assert!(!FolderStorage::create(folder.path(), &files, Resize::Refuse).unwrap().fresh);
    }

    #[test]
    fn no_path_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for bad in [&["..", "x"][..], &["a/../../x"], &[""], &["."], &["/etc/x"], &[], &["a\0b"]] {
            let result = FolderStorage::create(folder.path(), &[entry(bad, 1)], Resize::Refuse);
            assert_eq!(result.err().map(|failure| failure.class), Some(Class::Usage), "{bad:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
    }

    #[test]
    fn more_files_than_handles_are_written_and_synced() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..MAX_OPEN + 40).map(|i| entry(&[&format!("f{i}")], 2)).collect();
        let storage = FolderStorage::create(folder.path(), &files, Resize::Refuse).unwrap().storage;
        let bytes: Vec<u8> = (0..=250u8).cycle().take(2 * files.len()).collect();
        storage.write_at(0, &bytes).unwrap();
        storage.sync().unwrap();
        assert!(storage.lock().open.len() <= MAX_OPEN);
        let mut back = vec![0; bytes.len()];
        storage.read_at(0, &mut back).unwrap();
        assert_eq!(back, bytes);
    }

    #[test]
    fn the_folder_or_its_parent_can_be_named() {
        let parent = tempfile::tempdir().unwrap();
        let files = [entry(&["payload", "0000.bin"], 4)];
        let folder = parent.path().join("v1");
        FolderStorage::create(&folder, &files, Resize::Refuse).unwrap();
        assert_eq!(FolderStorage::find(&folder, "v1", &files), folder);
        assert_eq!(FolderStorage::find(parent.path(), "v1", &files), folder);
        assert!(FolderStorage::open(&folder, &files).is_ok());
        assert!(FolderStorage::open(parent.path(), &files).is_err());
    }
}
