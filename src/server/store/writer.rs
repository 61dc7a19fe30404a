//! The thread that owns the connection.
//!
//! Invariant: a transaction that fails because of the world (a full disk, an I/O error, a lock) loses
//! nothing: its changes stay in memory, and are written in their order before everything newer, with the next
//! request or after [`AGAIN`]. A batch that the tables refuse takes no other batch with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::StoreError;
use super::health::Health;
use super::pending::{Batch, Pending, title};
use super::{copy, tables};
use crate::server::meters::DatabaseMeter;

/// Batches that become one transaction.
pub(super) const TOGETHER: usize = 512;
/// When changes wait after a failure and nothing comes, they are tried again after this time.
const AGAIN: Duration = Duration::from_secs(2);

type CopyAck = oneshot::Sender<Result<File, StoreError>>;
/// Asks the database, and hands on what it says.
pub(super) type Question = Box<dyn FnOnce(&Connection, &Path) + Send>;

pub(super) enum Request {
    Save(Batch),
    Copy(CopyAck),
    Ask(Question),
    /// Does something to the connection, to make it fail.
    #[cfg(test)]
    Run(Box<dyn FnOnce(&Connection) + Send>),
}

pub(super) struct Writer {
    pub connection: Connection,
    pub path: PathBuf,
    pub spool: PathBuf,
    pub meter: Arc<DatabaseMeter>,
    pub health: Arc<Health>,
}

impl Writer {
    /// Serves requests until all handles are dropped, and then stores what is left.
    pub(super) fn run(self, requests: &Receiver<Request>) {
        let mut pending = Pending::default();
        loop {
            let first = match pending.is_empty() {
                true => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => requests.recv_timeout(AGAIN),
            };
            match first {
                Ok(first) => self.serve(first, requests, &mut pending),
                Err(RecvTimeoutError::Timeout) => self.flush(&mut pending),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush(&mut pending);
        if !pending.is_empty() {
            log::error!("{} changes are lost, because the server stops", pending.changes());
        }
    }

    fn serve(&self, first: Request, requests: &Receiver<Request>, pending: &mut Pending) {
        if let Some(ack) = self.write(first, requests, pending) {
            let made = self.copy(requests, pending);
            if let Err(error) = &made {
                log::warn!("backup: {error}");
            }
            // Without a receiver the caller has gone away, and the copy goes with it.
            let _ = ack.send(made);
        }
    }

    /// Writes the changes that wait, and answers questions. Returns the first request for a copy.
    fn write(&self, first: Request, requests: &Receiver<Request>, pending: &mut Pending) -> Option<CopyAck> {
        let (mut wanted, mut asked) = (None, Vec::new());
        for request in std::iter::once(first).chain(requests.try_iter()).take(TOGETHER) {
            self.meter.taken();
            match request {
                Request::Save(batch) => self.health.free(pending.push(batch)),
                Request::Copy(ack) if wanted.is_none() => wanted = Some(ack),
                Request::Copy(ack) => refuse(ack),
                Request::Ask(question) => asked.push(question),
                #[cfg(test)]
                Request::Run(run) => run(&self.connection),
            }
        }
        self.flush(pending);
        for question in asked {
            question(&self.connection, &self.path);
        }
        wanted
    }

    /// Writes all that waits, the oldest first, until the end or a failure.
    fn flush(&self, pending: &mut Pending) {
        while !pending.is_empty() {
            let begin = Instant::now();
            let batches = pending.oldest(TOGETHER).map(|batch| &batch.changes[..]);
            let written = tables::write_all(&self.connection, batches);
            self.meter.wrote(begin.elapsed(), written.is_ok());
            match written {
                Ok(results) => {
                    // Before the callers are answered, so that they find no problem left.
                    if results.len() == pending.len() && self.health.well() {
                        log::info!("the database {} can be written again", self.path.display());
                    }
                    results.iter().for_each(|result| self.done(pending, result.as_ref().err()));
                }
                Err(error) => return self.failed(pending, &StoreError::of(&self.path, &error)),
            }
        }
    }

    /// The oldest batch is written, or refused by the tables.
    fn done(&self, pending: &mut Pending, refused: Option<&rusqlite::Error>) {
        let Some(mut batch) = pending.pop() else { return };
        self.health.free(batch.changes.len());
        let result = match refused {
            None => Ok(()),
            Some(why) => {
                let error = StoreError::Refused { path: self.path.clone(), why: why.to_string() };
                log::error!("{error}; not stored: {}. {}", title(&batch.changes), error.advice());
                self.health.lose(batch.changes.len());
                Err(error)
            }
        };
        batch.answer(result);
    }

    fn failed(&self, pending: &mut Pending, error: &StoreError) {
        if self.health.failed(error) {
            log::error!("{error}. {}", error.advice());
        }
        self.health.free(pending.fail(error));
    }

    /// Makes a copy, and writes the changes that come meanwhile. It ends early when the server stops, and
    /// when the database cannot be written, because a transaction that fails makes SQLite copy from the
    /// beginning.
    fn copy(&self, requests: &Receiver<Request>, pending: &mut Pending) -> Result<File, StoreError> {
        copy::copy_to_spool(&self.connection, &self.spool, || match requests.try_recv() {
            Ok(next) => {
                if let Some(other) = self.write(next, requests, pending) {
                    refuse(other);
                }
                match pending.is_empty() {
                    true => Ok(()),
                    false => Err(StoreError::Unwritten),
                }
            }
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => Err(StoreError::Stopping),
        })
    }
}

fn refuse(ack: CopyAck) {
    let _ = ack.send(Err(StoreError::UnderWay));
}
