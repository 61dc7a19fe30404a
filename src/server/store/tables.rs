//! Terminals and attempts as rows of the database's tables.
//!
//! Invariant: one statement names all columns of a table for writing and one for reading, in the same order.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::captures;
use super::jobs;
use super::json::{json, unjson};
use super::logs;
use super::people;
use super::times::{millis, time};
use crate::api::Inventory;
use crate::image_id::ImageId;
use crate::layout::known;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::captures::Request;
use crate::server::domain::identity::{Identity, Mac};
use crate::server::domain::lab::{Change, Held, Terminal, own_of_older};
use crate::server::domain::people::Person;
use crate::server::domain::registry::Place;
use crate::server::domain::tickets::Key;
use crate::units::Sha256;

/// The time `heard` of a terminal that never spoke.
const NEVER: i64 = -1;

/// The stored state.
#[derive(Debug)]
pub struct Restored {
    /// All terminals with their latest attempt.
    pub terminals: Vec<Terminal>,
    /// The highest attempt number ever given.
    pub last_number: u64,
    /// The secrets of terminals, by their names.
    pub secrets: Vec<(String, Held)>,
    /// People with tokens.
    pub people: Vec<Person>,
    /// The key of the server's tickets; `None` in a database that has none yet.
    pub key: Option<Key>,
    /// All jobs with the terminals of their latest runs.
    pub(in crate::server) jobs: Vec<jobs::Stored>,
    /// Terminals that are to be captured.
    pub(crate) captures: Vec<(String, Request)>,
}

/// Writes batches in one transaction: each one is written as a whole, or refused by the tables and left out.
/// When the transaction cannot be written, none is.
pub(super) fn write_all<'a>(
    connection: &Connection,
    batches: impl Iterator<Item = &'a [Change]>,
) -> rusqlite::Result<Vec<rusqlite::Result<()>>> {
    let transaction = connection.unchecked_transaction()?;
    let mut results = Vec::new();
    for changes in batches {
        let written = match changes {
            [] => Ok(()),
            _ => write_batch(&transaction, changes),
        };
        match written {
            Err(error) if !is_refusal(&error) => return Err(error),
            result => results.push(result),
        }
    }
    transaction.commit()?;
    Ok(results)
}

/// Do the tables refuse a value, whatever the state of the disk is? The same value is refused again.
fn is_refusal(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ConstraintViolation | TooBig | TypeMismatch)
        }
        rusqlite::Error::ToSqlConversionFailure(_) => true,
        _ => false,
    }
}

/// Writes changes, all or none.
fn write_batch(transaction: &Transaction<'_>, changes: &[Change]) -> rusqlite::Result<()> {
    transaction.execute_batch("SAVEPOINT batch")?;
    let written = changes.iter().try_for_each(|change| write(transaction, change));
    match &written {
        Ok(()) => transaction.execute_batch("RELEASE batch")?,
        Err(error) if is_refusal(error) => transaction.execute_batch("ROLLBACK TO batch; RELEASE batch")?,
        // SQLite may have rolled back everything already.
        Err(_) => {}
    }
    written
}

fn write(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Terminal(terminal) => write_terminal(transaction, terminal),
        Change::Attempt(terminal, attempt) => write_attempt(transaction, terminal, attempt),
        Change::TicketKey(key) => write_key(transaction, key),
        Change::Person(person) => people::write(transaction, person),
        Change::Revoke(name) => people::revoke(transaction, name),
        Change::Audit(entry) => people::note(transaction, entry),
        Change::Secret(terminal, held) => write_secret(transaction, terminal, held),
        Change::Log { attempt, received, packed } => logs::write(transaction, *attempt, *received, packed),
        Change::Forget(terminal) => forget(transaction, terminal),
        Change::Job(change) => jobs::write(transaction, change),
        Change::Capture(terminal, capture) => captures::write(transaction, terminal, capture.as_deref()),
        Change::Expire { ended_before } => {
            expire(transaction, *ended_before)?;
            jobs::expire(transaction, *ended_before)?;
            people::expire(transaction, *ended_before)
        }
    }
}

fn write_terminal(transaction: &Transaction<'_>, terminal: &Terminal) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO terminals (id, macs, uuid, inventory, agent, address, heard, known_disks, chosen,
                 first, label, room, seat, groups, hostname, accepted, own_macs)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)
             ON CONFLICT (id) DO UPDATE SET macs=?2, uuid=?3, inventory=?4, agent=?5, address=?6, heard=?7,
                 known_disks=?8, chosen=?9, first=?10, label=?11, room=?12, seat=?13, groups=?14,
                 hostname=?15, accepted=?16, own_macs=?17",
        )?
        .execute(params![
            terminal.id,
            words(&terminal.identity.macs),
            terminal.identity.uuid.map(|uuid| uuid.to_string()),
            json(&terminal.inventory)?,
            terminal.agent,
            terminal.address,
            terminal.heard.map_or(NEVER, millis),
            json(&terminal.known_disks)?,
            json(&terminal.chosen)?,
            terminal.first.map(millis),
            terminal.place.label,
            terminal.place.room,
            terminal.place.seat,
            json(&terminal.place.groups)?,
            terminal.place.hostname,
            terminal.accepted,
            words(&terminal.own_macs),
        ])?;
    Ok(())
}

fn write_attempt(transaction: &Transaction<'_>, terminal: &str, a: &Attempt) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO attempts (number, terminal, token, job, image, version, started, heard, progress, \
             ended,
                 outcome, tries, dirty, cancelled, installed, also, preflight, personal, course, retried)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,0)
             ON CONFLICT (number) DO UPDATE SET started=?7, heard=?8, progress=?9, ended=?10, outcome=?11,
                 tries=?12, dirty=?13, cancelled=?14, installed=?15, personal=?18, course=?19",
        )?
        .execute(params![
            i64::try_from(a.number).unwrap_or(i64::MAX),
            terminal,
            a.token,
            a.job,
            a.image.name,
            a.image.version,
            millis(a.started),
            millis(a.heard),
            a.progress.as_ref().map(json).transpose()?,
            a.ended.map(millis),
            a.outcome.as_ref().map(json).transpose()?,
            a.tries,
            a.dirty,
            a.cancelled,
            json(&a.installed)?,
            json(&a.also.iter().map(ImageId::to_string).collect::<Vec<_>>())?,
            a.preflight,
            a.personal.as_ref().map(json).transpose()?,
            json(&a.course)?,
        ])?;
    Ok(())
}

fn write_secret(transaction: &Transaction<'_>, terminal: &str, held: &Held) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO secrets (terminal, hash, ticket, used) VALUES (?1,?2,?3,?4)
             ON CONFLICT (terminal) DO UPDATE SET hash=?2, ticket=?3, used=?4",
        )?
        .execute(params![terminal, held.hash.0, millis(held.ticket), held.used])?;
    Ok(())
}

/// Keeps the key of the server's tickets, which never changes.
fn write_key(transaction: &Transaction<'_>, key: &Key) -> rusqlite::Result<()> {
    let statement = "INSERT INTO ticket_key (key) SELECT ?1 WHERE NOT EXISTS (SELECT * FROM ticket_key)";
    transaction.execute(statement, [key.0])?;
    Ok(())
}

/// Deletes a terminal and its attempts. Their highest number stays, because none is given twice.
fn forget(transaction: &Transaction<'_>, terminal: &str) -> rusqlite::Result<()> {
    for statement in [
        "UPDATE given_numbers SET highest =
             max(highest, (SELECT coalesce(max(number), 0) FROM attempts WHERE terminal = ?1))",
        "DELETE FROM attempts WHERE terminal = ?1",
        "DELETE FROM secrets WHERE terminal = ?1",
        "DELETE FROM members WHERE terminal = ?1",
        "DELETE FROM captures WHERE terminal = ?1",
        "DELETE FROM terminals WHERE id = ?1",
    ] {
        transaction.prepare_cached(statement)?.execute([terminal])?;
    }
    Ok(())
}

/// Deletes attempts from the first one on, up to the first one that ended later (or, without an end, was
/// heard later), but for the last one of each terminal.
fn expire(transaction: &Transaction<'_>, ended_before: Duration) -> rusqlite::Result<()> {
    let first_kept: Option<i64> = transaction
        .prepare_cached(
            "SELECT number FROM attempts WHERE coalesce(ended, heard) >= ?1 ORDER BY number LIMIT 1",
        )?
        .query_row([millis(ended_before)], |row| row.get(0))
        .optional()?;
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM attempts WHERE number < ?1 AND ended IS NOT NULL AND number <
                 (SELECT max(number) FROM attempts later WHERE later.terminal = attempts.terminal)",
        )?
        .execute([first_kept.unwrap_or(i64::MAX)])?;
    if deleted > 0 {
        log::info!("{deleted} attempts were old enough to be deleted from the history");
    }
    Ok(())
}

/// How many attempts there are by their results.
pub(super) fn results(connection: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    connection
        .prepare_cached(
            "SELECT CASE WHEN outcome IS NULL THEN 'open' WHEN outcome ->> 'result' IN ('done', 'checked')
                     THEN outcome ->> 'result'
                 WHEN cancelled THEN 'cancelled' ELSE 'failed' END, count(*) FROM attempts GROUP BY 1",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?
        .collect()
}

/// Reads all rows.
pub(super) fn restore(connection: &Connection) -> rusqlite::Result<Restored> {
    let mut statement = connection.prepare(
        "SELECT t.id, t.macs, t.uuid, t.inventory, t.agent, t.address, t.heard,
                a.number, a.token, a.job, a.image, a.version, a.started, a.heard, a.progress, a.ended,
                    a.outcome,
                a.tries, a.dirty, a.cancelled, a.installed, a.also, t.known_disks,
                t.chosen, t.first, t.label, t.room, t.seat, t.groups, t.hostname, t.accepted,
                a.preflight, a.personal, a.course, t.own_macs
         FROM terminals t
         LEFT JOIN attempts a ON a.number = (SELECT max(number) FROM attempts WHERE terminal = t.id)
         ORDER BY t.id",
    )?;
    let terminals = statement.query_map([], read_terminal)?.collect::<Result<_, _>>()?;
    let last: i64 = connection.query_row(
        "SELECT max(highest, (SELECT coalesce(max(number), 0) FROM attempts)) FROM given_numbers",
        [],
        |row| row.get(0),
    )?;
    let mut statement = connection.prepare("SELECT terminal, hash, ticket, used FROM secrets")?;
    let secret = |row: &Row<'_>| {
        let held = Held { hash: Sha256(row.get(1)?), ticket: time(row.get(2)?), used: row.get(3)? };
        Ok((row.get(0)?, held))
    };
    let secrets = statement.query_map([], secret)?.collect::<Result<_, _>>()?;
    let key = connection.query_row("SELECT key FROM ticket_key", [], |row| row.get(0)).optional()?.map(Key);
    Ok(Restored {
        terminals,
        last_number: u64::try_from(last).unwrap_or(0),
        secrets,
        people: people::restore(connection)?,
        key,
        jobs: jobs::restore(connection)?,
        captures: captures::restore(connection)?,
    })
}

fn words(macs: &[Mac]) -> String {
    macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn parts(words: &str) -> Vec<&str> {
    words.split(' ').collect()
}

fn read_terminal(row: &Row<'_>) -> rusqlite::Result<Terminal> {
    let macs: String = row.get(1)?;
    let uuid: Option<String> = row.get(2)?;
    let last = match row.get::<_, Option<i64>>(7)? {
        Some(number) => Some(read_attempt(row, number)?),
        None => None,
    };
    let inventory: Inventory = unjson(row, 3)?.unwrap_or_default();
    // An older database has only the terminal's last inventory.
    let known_disks = match unjson(row, 22)? {
        Some(known) => known,
        None => known::fixed(&inventory.disks).cloned().collect(),
    };
    // Reports move only the attempt's time. An attempt without a token was never the terminal's.
    let reported = last.as_ref().filter(|a| !a.token.is_empty()).map(|a| a.heard);
    let heard = reported.max(Some(row.get(6)?).filter(|heard| *heard != NEVER).map(time));
    let (id, identity) = (row.get::<_, String>(0)?, Identity::new(&parts(&macs), uuid.as_deref()));
    let own_macs = match row.get::<_, Option<String>>(34)? {
        Some(own) => Identity::new(&parts(&own), None).macs,
        None => own_of_older(&id, &identity.macs, heard.is_some()),
    };
    Ok(Terminal {
        id,
        identity,
        own_macs,
        inventory,
        known_disks,
        chosen: unjson(row, 23)?.unwrap_or_default(),
        agent: row.get(4)?,
        address: row.get(5)?,
        first: row.get::<_, Option<i64>>(24)?.map(time),
        heard,
        place: Place {
            label: row.get(25)?,
            room: row.get(26)?,
            seat: row.get(27)?,
            groups: unjson(row, 28)?.unwrap_or_default(),
            hostname: row.get(29)?,
        },
        accepted: row.get(30)?,
        last,
    })
}

fn read_attempt(row: &Row<'_>, number: i64) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        number: u64::try_from(number).unwrap_or(0),
        token: row.get(8)?,
        job: row.get(9)?,
        image: ImageId::new(row.get::<_, String>(10)?, row.get::<_, String>(11)?),
        started: time(row.get(12)?),
        heard: time(row.get(13)?),
        progress: unjson(row, 14)?,
        ended: row.get::<_, Option<i64>>(15)?.map(time),
        outcome: unjson(row, 16)?,
        tries: row.get(17)?,
        dirty: row.get(18)?,
        cancelled: row.get(19)?,
        installed: unjson(row, 20)?.unwrap_or_default(),
        also: ids(row, 21)?,
        preflight: row.get(31)?,
        personal: unjson(row, 32)?,
        course: unjson(row, 33)?.unwrap_or_default(),
    })
}

/// A list of `NAME@VERSION`. Any text is an id here, because one odd row must not keep the server from
/// starting.
pub(super) fn ids(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<ImageId>> {
    let texts: Vec<String> = unjson(row, column)?.unwrap_or_default();
    let id = |text: &String| {
        let (name, version) = text.split_once('@').unwrap_or((text, ""));
        ImageId::new(name, version)
    };
    Ok(texts.iter().map(id).collect())
}
