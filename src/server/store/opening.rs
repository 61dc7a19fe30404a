//! Opening the database: who may have it, and whether it is sound.
//!
//! Invariant: nothing is written before the database proved to be whole and of a version that this program
//! knows.

use std::fs::OpenOptions;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use rusqlite::Connection;

use super::error::StoreError;
use super::migrations::{self, SCHEMA};

/// The database's name in its folder.
pub(super) const FILE: &str = "flashmob.sqlite";
/// How long another program may hold the database at the start: a copy, or a server that is stopping.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most findings of a damaged database that are shown.
const FINDINGS: usize = 3;

/// Opens the database in `folder` for this process alone, and brings it up to date. A folder or database
/// that is not there is made.
pub(super) fn open(folder: &Path) -> Result<Connection, StoreError> {
    let cannot = |e: std::io::Error| match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EROFS | Errno::EACCES) => {
            StoreError::ReadOnly { path: folder.into(), why: e.to_string() }
        }
        Some(Errno::ENOSPC | Errno::EDQUOT) => StoreError::Full { path: folder.into() },
        _ => StoreError::Folder { path: folder.into(), why: e.to_string() },
    };
    // The database holds the attempts' tokens, so no other user may read it, even in a folder that others may
    // enter. SQLite gives the files beside it the same mode.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
    let path = folder.join(FILE);
    check_writable(folder, &path)?;
    if !path.exists() {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(cannot)?;
    }
    let error = |e: rusqlite::Error| StoreError::of(&path, &e);
    let connection = Connection::open(&path).map_err(error)?;
    lock(&connection).map_err(error)?;
    let found = migrations::version(&connection).map_err(error)?;
    if found > SCHEMA {
        return Err(StoreError::Newer { path, found });
    }
    check_sound(&connection, &path)?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE; COMMIT;")
        .map_err(error)?;
    migrations::migrate(&connection, found).map_err(error)?;
    if (1..SCHEMA).contains(&found) {
        log::info!("the database {} was migrated from schema {found} to {SCHEMA}", path.display());
    }
    Ok(connection)
}

/// Takes the database for this connection alone: a second server is refused at its start and not when it
/// first writes.
pub(super) fn lock(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;")
}

/// SQLite would open a database that it cannot write, and fail at the first change.
pub(super) fn check_writable(folder: &Path, path: &Path) -> Result<(), StoreError> {
    for path in [folder, path].into_iter().filter(|path| path.exists()) {
        access(path, AccessFlags::W_OK)
            .map_err(|e| StoreError::ReadOnly { path: path.into(), why: e.desc().into() })?;
    }
    Ok(())
}

/// Checks the structure of the whole database.
pub(super) fn check_sound(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let findings = |connection: &Connection| -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(&format!("PRAGMA quick_check({FINDINGS})"))?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let findings = findings(connection).map_err(|e| StoreError::of(path, &e))?;
    match findings.iter().all(|finding| finding == "ok") {
        true => Ok(()),
        false => Err(StoreError::Damaged { path: path.into(), why: findings.join("; ").replace('\n', " ") }),
    }
}
