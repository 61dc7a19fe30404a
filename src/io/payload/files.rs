//! A payload as the torrent's own files (`payload/0000.bin`, …), which any BitTorrent client can seed where they lie.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::untrusted;
use crate::event::Failure;
use crate::io::image::{failed, payload_files};
use crate::io::storage::warm_file;
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

    fn failed(&self, action: &'static str, offset: u64, length: usize, source: io::Error) -> StorageError {
        let at = usize::try_from(offset / self.file_size).unwrap_or(usize::MAX);
        let target = self.files.get(at).map_or("the payload".into(), |(_, path)| path.display().to_string());
        StorageError { action, target, offset: offset % self.file_size, length: length as u64, source }
    }
}

impl Storage for PayloadFiles {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let mut rest = into;
        let mut at = offset;
        while !rest.is_empty() {
            let inside = at % self.file_size;
            let here = usize::try_from(self.file_size - inside).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(here);
            let file = usize::try_from(at / self.file_size).ok().and_then(|i| self.files.get(i));
            let read = file.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof));
            read.and_then(|(file, _)| file.read_exact_at(now, inside))
                .map_err(|e| self.failed("reading", at, here, e))?;
            at += here as u64;
            rest = later;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        Err(self.failed("writing", offset, from.len(), super::never_written()))
    }

    fn is_kept(&self) -> bool {
        true
    }

    fn warm(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        let mut at = offset;
        while at < offset + length {
            let inside = at % self.file_size;
            let here = (self.file_size - inside).min(offset + length - at);
            let file = usize::try_from(at / self.file_size).ok().and_then(|i| self.files.get(i));
            if let Some((file, path)) = file {
                warm_file(file, path, inside, here)?;
            }
            at += here;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        super::READ_ONLY
    }
}
