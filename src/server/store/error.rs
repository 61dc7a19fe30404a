//! Why the state cannot be kept, read or copied, and what to do about it.
//!
//! Invariant: every error has advice that keeps what there is: none says to delete the state.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::migrations::SCHEMA;
use crate::units::show_bytes;

/// Why state could not be kept, read or copied.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The folder or file cannot be made.
    #[error("state folder {path}: {why}")]
    Folder {
        path: PathBuf,
        /// The kernel's error.
        why: String,
    },
    /// There is no database to be copied.
    #[error("{path} is not there")]
    Missing { path: PathBuf },
    /// Folder or database cannot be written.
    #[error("{path} cannot be written: {why}")]
    ReadOnly {
        path: PathBuf,
        /// The kernel's error.
        why: String,
    },
    #[error("the database {path} is locked by another program, probably by a server")]
    Locked { path: PathBuf },
    /// The database was written by a newer program.
    #[error("{path} has schema {found}, and this program knows only {SCHEMA}")]
    Newer { path: PathBuf, found: i64 },
    #[error("the database {path} is damaged: {why}")]
    Damaged {
        path: PathBuf,
        /// The finding of SQLite's check.
        why: String,
    },
    #[error("the filesystem of {path} is full")]
    Full { path: PathBuf },
    /// Any other error of SQLite.
    #[error("database {path}: {why}")]
    Database { path: PathBuf, why: String },
    /// A change contradicts what the database has.
    #[error("the database {path} refused a change: {why}")]
    Refused {
        path: PathBuf,
        /// SQLite's reason.
        why: String,
    },
    /// The disk is too slow for the changes, or the thread is gone.
    #[error("the database does not keep up")]
    Behind,
    /// Too many changes wait for the disk already.
    #[error("the database does not keep up, and the memory for changes that wait is full")]
    Lost,
    /// A copy was given up, because changes could not be written meanwhile.
    #[error("the database cannot be written now, so no copy is made")]
    Unwritten,
    /// Copying must not fill the filesystem of the state.
    #[error(
        "a copy needs {} beside {path}, where {} are free",
        show_bytes(*needed),
        show_bytes(*free)
    )]
    NoSpace { path: PathBuf, needed: u64, free: u64 },
    #[error("another backup is under way")]
    UnderWay,
    /// A copy was given up, because the server stops.
    #[error("the server stops")]
    Stopping,
}

impl StoreError {
    /// The error of a database at `path`.
    pub(super) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let (path, why) = (path.to_path_buf(), error.to_string());
        match error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Damaged { path, why },
                ErrorCode::DiskFull => StoreError::Full { path },
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Locked { path },
                ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StoreError::ReadOnly { path, why },
                _ => StoreError::Database { path, why },
            },
            // A row's text is not what this program writes.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => StoreError::Damaged { path, why },
            _ => StoreError::Database { path, why },
        }
    }

    /// What an administrator can do about it.
    pub fn advice(&self) -> String {
        match self {
            StoreError::Folder { .. } => {
                "Name a folder for the server's state with --state, one for each server.".into()
            }
            StoreError::Missing { .. } => "Name the folder of the server's state with --state.".into(),
            StoreError::ReadOnly { path, .. } => format!(
                "Let the server's user write {} and its folder, and check that its filesystem is mounted \
                 read-only (after errors of the disk the kernel mounts it so); or choose another --state.",
                path.display()
            ),
            StoreError::Locked { .. } => {
                "A state folder belongs to one server: stop the other one, or name another folder with \
                 --state. 'flashmob backup FILE --server URL' asks a running server."
                    .into()
            }
            StoreError::Newer { .. } => {
                "Use the newer flashmob, or another --state; nothing was changed.".into()
            }
            StoreError::Damaged { path, .. } => {
                let folder = path.parent().unwrap_or(path).display();
                format!(
                    "Look at the disk; then move {folder} away, make it anew, and put the last backup into \
                     it as flashmob.sqlite (docs/backup.md). Without a backup start with an empty folder: \
                     terminals register again, and what was imaged is forgotten."
                )
            }
            StoreError::Full { path } => format!(
                "Make room on the filesystem of {}. A server that runs keeps in its memory what is not \
                 written yet, and writes it then.",
                path.display()
            ),
            StoreError::Database { path, .. } => {
                format!("Look at the disk of {} and at the kernel's log.", path.display())
            }
            StoreError::Refused { .. } => {
                "Restart the server, so that it goes on with what the database has; the log says what it \
                 lacks. This is a fault of flashmob: report it with the log."
                    .into()
            }
            StoreError::Lost => {
                "Look at the server's disk; when the database can be written again, restart the server, so \
                 that it goes on with what the database has."
                    .into()
            }
            StoreError::Unwritten => "Look at the server's disk and log, and run the backup again.".into(),
            StoreError::Behind => "Look at the server's disk and log.".into(),
            StoreError::NoSpace { .. } => "Make room there.".into(),
            StoreError::UnderWay => "Wait until it is done.".into(),
            StoreError::Stopping => "Run the backup again.".into(),
        }
    }
}
