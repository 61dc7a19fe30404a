//! A payload as the torrent's own files (`payload/0000.bin`, …), which any BitTorrent client can seed where
//! they lie.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::access::{READ_ONLY, failed, never_written, untrusted};
use super::cuts::{Cut, cuts, read_cuts};
use crate::event::Failure;
use crate::io::storage::prefetch_file;
use crate::layout::image::payload_files;
use crate::manifest::Manifest;
use crate::storage::{Attributes, Storage, StorageError};

/// The payload's virtual files as one read-only storage.
#[derive(Debug)]
pub struct PayloadFiles {
    files: Vec<(File, PathBuf)>,
    file_size: u64,
    len: u64,
}

impl PayloadFiles {
    /// Opens the files. Fails if one is missing or has another size.
    pub fn open(folder: &Path, manifest: &Manifest) -> Result<Self, Failure> {
        let (file_size, len) = (manifest.payload.file_size, manifest.payload.length(manifest.piece_length));
        let mut files = Vec::new();
        for entry in payload_files(len, file_size) {
            let path = entry.path.iter().fold(folder.to_path_buf(), |path, element| path.join(element));
            let advice = "The payload is not complete: copy the image's folder again.";
            let cannot = |e| failed("opening", &path, &e, advice);
            let file = File::open(&path).map_err(cannot)?;
            let found = file.metadata().map_err(cannot)?.len();
            if found != entry.length {
                return Err(untrusted(format!(
                    "{} has {found} bytes and should have {}",
                    path.display(),
                    entry.length
                )));
            }
            files.push((file, path));
        }
        Ok(PayloadFiles { files, file_size, len })
    }

    fn file(&self, index: u64) -> Option<&(File, PathBuf)> {
        usize::try_from(index).ok().and_then(|index| self.files.get(index))
    }

    fn failed(&self, action: &'static str, offset: u64, length: usize, source: io::Error) -> StorageError {
        let file = self.file(offset / self.file_size);
        let target = file.map_or("the payload".into(), |(_, path)| path.display().to_string());
        StorageError { action, target, offset: offset % self.file_size, length: length as u64, source }
    }
}

impl Storage for PayloadFiles {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        read_cuts(self.file_size, offset, into, |index, inside, part| {
            let file = self.file(index).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof));
            let at = index * self.file_size + inside;
            file.and_then(|(file, _)| file.read_exact_at(part, inside))
                .map_err(|e| self.failed("reading", at, part.len(), e))
        })
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        Err(self.failed("writing", offset, from.len(), never_written()))
    }

    fn uses_page_cache(&self) -> bool {
        true
    }

    fn prefetch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        for Cut { index, inside, length } in cuts(self.file_size, offset, length) {
            if let Some((file, path)) = self.file(index) {
                prefetch_file(file, path, inside, length)?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        READ_ONLY
    }
}
