//! An image's payload at its place: the torrent's files, or the places that `payload.reference` names.
//!
//! Invariant: a payload of any form reads as the same bytes and is never written to. Its readers check the
//! content.

mod access;
mod cuts;
mod files;
mod in_place;
mod parts;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::event::Failure;
use crate::layout::grid::Grid;
use crate::layout::image::payload_files;
use crate::manifest::reference::{PieceRun, Reference};
use crate::manifest::{Manifest, names};
use crate::storage::Storage;
use crate::units::Sha256;

pub(crate) use access::{failed, untrusted};
pub use files::PayloadFiles;
pub use in_place::{Hold, InPlace, look};
pub use parts::Parts;

/// The parts of a version that opening its payload needs.
pub struct Of<'a> {
    pub folder: &'a Path,
    pub manifest: &'a Manifest,
    pub grid: &'a Arc<Grid>,
    /// The hashes of its pieces, if it has some.
    pub hashes: Option<&'a Arc<Vec<Sha256>>>,
    /// Where the payload lies, if not as the torrent's files.
    pub reference: Option<&'a Reference>,
}

pub fn open(of: &Of<'_>, hold: Hold) -> Result<Arc<dyn Storage>, Failure> {
    let Of { folder, manifest, grid, hashes, reference } = of;
    Ok(match reference {
        None => Arc::new(PayloadFiles::open(folder, manifest)?),
        Some(Reference::Parts(list)) => Arc::new(Parts::open(folder, manifest, list)?),
        Some(Reference::Source(source)) => {
            let hashes = hashes.cloned().unwrap_or_default();
            Arc::new(InPlace::open(manifest, grid, &hashes, source, hold)?)
        }
    })
}

/// The files that have a payload's pieces, and the place of each piece, for versions to share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceMap {
    /// The files, with the version that wrote each.
    pub files: Vec<(PathBuf, String)>,
    /// Runs of the payload's pieces in their order.
    pub runs: Vec<PieceRun>,
}

impl PieceMap {
    /// Of the version in `folder`.
    pub fn of(folder: &Path, manifest: &Manifest, reference: Option<&Reference>) -> Self {
        let own = || manifest.version.clone();
        match reference {
            Some(Reference::Parts(list)) => {
                let path = |name: &str| folder.join(names::PARTS).join(name);
                let file = |part: &crate::manifest::reference::Part| {
                    (path(&part.name), part.from.clone().unwrap_or_else(own))
                };
                PieceMap { files: list.files.iter().map(file).collect(), runs: list.runs.clone() }
            }
            Some(Reference::Source(_)) => PieceMap { files: Vec::new(), runs: Vec::new() },
            None => {
                let length = manifest.piece_length;
                let entries = payload_files(manifest.payload.length(length), manifest.payload.file_size);
                let pieces = |bytes: u64| u32::try_from(bytes / length.bytes()).unwrap_or(u32::MAX);
                let runs = (0u32..).zip(&entries).map(|(file, entry)| PieceRun {
                    file,
                    first: 0,
                    count: pieces(entry.length),
                });
                let runs = runs.collect();
                let path =
                    |element: &Vec<String>| element.iter().fold(folder.to_path_buf(), |p, e| p.join(e));
                let files = entries.iter().map(|entry| (path(&entry.path), own())).collect();
                PieceMap { files, runs }
            }
        }
    }
}
