//! One partition of an image as a storage: payload pieces ↔ their places on that partition.
//!
//! Invariant: a piece of this partition is written only at its place in the grid. The padding of a last piece
//! is never written and reads as zeros. In a source every byte that is not data reads as zero, even if a live
//! partition has other bytes there (docs/formats.md). A target reads its real content, so that a check is
//! honest. Pieces of other partitions are refused.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::buf::AlignedBuf;
use crate::event::Failure;
use crate::io::storage::access::{failed, open_failure};
use crate::layout::grid::Grid;
use crate::layout::image::{self, SidecarFault};
use crate::manifest::{Manifest, names};
use crate::storage::{Attributes, Storage, StorageError};
use crate::swarm::PieceShape;
use crate::units::PieceIndex;

/// The grid as a shape: only data travels.
#[derive(Clone)]
pub struct ImageShape(pub Arc<Grid>);

impl PieceShape for ImageShape {
    fn data_ranges(&self, piece: PieceIndex, _len: u32) -> Vec<Range<u32>> {
        self.0.data_ranges(piece)
    }
}

/// A partition of an image on some storage.
pub struct ImageRuns {
    grid: Arc<Grid>,
    partition: usize,
    on: Arc<dyn Storage>,
    masked: bool,
}

impl ImageRuns {
    /// The manifest at `path` (`manifest.json`) and the image's grid; the extents beside it must have the
    /// manifest's hash. The signature is not checked, because an administrator names the file.
    pub(crate) fn read_grid(path: &Path) -> Result<(Manifest, Arc<Grid>), Failure> {
        let damaged = |what: String| {
            let message = format!("{}: {what}", path.display());
            Failure::untrusted(message, "Copy the image's folder again; it is damaged.")
        };
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| open_failure("cannot read", path, &error));
        let manifest = Manifest::parse(&read(path)?).map_err(|error| damaged(error.to_string()))?;
        let extents = read(&path.with_file_name(names::EXTENTS))?;
        let grid = image::grid(&manifest, &extents).map_err(|wrong| {
            damaged(match wrong.fault {
                SidecarFault::Hash => format!("{} beside it is not the one it names", wrong.file),
                SidecarFault::Content(why) => why,
            })
        })?;
        Ok((manifest, grid))
    }

    /// The partition at position `partition` of the manifest's list as it lies on `on`, to be served.
    pub fn source(grid: Arc<Grid>, partition: usize, on: Arc<dyn Storage>) -> Self {
        ImageRuns { grid, partition, on, masked: true }
    }

    /// The partition at position `partition` of the manifest's list, to be written onto `on`.
    pub fn target(grid: Arc<Grid>, partition: usize, on: Arc<dyn Storage>) -> Self {
        ImageRuns { grid, partition, on, masked: false }
    }

    /// The payload pieces of this partition.
    pub fn pieces(&self) -> Range<u32> {
        self.grid.pieces_of(self.partition)
    }

    /// Writes zeros where the image says zero and no piece travels.
    pub(crate) fn write_zeros(&self) -> Result<(), StorageError> {
        let zeros = AlignedBuf::zeroed(self.grid.piece_length().get() as usize);
        for span in self.grid.zero_cells().filter(|span| span.partition == self.partition) {
            self.on.write_at(span.offset, &zeros[..span.len as usize])?;
        }
        Ok(())
    }

    /// Calls `each` for every piece that `offset..offset + length` touches:
    /// (piece, first byte in the piece, range in the caller's memory).
    fn split(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(PieceIndex, usize, Range<usize>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let piece_length = self.grid.piece_length().bytes();
        let mut done = 0usize;
        while done < length {
            let at = offset + u64::try_from(done).unwrap_or(u64::MAX);
            let piece = u32::try_from(at / piece_length).unwrap_or(u32::MAX);
            // Less than a piece, so it fits.
            let inside = usize::try_from(at % piece_length).unwrap_or(0);
            let take = (self.grid.piece_length().get() as usize - inside).min(length - done);
            each(PieceIndex(piece), inside, done..done + take)?;
            done += take;
        }
        Ok(())
    }

    /// A piece's first byte on the partition, and its bytes there.
    fn place(&self, action: &'static str, piece: PieceIndex) -> Result<(u64, usize), StorageError> {
        match self.grid.span(piece) {
            Some(span) if span.partition == self.partition => Ok((span.offset, span.len as usize)),
            _ => {
                let error = std::io::Error::other(format!("{piece} is not of this partition"));
                Err(failed(action, Path::new("the partition"), 0, 0, error))
            }
        }
    }
}

impl Storage for ImageRuns {
    fn len(&self) -> u64 {
        self.grid.payload_len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        self.split(offset, into.len(), |piece, inside, range| {
            let (start, len) = self.place("reading", piece)?;
            let part = &mut into[range];
            let there = len.saturating_sub(inside).min(part.len());
            self.on.read_at(start + inside as u64, &mut part[..there])?;
            part[there..].fill(0);
            if !self.masked {
                return Ok(());
            }
            let mut zero_from = 0;
            for data in self.grid.data_ranges(piece) {
                let from = (data.start as usize).saturating_sub(inside).min(there);
                let to = (data.end as usize).saturating_sub(inside).min(there);
                part[zero_from..from].fill(0);
                zero_from = to;
            }
            part[zero_from..there].fill(0);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        self.split(offset, from.len(), |piece, inside, range| {
            let (start, len) = self.place("writing", piece)?;
            let there = len.saturating_sub(inside).min(range.len());
            self.on.write_at(start + inside as u64, &from[range.start..range.start + there])
        })
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.on.sync()
    }

    fn attributes(&self) -> Attributes {
        self.on.attributes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::storage::{FileStorage, Resize};
    use crate::layout::extents::{Extents, RangeKind, RunBuilder};
    use crate::manifest::Policy;
    use crate::testkit::manifests::manifest_of;

    const K: usize = 1024;

    /// Four cells of 16 KiB, the last of 8: data and free, zero, data, data and zero. Three pieces travel.
    fn grid() -> Arc<Grid> {
        let mut runs = RunBuilder::default();
        for (kind, kib) in [
            (RangeKind::Data, 8),
            (RangeKind::Free, 8),
            (RangeKind::Zero, 16),
            (RangeKind::Data, 20),
            (RangeKind::Zero, 4),
        ] {
            runs.push(kind, kib << 10);
        }
        let extents = Extents { partitions: vec![runs.finish()] };
        let manifest = manifest_of(&extents, 16 << 10, Policy::Replace);
        Arc::new(Grid::new(&manifest, extents).unwrap())
    }

    fn file_of(path: &Path, byte: u8) -> Arc<dyn Storage> {
        std::fs::write(path, vec![byte; 56 * K]).unwrap();
        Arc::new(FileStorage::create(path, 56 << 10, Resize::Refuse).unwrap().storage)
    }

    #[test]
    fn pieces_and_zeros_land_on_their_places_and_padding_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partition");
        let target = ImageRuns::target(grid(), 0, file_of(&path, 0xee));
        assert_eq!((target.pieces(), target.len()), (0..3, 48 << 10));
        target.write_zeros().unwrap();
        let payload: Vec<u8> = [1, 2, 3].iter().flat_map(|byte| vec![*byte; 16 * K]).collect();
        target.write_at(0, &payload).unwrap();
        target.sync().unwrap();
        let there = std::fs::read(&path).unwrap();
        let expected = [vec![1; 16 * K], vec![0; 16 * K], vec![2; 16 * K], vec![3; 8 * K]].concat();
        assert!(there == expected);
        let mut back = vec![9; 48 * K];
        target.read_at(0, &mut back).unwrap();
        assert!(back[..40 * K] == payload[..40 * K], "a target reads as it is");
        assert!(back[40 * K..].iter().all(|byte| *byte == 0), "the padding reads as zeros");
        assert!(target.write_at(48 << 10, &[0]).is_err());
    }

    #[test]
    fn a_source_gives_zeros_for_whatever_is_not_data() {
        let folder = tempfile::tempdir().unwrap();
        let source = ImageRuns::source(grid(), 0, file_of(&folder.path().join("partition"), 0xee));
        let mut back = vec![9; 48 * K];
        source.read_at(0, &mut back).unwrap();
        let expected = [vec![0xee; 8 * K], vec![0; 8 * K], vec![0xee; 20 * K], vec![0; 12 * K]].concat();
        assert!(back == expected);
        let mut part = vec![9; 10 * K];
        source.read_at(4 << 10, &mut part).unwrap();
        assert!(part == expected[4 * K..14 * K], "a part of a piece as well");
    }
}
