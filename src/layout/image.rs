//! The description of an image: its manifest and its sidecars, checked against each other.
//!
//! Invariant: an [`ImageDescription`] exists only if each sidecar has the hash that the manifest gives,
//! extents and manifest agree, the hashes of payload and partitions are those over the piece hashes, every
//! boot area lies in `boot.bin`, and all fields of the torrent agree with the manifest. The callers fetch the
//! files and trust the manifest.

use std::collections::HashMap;
use std::sync::Arc;

use crate::digest::{sha256, sha256_of_hashes};
use crate::layout::extents::{Extents, MAX_EXTENTS_BYTES};
use crate::layout::grid::Grid;
use crate::manifest::after::{self, After};
use crate::manifest::{Manifest, names};
use crate::metainfo::{FileEntry, MAX_TORRENT_BYTES, Metainfo};
use crate::units::Sha256;

/// Boot areas are a few hundred KiB; a larger `boot.bin` is not read.
pub(crate) const MAX_BOOT_BYTES: usize = 32 << 20;

/// Why a sidecar is not the manifest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongSidecar {
    /// Its file name.
    pub file: &'static str,
    /// The problem.
    pub fault: SidecarFault,
}

/// The problem of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SidecarFault {
    /// It does not have the hash that the manifest gives.
    Hash,
    /// It has that hash, and cannot be used for this reason.
    Content(String),
}

/// The sidecars of an image as bytes, by file name.
pub(crate) type Sidecars = HashMap<&'static str, Vec<u8>>;

/// The sidecars that [`ImageDescription::assemble`] needs, each with the most bytes to read of it.
pub fn needed(manifest: &Manifest) -> Vec<(&'static str, usize)> {
    let pieces = manifest.payload.sha256.map(|_| (names::PIECES, pieces_limit(manifest)));
    let after = manifest.sidecars.contains_key(names::AFTER_LIST);
    let after = after.then_some((names::AFTER_LIST, after::MAX_LIST_BYTES));
    let others = [(names::BOOT, MAX_BOOT_BYTES), (names::TORRENT, MAX_TORRENT_BYTES)];
    [(names::EXTENTS, MAX_EXTENTS_BYTES)].into_iter().chain(pieces).chain(others).chain(after).collect()
}

/// The most bytes to read of `pieces.sha256`: 32 for each piece, and no more than a torrent may have.
pub(crate) fn pieces_limit(manifest: &Manifest) -> usize {
    usize::try_from(manifest.payload.pieces).unwrap_or(usize::MAX).saturating_mul(32).min(MAX_TORRENT_BYTES)
}

/// An image before its first piece, beside its manifest.
#[derive(Debug, Clone)]
pub(crate) struct ImageDescription {
    /// Where the pieces lie and which of their bytes are data.
    pub grid: Arc<Grid>,
    /// SHA-256 of each piece; `None` while the image is published without them.
    pub hashes: Option<Arc<Vec<Sha256>>>,
    /// The bytes of `boot.bin`.
    pub boot: Vec<u8>,
    /// The torrent as stored: no tracker, no web seed.
    pub torrent: Arc<Metainfo>,
    /// The administrator's files for terminals.
    pub after: Option<Arc<After>>,
}

impl ImageDescription {
    /// Checks the [`needed`] sidecars of `manifest`. Names the first one that is wrong.
    pub(crate) fn assemble(manifest: &Manifest, mut sidecars: Sidecars) -> Result<Self, WrongSidecar> {
        let mut take = |name| sidecars.remove(name).unwrap_or_default();
        let grid = grid(manifest, &take(names::EXTENTS))?;
        let hashes = match manifest.payload.sha256 {
            Some(_) => Some(Arc::new(piece_hashes(manifest, &grid, &take(names::PIECES))?)),
            None if manifest.partitions.iter().any(|partition| partition.sha256.is_some()) => {
                return wrong(names::PIECES, "partitions have hashes and the payload has none");
            }
            None => None,
        };
        let boot = take(names::BOOT);
        check_boot(manifest, &boot)?;
        let torrent = Arc::new(torrent(manifest, &take(names::TORRENT))?);
        let after = match manifest.sidecars.contains_key(names::AFTER_LIST) {
            true => Some(Arc::new(after_list(manifest, &take(names::AFTER_LIST))?)),
            false => None,
        };
        Ok(ImageDescription { grid, hashes, boot, torrent, after })
    }
}

/// The grid, made of the bytes of `extents.bin`.
pub fn grid(manifest: &Manifest, extents: &[u8]) -> Result<Arc<Grid>, WrongSidecar> {
    check_hash(manifest, names::EXTENTS, extents)?;
    let extents = Extents::decode(extents, manifest).and_then(|extents| Grid::new(manifest, extents));
    extents.map(Arc::new).or_else(|error| wrong(names::EXTENTS, error))
}

/// The hashes of the pieces, made of the bytes of `pieces.sha256`.
pub fn piece_hashes(manifest: &Manifest, grid: &Grid, bytes: &[u8]) -> Result<Vec<Sha256>, WrongSidecar> {
    check_hash(manifest, names::PIECES, bytes)?;
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != manifest.payload.pieces as usize {
        return wrong(names::PIECES, format!("{} bytes are not one hash a piece", bytes.len()));
    }
    let hashes: Vec<Sha256> = hashes.iter().map(|hash| Sha256(*hash)).collect();
    if manifest.payload.sha256 != Some(sha256_of_hashes(&hashes)) {
        return wrong(names::PIECES, "the hash of the payload is not the one over its pieces' hashes");
    }
    for (position, partition) in manifest.partitions.iter().enumerate() {
        let pieces = grid.pieces_of(position);
        let own = hashes.get(pieces.start as usize..pieces.end as usize).unwrap_or(&[]);
        if partition.sha256.is_some_and(|sum| sum != sha256_of_hashes(own)) {
            let number = partition.number;
            return wrong(
                names::PIECES,
                format!("the hash of partition {number} is not the one over its pieces' hashes"),
            );
        }
    }
    Ok(hashes)
}

/// The files of a payload of `length` bytes, as the torrent and the image's folder have them.
pub fn payload_files(length: u64, file_size: u64) -> Vec<FileEntry> {
    let count = if file_size == 0 { 0 } else { length.div_ceil(file_size) };
    (0..count)
        .map(|i| {
            let path = vec![names::PAYLOAD.to_string(), format!("{i:04}.bin")];
            FileEntry::data(path, (length - i * file_size).min(file_size))
        })
        .collect()
}

fn check_boot(manifest: &Manifest, boot: &[u8]) -> Result<(), WrongSidecar> {
    check_hash(manifest, names::BOOT, boot)?;
    let ends = manifest.disk.boot_areas.iter().map(|area| area.at.saturating_add(area.length));
    match ends.max() {
        Some(end) if end > boot.len() as u64 => wrong(names::BOOT, format!("it ends before byte {end}")),
        _ => Ok(()),
    }
}

fn after_list(manifest: &Manifest, bytes: &[u8]) -> Result<After, WrongSidecar> {
    check_hash(manifest, names::AFTER_LIST, bytes)?;
    After::parse(bytes, manifest).or_else(|error| wrong(names::AFTER_LIST, error))
}

fn torrent(manifest: &Manifest, bytes: &[u8]) -> Result<Metainfo, WrongSidecar> {
    check_hash(manifest, names::TORRENT, bytes)?;
    let torrent = Metainfo::parse(bytes).or_else(|error| wrong(names::TORRENT, error))?;
    let payload = &manifest.payload;
    let files = payload_files(payload.length(manifest.piece_length), payload.file_size);
    let same = [
        ("info-hash", torrent.info_hash == payload.info_hash),
        ("name", torrent.name == manifest.version),
        ("piece length", torrent.piece_length == manifest.piece_length.get()),
        ("number of pieces", torrent.piece_count() == payload.pieces),
        ("list of files", torrent.files == files),
        ("private flag", torrent.private),
        ("lack of hashes", torrent.unhashed || payload.sha256.is_some()),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((field, _)) => wrong(names::TORRENT, format!("its {field} is not the manifest's")),
        None => Ok(torrent),
    }
}

fn check_hash(manifest: &Manifest, file: &'static str, bytes: &[u8]) -> Result<(), WrongSidecar> {
    let same = manifest.sidecars.get(file) == Some(&sha256(bytes));
    same.then_some(()).ok_or(WrongSidecar { file, fault: SidecarFault::Hash })
}

fn wrong<T>(file: &'static str, why: impl ToString) -> Result<T, WrongSidecar> {
    Err(WrongSidecar { file, fault: SidecarFault::Content(why.to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::images::{TestImage, gpt_source, image_of};

    fn sample() -> TestImage {
        image_of(&gpt_source(512), 512, 256 << 10, |_| ())
    }

    fn sidecars(image: &TestImage) -> Sidecars {
        image.sidecars.iter().cloned().collect()
    }

    /// The message about `image` after one of its sidecars was replaced and its hash put into the manifest.
    fn replaced(mut image: TestImage, file: &'static str, bytes: Vec<u8>) -> String {
        image.manifest.sidecars.insert(file.into(), sha256(&bytes));
        let mut sidecars = sidecars(&image);
        sidecars.insert(file, bytes);
        match ImageDescription::assemble(&image.manifest, sidecars).expect_err(file) {
            WrongSidecar { file: named, fault: SidecarFault::Content(why) } if named == file => why,
            other => panic!("{file}: {other:?}"),
        }
    }

    #[test]
    fn a_sound_image_is_described() {
        let image = sample();
        let names: Vec<_> = needed(&image.manifest).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [names::EXTENTS, names::PIECES, names::BOOT, names::TORRENT]);
        let described = ImageDescription::assemble(&image.manifest, sidecars(&image)).expect("sound");
        assert_eq!(described.grid.pieces(), image.grid.pieces());
        assert_eq!(described.hashes.as_deref(), Some(&image.hashes));
        assert_eq!((described.boot, &*described.torrent), (image.boot, &image.torrent));
    }

    #[test]
    fn a_sidecar_that_is_missing_or_altered_is_named() {
        let image = sample();
        for (file, _) in &image.sidecars {
            for change in [|bytes: &mut Vec<u8>| bytes[0] ^= 1, |bytes: &mut Vec<u8>| bytes.clear()] {
                let mut sidecars = sidecars(&image);
                sidecars.get_mut(file).map(change);
                let wrong = ImageDescription::assemble(&image.manifest, sidecars).expect_err(file);
                assert_eq!(wrong, WrongSidecar { file, fault: SidecarFault::Hash });
            }
        }
    }

    #[test]
    fn sidecars_that_contradict_the_manifest_are_refused() {
        let image = sample();
        assert!(replaced(sample(), names::EXTENTS, vec![1]).contains("mark of format 1"));
        assert!(replaced(sample(), names::PIECES, vec![1; 32]).contains("not one hash a piece"));
        let hashes = vec![1; 32 * image.hashes.len()];
        assert!(replaced(sample(), names::PIECES, hashes).contains("hash of the payload is not"));
        assert!(replaced(sample(), names::BOOT, vec![1]).contains("it ends before byte"));
        let mut partition = sample();
        partition.manifest.partitions[0].sha256 = Some(Sha256([1; 32]));
        let pieces = sidecars(&partition).remove(names::PIECES).expect("hashed");
        assert!(replaced(partition, names::PIECES, pieces).contains("the hash of partition 1 is not"));
    }

    #[test]
    fn every_field_of_the_torrent_is_compared() {
        type Change = fn(&mut Manifest);
        let torrent = |image: &TestImage| sidecars(image).remove(names::TORRENT).expect("a torrent");
        for (field, change) in [
            ("info-hash", (|manifest| manifest.payload.info_hash.0[0] ^= 1) as Change),
            ("name", |manifest| manifest.version = "2".into()),
            ("list of files", |manifest| manifest.payload.file_size *= 2),
        ] {
            let mut image = sample();
            change(&mut image.manifest);
            let bytes = torrent(&image);
            assert_eq!(replaced(image, names::TORRENT, bytes), format!("its {field} is not the manifest's"));
        }
    }
}
