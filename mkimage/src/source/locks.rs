//! QEMU's locks on disk images, by which its programs keep each other from writing to an image in use.
//!
//! A program locks one byte for each use that it makes of a disk, and one for each use that it forbids to
//! others (QEMU, block/file-posix.c). Invariant: while a source is held, no QEMU that respects these locks
//! can start writing to it. On a filesystem without locks only `seen` remains.

use std::fs::File;
use std::path::Path;

use flashmob::event::Failure;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, flock};

/// Offset of the bytes for own uses, and for forbidden ones.
const DONE: i64 = 100;
const FORBIDDEN: i64 = 200;
/// QEMU's permissions: consistent read, write, resize.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// A lock of `len` bytes from `start`; to the end of all if `len` is 0.
fn range(kind: libc::c_int, start: i64, len: i64) -> flock {
    let short = |value: libc::c_int| libc::c_short::try_from(value).unwrap_or_default();
    flock { l_type: short(kind), l_whence: short(libc::SEEK_SET), l_start: start, l_len: len, l_pid: 0 }
}

/// Whether another process holds a conflicting lock.
fn is_taken(file: &File, kind: libc::c_int, start: i64, len: i64) -> nix::Result<bool> {
    let mut asked = range(kind, start, len);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    Ok(libc::c_int::from(asked.l_type) != libc::F_UNLCK)
}

/// Locks `file` as a reader that forbids writers, as long as it is open. Refused if a QEMU writes to it
/// already.
pub(super) fn hold(file: &File, path: &Path) -> Result<(), Failure> {
    let reading = [DONE + READ, FORBIDDEN + WRITE, FORBIDDEN + RESIZE];
    let held = reading
        .into_iter()
        .try_for_each(|byte| fcntl(file, FcntlArg::F_OFD_SETLK(&range(libc::F_RDLCK, byte, 1))).map(|_| ()));
    match held {
        Ok(()) => {}
        // Somebody has an exclusive lock there.
        Err(Errno::EAGAIN | Errno::EACCES) => return Err(written(path, "another program has it locked")),
        Err(e) => log::info!("{} cannot be locked: {e}", path.display()),
    }
    refuse_writers(file, path)
}

/// Refuses a file that QEMU has open for writing, or that any program has locked for itself.
pub(super) fn refuse_writers(file: &File, path: &Path) -> Result<(), Failure> {
    let asked = [WRITE, RESIZE].map(|bit| is_taken(file, libc::F_WRLCK, DONE + bit, 1));
    if asked.contains(&Ok(true)) {
        return Err(written(path, "QEMU has it open for writing, so a virtual machine runs on it"));
    }
    // Exclusive ones alone stand in the way of a shared one.
    if is_taken(file, libc::F_RDLCK, 0, 0) == Ok(true) {
        return Err(written(path, "another program has it locked"));
    }
    Ok(())
}

fn written(path: &Path, why: &str) -> Failure {
    Failure::refused(
        format!("{} may change while it is read: {why}", path.display()),
        "Shut the virtual machine down, or end the program (lslocks, lsof), and capture again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_cannot_be_written_to_by_qemu_and_can_be_held_twice() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let open = || File::open(file.path()).expect("opened");
        let (one, two, asks) = (open(), open(), open());
        hold(&one, file.path()).expect("held");
        hold(&two, file.path()).expect("held by two who read");
        for bit in [WRITE, RESIZE] {
            assert_eq!(is_taken(&asks, libc::F_WRLCK, FORBIDDEN + bit, 1), Ok(true));
        }
        drop((one, two));
        assert_eq!(is_taken(&asks, libc::F_WRLCK, 0, 0), Ok(false));
    }

    #[test]
    fn what_somebody_writes_to_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let said = |kind, byte| {
            let writer = file.reopen().expect("opened");
            fcntl(&writer, FcntlArg::F_OFD_SETLK(&range(kind, byte, 1))).expect("locked");
            let asks = File::open(file.path()).expect("opened");
            hold(&asks, file.path()).err().map(|failure| failure.message).unwrap_or_default()
        };
        assert!(said(libc::F_RDLCK, DONE + WRITE).contains("QEMU has it open for writing"));
        assert!(said(libc::F_RDLCK, DONE + RESIZE).contains("QEMU has it open for writing"));
        assert!(said(libc::F_WRLCK, 0).contains("another program has it locked"));
        assert!(said(libc::F_WRLCK, FORBIDDEN + WRITE).contains("another program has it locked"));
        assert_eq!(said(libc::F_RDLCK, DONE + READ), "");
    }
}
