//! State that must survive a restart: terminals and attempts, in SQLite. This is the narrow interface to it:
//! changes go in, the state of the start and copies come out, and nothing of the database's library appears
//! outside of this folder.
//!
//! `opening` checks and locks the database, `migrations` has its schema, `tables` and `people` the rows,
//! `writer` the thread, `pending` what it has not written yet, `health` what is wrong, `copy` the backups,
//! `error` says what to do when something goes wrong.
//!
//! ```text
//!  handlers ──Batch{changes, ack} (queue, see below)──► one thread that owns the connection
//!           ◄──────────────── ack when it is on the disk ──┘  (all that waits is one transaction)
//! ```
//!
//! Invariant: memory and database converge. Changes are put into the queue while the lab is locked, and are
//! written in the order in which they happened; one that cannot be written now is written later. A save is
//! acknowledged only when its changes and all before them are synced, also a save of nothing: whoever was
//! told of a failure may ask again. The queue never waits: beyond [`QUEUE`] requests the callers are told so
//! at once, and their changes are kept all the same; beyond [`health::MOST`] changes they are lost, which is
//! a problem that people see. A copy is made in steps, between which changes are written.

mod attempts;
mod captures;
mod copy;
mod error;
mod health;
mod jobs;
mod json;
mod logs;
mod migrations;
mod opening;
mod pending;
mod people;
mod tables;
#[cfg(test)]
mod tests;
mod times;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::server::domain::audit::Entry;
use crate::server::domain::lab::Change;
use crate::server::meters::DatabaseMeter;
pub(crate) use attempts::{Past, Which as WhichAttempts};
pub use copy::{Contents, copy_at_rest, examine};
pub use error::StoreError;
pub(crate) use health::Health;
pub use logs::Log;
use pending::Batch;
pub use tables::Restored;
use writer::{Request, Writer};

/// Requests that may wait and are answered when they are carried out.
const QUEUE: u64 = 4096;
/// The name, in the state's folder, of a copy while it is made.
const SPOOL: &str = "backup.partial";

type Query<T> = Box<dyn FnOnce(&Connection) -> rusqlite::Result<T> + Send>;

/// Handle to the database's thread. When all are dropped, the thread stores pending changes and ends.
#[derive(Clone)]
pub struct Store {
    /// Bounded by `meter` and `health`, because a bound of the channel would lose changes.
    queue: Sender<Request>,
    meter: Arc<DatabaseMeter>,
    health: Arc<Health>,
}

impl Store {
    /// Opens or creates the database in `folder`, checks it and reads it completely.
    pub fn open(folder: &Path) -> Result<(Store, Restored, std::thread::JoinHandle<()>), StoreError> {
        let connection = opening::open(folder)?;
        let cannot = |e: std::io::Error| StoreError::Folder { path: folder.into(), why: e.to_string() };
        // A server that was killed may have left it.
        copy::remove(&folder.join(SPOOL)).map_err(cannot)?;
        let path = folder.join(opening::FILE);
        let restored = tables::restore(&connection).map_err(|e| StoreError::of(&path, &e))?;
        let (queue, requests) = channel();
        let store = Store { queue, meter: Arc::default(), health: Arc::default() };
        let writer = Writer {
            connection,
            path,
            spool: folder.join(SPOOL),
            meter: Arc::clone(&store.meter),
            health: Arc::clone(&store.health),
        };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&requests))
            .map_err(cannot)?;
        Ok((store, restored, thread))
    }

    /// Puts changes into the queue; the future says when they and all before them are on the disk.
    pub(crate) fn save(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (ack, done) = oneshot::channel();
        let queued = self.queue_changes(changes, ack);
        async move {
            queued?;
            done.await.map_err(|_| StoreError::Behind)?
        }
    }

    fn queue_changes(&self, changes: Vec<Change>, ack: pending::Ack) -> Result<(), StoreError> {
        let count = changes.len();
        let behind = self.meter.queued() > QUEUE;
        let kept = if behind && pending::may_go(&changes) {
            self.meter.taken();
            return Err(StoreError::Behind);
        } else if self.health.reserve(count) {
            let batch = Batch { changes, ack: Some(ack) };
            self.queue.send(Request::Save(batch)).map_err(|unsent| {
                self.health.free(count);
                unsent.0
            })
        } else {
            Err(Request::Save(Batch { changes, ack: Some(ack) }))
        };
        if let Err(request) = kept {
            self.meter.taken();
            self.health.lose(count);
            if let Request::Save(batch) = request {
                let what = pending::title(&batch.changes);
                log::error!("{}; lost: {what}. {}", StoreError::Lost, StoreError::Lost.advice());
            }
            return Err(StoreError::Lost);
        }
        match behind {
            true => Err(StoreError::Behind),
            false => Ok(()),
        }
    }

    /// Makes a copy of the whole database, with at least all changes that were saved before.
    pub(crate) fn copy(&self) -> impl Future<Output = Result<File, StoreError>> + use<> {
        let (ack, done) = oneshot::channel();
        self.ask(Request::Copy(ack), done)
    }

    /// How many attempts the history has by their results: done, failed, cancelled, open.
    pub(crate) fn results(&self) -> impl Future<Output = Result<Vec<(String, u64)>, StoreError>> + use<> {
        self.read(Box::new(tables::results))
    }

    /// The log of an attempt, if there is one.
    pub(crate) fn log(&self, attempt: u64) -> impl Future<Output = Result<Option<Log>, StoreError>> + use<> {
        self.read(Box::new(move |connection| logs::read(connection, attempt)))
    }

    pub(crate) fn meter(&self) -> &DatabaseMeter {
        &self.meter
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Does something to the connection, to make it fail.
    #[cfg(test)]
    pub(crate) fn run(&self, run: impl FnOnce(&Connection) + Send + 'static) {
        self.meter.queued();
        self.queue.send(Request::Run(Box::new(run))).expect("the thread runs");
    }

    /// Reads the latest entries of the audit since a time, at most `most`.
    pub(crate) fn audit(
        &self,
        since: Duration,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + use<> {
        self.read(Box::new(move |connection| people::audit(connection, since, most)))
    }

    /// Asks the database after all changes that were saved before.
    fn read<T: Send + 'static>(
        &self,
        query: Query<T>,
    ) -> impl Future<Output = Result<T, StoreError>> + use<T> {
        let (ack, done) = oneshot::channel();
        let question = move |connection: &Connection, path: &Path| {
            // Without a receiver the caller has gone away.
            let _ = ack.send(query(connection).map_err(|e| StoreError::of(path, &e)));
        };
        self.ask(Request::Ask(Box::new(question)), done)
    }

    fn ask<T>(
        &self,
        request: Request,
        done: oneshot::Receiver<Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> + use<T> {
        let fits = self.meter.queued() <= QUEUE;
        let queued = fits && self.queue.send(request).is_ok();
        if !queued {
            self.meter.taken();
        }
        async move {
            if !queued {
                return Err(StoreError::Behind);
            }
            done.await.map_err(|_| StoreError::Behind)?
        }
    }
}
