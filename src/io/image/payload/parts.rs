//! A payload in files that versions share (`parts/`, hard links), assembled by its list of runs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::access::{READ_ONLY, failed, refused, untrusted};
use super::cuts::{Cut, cuts, read_cuts};
use crate::event::Failure;
use crate::io::storage::prefetch_file;
use crate::manifest::Manifest;
use crate::manifest::names;
use crate::manifest::reference::{PartList, PieceRun, find_run, starts_of};
use crate::storage::{Attributes, Storage, StorageError};

/// The payload as one read-only storage.
#[derive(Debug)]
pub struct Parts {
    files: Vec<(File, PathBuf)>,
    runs: Vec<PieceRun>,
    starts: Vec<u32>,
    piece_length: u64,
    len: u64,
}

impl Parts {
    /// Opens the files of `list`, which was checked. Fails if one is missing or too short for its pieces.
    pub fn open(folder: &Path, manifest: &Manifest, list: &PartList) -> Result<Self, Failure> {
        let piece_length = manifest.piece_length.bytes();
        let mut needed = vec![0; list.files.len()];
        for run in &list.runs {
            let end = u64::from(run.first) + u64::from(run.count);
            if let Some(needed) = needed.get_mut(run.file as usize) {
                *needed = end.max(*needed);
            }
        }
        let mut files = Vec::new();
        for (part, needed) in list.files.iter().zip(needed) {
            let path = folder.join(names::PARTS).join(&part.name);
            let advice = "The payload is not complete: copy the image's folder again.";
            let cannot = |e| failed("opening", &path, &e, advice);
            let file = File::open(&path).map_err(cannot)?;
            let found = file.metadata().map_err(cannot)?.len();
            if found < needed * piece_length {
                let needed = needed * piece_length;
                return Err(untrusted(format!(
                    "{} has {found} bytes and should have {needed}",
                    path.display()
                )));
            }
            files.push((file, path));
        }
        let (starts, runs) = (starts_of(&list.runs), list.runs.clone());
        Ok(Parts { files, runs, starts, piece_length, len: manifest.payload.length(manifest.piece_length) })
    }

    /// The file that has a piece, and where in it the byte `inside` of the piece is.
    fn find(&self, piece: u64, inside: u64) -> Option<(&(File, PathBuf), u64)> {
        let (run, at) = find_run(&self.runs, &self.starts, u32::try_from(piece).ok()?)?;
        let offset = (u64::from(run.first) + u64::from(at)) * self.piece_length + inside;
        Some((self.files.get(run.file as usize)?, offset))
    }

    /// Reads a part of one piece.
    fn read_part(&self, piece: u64, inside: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let length = into.len() as u64;
        let Some(((file, path), offset)) = self.find(piece, inside) else {
            let (target, source) = ("the payload".into(), io::Error::from(io::ErrorKind::UnexpectedEof));
            let offset = piece * self.piece_length + inside;
            return Err(StorageError { action: "reading", target, offset, length, source });
        };
        file.read_exact_at(into, offset).map_err(|source| {
            let target = path.display().to_string();
            StorageError { action: "reading", target, offset, length, source }
        })
    }
}

impl Storage for Parts {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        read_cuts(self.piece_length, offset, into, |piece, inside, part| self.read_part(piece, inside, part))
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        Err(refused(offset, from))
    }

    fn uses_page_cache(&self) -> bool {
        true
    }

    fn prefetch(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        for Cut { index, inside, length } in cuts(self.piece_length, offset, length) {
            if let Some(((file, path), start)) = self.find(index, inside) {
                prefetch_file(file, path, start, length)?;
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
