//! State that must survive a restart: terminals and attempts, in SQLite. This is the narrow interface to it,
//! with the queue and the thread: changes go in, the state of the start comes out, and nothing of the
//! database's library appears outside of this folder.
//!
//! `opening` checks and locks the database, `migrations` has its schema, `tables` the rows, `error`
//! says what to do when something goes wrong.
//!
//! ```text
//!  handlers ──Batch{changes, ack} (queue of 4096)──► one thread that owns the connection
//!           ◄──────────────── ack when it is on the disk ──┘  (all that waits is one transaction)
//! ```
//!
//! Invariant: a change is acknowledged only when its transaction is synced. Changes are put into the queue
//! while the lab is locked, so they are written in the order in which they happened. A full queue is an
//! error, never a wait.

mod error;
mod migrations;
mod opening;
mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::server::domain::lab::Change;
pub use error::StoreError;
pub use tables::Restored;

/// Batches that may wait.
const QUEUE: usize = 4096;
/// Batches that become one transaction.
const TOGETHER: usize = 512;
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
    /// Opens or creates the database in `folder`, checks it and reads it completely.
    pub fn open(folder: &Path) -> Result<(Store, Restored, std::thread::JoinHandle<()>), StoreError> {
        let connection = opening::open(folder)?;
        let path = folder.join(opening::FILE);
        let restored = tables::restore(&connection).map_err(|e| StoreError::of(&path, &e))?;
        let (queue, batches) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_batches(&connection, &path, &batches))
            .map_err(|e| StoreError::Folder { path: folder.into(), why: e.to_string() })?;
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

fn write_batches(connection: &Connection, path: &Path, batches: &Receiver<Batch>) {
    while let Ok(first) = batches.recv() {
        let mut together = vec![first];
        together.extend(batches.try_iter().take(TOGETHER - 1));
        let changes = together.iter().flat_map(|batch| &batch.changes);
        let result = tables::write_all(connection, changes).map_err(|e| StoreError::of(path, &e));
        if let Err(error) = &result {
            log::error!("{error}. {}", error.advice());
        }
        for batch in together {
            // Changes that may be lost have no receiver.
            let _ = batch.ack.send(result.clone());
        }
    }
}
