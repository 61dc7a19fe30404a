//! Shared by all forms of a payload: the errors of reading it.
//!
//! Invariant: every form refuses to be written to.

use crate::event::{Class, Failure};
use crate::storage::{Attributes, StorageError};
use std::io;
use std::path::Path;

pub(super) const READ_ONLY: Attributes = Attributes { alignment: 1, rotational: false, read_only: true };

/// The failure of an image folder that differs from its capture.
pub(crate) fn untrusted(message: String) -> Failure {
    Failure::untrusted(
        message,
        "The image is damaged or was altered: copy its folder again from where it was made, or capture anew.",
    )
}

/// An access to an image failed.
pub(crate) fn failed(action: &str, path: &Path, error: &io::Error, advice: &str) -> Failure {
    let class = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
            Class::Refused
        }
        _ => Class::Disk,
    };
    Failure::new(class, format!("{action} {}: {error}", path.display()), advice)
}

pub(super) fn never_written() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "an image is never written to")
}

pub(super) fn refused(offset: u64, from: &[u8]) -> StorageError {
    let (target, length) = ("the payload".into(), from.len() as u64);
    StorageError { action: "writing", target, offset, length, source: never_written() }
}
