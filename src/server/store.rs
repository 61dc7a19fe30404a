//! What must survive a restart: terminals and attempts, in SQLite.
//!
//! ```text
//!  handlers ──Batch{changes, ack} (queue of 4096)──► one thread that owns the connection
//!           ◄──────────────── ack when it is on the disk ──┘  (all that waits is one transaction)
//! ```
//!
//! Invariant: a change is acknowledged only when its transaction is synced. Changes are put into the queue while the
//! lab is locked, so they are written in the order in which they happened. A full queue is an error, not a wait.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::{Connection, Row, Transaction, params};
use tokio::sync::oneshot;

use super::identity::Identity;
use super::jobs::Attempt;
use super::lab::{Change, Terminal};

/// The schema this program writes.
const SCHEMA: i64 = 3;
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
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        why: String,
    },
    /// The database was written by a newer program.
    #[error(
        "{path} has schema {found}, this program knows {SCHEMA}: use the newer flashmob, or another --state"
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// SQLite said no.
    #[error("database {path}: {why}")]
    Database {
        /// Which.
        path: PathBuf,
        /// What SQLite said.
        why: String,
    },
    /// The disk is too slow for what happens, or the thread is gone.
    #[error("the database does not keep up")]
    Behind,
}

type Ack = oneshot::Sender<Result<(), StoreError>>;

struct Batch {
    changes: Vec<Change>,
    ack: Ack,
}

/// Handle to the database's thread. When all are gone the thread writes what waits and ends.
#[derive(Clone)]
pub struct Store {
    queue: SyncSender<Batch>,
}

/// What was written down.
#[derive(Debug)]
pub struct Restored {
    /// All terminals with their latest attempt.
    pub terminals: Vec<Terminal>,
    /// The highest attempt number ever given.
    pub last_number: u64,
}

impl Store {
    /// Opens or makes the database in `folder` and reads all of it.
    pub fn open(folder: &Path) -> Result<(Store, Restored, std::thread::JoinHandle<()>), StoreError> {
        let cannot = |e: std::io::Error| StoreError::Folder { path: folder.into(), why: e.to_string() };
        // The attempts' tokens are in there: nobody else on the server needs to read them.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let path = folder.join("flashmob.sqlite");
        let error = |e: rusqlite::Error| StoreError::Database { path: path.clone(), why: e.to_string() };
        let connection = Connection::open(&path).map_err(error)?;
        let found: i64 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(error)?;
        if found > SCHEMA {
            return Err(StoreError::Newer { path, found });
        }
        prepare(&connection, found).map_err(error)?;
        let restored = restore(&connection).map_err(error)?;
        let (queue, batches) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_batches(connection, &path, &batches))
            .map_err(cannot)?;
        Ok((Store { queue }, restored, thread))
    }

    /// Puts changes into the queue; the future says when they are on the disk.
    pub fn save(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (ack, done) = oneshot::channel();
        let queued = self.queue.try_send(Batch { changes, ack });
        async move {
            queued.map_err(|_| StoreError::Behind)?;
            done.await.map_err(|_| StoreError::Behind)?
        }
    }
}

fn prepare(connection: &Connection, found: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    // One server for each database: a second one is refused here and not when it first writes.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE; COMMIT;",
    )?;
    if found == 0 {
        connection.execute_batch(
            "BEGIN;
             CREATE TABLE terminals (
                 id TEXT PRIMARY KEY, macs TEXT NOT NULL, uuid TEXT, inventory TEXT NOT NULL,
                 agent TEXT NOT NULL, address TEXT, heard INTEGER NOT NULL) STRICT;
             CREATE TABLE attempts (
                 number INTEGER PRIMARY KEY, terminal TEXT NOT NULL REFERENCES terminals (id), token TEXT NOT NULL,
                 job TEXT NOT NULL, image TEXT NOT NULL, version TEXT NOT NULL, started INTEGER NOT NULL,
                 heard INTEGER NOT NULL, progress TEXT, ended INTEGER, outcome TEXT, tries INTEGER NOT NULL,
                 dirty INTEGER NOT NULL, retried INTEGER NOT NULL, cancelled INTEGER NOT NULL) STRICT;
             CREATE INDEX attempts_of_terminal ON attempts (terminal, number);
             PRAGMA user_version = 1;
             COMMIT;",
        )?;
    }
    if found <= 1 {
        connection.execute_batch(
            "BEGIN;
             ALTER TABLE attempts ADD COLUMN retried_as TEXT;
             ALTER TABLE attempts ADD COLUMN installed TEXT;
             PRAGMA user_version = 2;
             COMMIT;",
        )?;
    }
    if found <= 2 {
        connection.execute_batch(
            "BEGIN; ALTER TABLE attempts ADD COLUMN also TEXT; PRAGMA user_version = 3; COMMIT;",
        )?;
    }
    Ok(())
}

fn write_batches(mut connection: Connection, path: &Path, batches: &Receiver<Batch>) {
    while let Ok(first) = batches.recv() {
        let mut together = vec![first];
        together.extend(batches.try_iter().take(TOGETHER - 1));
        let changes = together.iter().flat_map(|batch| &batch.changes);
        let result = write_all(&mut connection, changes)
            .map_err(|e| StoreError::Database { path: path.into(), why: e.to_string() });
        if let Err(error) = &result {
            log::error!("{error}");
        }
        for batch in together {
            // Nobody waits for changes that can be lost.
            let _ = batch.ack.send(result.clone());
        }
    }
}

fn write_all<'a>(
    connection: &mut Connection,
    changes: impl Iterator<Item = &'a Change>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for change in changes {
        match change {
            Change::Terminal(terminal) => write_terminal(&transaction, terminal)?,
            Change::Attempt(terminal, attempt) => write_attempt(&transaction, terminal, attempt)?,
        }
    }
    transaction.commit()
}

fn write_terminal(transaction: &Transaction<'_>, terminal: &Terminal) -> rusqlite::Result<()> {
    let macs: Vec<String> = terminal.identity.macs.iter().map(ToString::to_string).collect();
    transaction
        .prepare_cached(
            "INSERT INTO terminals (id, macs, uuid, inventory, agent, address, heard) VALUES (?1,?2,?3,?4,?5,?6,?7)
             ON CONFLICT (id) DO UPDATE SET macs=?2, uuid=?3, inventory=?4, agent=?5, address=?6, heard=?7",
        )?
        .execute(params![
            terminal.id,
            macs.join(" "),
            terminal.identity.uuid.map(|uuid| uuid.to_string()),
            json(&terminal.inventory)?,
            terminal.agent,
            terminal.address,
            millis(terminal.heard),
        ])?;
    Ok(())
}

fn write_attempt(transaction: &Transaction<'_>, terminal: &str, a: &Attempt) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO attempts (number, terminal, token, job, image, version, started, heard, progress, ended,
                 outcome, tries, dirty, retried, cancelled, retried_as, installed, also)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18)
             ON CONFLICT (number) DO UPDATE SET heard=?8, progress=?9, ended=?10, outcome=?11, tries=?12, dirty=?13,
                 retried=?14, cancelled=?15, retried_as=?16, installed=?17",
        )?
        .execute(params![
            i64::try_from(a.number).unwrap_or(i64::MAX),
            terminal,
            a.token,
            a.job,
            a.image,
            a.version,
            millis(a.started),
            millis(a.heard),
            a.progress.as_ref().map(json).transpose()?,
            a.ended.map(millis),
            a.outcome.as_ref().map(json).transpose()?,
            a.tries,
            a.dirty,
            a.retried,
            a.cancelled,
            a.retried_as.as_ref().map(json).transpose()?,
            json(&a.installed)?,
            json(&a.also)?,
        ])?;
    Ok(())
}

fn restore(connection: &Connection) -> rusqlite::Result<Restored> {
    let mut statement = connection.prepare(
        "SELECT t.id, t.macs, t.uuid, t.inventory, t.agent, t.address, t.heard,
                a.number, a.token, a.job, a.image, a.version, a.started, a.heard, a.progress, a.ended, a.outcome,
                a.tries, a.dirty, a.retried, a.cancelled, a.retried_as, a.installed, a.also
         FROM terminals t
         LEFT JOIN attempts a ON a.number = (SELECT max(number) FROM attempts WHERE terminal = t.id)
         ORDER BY t.id",
    )?;
    let terminals = statement.query_map([], read_terminal)?.collect::<Result<_, _>>()?;
    let last: Option<i64> = connection.query_row("SELECT max(number) FROM attempts", [], |row| row.get(0))?;
    Ok(Restored { terminals, last_number: last.and_then(|n| u64::try_from(n).ok()).unwrap_or(0) })
}

fn read_terminal(row: &Row<'_>) -> rusqlite::Result<Terminal> {
    let macs: String = row.get(1)?;
    let uuid: Option<String> = row.get(2)?;
    let last = match row.get::<_, Option<i64>>(7)? {
        Some(number) => Some(read_attempt(row, number)?),
        None => None,
    };
    let heard = last.as_ref().map(|a| a.heard).unwrap_or_default().max(time(row.get(6)?));
    Ok(Terminal {
        id: row.get(0)?,
        identity: Identity::new(&macs.split(' ').collect::<Vec<_>>(), uuid.as_deref()),
        inventory: unjson(row, 3)?.unwrap_or_default(),
        agent: row.get(4)?,
        address: row.get(5)?,
        heard,
        last,
    })
}

fn read_attempt(row: &Row<'_>, number: i64) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        number: u64::try_from(number).unwrap_or(0),
        token: row.get(8)?,
        job: row.get(9)?,
        image: row.get(10)?,
        version: row.get(11)?,
        started: time(row.get(12)?),
        heard: time(row.get(13)?),
        progress: unjson(row, 14)?,
        ended: row.get::<_, Option<i64>>(15)?.map(time),
        outcome: unjson(row, 16)?,
        tries: row.get(17)?,
        dirty: row.get(18)?,
        retried: row.get(19)?,
        cancelled: row.get(20)?,
        retried_as: unjson(row, 21)?,
        installed: unjson(row, 22)?.unwrap_or_default(),
        also: unjson(row, 23)?.unwrap_or_default(),
    })
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn unjson<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    let wrong =
        |e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e));
    text.map(|text| serde_json::from_str(&text).map_err(wrong)).transpose()
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::config::Job;
    use super::super::jobs::Target;
    use super::super::jobs::tests::{done, failed};
    use super::super::lab::Lab;
    use super::super::lab::tests::hello_of;
    use super::super::zones::Ties;
    use super::*;
    use crate::event::{Class, Progress, Stage};

    const MACS: [&str; 3] = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"];

    #[test]
    fn a_new_state_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (store, _, thread) = Store::open(&state).unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        drop(store);
        thread.join().unwrap();
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn target() -> Target {
        let job = Job { name: "lab".into(), ..Job::by_hand("debian".parse().expect("valid")) };
        Target {
            job,
            image: "debian".into(),
            version: "1".into(),
            also: vec!["data@2".parse().expect("valid")],
        }
    }

    #[tokio::test]
    async fn all_of_the_lab_comes_back() {
        let folder = tempfile::tempdir().expect("temp");
        let mut lab = Lab::default();
        let mut changes = Vec::new();
        {
            let (store, restored, thread) = Store::open(folder.path()).expect("new");
            assert!(restored.terminals.is_empty() && restored.last_number == 0);
            for mac in MACS {
                changes.push(lab.hello(at(10), "10.0.0.1".into(), hello_of(mac)).expect("room").1);
            }
            for mac in [MACS[0], MACS[1], MACS[0]] {
                changes.extend(lab.take(at(20), mac, &target(), format!("token-{mac}")).expect("known").1);
            }
            let token = format!("token-{}", MACS[0]);
            changes.extend(
                lab.progress(at(30), 3, &token, Progress::at(Stage::Disarm), &Ties::default())
                    .expect("taken")
                    .1,
            );
            changes.extend(
                lab.outcome(at(40), 3, &token, failed(Class::Disk, true), &Ties::default()).expect("taken").1,
            );
            let token = format!("token-{}", MACS[1]);
            changes.extend(lab.outcome(at(50), 2, &token, done(), &Ties::default()).expect("taken").1);
            store.save(changes).await.expect("written");
            drop(store);
            thread.join().expect("ends");
        }
        let (_, restored, _) = Store::open(folder.path()).expect("again");
        assert_eq!(restored.last_number, 3);
        let before: Vec<&Terminal> = lab.iter().collect();
        assert_eq!(restored.terminals.iter().collect::<Vec<_>>(), before);
    }

    #[tokio::test]
    async fn a_database_of_the_first_schema_is_read_and_written() {
        let folder = tempfile::tempdir().expect("temp");
        let path = folder.path().join("flashmob.sqlite");
        let (store, _, thread) = Store::open(folder.path()).expect("new");
        drop(store);
        thread.join().expect("ends");
        let connection = Connection::open(&path).expect("it is there");
        let old = "ALTER TABLE attempts DROP COLUMN retried_as; ALTER TABLE attempts DROP COLUMN installed; ALTER TABLE attempts DROP COLUMN also;
             INSERT INTO terminals VALUES ('t', '52:54:00:00:00:01', NULL,
                 '{\"machine\":\"\",\"serial\":null,\"cpu\":\"\",\"memory\":0,\"firmware\":\"\",\"disks\":[],\"nics\":[]}', '1', NULL, 0);
             INSERT INTO attempts VALUES (1, 't', 'token', 'j', 'i', '1', 0, 0, NULL, NULL, NULL, 1, 0, 0, 0);
             PRAGMA user_version = 1;";
        connection.execute_batch(old).expect("as the first schema was");
        drop(connection);
        let (store, restored, _) = Store::open(folder.path()).expect("understood");
        let terminal = restored.terminals.first().expect("one");
        let attempt = terminal.last.clone().expect("its attempt");
        assert_eq!((attempt.image.as_str(), attempt.installed.len()), ("i", 0));
        let change = Change::Attempt("t".into(), Box::new(attempt));
        store.save(vec![change]).await.expect("written");
    }

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_left_alone() {
        let folder = tempfile::tempdir().expect("temp");
        let path = folder.path().join("flashmob.sqlite");
        Connection::open(&path).expect("made").execute_batch("PRAGMA user_version = 9").expect("set");
        assert!(matches!(Store::open(folder.path()).err(), Some(StoreError::Newer { found: 9, .. })));
    }

    #[test]
    fn a_file_where_the_folder_should_be_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("temp");
        assert!(matches!(Store::open(file.path()).err(), Some(StoreError::Folder { .. })));
    }
}
