//! Copies of the database, also while it is written.
//!
//! Invariant: a copy is the state of one moment, and one file that a server can open. Writers wait for one
//! step of a copy at most, because SQLite carries changes of the same connection over to the pages that are
//! copied already.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::{migrations, opening};

/// Pages of one step: 1 MiB, a few milliseconds.
const STEP: i32 = 256;
/// Bytes that a copy leaves free beside the database, so that the server can go on writing.
const KEEP_FREE: u64 = 16 << 20;

/// What a copy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    pub schema: i64,
    pub terminals: u64,
}

/// Copies the database `source` to the file `to`, which is there and empty. `between` runs after each step;
/// when it fails, the copy is given up.
pub(super) fn copy(
    source: &Connection,
    to: &Path,
    mut between: impl FnMut() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let error = |e: rusqlite::Error| StoreError::of(to, &e);
    let mut target = Connection::open(to).map_err(error)?;
    // A copy that is cut short is thrown away, and the caller syncs a complete one.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;").map_err(error)?;
    let backup = Backup::new(source, &mut target).map_err(error)?;
    loop {
        match backup.step(STEP).map_err(error)? {
            StepResult::Done => break,
            StepResult::More => {}
            _ => return Err(StoreError::Locked { path: to.into() }),
        }
        between()?;
    }
    drop(backup);
    // The copied header says that a write-ahead log belongs to the file; a copy is one file.
    target.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE;").map_err(error)
}

/// Copies the database of a running server to `spool` in its own folder, and opens the copy; no name of it
/// stays.
pub(super) fn copy_to_spool(
    source: &Connection,
    spool: &Path,
    between: impl FnMut() -> Result<(), StoreError>,
) -> Result<File, StoreError> {
    let cannot = |e: std::io::Error| StoreError::Folder { path: spool.into(), why: e.to_string() };
    remove(spool).map_err(cannot)?;
    leave_space(source, spool)?;
    // It holds the attempts' tokens, so no other user may read it.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(spool).map_err(cannot)?;
    let made = copy(source, spool, between).and_then(|()| File::open(spool).map_err(cannot));
    remove(spool).map_err(cannot)?;
    made
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path).or_else(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(e),
    })
}

/// Refuses a copy that would take the space that the database itself needs.
fn leave_space(source: &Connection, spool: &Path) -> Result<(), StoreError> {
    let pragma = |name| source.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let size = pragma("page_count").and_then(|pages| Ok(pages.saturating_mul(pragma("page_size")?)));
    let size = size.map_err(|e| StoreError::of(spool, &e))?;
    let needed = u64::try_from(size).unwrap_or(0) + KEEP_FREE;
    let folder = spool.parent().unwrap_or(spool);
    let space =
        statvfs(folder).map_err(|e| StoreError::Folder { path: folder.into(), why: e.to_string() })?;
    let free = space.blocks_available() * space.fragment_size();
    match free < needed {
        true => Err(StoreError::NoSpace { path: folder.into(), needed, free }),
        false => Ok(()),
    }
}

/// Copies the database of `folder`, which no server has open, to the file `to`, which is there and empty.
pub fn copy_at_rest(folder: &Path, to: &Path) -> Result<(), StoreError> {
    let path = folder.join(opening::FILE);
    if !path.exists() {
        return Err(StoreError::Missing { path });
    }
    opening::check_writable(folder, &path)?;
    let source = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .and_then(|source| opening::lock(&source).map(|()| source))
        .map_err(|e| StoreError::of(&path, &e))?;
    copy(&source, to, || Ok(()))
}

/// Checks that a copy is sound, and tells what it has.
pub fn examine(path: &Path) -> Result<Contents, StoreError> {
    let error = |e: rusqlite::Error| StoreError::of(path, &e);
    let copy = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(error)?;
    opening::check_sound(&copy, path)?;
    let terminals: i64 =
        copy.query_row("SELECT count(*) FROM terminals", [], |row| row.get(0)).map_err(error)?;
    let schema = migrations::version(&copy).map_err(error)?;
    Ok(Contents { schema, terminals: u64::try_from(terminals).unwrap_or(0) })
}
