//! State that must survive a restart: terminals and attempts, in SQLite. This is the queue and the thread;
//! `migrations` has the schema, `tables` the rows.
//!
//! ```text
//!  handlers ──Batch{changes, ack} (queue of 4096)──► one thread that owns the connection
//!           ◄──────────────── ack when it is on the disk ──┘  (all that waits is one transaction)
//! ```
//!
//! Invariant: a change is acknowledged only when its transaction is synced. Changes are put into the queue
//! while the lab is locked, so they are written in the order in which they happened. A full queue is an
//! error, never a wait.

mod migrations;
mod tables;
#[cfg(test)]
mod tests;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::server::domain::lab::Change;
use migrations::SCHEMA;
pub use tables::Restored;

/// Batches that may wait.
const QUEUE: usize = 4096;
/// Batches that become one transaction.
const TOGETHER: usize = 512;

/// Why something could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The folder or file cannot be made.
    #[error("state folder {path}: {why}")]
    Folder {
        path: PathBuf,
        /// The kernel's error.
        why: String,
    },
    /// The database was written by a newer program.
    #[error(
        "{path} has schema {found}, this program knows {SCHEMA}: use the newer flashmob, or another --state"
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("database {path}: {why}")]
    Database {
        path: PathBuf,
        /// SQLite's error.
        why: String,
    },
    /// The disk is too slow for the changes, or the thread is gone.
    #[error("the database does not keep up")]
    Behind,
}

type Ack = oneshot::Sender<Result<(), StoreError>>;

struct Batch {
    changes: Vec<Change>,
    ack: Ack,
}

/// Handle to the database's thread. When all are dropped, the thread stores pending changes and ends.
#[derive(Clone)]
pub struct Store {
    queue: SyncSender<Batch>,
}

impl Store {
    /// Opens or creates the database in `folder` and reads it completely.
    pub fn open(folder: &Path) -> Result<(Store, Restored, std::thread::JoinHandle<()>), StoreError> {
        let cannot = |e: std::io::Error| StoreError::Folder { path: folder.into(), why: e.to_string() };
        // It holds the attempts' tokens, so no other user may read it.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let path = folder.join("flashmob.sqlite");
        let error = |e: rusqlite::Error| StoreError::Database { path: path.clone(), why: e.to_string() };
        let connection = Connection::open(&path).map_err(error)?;
        let found = migrations::version(&connection).map_err(error)?;
        if found > SCHEMA {
            return Err(StoreError::Newer { path, found });
        }
        lock(&connection).map_err(error)?;
        migrations::migrate(&connection, found).map_err(error)?;
        let restored = tables::restore(&connection).map_err(error)?;
        let (queue, batches) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_batches(connection, &path, &batches))
            .map_err(cannot)?;
        Ok((Store { queue }, restored, thread))
    }

    /// Puts changes into the queue; the future says when they are on the disk.
    pub(crate) fn save(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (ack, done) = oneshot::channel();
        let queued = self.queue.try_send(Batch { changes, ack });
        async move {
            queued.map_err(|_| StoreError::Behind)?;
            done.await.map_err(|_| StoreError::Behind)?
        }
    }
}

/// One server for each database: a second one is refused here and not when it first writes.
fn lock(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN \
         IMMEDIATE; COMMIT;",
    )
}

fn write_batches(connection: Connection, path: &Path, batches: &Receiver<Batch>) {
    while let Ok(first) = batches.recv() {
        let mut together = vec![first];
        together.extend(batches.try_iter().take(TOGETHER - 1));
        let changes = together.iter().flat_map(|batch| &batch.changes);
        let result = tables::write_all(&connection, changes)
            .map_err(|e| StoreError::Database { path: path.into(), why: e.to_string() });
        if let Err(error) = &result {
            log::error!("{error}");
        }
        for batch in together {
            // Changes that may be lost have no receiver.
            let _ = batch.ack.send(result.clone());
        }
    }
}
