//! The one pass over the source: read, find zeros, hash, write data.
//!
//! Invariant: each piece is hashed as terminals receive it, filled with zeros to its full length. Only its
//! data is written, so payload files are sparse. Ranges that a filesystem does not use are neither read nor
//! sent, and count as zeros inside a cell that has data. The pipeline bounds the memory.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flashmob::event::{Class, Failure};
use flashmob::io::hash::sha256;
use flashmob::io::sys::begin_writing;
use flashmob::layout::extents::{RangeKind, Run, RunBuilder, UNIT};
use flashmob::manifest::{Lost, MAX_PIECES, Policy, names};
use flashmob::units::{PieceLength, Sha1, Sha256, show_bytes};
use sha1::Digest;

use super::plan::Plan;
use super::share::{Parent, Shared, Sharing, Twin};
use super::sync_all;
use super::used::Used;
use crate::keys::file_failure;
use crate::pipeline;
use crate::progress::Progress;
use crate::source::Source;

/// The result of the pass.
#[derive(Debug)]
pub struct Taken {
    /// Runs of each partition.
    pub runs: Vec<Vec<Run>>,
    pub pieces: u32,
    /// Of each piece that travels; `None` where hashing was left out.
    pub hashes: Option<Hashes>,
    /// Ranges that could not be read.
    pub lost: Vec<Lost>,
    /// Pieces that the parent has too.
    pub shared: Option<Shared>,
}

/// Hashes of all pieces that travel.
#[derive(Debug, Default)]
pub struct Hashes {
    pub sha1: Vec<Sha1>,
    pub sha256: Vec<Sha256>,
}

/// A cell of a partition's grid.
struct Cell {
    partition: usize,
    /// Byte of the partition.
    offset: u64,
    /// Byte of the source.
    start: u64,
    len: u64,
}

/// A worker's result for a cell with data.
struct Examined {
    data: Vec<Range<usize>>,
    hashes: Option<(Sha1, Sha256)>,
    twin: Twin,
}

/// The settings of a pass.
pub struct Terms<'a> {
    pub piece_length: PieceLength,
    pub file_size: u64,
    pub hashed: bool,
    pub rescue: bool,
    /// False: nothing is written, the payload stays where it is.
    pub copy: bool,
    /// Unchanged pieces are shared with this version.
    pub parent: Option<&'a Parent>,
    /// Payload files that any client can seed, even where that costs a copy.
    pub whole_files: bool,
}

enum Store<'a> {
    Files(Writer),
    Shared(Sharing<'a>),
    Nowhere,
}

/// Makes the payload in `folder`.
pub fn take(
    source: &Source,
    plan: &Plan,
    terms: &Terms<'_>,
    folder: &Path,
    progress: &mut Progress,
) -> Result<Taken, Failure> {
    let mut builders: Vec<RunBuilder> = plan.partitions.iter().map(|_| RunBuilder::default()).collect();
    for (builder, partition) in builders.iter_mut().zip(&plan.partitions) {
        if partition.policy == Policy::Keep {
            builder.push(RangeKind::Free, partition.size);
        }
    }
    let mut lost = Vec::new();
    let (length, hashed) = (terms.piece_length, terms.hashed);
    let (mut pieces, mut hashes) = (0, hashed.then(Hashes::default));
    let mut store = match terms.parent {
        Some(parent) => {
            Store::Shared(Sharing::begin(parent, folder, length, terms.file_size, terms.whole_files)?)
        }
        None if !terms.copy => Store::Nowhere,
        None => Store::Files(Writer::new(folder.join(names::PAYLOAD), length, terms.file_size)),
    };
    let buffer = usize::try_from(length.bytes()).unwrap_or(usize::MAX);
    pipeline::run(
        buffer,
        cells(plan, length),
        |cell, buf| {
            let used = plan.used[cell.partition].as_ref();
            if is_free(used, cell) || source.is_hole(cell.start, cell.len) {
                return Ok(false);
            }
            let (on_disk, beyond) = buf.split_at_mut(usize::try_from(cell.len).unwrap_or(buffer));
            beyond.fill(0);
            match source.read(cell.start, on_disk) {
                Err(_) if terms.rescue => lost.extend(source.rescue(cell.start, on_disk)),
                read => read?,
            }
            if let Some(used) = used {
                used.mask(cell.offset, on_disk);
            }
            Ok(true)
        },
        |cell, buf| {
            let buf = buf?;
            let len = usize::try_from(cell.len).unwrap_or(buffer);
            let mut examined = examine(buf, len, hashed)?;
            if let (Some(parent), Some((_, hash))) = (terms.parent, &examined.hashes) {
                examined.twin = parent.twin(plan.partitions[cell.partition].number, cell.offset, hash, buf);
            }
            Some(examined)
        },
        |cell, buf, examined| {
            let builder = &mut builders[cell.partition];
            if let (Some(buf), Some(examined)) = (buf, examined) {
                match &mut store {
                    Store::Files(writer) => writer.add(&buf, &examined.data)?,
                    Store::Shared(sharing) => sharing.add(&buf, &examined.data, examined.twin)?,
                    Store::Nowhere => {}
                }
                tell(builder, &examined.data, cell.len);
                pieces += 1;
                if let (Some(hashes), Some((sha1, sha256))) = (&mut hashes, examined.hashes) {
                    hashes.sha1.push(sha1);
                    hashes.sha256.push(sha256);
                }
            } else if is_free(plan.used[cell.partition].as_ref(), &cell) {
                builder.push(RangeKind::Free, cell.len);
            } else {
                builder.push(RangeKind::Zero, cell.len);
            }
            progress.advance(cell.len);
            Ok(())
        },
    )?;
    let shared = match store {
        Store::Files(mut writer) => writer.finish().map(|()| None)?,
        Store::Shared(sharing) if pieces > 0 => Some(sharing.finish()?),
        Store::Shared(_) | Store::Nowhere => None,
    };
    Ok(Taken { runs: builders.into_iter().map(RunBuilder::finish).collect(), pieces, hashes, lost, shared })
}

/// Refuses a source that could have more pieces than terminals take, before it is read.
pub fn refuse_too_many(plan: &Plan, piece_length: PieceLength) -> Result<(), Failure> {
    let taken = cells(plan, piece_length).filter(|cell| !is_free(plan.used[cell.partition].as_ref(), cell));
    if taken.take(MAX_PIECES as usize + 1).count() <= MAX_PIECES as usize {
        return Ok(());
    }
    Err(Failure::new(
        Class::Refused,
        format!("that can be more than {MAX_PIECES} pieces of {}", show_bytes(piece_length.bytes())),
        "Use a larger --piece-length, up to 32MiB.",
    ))
}

/// The grids of all partitions that are read, in order.
fn cells(plan: &Plan, piece_length: PieceLength) -> impl Iterator<Item = Cell> + Send + '_ {
    let read = plan.partitions.iter().enumerate().filter(|(_, p)| p.policy == Policy::Replace);
    read.flat_map(move |(partition, p)| {
        let length = piece_length.bytes();
        (0..p.size.div_ceil(length)).map(move |i| Cell {
            partition,
            offset: i * length,
            start: p.start + i * length,
            len: (p.size - i * length).min(length),
        })
    })
}

/// Does the partition's filesystem use nothing of this cell?
fn is_free(used: Option<&Used>, cell: &Cell) -> bool {
    used.is_some_and(|used| used.is_free(cell.offset, cell.len))
}

/// `None` if the first `len` bytes are zeros; hashes are of all of `piece`.
fn examine(piece: &[u8], len: usize, hashed: bool) -> Option<Examined> {
    let data = data_ranges(&piece[..len]);
    if data.is_empty() {
        return None;
    }
    let hashes = hashed.then(|| (Sha1(sha1::Sha1::digest(piece).into()), sha256(piece)));
    Some(Examined { data, hashes, twin: Twin::None })
}

/// Ranges that are not zero, to [`UNIT`], in order and never touching.
pub fn data_ranges(bytes: &[u8]) -> Vec<Range<usize>> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for unit in bytes.chunks(ZEROS.len()) {
        let end = start + unit.len();
        if unit != &ZEROS[..unit.len()] {
            match found.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => found.push(start..end),
            }
        }
        start = end;
    }
    found
}

const _: () = assert!(UNIT == 4096, "zeros are looked for in the unit that extents are known to");

/// Adds a cell with `data` to its partition's runs.
fn tell(builder: &mut RunBuilder, data: &[Range<usize>], len: u64) {
    let mut end = 0;
    for range in data {
        builder.push(RangeKind::Zero, range.start as u64 - end);
        builder.push(RangeKind::Data, (range.end - range.start) as u64);
        end = range.end as u64;
    }
    builder.push(RangeKind::Zero, len - end);
}

/// Bytes between two requests to write back; otherwise a small image would reach the device only at the end.
const WRITE_BACK: u64 = 16 << 20;

/// Writes files of pieces one after another.
pub struct Writer {
    folder: PathBuf,
    piece_length: u64,
    file_size: u64,
    /// Payload offset of the next piece.
    next: u64,
    open: Option<Open>,
}

/// The file that is written.
struct Open {
    file: File,
    path: PathBuf,
    /// Bytes that the kernel was told to write to the medium.
    begun: u64,
}

impl Writer {
    /// Files of `file_size` bytes in `folder`, which is there.
    pub fn new(folder: PathBuf, piece_length: PieceLength, file_size: u64) -> Self {
        Writer { folder, piece_length: piece_length.bytes(), file_size, next: 0, open: None }
    }

    /// The next piece, of which only `data` is not zero.
    pub fn add(&mut self, piece: &[u8], data: &[Range<usize>]) -> Result<(), Failure> {
        let inside = self.next % self.file_size;
        if inside == 0 {
            self.close(self.file_size)?;
            let path = self.folder.join(format!("{:04}.bin", self.next / self.file_size));
            let file = File::create_new(&path).map_err(|e| file_failure("creating", &path, &e))?;
            self.open = Some(Open { file, path, begun: 0 });
        }
        if let Some(open) = &mut self.open {
            for range in data {
                open.file
                    .write_all_at(&piece[range.clone()], inside + range.start as u64)
                    .map_err(|e| file_failure("writing", &open.path, &e))?;
            }
            open.write_back(inside + self.piece_length);
        }
        self.next += self.piece_length;
        Ok(())
    }

    /// Ends the open file at `len` bytes and waits until it is on the medium.
    fn close(&mut self, len: u64) -> Result<(), Failure> {
        let Some(Open { file, path, .. }) = self.open.take() else { return Ok(()) };
        file.set_len(len).map_err(|e| file_failure("writing", &path, &e))?;
        sync_all(&file, &path)
    }

    /// Ends the last file.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let rest = self.next % self.file_size;
        self.close(if rest == 0 { self.file_size } else { rest })
    }
}

impl Open {
    /// The first `len` bytes will not change.
    fn write_back(&mut self, len: u64) {
        if len - self.begun < WRITE_BACK {
            return;
        }
        // No more than a hint: a filesystem that does not know it writes when it likes.
        if let Err(e) = begin_writing(&self.file, self.begun, len - self.begun) {
            log::debug!("{} is not written early: {e}", self.path.display());
        }
        self.begun = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_found_to_4_kib_and_a_short_last_unit_counts() {
        let mut bytes = vec![0u8; 5 * 4096 + 100];
        assert_eq!(data_ranges(&bytes), []);
        bytes[4096] = 1;
        bytes[3 * 4096 - 1] = 1;
        bytes[5 * 4096 + 99] = 1;
        assert_eq!(data_ranges(&bytes), [4096..12288, 20480..20580]);
        let mut builder = RunBuilder::default();
        tell(&mut builder, &data_ranges(&bytes), bytes.len() as u64);
        let runs: Vec<_> = builder.finish().iter().map(|run| (run.kind, run.len)).collect();
        use RangeKind::{Data, Zero};
        assert_eq!(runs, [(Zero, 4096), (Data, 8192), (Zero, 8192), (Data, 100)]);
    }

    #[test]
    fn a_piece_is_hashed_to_its_full_length() {
        let mut piece = vec![0u8; 16384];
        piece[0] = 7;
        let examined = examine(&piece, 512, true).expect("data");
        assert_eq!(examined.hashes.map(|hashes| hashes.1), Some(sha256(&piece)));
        assert!(examine(&piece, 512, false).is_some_and(|examined| examined.hashes.is_none()));
        assert_eq!(examined.data.as_slice(), std::slice::from_ref(&(0..512)));
        assert!(examine(&vec![0; 16384], 16384, true).is_none());
    }

    #[test]
    fn payload_files_are_cut_at_their_size() {
        let dir = tempfile::tempdir().expect("a folder");
        let length = PieceLength::new(16384).expect("a length");
        let mut writer = Writer::new(dir.path().to_path_buf(), length, 32768);
        for i in 1..=5u8 {
            writer.add(&[i; 16384], &[0..4096, 8192..8193]).expect("written");
        }
        writer.finish().expect("finished");
        let file = |name: &str| std::fs::read(dir.path().join(name)).expect("a file");
        assert_eq!(
            (file("0000.bin").len(), file("0001.bin").len(), file("0002.bin").len()),
            (32768, 32768, 16384)
        );
        let second = file("0001.bin");
        assert_eq!((second[4095], second[4096], second[8192], second[8193]), (3, 0, 3, 0));
        assert_eq!(second[16384], 4);
    }

    #[test]
    fn what_goes_to_the_medium_early_is_all_of_each_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let length = PieceLength::new(1 << 20).expect("a length");
        let (pieces, in_file) = (45usize, 20usize);
        let mut writer = Writer::new(dir.path().to_path_buf(), length, (in_file as u64) << 20);
        let piece = |n: usize| vec![u8::try_from(n + 1).expect("small"); 1 << 20];
        for n in 0..pieces {
            writer.add(&piece(n), std::slice::from_ref(&(0..1 << 20))).expect("written");
            let begun = writer.open.as_ref().expect("a file").begun;
            let written = (n % in_file + 1) as u64 * length.bytes();
            assert!(begun <= written && written - begun < WRITE_BACK, "{begun} of {written}");
        }
        writer.finish().expect("finished");
        for n in 0..pieces {
            let file = File::open(dir.path().join(format!("{:04}.bin", n / in_file))).expect("a file");
            let mut found = vec![0; 1 << 20];
            file.read_exact_at(&mut found, (n % in_file) as u64 * length.bytes()).expect("read");
            assert!(found == piece(n), "piece {n}");
        }
    }
}
