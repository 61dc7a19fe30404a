//! One partition of an image as a storage: payload pieces ↔ their places on that partition.
//!
//! Invariant: a piece of this partition is written where the grid says and nowhere else; what a last piece
//! lacks to full length is never written and reads as zeros. From a source every byte that is not data reads as
//! zero, whatever a live partition has there (DESIGN §4); a target reads as it is, so that what is checked is what
//! is there. Pieces of other partitions are refused.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::event::{Class, Failure};
use crate::io::storage::failed;
use crate::layout::extents::Extents;
use crate::layout::grid::Grid;
use crate::manifest::{Manifest, names};
use crate::storage::{Attributes, Storage, StorageError};
use crate::swarm::PieceShape;
use crate::units::{PieceIndex, Sha256};

/// The grid as a shape: only what is data travels.
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
    /// The grid of the image whose `manifest.json` lies at `path`, with the manifest; the extents beside it
    /// must be the ones it names. The manifest's signature is not looked at: an administrator names the file.
    pub fn read_grid(path: &Path) -> Result<(Manifest, Arc<Grid>), Failure> {
        let damaged = |what: String| {
            let message = format!("{}: {what}", path.display());
            Failure::new(Class::Untrusted, message, "copy the image's folder again; it is damaged")
        };
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| super::open_failure("cannot read", path, &error))
        };
        let manifest = Manifest::parse(&read(path)?).map_err(|error| damaged(error.to_string()))?;
        let extents = read(&path.with_file_name(names::EXTENTS))?;
        let hash: Sha256 = crate::io::hash::sha256(&extents);
        if manifest.sidecars.get(names::EXTENTS) != Some(&hash) {
            return Err(damaged(format!("{} beside it is not the one it names", names::EXTENTS)));
        }
        let extents = Extents::decode(&extents, &manifest).map_err(|error| damaged(error.to_string()))?;
        let grid = Grid::new(&manifest, extents).map_err(|error| damaged(error.to_string()))?;
        Ok((manifest, Arc::new(grid)))
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
    pub fn write_zeros(&self) -> Result<(), StorageError> {
        let zeros = memmap2::MmapMut::map_anon(self.grid.piece_length().get() as usize)
            .map_err(|error| failed("writing", Path::new("zeros"), 0, 0, error))?;
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
            let inside = (at % piece_length) as usize;
            let take = (self.grid.piece_length().get() as usize - inside).min(length - done);
            each(PieceIndex(piece), inside, done..done + take)?;
            done += take;
        }
        Ok(())
    }

    /// Where a piece begins on the partition, and how many bytes of it lie there.
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
