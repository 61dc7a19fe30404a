//! The one pass over the source: read, find zeros, hash, write data.
//!
//! Invariant: each piece is hashed as terminals receive it, filled with zeros to its full length. Only its
//! data is written, so payload files are sparse. Ranges that a filesystem does not use are neither read nor
//! sent, and count as zeros inside a cell that has data. The pipeline bounds the memory.

use std::ops::Range;
use std::path::Path;

use flashmob::event::Failure;
use flashmob::io::hash::{sha1, sha256};
use flashmob::layout::extents::{RangeKind, Run, RunBuilder};
use flashmob::manifest::{Lost, MAX_PIECES, Policy, names};
use flashmob::units::{PieceLength, Sha1, Sha256, show_bytes};

use super::ahead::{Cell, Reader};
use super::parent::{Parent, Twin};
use super::plan::Plan;
use super::ranges::Used;
use super::share::{Shared, Sharing};
use super::writer::{Writer, data_ranges};
use crate::pipeline;
use crate::progress::Progress;
use crate::source::Source;

/// The result of the pass.
#[derive(Debug)]
pub(super) struct Taken {
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
pub(super) struct Hashes {
    pub sha1: Vec<Sha1>,
    pub sha256: Vec<Sha256>,
}

/// A worker's result for a cell with data.
struct Examined {
    data: Vec<Range<usize>>,
    hashes: Option<(Sha1, Sha256)>,
    twin: Twin,
}

/// The settings of a pass.
pub(super) struct Terms<'a> {
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

impl<'a> Store<'a> {
    fn begin(terms: &Terms<'a>, folder: &Path) -> Result<Self, Failure> {
        let (length, file_size) = (terms.piece_length, terms.file_size);
        Ok(match terms.parent {
            Some(parent) => {
                Store::Shared(Sharing::begin(parent, folder, length, file_size, terms.whole_files)?)
            }
            None if !terms.copy => Store::Nowhere,
            None => Store::Files(Writer::new(folder.join(names::PAYLOAD), length, file_size)),
        })
    }

    fn add(&mut self, piece: &[u8], examined: &Examined) -> Result<(), Failure> {
        match self {
            Store::Files(writer) => writer.add(piece, &examined.data),
            Store::Shared(sharing) => sharing.add(piece, &examined.data, examined.twin),
            Store::Nowhere => Ok(()),
        }
    }

    /// Ends the files of `pieces` pieces. Returns what was shared with the parent.
    fn finish(self, pieces: u32) -> Result<Option<Shared>, Failure> {
        Ok(match self {
            Store::Files(mut writer) => writer.finish().map(|()| None)?,
            Store::Shared(sharing) if pieces > 0 => Some(sharing.finish()?),
            Store::Shared(_) | Store::Nowhere => None,
        })
    }
}

/// Makes the payload in `folder`.
pub(super) fn take(
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
    let (length, hashed) = (terms.piece_length, terms.hashed);
    let (mut pieces, mut hashes) = (0, hashed.then(Hashes::default));
    let mut store = Store::begin(terms, folder)?;
    let buffer = usize::try_from(length.bytes()).unwrap_or(usize::MAX);
    let taken = cells(plan, length).filter(|cell| !is_free(plan.used[cell.partition].as_ref(), cell));
    let mut reader = Reader::new(source, plan, taken, terms.rescue);
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
            reader.read(cell, on_disk)?;
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
                store.add(&buf, &examined)?;
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
    let shared = store.finish(pieces)?;
    let (runs, lost) = (builders.into_iter().map(RunBuilder::finish).collect(), reader.lost());
    Ok(Taken { runs, pieces, hashes, lost, shared })
}

/// Refuses a source that could have more pieces than terminals take, before it is read.
pub(super) fn refuse_too_many(plan: &Plan, piece_length: PieceLength) -> Result<(), Failure> {
    let taken = cells(plan, piece_length).filter(|cell| !is_free(plan.used[cell.partition].as_ref(), cell));
    if taken.take(MAX_PIECES as usize + 1).count() <= MAX_PIECES as usize {
        return Ok(());
    }
    Err(Failure::refused(
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

/// Whether the partition's filesystem uses no part of this cell.
fn is_free(used: Option<&Used>, cell: &Cell) -> bool {
    used.is_some_and(|used| used.is_free(cell.offset, cell.len))
}

/// `None` if the first `len` bytes are zeros; hashes are of all of `piece`.
fn examine(piece: &[u8], len: usize, hashed: bool) -> Option<Examined> {
    let data = data_ranges(&piece[..len]);
    if data.is_empty() {
        return None;
    }
    let hashes = hashed.then(|| (sha1(piece), sha256(piece)));
    Some(Examined { data, hashes, twin: Twin::None })
}

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
}
