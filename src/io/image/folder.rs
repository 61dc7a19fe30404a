//! An image folder on a filesystem (docs/formats.md): found, read, checked against its manifest, and its
//! payload as a read-only storage.
//!
//! Invariant: an [`ImageFolder`] that exists is complete and consistent: every sidecar has the hash that its
//! manifest gives, extents and manifest agree, the torrent is the manifest's, and the payload files have
//! their sizes. Readers check the content of the payload files, [`ImageFolder::trusted`] checks the
//! signature.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::event::Failure;
use crate::io::hash::{sha256, sha256_of_hashes};
use crate::io::image::payload::{self, Hold, PieceMap, failed, payload_files, untrusted};
use crate::layout::extents::{Extents, MAX_EXTENTS_BYTES};
use crate::layout::grid::Grid;
use crate::manifest::reference::{MAX_REFERENCE_BYTES, Reference};
use crate::manifest::{
    MAX_MANIFEST_BYTES, Manifest, ManifestError, TrustedKeys, TrustedManifest, is_plain_name, names,
};
use crate::metainfo::{MAX_TORRENT_BYTES, Metainfo};
use crate::storage::Storage;
use crate::units::Sha256;

/// Boot areas are a few hundred KiB; a larger `boot.bin` is not read.
pub const MAX_BOOT_BYTES: usize = 32 << 20;
/// A signature has a few hundred bytes.
const MAX_SIGNATURE_BYTES: usize = 16 << 10;
/// Begins the name of a folder that a capture is still writing; never an image.
pub const PARTIAL_PREFIX: &str = ".partial-";

/// A version of an image that a repository seems to have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub name: String,
    pub version: String,
    pub path: PathBuf,
}

/// All folders `<repository>/<image>/<version>` that have a manifest, in order of their names. Nothing in
/// them is looked at; other files and folders are passed over.
pub fn list(repository: &Path) -> Result<Vec<Listed>, Failure> {
    let mut found = Vec::new();
    for (name, folder) in plain_folders(repository)? {
        for (version, path) in plain_folders(&folder)? {
            if path.join(names::MANIFEST).is_file() {
                found.push(Listed { name: name.clone(), version, path });
            }
        }
    }
    found.sort();
    Ok(found)
}

fn plain_folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let cannot = |e| {
        let advice = "The repository is the folder that has one folder for each image.";
        failed("listing", folder, &e, advice)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if let Ok(name) = entry.file_name().into_string()
            && is_plain_name(&name)
            && entry.path().is_dir()
        {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// One version of one image.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    path: PathBuf,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    signature: Option<String>,
    metainfo: Arc<Metainfo>,
    grid: Arc<Grid>,
    hashes: Arc<Vec<Sha256>>,
    boot: Vec<u8>,
    reference: Option<Reference>,
}

impl ImageFolder {
    /// Reads everything but the payload and checks it (see the module's invariant). The first thing that is
    /// wrong is named.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let manifest_bytes = read_bounded(&path.join(names::MANIFEST), MAX_MANIFEST_BYTES)?;
        let manifest = Manifest::parse(&manifest_bytes)
            .map_err(|e| untrusted(format!("{}: {e}", path.join(names::MANIFEST).display())))?;
        let signature =
            match read_bounded(&path.join(names::SIGNATURE), MAX_SIGNATURE_BYTES) {
                Ok(bytes) => Some(String::from_utf8(bytes).map_err(|_| {
                    untrusted(format!("{} is not text", path.join(names::SIGNATURE).display()))
                })?),
                Err(_) if !path.join(names::SIGNATURE).exists() => None,
                Err(failure) => return Err(failure),
            };
        let sidecar = |name: &str, limit: usize| read_sidecar(path, &manifest, name, limit);
        let wrong = |name: &str, why: String| untrusted(format!("{}: {why}", path.join(name).display()));

        let extents = Extents::decode(&sidecar(names::EXTENTS, MAX_EXTENTS_BYTES)?, &manifest)
            .map_err(|e| wrong(names::EXTENTS, e.to_string()))?;
        let grid = Grid::new(&manifest, extents).map_err(|e| wrong(names::EXTENTS, e.to_string()))?;

        let hashed = manifest.payload.sha256.is_some();
        let hashes = if hashed { sidecar(names::PIECES, 32 * pieces_of(&manifest))? } else { Vec::new() };
        if hashed && hashes.len() != 32 * pieces_of(&manifest) {
            return Err(wrong(names::PIECES, format!("{} bytes are not one hash a piece", hashes.len())));
        }
        let hashes = Arc::new(hashes.as_chunks().0.iter().map(|hash| Sha256(*hash)).collect());
        let boot = sidecar(names::BOOT, MAX_BOOT_BYTES)?;
        let areas = manifest.disk.boot_areas.iter();
        let needed = areas.map(|area| area.at.saturating_add(area.length)).max().unwrap_or(0);
        if needed > boot.len() as u64 {
            return Err(wrong(names::BOOT, format!("it ends before byte {needed}")));
        }
        let metainfo = Metainfo::parse(&sidecar(names::TORRENT, MAX_TORRENT_BYTES)?)
            .map_err(|e| wrong(names::TORRENT, e.to_string()))?;
        check_torrent(&metainfo, &manifest).map_err(|why| wrong(names::TORRENT, why))?;
        let (metainfo, grid) = (Arc::new(metainfo), Arc::new(grid));
        let path = path.to_path_buf();
        let reference = read_reference(&path, &manifest)?;
        let folder = ImageFolder {
            path,
            manifest_bytes,
            manifest,
            signature,
            metainfo,
            grid,
            hashes,
            boot,
            reference,
        };
        check_hashes(&folder.manifest, &folder.grid, &folder.hashes)
            .map_err(|why| untrusted(format!("{}: {why}", folder.path.join(names::PIECES).display())))?;
        folder.payload()?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its manifest, signed or not.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's bytes, as signed.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// The signature's text; `None` if the image is not signed.
    pub fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    /// The manifest as one that may be acted on, if one of `keys` signed it.
    pub fn trusted(&self, keys: &TrustedKeys) -> Result<TrustedManifest, ManifestError> {
        let Some(signature) = &self.signature else {
            return Err(ManifestError::Untrusted { keys: keys.len(), why: "it is not signed at all".into() });
        };
        TrustedManifest::verify(&self.manifest_bytes, signature, keys)
    }

    /// The torrent as stored: no tracker, no web seed.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// The places of the pieces, and their data ranges.
    pub fn grid(&self) -> &Arc<Grid> {
        &self.grid
    }

    /// SHA-256 of each piece, to be kept elsewhere; `None` while the image is published without hashes.
    pub fn shared_piece_hashes(&self) -> Option<Arc<Vec<Sha256>>> {
        (!self.hashes.is_empty()).then(|| Arc::clone(&self.hashes))
    }

    /// SHA-256 of each piece of the payload; none while it is published without hashes.
    pub fn piece_hashes(&self) -> &[Sha256] {
        &self.hashes
    }

    /// The bytes of `boot.bin`.
    pub fn boot_bytes(&self) -> &[u8] {
        &self.boot
    }

    /// The payload, to be read only. Fails if a file is missing or has another size, or a source is not as it
    /// was.
    pub fn payload(&self) -> Result<Arc<dyn Storage>, Failure> {
        self.open_payload(Hold::No)
    }

    /// The payload, to be served: a block device under it is claimed, so that it cannot be mounted.
    pub fn payload_to_serve(&self) -> Result<Arc<dyn Storage>, Failure> {
        self.open_payload(Hold::Claim)
    }

    fn open_payload(&self, hold: Hold) -> Result<Arc<dyn Storage>, Failure> {
        let of = payload::Of {
            folder: &self.path,
            manifest: &self.manifest,
            grid: &self.grid,
            hashes: &self.hashes,
            reference: self.reference.as_ref(),
        };
        payload::open(&of, hold)
    }

    /// Where the payload lies, if not in the torrent's own files: only flashmob can seed it then.
    pub fn reference(&self) -> Option<&Reference> {
        self.reference.as_ref()
    }

    /// Which files of the repository have its pieces; none if its payload lies on its source.
    pub fn piece_map(&self) -> PieceMap {
        PieceMap::of(&self.path, &self.manifest, self.reference.as_ref())
    }
}

fn read_reference(folder: &Path, manifest: &Manifest) -> Result<Option<Reference>, Failure> {
    let path = folder.join(names::REFERENCE);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let bytes = read_bounded(&path, MAX_REFERENCE_BYTES)?;
    let reference = Reference::parse(&bytes, manifest.payload.pieces);
    reference.map(Some).map_err(|why| untrusted(format!("{}: {why}", path.display())))
}

fn pieces_of(manifest: &Manifest) -> usize {
    usize::try_from(manifest.payload.pieces).unwrap_or(usize::MAX / 64).min(usize::MAX / 64)
}

/// Checks that the torrent agrees with the manifest.
fn check_torrent(metainfo: &Metainfo, manifest: &Manifest) -> Result<(), String> {
    let payload = &manifest.payload;
    let files = payload_files(payload.length(manifest.piece_length), payload.file_size);
    let same = [
        ("info-hash", metainfo.info_hash == payload.info_hash),
        ("name", metainfo.name == manifest.version),
        ("piece length", metainfo.piece_length == manifest.piece_length.get()),
        ("number of pieces", metainfo.piece_count() == payload.pieces),
        ("list of files", metainfo.files == files),
        ("private flag", metainfo.private),
        ("lack of hashes", metainfo.unhashed || payload.sha256.is_some()),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(format!("its {what} is not the manifest's")),
        None => Ok(()),
    }
}

/// The hashes of partitions and payload are those over the pieces' hashes.
fn check_hashes(manifest: &Manifest, grid: &Grid, hashes: &[Sha256]) -> Result<(), String> {
    if manifest.payload.sha256.is_none() {
        let claims = manifest.partitions.iter().any(|partition| partition.sha256.is_some());
        return if claims { Err("partitions have hashes and the payload has none".into()) } else { Ok(()) };
    }
    if manifest.payload.sha256.is_some_and(|sum| sum != sha256_of_hashes(hashes)) {
        return Err("the hash of the payload is not the one over its pieces' hashes".into());
    }
    for (i, partition) in manifest.partitions.iter().enumerate() {
        let pieces = grid.pieces_of(i);
        let own = hashes.get(pieces.start as usize..pieces.end as usize).unwrap_or(&[]);
        if partition.sha256.is_some_and(|sum| sum != sha256_of_hashes(own)) {
            return Err(format!(
                "the hash of partition {} is not the one over its pieces' hashes",
                partition.number
            ));
        }
    }
    Ok(())
}

fn read_sidecar(folder: &Path, manifest: &Manifest, name: &str, limit: usize) -> Result<Vec<u8>, Failure> {
    let path = folder.join(name);
    let bytes = read_bounded(&path, limit)?;
    match manifest.sidecars.get(name) {
        Some(sum) if *sum == sha256(&bytes) => Ok(bytes),
        _ => Err(untrusted(format!("{} does not have the hash that its manifest gives", path.display()))),
    }
}

fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let advice = "An image's folder has all the files of docs/formats.md: copy the folder again.";
    let cannot = |e| failed("reading", path, &e, advice);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > limit {
        return Err(untrusted(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}
