//! State that must survive a restart: terminals and attempts, in SQLite. This is the narrow interface to it,
//! with the queue and the thread: changes go in, the state of the start and copies come out, and nothing of
//! the database's library appears outside of this folder.
//!
//! `opening` checks and locks the database, `migrations` has its schema, `tables` and `people` the rows,
//! `copy` the backups, `error` says what to do when something goes wrong.
//!
//! ```text
//!  handlers ──Batch{changes, ack} (queue of 4096)──► one thread that owns the connection
//!           ◄──────────────── ack when it is on the disk ──┘  (all that waits is one transaction)
//! ```
//!
//! Invariant: a change is acknowledged only when its transaction is synced. Changes are put into the queue
//! while the lab is locked, so they are written in the order in which they happened. A full queue is an
//! error, never a wait. A copy is made in steps, between which changes are written.

mod copy;
mod error;
mod jobs;
mod json;
mod logs;
mod migrations;
mod opening;
mod people;
mod tables;
#[cfg(test)]
mod tests;
mod times;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::server::domain::audit::Entry;
use crate::server::domain::lab::Change;
use crate::server::meters::DatabaseMeter;
pub use copy::{Contents, copy_at_rest, examine};
pub use error::StoreError;
pub use logs::Log;
pub use tables::Restored;

/// Requests that may wait.
const QUEUE: usize = 4096;
/// Batches that become one transaction.
const TOGETHER: usize = 512;
/// The name, in the state's folder, of a copy while it is made.
const SPOOL: &str = "backup.partial";

type Ack = oneshot::Sender<Result<(), StoreError>>;
type CopyAck = oneshot::Sender<Result<File, StoreError>>;
type Query<T> = Box<dyn FnOnce(&Connection) -> rusqlite::Result<T> + Send>;
/// Asks the database, and hands on what it says.
type Question = Box<dyn FnOnce(&Connection, &Path) + Send>;

struct Batch {
    changes: Vec<Change>,
    ack: Ack,
}

enum Request {
    Save(Batch),
    Copy(CopyAck),
    Ask(Question),
}

/// Handle to the database's thread. When all are dropped, the thread stores pending changes and ends.
#[derive(Clone)]
pub struct Store {
    queue: SyncSender<Request>,
    meter: Arc<DatabaseMeter>,
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
        let (queue, requests) = sync_channel(QUEUE);
        let meter = Arc::new(DatabaseMeter::default());
        let writer = Writer { connection, path, spool: folder.join(SPOOL), meter: Arc::clone(&meter) };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&requests))
            .map_err(cannot)?;
        Ok((Store { queue, meter }, restored, thread))
    }

    /// Puts changes into the queue; the future says when they are on the disk.
    pub(crate) fn save(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (ack, done) = oneshot::channel();
        self.ask(Request::Save(Batch { changes, ack }), done)
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
        self.meter.queued();
        let queued = self.queue.try_send(request).inspect_err(|_| self.meter.taken());
        async move {
            queued.map_err(|_| StoreError::Behind)?;
            done.await.map_err(|_| StoreError::Behind)?
        }
    }
}

/// The thread's own side: the connection.
struct Writer {
    connection: Connection,
    path: PathBuf,
    spool: PathBuf,
    meter: Arc<DatabaseMeter>,
}

impl Writer {
    fn run(self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            if let Some(ack) = self.write(first, requests) {
                let made = self.copy(requests);
                if let Err(error) = &made {
                    log::warn!("backup: {error}");
                }
                // Without a receiver the caller has gone away, and the copy goes with it.
                let _ = ack.send(made);
            }
        }
    }

    /// Writes the changes that wait, as one transaction. Returns the first request for a copy among them.
    fn write(&self, first: Request, requests: &Receiver<Request>) -> Option<CopyAck> {
        let (mut together, mut wanted, mut asked) = (Vec::new(), None, Vec::new());
        for request in std::iter::once(first).chain(requests.try_iter()).take(TOGETHER) {
            self.meter.taken();
            match request {
                Request::Save(batch) => together.push(batch),
                Request::Copy(ack) if wanted.is_none() => wanted = Some(ack),
                Request::Copy(ack) => refuse(ack),
                Request::Ask(question) => asked.push(question),
            }
        }
        self.save(together);
        for question in asked {
            question(&self.connection, &self.path);
        }
        wanted
    }

    fn save(&self, together: Vec<Batch>) {
        if together.is_empty() {
            return;
        }
        let changes = together.iter().flat_map(|batch| &batch.changes);
        let begin = Instant::now();
        let result = tables::write_all(&self.connection, changes).map_err(|e| StoreError::of(&self.path, &e));
        self.meter.wrote(begin.elapsed(), result.is_ok());
        if let Err(error) = &result {
            log::error!("{error}. {}", error.advice());
        }
        for batch in together {
            // Changes that may be lost have no receiver.
            let _ = batch.ack.send(result.clone());
        }
    }

    /// Makes a copy, and writes the changes that come meanwhile. It ends early when the server stops.
    fn copy(&self, requests: &Receiver<Request>) -> Result<File, StoreError> {
        copy::copy_to_spool(&self.connection, &self.spool, || match requests.try_recv() {
            Ok(next) => {
                if let Some(other) = self.write(next, requests) {
                    refuse(other);
                }
                true
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => false,
        })
    }
}

fn refuse(ack: CopyAck) {
    let _ = ack.send(Err(StoreError::UnderWay));
}
