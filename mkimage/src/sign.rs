//! `sign`: signs an image's manifest.

use std::fs;
use std::path::{Path, PathBuf};

use flashmob::event::Failure;
use flashmob::io::image::folder::ImageFolder;
use flashmob::manifest::{Manifest, names};
use minisign::SecretKey;

use crate::keys::{file_failure, read_secret, sign, sync_folder, write_new};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image's folder (REPOSITORY/NAME/VERSION).
    folder: PathBuf,
    #[arg(long, value_name = "SECRET")]
    key: PathBuf,
    /// Text that is signed with the manifest and shown by `minisign -V`.
    #[arg(long, value_name = "TEXT")]
    trusted_comment: Option<String>,
}

/// Signs an image that is complete and consistent; an older signature is replaced.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let image = ImageFolder::open(&arguments.folder)?;
    let key = read_secret(&arguments.key)?;
    let comment = arguments.trusted_comment.as_deref();
    write_signature(&arguments.folder, image.manifest(), image.manifest_bytes(), &key, comment)?;
    println!("signed {}", arguments.folder.join(names::MANIFEST).display());
    Ok(())
}

/// Writes `manifest.json.minisig` in one step: never half of one, never none where one was.
pub(crate) fn write_signature(
    folder: &Path,
    manifest: &Manifest,
    bytes: &[u8],
    key: &SecretKey,
    comment: Option<&str>,
) -> Result<(), Failure> {
    let standard = format!("flashmob image {} sequence {}", manifest.id(), manifest.sequence);
    let signature = sign(key, bytes, comment.unwrap_or(&standard))?;
    let path = folder.join(names::SIGNATURE);
    let fresh = folder.join(format!(".{}.new-{}", names::SIGNATURE, std::process::id()));
    write_new(&fresh, 0o644, signature.as_bytes())?;
    fs::rename(&fresh, &path).map_err(|e| file_failure("writing", &path, &e))?;
    sync_folder(folder)
}
