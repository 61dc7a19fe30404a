//! A multi-file torrent in a folder: its files, one after another, are the payload.
//!
//! Padding between files (BEP 47) is not on disk: it reads as zeros, and writes to it are dropped. Symbolic
//! links are not made.
//!
//! Invariant: no path leaves the folder (each element is a plain name, checked again here); every file has
//! its size while the storage is open. Not more than [`MAX_OPEN`] files are open at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::event::Failure;
use crate::io::storage::access::{
    Opened, Resize, failed, open_failure, parent_of, prefetch_file, read_all, sync_folder, within, write_all,
};
use crate::io::storage::file::FileStorage;
use crate::metainfo::{FileEntry, FileKind};
use crate::storage::{Attributes, Storage, StorageError};
use crate::sync;

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
    /// `None` for padding.
    path: Option<PathBuf>,
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
        for (path, len) in storage.on_disk() {
            FileStorage::open_exact(path, len)?;
        }
        Ok(storage)
    }

    /// Opens the files below `folder` for writing; missing ones and the folders above them are made, sparse.
    pub fn create(folder: &Path, files: &[FileEntry], resize: Resize) -> Result<Opened<Self>, Failure> {
        let storage = Self::place(folder, files, true)?;
        let mut fresh = true;
        // The folder, and those above it, may be made here.
        let missing = folder.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists());
        let mut new_names: BTreeSet<_> = missing.map(|at| parent_of(at).to_owned()).collect();
        for (path, len) in storage.on_disk() {
            let parent = parent_of(path);
            std::fs::create_dir_all(parent).map_err(|error| open_failure("cannot make", parent, &error))?;
            new_names.extend(parent.ancestors().take_while(|a| a.starts_with(folder)).map(Path::to_owned));
            fresh &= FileStorage::create(path, len, resize)?.fresh;
        }
        storage.lock().new_names = new_names;
        Ok(Opened { storage, fresh })
    }

    /// The folder of a torrent called `name`: `source` itself or the subfolder of that name.
    pub fn find(source: &Path, name: &str, files: &[FileEntry]) -> PathBuf {
        let inside = source.join(name);
        let holds = |folder: &Path| {
            files
                .iter()
                .find(|file| file.kind == FileKind::Data)
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
                Failure::usage(
                    format!("the torrent names a file that cannot be used: {name:?}"),
                    "Do not use this torrent: it is damaged or malicious.",
                )
            };
            let path = match file.kind {
                FileKind::Link => continue,
                FileKind::Padding => None,
                FileKind::Data if !file.path.is_empty() && file.path.iter().all(|e| is_plain(e)) => {
                    Some(file.path.iter().fold(folder.to_owned(), |path, element| path.join(element)))
                }
                FileKind::Data => return Err(unusable()),
            };
            placed.push(Placed { path, start, len: file.length });
            start = start.checked_add(file.length).ok_or_else(unusable)?;
        }
        let folder = folder.to_owned();
        Ok(FolderStorage { folder, files: placed, len: start, writable, state: Mutex::default() })
    }

    /// The files that are on disk, with their bytes.
    fn on_disk(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files.iter().filter_map(|file| Some((file.path.as_deref()?, file.len)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// The handle of the file at `path`, opened when it is not, with the oldest closed when there are too
    /// many.
    fn handle(&self, index: usize, path: &Path) -> Result<Arc<File>, StorageError> {
        let mut state = self.lock();
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

    fn sync_file(&self, index: usize) -> Result<(), StorageError> {
        let Some(path) = &self.files[index].path else { return Ok(()) };
        self.handle(index, path)?.sync_all().map_err(|error| failed("syncing", path, 0, 0, error))
    }

    /// The parts of files that `offset..offset + length` lies in.
    fn parts(&self, offset: u64, length: usize) -> impl Iterator<Item = Part<'_>> {
        let first = self.files.partition_point(|file| file.start + file.len <= offset);
        let mut at = offset;
        let mut left = length;
        let parts = self.files.iter().enumerate().skip(first).map_while(move |(index, file)| {
            if left == 0 {
                return None;
            }
            let inside = at - file.start;
            let take = usize::try_from(file.len - inside).unwrap_or(usize::MAX).min(left);
            at += u64::try_from(take).ok()?;
            left -= take;
            Some(Part { index, path: file.path.as_deref(), inside, take })
        });
        parts.filter(|part| part.take > 0)
    }
}

/// A range of the payload inside one file.
struct Part<'a> {
    index: usize,
    /// `None` for padding.
    path: Option<&'a Path>,
    /// First byte in the file.
    inside: u64,
    /// Bytes, at least one.
    take: usize,
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
        for Part { index, path, inside, take } in self.parts(offset, into.len()) {
            let into = &mut into[done..done + take];
            match path {
                Some(path) => read_all(&*self.handle(index, path)?, path, inside, into)?,
                None => into.fill(0),
            }
            done += take;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        within(self.len, "writing", &self.folder, offset, from.len())?;
        let mut done = 0;
        for Part { index, path, inside, take } in self.parts(offset, from.len()) {
            if let Some(path) = path {
                write_all(&*self.handle(index, path)?, path, inside, &from[done..done + take])?;
                // After the write, because a sync that runs meanwhile may not cover it.
                self.lock().dirty.insert(index);
            }
            done += take;
        }
        Ok(())
    }

    fn uses_page_cache(&self) -> bool {
        true
    }

    fn prefetch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.parts(offset, length).try_for_each(|Part { index, path, inside, take }| match path {
            Some(path) => prefetch_file(&*self.handle(index, path)?, path, inside, take as u64),
            None => Ok(()),
        })
    }

    fn sync(&self) -> Result<(), StorageError> {
        let (mut dirty, folders) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.dirty), state.new_names.clone())
        };
        while let Some(index) = dirty.first().copied() {
            let synced = self.sync_file(index);
            if synced.is_err() {
                self.lock().dirty.append(&mut dirty);
                return synced;
            }
            dirty.remove(&index);
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
    use crate::event::Class;

    fn entry(path: &[&str], length: u64) -> FileEntry {
        FileEntry::data(path.iter().map(ToString::to_string).collect(), length)
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
    fn padding_reads_as_zeros_and_is_not_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let padding = FileEntry { path: Vec::new(), length: 5, kind: FileKind::Padding };
        let link = FileEntry { path: vec!["l".into()], length: 0, kind: FileKind::Link };
        let files = [padding.clone(), entry(&["a"], 3), padding, link, entry(&["b"], 2)];
        let storage = FolderStorage::create(folder.path(), &files, Resize::Refuse).unwrap().storage;
        assert_eq!(storage.len(), 15);
        storage.write_at(0, b"xxxxxabcyyyyyde").unwrap();
        storage.prefetch(0, 15).unwrap();
        storage.sync().unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b"], "neither padding nor links");
        let mut back = [1; 15];
        FolderStorage::open(folder.path(), &files).unwrap().read_at(0, &mut back).unwrap();
        assert_eq!(&back, b"\0\0\0\0\0abc\0\0\0\0\0de");
        let parent = folder.path().parent().unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(FolderStorage::find(parent, name, &files), folder.path(), "found by its first file");
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
    fn a_file_is_synced_once_for_each_write_and_again_after_a_sync_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let files = [entry(&["a"], 2), entry(&["b"], 2), entry(&["c"], 2)];
        let storage = FolderStorage::create(folder.path(), &files, Resize::Refuse).unwrap().storage;
        storage.write_at(0, b"aabbcc").unwrap();
        let dirty = || storage.lock().dirty.iter().copied().collect::<Vec<_>>();
        assert_eq!(dirty(), [0, 1, 2]);
        // The file's handle was closed, and it cannot be opened again.
        storage.lock().open.remove(&1);
        std::fs::rename(folder.path().join("b"), folder.path().join("away")).unwrap();
        assert!(storage.sync().is_err());
        assert_eq!(dirty(), [1, 2]);
        std::fs::rename(folder.path().join("away"), folder.path().join("b")).unwrap();
        storage.sync().unwrap();
        assert!(dirty().is_empty());
        storage.write_at(4, b"C").unwrap();
        assert_eq!(dirty(), [2]);
    }

    #[test]
    fn the_name_of_a_new_folder_is_synced_too() {
        let parent = tempfile::tempdir().unwrap();
        let names = |folder: &Path| {
            let storage = FolderStorage::create(folder, &[entry(&["a"], 1)], Resize::Refuse).unwrap().storage;
            let names = storage.lock().new_names.clone();
            storage.sync().unwrap();
            names
        };
        let new = parent.path().join("x/y");
        let expected = [new.clone(), parent.path().join("x"), parent.path().to_owned()];
        assert_eq!(names(&new), BTreeSet::from(expected));
        assert_eq!(names(&new), BTreeSet::from([new.clone()]), "it is there");
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
