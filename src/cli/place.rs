//! SOURCE and TARGET: from an argument to a storage.
//!
//! Invariant: all refusals happen here, before the swarm is joined. `io::storage` reads and writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::peers::PeerArgs;
use crate::bitfield::Bitfield;
use crate::event::Failure;
use crate::io::image::folder::ImageFolder;
use crate::io::storage::{
    BlockStorage, FileStorage, FolderStorage, ImageRuns, ImageShape, Opened, Resize, is_block_device,
};
use crate::io::torrent::{Have, TorrentSpec};
use crate::layout::grid::Grid;
use crate::manifest::{Policy, names};
use crate::metainfo::Metainfo;
use crate::storage::Storage;
use crate::swarm::{PieceShape, WholePieces};

/// The payload's place.
pub(crate) struct Placed {
    pub storage: Arc<dyn Storage>,
    /// The bytes of it that travel.
    pub shape: Arc<dyn PieceShape>,
    /// The pieces that it has already.
    pub have: Have,
    /// Which pieces belong there; `None`: all.
    pub wanted: Option<Bitfield>,
}

impl Placed {
    /// The torrent for a session, in at most `memory` bytes of buffers.
    pub(super) fn torrent(self, meta: Arc<Metainfo>, trackers: Vec<String>, memory: u64) -> TorrentSpec {
        let Placed { storage, shape, have, wanted } = self;
        TorrentSpec { shape, wanted, trackers, ..TorrentSpec::new(meta, storage, have, memory) }
    }
}

/// Opens the source to seed.
pub(super) fn source(path: &Path, meta: &Metainfo, args: &PeerArgs) -> Result<Placed, Failure> {
    let (storage, shape): (Arc<dyn Storage>, Arc<dyn PieceShape>) = match partition(meta, args)? {
        Some(Part { grid, position, size }) => {
            let on: Arc<dyn Storage> = if is_block_device(path) {
                Arc::new(BlockStorage::open(path, Some(size))?)
            } else {
                Arc::new(FileStorage::open_exact(path, size)?)
            };
            return Ok(placed_runs(
                ImageRuns::source(Arc::clone(&grid), position, on),
                grid,
                Have::Everything,
            ));
        }
        None if let Some(image) = image_in(path, meta)? => {
            let shape = Arc::new(ImageShape(Arc::clone(image.grid())));
            (image.payload_to_serve()?, shape)
        }
        None if !meta.is_single_file() => {
            need_folder(path, meta)?;
            let folder = FolderStorage::find(path, &meta.name, &meta.files);
            (Arc::new(FolderStorage::open(&folder, &meta.files)?), Arc::new(WholePieces))
        }
        None if is_block_device(path) => {
            (Arc::new(BlockStorage::open(path, Some(meta.total_length()))?), Arc::new(WholePieces))
        }
        None => {
            let path = file_in(path, meta);
            (Arc::new(FileStorage::open_exact(&path, meta.total_length())?), Arc::new(WholePieces))
        }
    };
    Ok(Placed { storage, shape, have: Have::Everything, wanted: None })
}

/// Opens (claims, creates) the target to write.
pub(super) fn target(
    path: &Path,
    meta: &Metainfo,
    args: &PeerArgs,
    resize: Resize,
) -> Result<Placed, Failure> {
    let whole: Arc<dyn PieceShape> = Arc::new(WholePieces);
    let total = meta.total_length();
    match partition(meta, args)? {
        Some(Part { grid, position, size }) => {
            let (on, fresh) = if is_block_device(path) {
                let claimed: Arc<dyn Storage> = Arc::new(BlockStorage::claim(path, size)?);
                (claimed, false)
            } else {
                let Opened { storage, fresh } = FileStorage::create(path, size, resize)?;
                let file: Arc<dyn Storage> = Arc::new(storage);
                (file, fresh)
            };
            let runs = ImageRuns::target(Arc::clone(&grid), position, on);
            if !fresh {
                runs.write_zeros()?;
            }
            let have = if fresh { Have::Nothing } else { Have::Check };
            Ok(placed_runs(runs, grid, have))
        }
        None if !meta.is_single_file() => {
            need_folder(path, meta)?;
            Ok(placed(FolderStorage::create(path, &meta.files, resize)?, whole))
        }
        None if is_block_device(path) => {
            let storage = BlockStorage::claim(path, total)?;
            Ok(placed(Opened { storage, fresh: false }, whole))
        }
        None => Ok(placed(FileStorage::create(&file_in(path, meta), total, resize)?, whole)),
    }
}

fn placed<S: Storage + 'static>(opened: Opened<S>, shape: Arc<dyn PieceShape>) -> Placed {
    let have = if opened.fresh { Have::Nothing } else { Have::Check };
    Placed { storage: Arc::new(opened.storage), shape, have, wanted: None }
}

/// A partition's place, of which only its own pieces are wanted.
fn placed_runs(runs: ImageRuns, grid: Arc<Grid>, have: Have) -> Placed {
    let wanted = Some(Bitfield::of_range(grid.pieces(), runs.pieces()));
    Placed { storage: Arc::new(runs), shape: Arc::new(ImageShape(grid)), have, wanted }
}

/// A single-file torrent's file: `path`, or the file of the torrent's name in it where it is a folder.
fn file_in(path: &Path, meta: &Metainfo) -> PathBuf {
    let plain = !meta.name.contains(['/', '\0']) && !matches!(meta.name.as_str(), "" | "." | "..");
    if path.is_dir() && plain { path.join(&meta.name) } else { path.to_owned() }
}

/// The version of an image in `path`, or in its folder of the torrent's name, if its payload does not lie as
/// the torrent's files.
fn image_in(path: &Path, meta: &Metainfo) -> Result<Option<ImageFolder>, Failure> {
    let named = file_in(path, meta);
    let Some(folder) = [path, &named].into_iter().find(|folder| folder.join(names::REFERENCE).exists())
    else {
        return Ok(None);
    };
    let image = ImageFolder::open(folder)?;
    if image.metainfo().info_hash == meta.info_hash {
        return Ok(Some(image));
    }
    let message = format!("{} is not of this torrent but of {}", folder.display(), image.manifest().id());
    Err(Failure::usage(message, "Name the folder that the torrent lies in."))
}

fn need_folder(path: &Path, meta: &Metainfo) -> Result<(), Failure> {
    if !path.exists() || path.is_dir() {
        return Ok(());
    }
    let message = format!(
        "the torrent '{}' has {} files, and {} is not a folder",
        meta.name,
        meta.files.len(),
        path.display()
    );
    let advice = "Name a folder; an image's partition is named with --manifest FILE --partition N.";
    Err(Failure::usage(message, advice))
}

/// A partition of an image.
struct Part {
    grid: Arc<Grid>,
    /// In the manifest's list.
    position: usize,
    size: u64,
}

/// The partition, if the command names a manifest.
fn partition(meta: &Metainfo, args: &PeerArgs) -> Result<Option<Part>, Failure> {
    let (Some(path), Some(number)) = (&args.manifest, args.partition) else { return Ok(None) };
    let (manifest, grid) = ImageRuns::read_grid(path)?;
    let name = format!("{} {}", manifest.name, manifest.version);
    if manifest.payload.info_hash != meta.info_hash {
        let message = format!("{} is not the manifest of this torrent but of {name}", path.display());
        return Err(Failure::usage(message, "Name the manifest.json beside the torrent."));
    }
    let position = manifest.partitions.iter().position(|partition| partition.number == number);
    let Some(position) = position else {
        let numbers: Vec<_> = manifest.partitions.iter().map(|p| p.number.to_string()).collect();
        let message = format!("{name} has no partition {number}");
        return Err(Failure::usage(message, format!("It has {}.", numbers.join(", "))));
    };
    let found = &manifest.partitions[position];
    if found.policy == Policy::Keep {
        let message = format!("partition {number} is kept by {name}, which has nothing of it");
        return Err(Failure::refused(message, "Name a partition that the image replaces."));
    }
    Ok(Some(Part { grid, position, size: found.size }))
}
