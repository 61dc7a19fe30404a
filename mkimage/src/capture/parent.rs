//! `--parent`: finds the pieces that another version has.
//!
//! Invariant: a piece is the same only after its bytes were compared with those just read, so a new version
//! never inherits damage.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use flashmob::event::Failure;
use flashmob::io::image::folder::ImageFolder;
use flashmob::io::image::payload::PieceMap;
use flashmob::manifest::reference::{Reference, starts_of};
use flashmob::storage::Storage;
use flashmob::units::{PieceIndex, PieceLength, Sha256, show_bytes};

use crate::keys::require_hashes;

/// Bytes that are compared at once.
const AT_ONCE: usize = 1 << 20;

/// The version that pieces are shared with.
pub(super) struct Parent {
    image: ImageFolder,
    payload: Arc<dyn Storage>,
    pub(super) map: PieceMap,
    /// Where the runs of `map` begin.
    pub(super) starts: Vec<u32>,
    known: HashMap<Sha256, PieceIndex>,
    /// Positions of its partitions by their numbers.
    partitions: HashMap<u32, usize>,
}

/// Has the parent this piece?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twin {
    None,
    /// Its hash, but not its bytes.
    Damaged,
    /// This one of its pieces.
    Same(PieceIndex),
}

impl Parent {
    /// Opens the version in `folder`. Refused if its pieces could neither be found nor shared.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let image = ImageFolder::open(folder)?;
        require_hashes(&image).map_err(|f| Failure {
            message: format!("{}, so the unchanged pieces cannot be found", f.message),
            ..f
        })?;
        if let Some(Reference::Source(source)) = image.reference() {
            return Err(Failure::refused(
                format!(
                    "the payload of {} lies on {}: there is nothing to share",
                    image.manifest().id(),
                    source.path
                ),
                "Leave out --parent.",
            ));
        }
        let (payload, map) = (image.payload()?, image.piece_map());
        let starts = starts_of(&map.runs);
        let known =
            (0..).map(PieceIndex).zip(image.piece_hashes()).map(|(piece, hash)| (*hash, piece)).collect();
        let numbers = image.manifest().partitions.iter().map(|partition| partition.number);
        let partitions = numbers.enumerate().map(|(position, number)| (number, position)).collect();
        Ok(Parent { image, payload, map, starts, known, partitions })
    }

    /// Length of its pieces, and of its payload files.
    pub(super) fn lengths(&self) -> (PieceLength, u64) {
        (self.image.manifest().piece_length, self.image.manifest().payload.file_size)
    }

    pub(super) fn version(&self) -> &str {
        &self.image.manifest().version
    }

    /// Looks for the piece at `offset` of partition `number`: there first, then everywhere.
    pub(super) fn twin(&self, number: u32, offset: u64, hash: &Sha256, piece: &[u8]) -> Twin {
        let hashes = self.image.piece_hashes();
        let position = self.partitions.get(&number);
        let there = position.and_then(|position| self.image.grid().piece_at(*position, offset));
        let there = there.filter(|piece| hashes.get(piece.get()) == Some(hash));
        match there.or_else(|| self.known.get(hash).copied()) {
            None => Twin::None,
            Some(twin) if self.has(twin, piece) => Twin::Same(twin),
            Some(_) => Twin::Damaged,
        }
    }

    fn has(&self, twin: PieceIndex, piece: &[u8]) -> bool {
        let mut offset = u64::from(twin.0) * self.image.manifest().piece_length.bytes();
        let mut other = vec![0; AT_ONCE.min(piece.len())];
        piece.chunks(AT_ONCE).all(|part| {
            let other = &mut other[..part.len()];
            let read = self.payload.read_at(offset, other);
            offset += part.len() as u64;
            read.is_ok() && *other == *part
        })
    }
}

/// Refuses lengths other than the parent's, because no piece would be equal.
pub(super) fn refuse_other_length(parent: &Parent, length: PieceLength) -> Result<(), Failure> {
    let (theirs, _) = parent.lengths();
    if theirs == length {
        return Ok(());
    }
    Err(Failure::refused(
        format!(
            "{} has pieces of {}, and pieces of {} share nothing with it",
            parent.version(),
            show_bytes(theirs.bytes()),
            show_bytes(length.bytes())
        ),
        "Leave out --piece-length: it is the parent's then.",
    ))
}
