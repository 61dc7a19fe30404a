//! `--parent`: the payload of a version that stores only its new pieces.
//!
//! Invariant: shared pieces outlive the parent's folder, because extents are cloned or files are hard links.
//! The filesystem's abilities decide the form at the end. `parent` finds the pieces that are shared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flashmob::event::Failure;
use flashmob::io::sys::clone_range;
use flashmob::layout::image::payload_files;
use flashmob::manifest::names;
use flashmob::manifest::reference::{MAX_PARTS, Part, PartList, PieceRun, Reference, find_run, push_piece};
use flashmob::units::PieceLength;

use super::parent::{Parent, Twin};
use super::writer::{Writer, data_ranges};
use crate::keys::{file_failure, sync_all, write_new};

/// How unchanged pieces came to be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Payload files whose unchanged extents are the parent's.
    Cloned,
    /// The parent's payload files.
    Linked,
    /// Files of pieces, and a list of the pieces in each.
    Referenced,
    /// Nothing is shared.
    Copied,
}

/// Counts of shared pieces.
#[derive(Debug)]
pub(super) struct Shared {
    pub form: Form,
    pub version: String,
    /// Pieces that the parent has.
    pub unchanged: u32,
    /// All pieces of the version.
    pub pieces: u32,
    /// Pieces whose hash the parent has, but with other bytes.
    pub damaged: u32,
}

impl Shared {
    pub(super) fn text(&self) -> String {
        let how = match self.form {
            Form::Cloned => "shared with it on disk (reflinks)",
            Form::Linked => "in the same payload files (hard links)",
            Form::Referenced => {
                "shared with it on disk (hard links in parts/: only flashmob can seed this folder)"
            }
            Form::Copied => "copied",
        };
        format!("{} of {} pieces are unchanged since {}, {how}", self.unchanged, self.pieces, self.version)
    }
}

/// A payload in the making; only new pieces are written.
pub(super) struct Sharing<'a> {
    parent: &'a Parent,
    folder: PathBuf,
    piece_length: PieceLength,
    file_size: u64,
    whole: bool,
    own: Writer,
    new: u32,
    damaged: u32,
    /// Runs of pieces in the parent's files. New pieces belong to one more file after the parent's last.
    runs: Vec<PieceRun>,
}

impl<'a> Sharing<'a> {
    /// Begins a payload in `folder`. `whole`: make payload files that any client can seed, even at the cost
    /// of a copy.
    pub(super) fn begin(
        parent: &'a Parent,
        folder: &Path,
        piece_length: PieceLength,
        file_size: u64,
        whole: bool,
    ) -> Result<Self, Failure> {
        let parts = folder.join(names::PARTS);
        fs::create_dir(&parts).map_err(|e| file_failure("making", &parts, &e))?;
        let own = Writer::new(parts, piece_length, u64::MAX);
        let (folder, runs) = (folder.to_path_buf(), Vec::new());
        Ok(Sharing { parent, folder, piece_length, file_size, whole, own, new: 0, damaged: 0, runs })
    }

    pub(super) fn add(
        &mut self,
        piece: &[u8],
        data: &[std::ops::Range<usize>],
        twin: Twin,
    ) -> Result<(), Failure> {
        if let Twin::Same(twin) = twin
            && let Some((run, inside)) = find_run(&self.parent.map.runs, &self.parent.starts, twin.0)
        {
            push_piece(&mut self.runs, run.file, run.first + inside);
            return Ok(());
        }
        self.damaged += u32::from(twin == Twin::Damaged);
        let own = self.own_file();
        push_piece(&mut self.runs, own, self.new);
        self.new += 1;
        self.own.add(piece, data)
    }

    fn own_file(&self) -> u32 {
        u32::try_from(self.parent.map.files.len()).unwrap_or(u32::MAX)
    }

    /// Puts the payload together.
    pub(super) fn finish(mut self) -> Result<Shared, Failure> {
        self.own.finish()?;
        let pieces = self.runs.iter().map(|run| run.count).sum::<u32>();
        let form = if self.clone_all(pieces)? {
            Form::Cloned
        } else if let Some(whole) = self.whole_files(pieces)
            && self.link_whole(&whole)?
        {
            Form::Linked
        } else if !self.whole && self.link_parts()? {
            Form::Referenced
        } else {
            self.copy_all(pieces)?;
            Form::Copied
        };
        if form != Form::Referenced {
            let parts = self.folder.join(names::PARTS);
            fs::remove_dir_all(&parts).map_err(|e| file_failure("removing", &parts, &e))?;
        }
        let (unchanged, version) = (pieces - self.new, self.parent.version().to_string());
        Ok(Shared { form, version, unchanged, pieces, damaged: self.damaged })
    }

    /// The file of a run.
    fn path_of(&self, file: u32) -> PathBuf {
        let files = &self.parent.map.files;
        let own = || self.folder.join(names::PARTS).join("0000.bin");
        files.get(file as usize).map_or_else(own, |(path, _)| path.clone())
    }

    fn bytes(&self, pieces: u32) -> u64 {
        u64::from(pieces) * self.piece_length.bytes()
    }

    /// The payload files to be, and the runs that each consists of.
    fn files(&self, pieces: u32) -> Vec<(PathBuf, u64, Vec<PieceRun>)> {
        let mut runs = self.runs.iter().copied();
        let mut rest = runs.next();
        let mut files = Vec::new();
        for entry in payload_files(self.bytes(pieces), self.file_size) {
            let mut left = u32::try_from(entry.length / self.piece_length.bytes()).unwrap_or(u32::MAX);
            let mut own = Vec::new();
            while let Some(run) = rest.filter(|_| left > 0) {
                let count = run.count.min(left);
                own.push(PieceRun { count, ..run });
                left -= count;
                rest = if count < run.count {
                    Some(PieceRun { file: run.file, first: run.first + count, count: run.count - count })
                } else {
                    runs.next()
                };
            }
            let path = entry.path.iter().fold(self.folder.clone(), |path, element| path.join(element));
            files.push((path, entry.length, own));
        }
        files
    }

    /// Makes payload files of cloned extents. Returns false, and leaves no files, if the filesystem cannot
    /// clone.
    fn clone_all(&self, pieces: u32) -> Result<bool, Failure> {
        let mut sources = Sources::default();
        for (path, length, runs) in self.files(pieces) {
            let file = File::create_new(&path).map_err(|e| file_failure("creating", &path, &e))?;
            file.set_len(length).map_err(|e| file_failure("writing", &path, &e))?;
            let mut at = 0;
            for run in runs {
                let from = sources.open(&self.path_of(run.file))?;
                let (offset, length) = (self.bytes(run.first), self.bytes(run.count));
                match clone_range(from, offset, length, &file, at) {
                    Err(e) if e.raw_os_error().is_some_and(|code| CANNOT_CLONE.contains(&code)) => {
                        log::debug!("cloning into {}: {e}", path.display());
                        self.empty_payload()?;
                        return Ok(false);
                    }
                    cloned => cloned.map_err(|e| file_failure("cloning extents into", &path, &e))?,
                }
                at += length;
            }
            sync_all(&file, &path)?;
        }
        Ok(true)
    }

    /// For each payload file the parent's equal file; `None` unless all have one.
    fn whole_files(&self, pieces: u32) -> Option<Vec<(PathBuf, PathBuf)>> {
        let same = |(path, length, runs): (PathBuf, u64, Vec<PieceRun>)| {
            let [run] = runs.as_slice() else { return None };
            let (other, _) = self.parent.map.files.get(run.file as usize)?;
            let all = fs::metadata(other).ok()?.len() == length;
            (all && run.first == 0).then(|| (other.clone(), path))
        };
        self.files(pieces).into_iter().map(same).collect()
    }

    /// Returns false, and leaves no files, if there are no hard links here.
    fn link_whole(&self, files: &[(PathBuf, PathBuf)]) -> Result<bool, Failure> {
        match files.iter().try_for_each(|(other, path)| fs::hard_link(other, path)) {
            Ok(()) => Ok(true),
            Err(e) => {
                log::debug!("hard links into {}: {e}", self.folder.display());
                self.empty_payload().map(|()| false)
            }
        }
    }

    /// Links the parent's files that have pieces of this version, and writes the list of pieces. Returns
    /// false if there are no hard links here, or too many files.
    fn link_parts(&self) -> Result<bool, Failure> {
        let own = self.own_file();
        let mut numbers = BTreeMap::new();
        let mut files = Vec::new();
        let name = |number: usize| format!("{number:04}.bin");
        if self.new > 0 {
            numbers.insert(own, 0);
            files.push(Part { name: name(0), from: None });
        }
        for run in &self.runs {
            let Some((path, version)) = self.parent.map.files.get(run.file as usize) else { continue };
            if numbers.contains_key(&run.file) {
                continue;
            }
            let part = Part { name: name(files.len()), from: Some(version.clone()) };
            let target = self.folder.join(names::PARTS).join(&part.name);
            if let Err(e) = fs::hard_link(path, &target) {
                eprintln!(
                    "note: {} cannot be linked here ({e}): unchanged pieces are copied",
                    path.display()
                );
                return Ok(false);
            }
            numbers.insert(run.file, u32::try_from(files.len()).unwrap_or(u32::MAX));
            files.push(part);
        }
        if files.len() > MAX_PARTS {
            eprintln!("note: pieces of more than {MAX_PARTS} files are unchanged: they are copied");
            return Ok(false);
        }
        let number = |run: &PieceRun| PieceRun { file: numbers.get(&run.file).copied().unwrap_or(0), ..*run };
        let runs = self.runs.iter().map(number).collect();
        let reference = Reference::Parts(PartList { files, runs });
        write_new(&self.folder.join(names::REFERENCE), 0o644, &reference.to_bytes())?;
        let payload = self.folder.join(names::PAYLOAD);
        fs::remove_dir(&payload).map_err(|e| file_failure("removing", &payload, &e))?;
        Ok(true)
    }

    /// Writes separate payload files, linked where one equals the parent's.
    fn copy_all(&self, pieces: u32) -> Result<(), Failure> {
        let mut sources = Sources::default();
        let mut buffer = vec![0; usize::try_from(self.piece_length.bytes()).unwrap_or(usize::MAX)];
        for (path, length, runs) in self.files(pieces) {
            let file = File::create_new(&path).map_err(|e| file_failure("creating", &path, &e))?;
            let mut at = 0;
            for run in runs {
                let from = self.path_of(run.file);
                for piece in run.first..run.end() {
                    let source = sources.open(&from)?;
                    let read = source.read_exact_at(&mut buffer, self.bytes(piece));
                    read.map_err(|e| file_failure("reading", &from, &e))?;
                    for range in data_ranges(&buffer) {
                        let place = at + range.start as u64;
                        let written = file.write_all_at(&buffer[range], place);
                        written.map_err(|e| file_failure("writing", &path, &e))?;
                    }
                    at += self.piece_length.bytes();
                }
            }
            file.set_len(length).map_err(|e| file_failure("writing", &path, &e))?;
            sync_all(&file, &path)?;
        }
        Ok(())
    }

    fn empty_payload(&self) -> Result<(), Failure> {
        let payload = self.folder.join(names::PAYLOAD);
        let emptied = fs::remove_dir_all(&payload).and_then(|()| fs::create_dir(&payload));
        emptied.map_err(|e| file_failure("emptying", &payload, &e))
    }
}

/// Error numbers of `FICLONERANGE` where extents cannot be shared: between filesystems, or without support.
const CANNOT_CLONE: [i32; 5] =
    [nix::libc::EOPNOTSUPP, nix::libc::EXDEV, nix::libc::EINVAL, nix::libc::ENOTTY, nix::libc::ENOSYS];

/// Files to read from, one of them open at a time.
#[derive(Default)]
struct Sources {
    open: Option<(PathBuf, File)>,
}

impl Sources {
    fn open(&mut self, path: &Path) -> Result<&File, Failure> {
        let file = match self.open.take() {
            Some((same, file)) if same == path => file,
            _ => File::open(path).map_err(|e: io::Error| file_failure("opening", path, &e))?,
        };
        Ok(&self.open.insert((path.to_path_buf(), file)).1)
    }
}
