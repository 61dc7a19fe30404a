//! Shared by all storages: reads and writes within bounds, and errors with all of their facts.
//!
//! Invariant: a call outside of its storage is refused before the kernel sees it.

use crate::event::{Class, Failure};
use crate::storage::StorageError;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The least that the kernel reads from a medium after a hint that a range will be needed.
pub(super) const STRETCH: usize = 128 * 1024;

/// The treatment of an existing target file of another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// It is refused (an empty file is not: there is nothing to lose).
    Refuse,
    /// It gets the payload's size.
    Allow,
}

/// A storage that was opened for writing.
pub struct Opened<S> {
    /// The storage.
    pub storage: S,
    /// True if it can hold nothing of the payload, so that there is nothing to check.
    pub fresh: bool,
}

/// A [`StorageError`] with all of its facts.
pub(super) fn failed(
    action: &'static str,
    target: &Path,
    offset: u64,
    length: usize,
    source: io::Error,
) -> StorageError {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    StorageError { action, target: target.display().to_string(), offset, length, source }
}

/// Refuses a call that does not lie within `0..len`.
pub(super) fn within(
    len: u64,
    action: &'static str,
    target: &Path,
    offset: u64,
    length: usize,
) -> Result<(), StorageError> {
    let end = u64::try_from(length).ok().and_then(|length| offset.checked_add(length));
    if end.is_some_and(|end| end <= len) {
        return Ok(());
    }
    let error = io::Error::new(io::ErrorKind::InvalidInput, format!("that is not within its {len} bytes"));
    Err(failed(action, target, offset, length, error))
}

pub(super) fn read_all(file: &File, path: &Path, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
    file.read_exact_at(into, offset).map_err(|error| failed("reading", path, offset, into.len(), error))
}

/// Has the kernel bring a range of a file into its page cache.
pub(crate) fn prefetch_file(file: &File, path: &Path, offset: u64, length: u64) -> Result<(), StorageError> {
    let (Ok(start), Ok(count)) = (i64::try_from(offset), i64::try_from(length)) else { return Ok(()) };
    // Where the kernel takes no advice, the reads below bring at least a part.
    let _ = posix_fadvise(file, start, count, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    // One byte of each stretch is here when the stretch is.
    for at in (0..length).step_by(STRETCH).chain(length.checked_sub(1)) {
        read_all(file, path, offset + at, &mut [0])?;
    }
    Ok(())
}

pub(super) fn write_all(file: &File, path: &Path, offset: u64, from: &[u8]) -> Result<(), StorageError> {
    file.write_all_at(from, offset).map_err(|error| failed("writing", path, offset, from.len(), error))
}

/// The failure to open or create `path`, with a remedy.
pub(super) fn open_failure(doing: &str, path: &Path, error: &io::Error) -> Failure {
    let (class, advice) = match error.kind() {
        io::ErrorKind::NotFound => (Class::Usage, "Check the path."),
        io::ErrorKind::PermissionDenied => (Class::Usage, "Run it as root, or choose another path."),
        io::ErrorKind::IsADirectory => (Class::Usage, "Name the file, not its folder."),
        io::ErrorKind::NotADirectory => (Class::Usage, "A part of the path is a file, not a folder."),
        io::ErrorKind::ResourceBusy => {
            (Class::Refused, "It is mounted or held (LVM, RAID, swap, another program): release it first.")
        }
        io::ErrorKind::StorageFull => (Class::Disk, "Free some space or choose another disk."),
        io::ErrorKind::Unsupported => (Class::Refused, "Choose a disk with sectors of 512 to 4096 bytes."),
        io::ErrorKind::ReadOnlyFilesystem => (Class::Refused, "Choose a path that can be written."),
        io::ErrorKind::FileTooLarge => (Class::Refused, "The filesystem does not take files of this size."),
        _ => (Class::Disk, "Look at the kernel's messages (dmesg)."),
    };
    Failure::new(class, format!("{doing} {}: {error}", path.display()), advice)
}

/// Makes the names in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StorageError> {
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| failed("syncing", folder, 0, 0, error))
}

/// The folder a file lies in.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
