//! A payload that stays on its source: each read assembles pieces from the source.
//!
//! Invariant: only bytes that the capture called data are returned; all others read as zeros. A piece without
//! the hash of its capture is an error and never returned. A served block device is held, so that it cannot
//! be mounted meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::access::{READ_ONLY, failed, refused};
use super::cuts::read_cuts;
use crate::event::Failure;
use crate::io::hash::sha256;
use crate::io::storage::{BlockStorage, FileStorage, is_block_device};
use crate::io::sysfs;
use crate::layout::grid::{Grid, Span};
use crate::manifest::Manifest;
use crate::manifest::reference::{FileState, SourceReference};
use crate::storage::{Attributes, Storage, StorageError};
use crate::units::{PieceIndex, Sha256};

/// How a payload is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// To inspect it.
    No,
    /// To serve it for long: a block device is claimed.
    Claim,
}

/// The payload as one read-only storage.
pub struct InPlace {
    on: Arc<dyn Storage>,
    grid: Arc<Grid>,
    hashes: Arc<Vec<Sha256>>,
    /// First byte of each partition on the source.
    starts: Vec<u64>,
    reference: SourceReference,
    _claim: Option<File>,
}

impl InPlace {
    /// Opens the source. Refused if it is another one, or changed since its capture.
    pub fn open(
        manifest: &Manifest,
        grid: &Arc<Grid>,
        hashes: &Arc<Vec<Sha256>>,
        reference: &SourceReference,
        hold: Hold,
    ) -> Result<Self, Failure> {
        let path = Path::new(&reference.path);
        check_unchanged(manifest, reference)?;
        let claim = (hold == Hold::Claim && is_block_device(path)).then(|| claim(path)).transpose()?;
        let on: Arc<dyn Storage> = if is_block_device(path) {
            Arc::new(BlockStorage::open(path, Some(reference.size))?)
        } else {
            Arc::new(FileStorage::open_exact(path, reference.size)?)
        };
        let start = |first| manifest.disk.sector_size.offset_of(first).map_or(u64::MAX, |offset| offset.0);
        let starts = manifest.partitions.iter().map(|partition| start(partition.first)).collect();
        let (grid, hashes, reference) = (Arc::clone(grid), Arc::clone(hashes), reference.clone());
        Ok(InPlace { on, grid, hashes, starts, reference, _claim: claim })
    }

    fn wrong(&self, at: u64, length: usize, why: String) -> StorageError {
        StorageError {
            action: "reading",
            target: self.reference.path.clone(),
            offset: at,
            length: length as u64,
            source: io::Error::new(io::ErrorKind::InvalidData, why),
        }
    }

    /// Puts a piece together, whole, and checks it.
    fn read_piece(&self, piece: PieceIndex, into: &mut [u8]) -> Result<(), StorageError> {
        let place = |span: Span| Some((span, self.starts.get(span.partition)?.checked_add(span.offset)?));
        let Some((span, start)) = self.grid.span(piece).and_then(place) else {
            return Err(self.wrong(0, into.len(), format!("there is no {piece}")));
        };
        into.fill(0);
        let ranges = self.grid.data_ranges(piece);
        if let (Some(first), Some(last)) = (ranges.first(), ranges.last()) {
            let all = first.start as usize..last.end as usize;
            // In one read with the bytes between; range by range only if that fails.
            if self.on.read_at(start + u64::from(first.start), &mut into[all]).is_err() {
                for range in &ranges {
                    let part = &mut into[range.start as usize..range.end as usize];
                    self.on.read_at(start + u64::from(range.start), part)?;
                }
            }
        }
        let mut end = 0;
        for range in &ranges {
            into[end..range.start as usize].fill(0);
            end = range.end as usize;
        }
        into[end..].fill(0);
        self.reference.mask(start, &mut into[..span.len as usize]);
        if self.hashes.get(piece.get()) == Some(&sha256(into)) {
            return Ok(());
        }
        let why = format!("{piece} is not what was captured: the source changed since, and this is not sent");
        Err(self.wrong(start, into.len(), why))
    }
}

impl Storage for InPlace {
    fn len(&self) -> u64 {
        self.grid.payload_len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let length = self.grid.piece_length().bytes();
        read_cuts(length, offset, into, |piece, inside, part| {
            let piece = PieceIndex(u32::try_from(piece).unwrap_or(u32::MAX));
            if part.len() as u64 == length {
                return self.read_piece(piece, part);
            }
            let mut whole = vec![0; self.grid.piece_length().get() as usize];
            self.read_piece(piece, &mut whole)?;
            // Less than a piece, so it fits.
            let inside = usize::try_from(inside).unwrap_or(0);
            part.copy_from_slice(&whole[inside..inside + part.len()]);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        Err(refused(offset, from))
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        READ_ONLY
    }
}

/// The facts that tell the disk, partition or file at `path` from others and from a changed one, with no
/// masks yet.
pub fn look(path: &Path) -> io::Result<SourceReference> {
    let real = fs::canonicalize(path)?;
    let metadata = fs::metadata(&real)?;
    let device = metadata.file_type().is_block_device();
    let named = if device { stable_name(&real).unwrap_or(real) } else { real };
    let name = named.to_str().ok_or_else(|| io::Error::other("its name is not text"))?.to_string();
    let size = if device {
        let mut file = File::open(&named)?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0))?
    } else {
        metadata.len()
    };
    let state =
        |m: &fs::Metadata| FileState { inode: m.ino(), seconds: m.mtime(), nanoseconds: m.mtime_nsec() };
    Ok(SourceReference {
        path: name,
        size,
        file: (!device).then(|| state(&metadata)),
        device: device.then(|| device_identity(metadata.rdev())).flatten(),
        masks: Vec::new(),
    })
}

fn check_unchanged(manifest: &Manifest, then: &SourceReference) -> Result<(), Failure> {
    let (id, path) = (manifest.id(), &then.path);
    let advice =
        "The payload of this version lies there: give the source back, or capture it again as a new version.";
    let now = look(Path::new(path)).map_err(|e| failed("opening", Path::new(path), &e, advice))?;
    let what = if now.size != then.size {
        format!("it has {} bytes, and had {}", now.size, then.size)
    } else if now.device != then.device || now.file.is_some() != then.file.is_some() {
        "it is another disk or file".into()
    } else if now.file != then.file {
        "it was written to".into()
    } else {
        return Ok(());
    };
    Err(Failure::refused(format!("{path} is no longer what {id} was captured from: {what}"), advice))
}

fn claim(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path).map_err(|e| {
        let advice = "It is served in place and must not be used otherwise: unmount it, or end the program \
            that holds it (lsblk).";
        failed("claiming", path, &e, advice)
    })
}

/// A name of a block device that stays the same when disks are found in another order, if there is one.
fn stable_name(real: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir("/dev/disk/by-id").ok()?;
    let names = entries.flatten().map(|entry| entry.path());
    names.filter(|name| fs::canonicalize(name).is_ok_and(|other| other == real)).min()
}

/// A disk's own identity, with the partition's number.
fn device_identity(device: u64) -> Option<String> {
    let number = sysfs::text(&sysfs::folder(device).join("partition"));
    let disk = sysfs::disk_folder(device);
    let files = ["wwid", "device/wwid", "device/serial", "serial", "dm/uuid", "md/uuid", "loop/backing_file"];
    let name = files.iter().find_map(|file| sysfs::text(&disk.join(file)))?;
    Some(number.map_or(name.clone(), |number| format!("{name}, partition {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::extents::{Extents, RangeKind, RunBuilder};
    use crate::manifest::Policy;
    use crate::testkit::manifests::manifest_of;

    const K: usize = 1024;

    /// Two cells of 16 KiB: data, free, data; then 12 KiB of data. 100 bytes of the first are free.
    fn world(folder: &Path) -> (Manifest, Arc<Grid>, Arc<Vec<Sha256>>, SourceReference, u64) {
        let mut runs = RunBuilder::default();
        for (kind, kib) in [(RangeKind::Data, 4), (RangeKind::Free, 4), (RangeKind::Data, 20)] {
            runs.push(kind, kib << 10);
        }
        let extents = Extents { partitions: vec![runs.finish()] };
        let manifest = manifest_of(&extents, 16 << 10, Policy::Replace);
        let grid = Arc::new(Grid::new(&manifest, extents).unwrap());
        let path = folder.join("source");
        let start = manifest.disk.sector_size.offset_of(manifest.partitions[0].first).unwrap().0;
        let before = vec![5; usize::try_from(start).unwrap()];
        fs::write(&path, [before, vec![7; 28 * K]].concat()).unwrap();
        let payload = expected();
        let hashes = Arc::new(payload.chunks(16 * K).map(sha256).collect::<Vec<_>>());
        let reference = SourceReference { masks: vec![(start + 1000, 100)], ..look(&path).unwrap() };
        (manifest, grid, hashes, reference, start)
    }

    fn expected() -> Vec<u8> {
        let mut payload = [vec![7; 4 * K], vec![0; 4 * K], vec![7; 20 * K], vec![0; 4 * K]].concat();
        payload[1000..1100].fill(0);
        payload
    }

    #[test]
    fn only_data_is_given_whatever_else_lies_there() {
        let folder = tempfile::tempdir().unwrap();
        let (manifest, grid, hashes, reference, _) = world(folder.path());
        let payload = InPlace::open(&manifest, &grid, &hashes, &reference, Hold::Claim).unwrap();
        let mut all = vec![9; 32 * K];
        payload.read_at(0, &mut all).unwrap();
        assert!(all == expected());
        let mut part = vec![9; 20 * K];
        payload.read_at(900, &mut part).unwrap();
        assert!(part == expected()[900..900 + 20 * K]);
        assert!(payload.write_at(0, &[1]).is_err());
    }

    #[test]
    fn a_piece_that_changed_is_not_given_and_a_source_that_changed_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (manifest, grid, hashes, reference, start) = world(folder.path());
        let payload = InPlace::open(&manifest, &grid, &hashes, &reference, Hold::No).unwrap();
        let file = OpenOptions::new().write(true).open(&reference.path).unwrap();
        let write =
            |byte: u8, at: u64| std::os::unix::fs::FileExt::write_all_at(&file, &[byte], start + at).unwrap();
        // Changes of free bytes do no harm.
        write(1, 5000);
        write(1, 1050);
        let mut first = vec![9; 16 * K];
        payload.read_at(0, &mut first).unwrap();
        assert!(first == expected()[..16 * K]);
        write(1, 20_000);
        payload.read_at(0, &mut first).unwrap();
        let mut second = vec![9; 16 * K];
        let error = payload.read_at(16 << 10, &mut second).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("piece 1 is not what was captured"), "{error}");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let refused = |reference: &SourceReference| {
            InPlace::open(&manifest, &grid, &hashes, reference, Hold::No).err().unwrap().message
        };
        assert!(refused(&reference).contains("it was written to"));
        file.set_len(100).unwrap();
        assert!(refused(&reference).contains("it has 100 bytes, and had "));
        fs::remove_file(&reference.path).unwrap();
        assert!(refused(&reference).contains("No such file"));
    }
}
