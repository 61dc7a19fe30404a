//! Minisign keys and signatures: as `minisign -V` and the terminals accept them.
//!
//! Invariant: a key never overwrites a file, and only its owner can read a secret key's file. A terminal's
//! initramfs holds the keys that it trusts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flashmob::event::{Class, Failure};
use flashmob::manifest::TrustedKeys;
use minisign::{SecretKey, SecretKeyBox};

/// A failure of something on a path, classed by the kind of error.
pub(crate) fn file_failure(action: &str, path: &Path, error: &io::Error) -> Failure {
    let (class, advice) = match error.kind() {
        io::ErrorKind::NotFound => (Class::Usage, "Check the path."),
        io::ErrorKind::PermissionDenied => (Class::Refused, "Run it as root, or check the permissions."),
        io::ErrorKind::AlreadyExists => (Class::Refused, "Nothing is overwritten: choose another name."),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (Class::Refused, "There is no room left there: make some, or choose another place.")
        }
        _ => (Class::Disk, "Check the disk; `dmesg` may say more."),
    };
    Failure::new(class, format!("{action} {}: {error}", path.display()), advice)
}

/// Reads a secret key; asks for its password if it has one.
pub(crate) fn read_secret(path: &Path) -> Result<SecretKey, Failure> {
    let text = fs::read_to_string(path).map_err(|e| file_failure("reading the secret key", path, &e))?;
    let wrong = |why: String| {
        Failure::usage(
            format!("{} is not a minisign secret key that can be used: {why}", path.display()),
            "Give the file that `flashmob-mkimage keygen --secret` or `minisign -G` wrote.",
        )
    };
    if let Ok(key) = SecretKeyBox::from(text.clone()).into_unencrypted_secret_key() {
        return Ok(key);
    }
    if !text.starts_with("untrusted comment:") || text.lines().count() < 2 {
        return Err(wrong("it does not have a comment and a key".into()));
    }
    let password = rpassword::prompt_password(format!("Password of {}: ", path.display())).map_err(|e| {
        Failure::usage(
            format!("{} has a password, which cannot be asked for here: {e}", path.display()),
            "Run it in a terminal, or use a key without a password.",
        )
    })?;
    SecretKeyBox::from(text).into_secret_key(Some(password)).map_err(|e| wrong(e.to_string()))
}

/// The text of a `.minisig` file for `bytes`.
pub(crate) fn sign(key: &SecretKey, bytes: &[u8], trusted_comment: &str) -> Result<String, Failure> {
    if trusted_comment.chars().any(char::is_control) {
        return Err(Failure::usage(
            "a trusted comment is one line of text",
            "Leave line breaks and control characters out of --trusted-comment.",
        ));
    }
    let signature =
        minisign::sign(None, key, bytes, Some(trusted_comment), Some("signature of a flashmob image"));
    signature
        .map(minisign::SignatureBox::into_string)
        .map_err(|e| Failure::usage(format!("signing: {e}"), "Check the secret key with `minisign -R`."))
}

/// Public keys from a file, one or more.
pub(crate) fn read_public(path: &Path) -> Result<TrustedKeys, Failure> {
    let text = fs::read_to_string(path).map_err(|e| file_failure("reading the public key", path, &e))?;
    match TrustedKeys::parse(&text) {
        Ok(keys) if !keys.is_empty() => Ok(keys),
        Ok(_) => Err("there is no key in it".to_string()),
        Err(e) => Err(e.to_string()),
    }
    .map_err(|why| {
        Failure::usage(
            format!("{}: {why}", path.display()),
            "Give the file that `flashmob-mkimage keygen --public` wrote.",
        )
    })
}

/// Creates a file that must not be there yet, and has it on the medium when it returns.
pub(crate) fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| file_failure("writing", path, &e))
}

/// Has a folder's entries on the medium.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Failure> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| file_failure("syncing", path, &e))
}

/// Refuses an image that has no hashes yet.
pub(crate) fn require_hashes(image: &flashmob::io::image::folder::ImageFolder) -> Result<(), Failure> {
    if image.manifest().payload.sha256.is_some() {
        return Ok(());
    }
    Err(Failure::refused(
        format!("{} was published without hashes", image.manifest().id()),
        "Add them first: flashmob-mkimage hash.",
    ))
}

/// Waits until a file is on the medium; only now does a full disk always say so.
pub(crate) fn sync_all(file: &File, path: &Path) -> Result<(), Failure> {
    file.sync_all().map_err(|e| file_failure("writing", path, &e))
}
