//! `hash`: adds the hashes to an image that was published without them, while it is already being
//! distributed.
//!
//! Invariant: only hashes are added, and the info-hash stays. The hashes exist before the manifest that names
//! them, and each file appears complete. Terminals accept the new manifest only with a good signature.

use std::fs;
use std::path::PathBuf;

use flashmob::event::Failure;
use flashmob::io::hash::{sha256, sha256_of_hashes};
use flashmob::io::image::folder::ImageFolder;
use flashmob::manifest::{Manifest, Policy, names};
use flashmob::units::Sha256;

use crate::keys::{file_failure, read_secret, sync_folder, write_new};
use crate::pipeline;
use crate::progress::Progress;
use crate::sign::write_signature;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image's folder (REPOSITORY/NAME/VERSION).
    folder: PathBuf,
    /// Sign the new manifest with this secret key.
    #[arg(long, value_name = "SECRET")]
    key: Option<PathBuf>,
    /// Text that is signed with the manifest and shown by `minisign -V`.
    #[arg(long, value_name = "TEXT", requires = "key")]
    trusted_comment: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let key = arguments.key.as_deref().map(read_secret).transpose()?;
    let image = ImageFolder::open(&arguments.folder)?;
    if image.manifest().payload.sha256.is_some() {
        return Err(Failure::refused(
            format!("{} has its hashes already", image.manifest().id()),
            "There is nothing to do.",
        ));
    }
    let hashes = hash(&image)?;
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    let manifest = with_hashes(&image, &hashes, &bytes);
    let folder = &arguments.folder;
    replace(folder, names::PIECES, &bytes)?;
    let text = manifest.to_bytes();
    // Between these two the signature is of the old manifest: terminals ask again until both fit.
    replace(folder, names::MANIFEST, &text)?;
    if let Some(key) = &key {
        write_signature(folder, &manifest, &text, key, arguments.trusted_comment.as_deref())?;
    } else if image.signature().is_some() {
        println!("the signature is of the manifest without hashes: run");
        println!("  flashmob-mkimage sign {} --key SECRET", folder.display());
    }
    sync_folder(folder)?;
    ImageFolder::open(folder)?;
    println!("{} has its hashes: terminals that wait for them go on", manifest.id());
    Ok(())
}

/// SHA-256 of every piece, on all cores, while reading.
fn hash(image: &ImageFolder) -> Result<Vec<Sha256>, Failure> {
    let payload = image.payload()?;
    let length = image.manifest().piece_length.bytes();
    let pieces = u64::from(image.manifest().payload.pieces);
    let mut progress = Progress::new("hashing", pieces * length);
    let mut hashes = Vec::new();
    let result = pipeline::run(
        usize::try_from(length).unwrap_or(usize::MAX),
        0..pieces,
        |piece, buf| {
            payload.read_at(piece * length, buf).map(|()| true).map_err(|e| {
                Failure::disk(format!("reading the payload: {e}"), "Check the repository's disk.")
            })
        },
        |_, buf| buf.map_or(Sha256([0; 32]), |buf| sha256(buf)),
        |_, _, hash| {
            hashes.push(hash);
            progress.advance(length);
            Ok(())
        },
    );
    progress.finish();
    result.map(|()| hashes)
}

fn with_hashes(image: &ImageFolder, hashes: &[Sha256], bytes: &[u8]) -> Manifest {
    let mut manifest = image.manifest().clone();
    manifest.payload.sha256 = Some(sha256_of_hashes(hashes));
    manifest.sidecars.insert(names::PIECES.to_string(), sha256(bytes));
    for (position, partition) in manifest.partitions.iter_mut().enumerate() {
        let pieces = image.grid().pieces_of(position);
        let own = hashes.get(pieces.start as usize..pieces.end as usize).unwrap_or(&[]);
        partition.sha256 = (partition.policy == Policy::Replace).then(|| sha256_of_hashes(own));
    }
    manifest
}

/// Replaces a file in one step.
fn replace(folder: &std::path::Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let (path, fresh) = (folder.join(name), folder.join(format!(".{name}.new-{}", std::process::id())));
    write_new(&fresh, 0o644, bytes)?;
    fs::rename(&fresh, &path).map_err(|e| file_failure("writing", &path, &e))
}
