//! An image folder on a filesystem (docs/formats.md): found, read, checked against its manifest, and its
//! payload as a read-only storage.
//!
//! Invariant: an [`ImageFolder`] that exists is complete and consistent: every sidecar has the hash that its
//! manifest gives, extents and manifest agree, the torrent is the manifest's, and the payload files have
//! their sizes, as the files of `after` have. Readers check the content of both, [`ImageFolder::trusted`]
//! checks the signature.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::event::Failure;
use crate::image_id::is_plain_name;
use crate::io::image::payload::{self, Hold, PieceMap, failed, untrusted};
use crate::layout::grid::Grid;
use crate::layout::image::{self, ImageDescription, SidecarFault, Sidecars};
use crate::manifest::after::After;
use crate::manifest::reference::{MAX_REFERENCE_BYTES, Reference};
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError, TrustedKeys, TrustedManifest, names};
use crate::metainfo::Metainfo;
use crate::storage::Storage;
use crate::units::Sha256;

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

/// All folders `<repository>/<image>/<version>` that have a manifest, in order of their names. Their content
/// is not read; other files and folders are skipped.
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
    description: ImageDescription,
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
        let mut sidecars = Sidecars::new();
        for (name, limit) in image::needed(&manifest) {
            sidecars.insert(name, read_bounded(&path.join(name), limit)?);
        }
        let description = ImageDescription::assemble(&manifest, sidecars).map_err(|wrong| {
            let file = path.join(wrong.file);
            untrusted(match wrong.fault {
                SidecarFault::Hash => {
                    format!("{} does not have the hash that its manifest gives", file.display())
                }
                SidecarFault::Content(why) => format!("{}: {why}", file.display()),
            })
        })?;
        let path = path.to_path_buf();
        let reference = read_reference(&path, &manifest)?;
        let folder = ImageFolder { path, manifest_bytes, manifest, signature, description, reference };
        folder.payload()?;
        folder.look_at_after()?;
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
        &self.description.torrent
    }

    /// The places of the pieces, and their data ranges.
    pub fn grid(&self) -> &Arc<Grid> {
        &self.description.grid
    }

    /// SHA-256 of each piece, to be kept elsewhere; `None` while the image is published without hashes.
    pub(crate) fn shared_piece_hashes(&self) -> Option<Arc<Vec<Sha256>>> {
        self.description.hashes.clone().filter(|hashes| !hashes.is_empty())
    }

    /// SHA-256 of each piece of the payload; none while it is published without hashes.
    pub fn piece_hashes(&self) -> &[Sha256] {
        self.description.hashes.as_ref().map_or(&[], |hashes| hashes.as_slice())
    }

    /// The bytes of `boot.bin`.
    pub fn boot_bytes(&self) -> &[u8] {
        &self.description.boot
    }

    /// The payload, read-only. Fails if a file is missing or has another size, or a source has changed.
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
            grid: &self.description.grid,
            hashes: self.description.hashes.as_ref(),
            reference: self.reference.as_ref(),
        };
        payload::open(&of, hold)
    }

    /// The administrator's files for terminals.
    pub fn after(&self) -> Option<&Arc<After>> {
        self.description.after.as_ref()
    }

    /// Where the file with this content lies.
    pub fn after_file(&self, sha256: &str) -> PathBuf {
        self.path.join(names::AFTER).join(sha256)
    }

    /// Looks whether each of these files is there with its size.
    fn look_at_after(&self) -> Result<(), Failure> {
        for (hash, size) in self.after().map(|after| after.blobs()).unwrap_or_default() {
            let file = self.after_file(&hash);
            let there = fs::symlink_metadata(&file).is_ok_and(|there| there.is_file() && there.len() == size);
            if !there {
                return Err(untrusted(format!(
                    "{} of {} is missing or has another size than the image says",
                    file.display(),
                    names::AFTER_LIST
                )));
            }
        }
        Ok(())
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
