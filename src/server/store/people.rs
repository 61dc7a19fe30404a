//! Tokens of people, and what they did, as rows.
//!
//! Invariant: a row of the audit is never changed.

use std::time::Duration;

use rusqlite::{Connection, Row, Transaction, params};

use super::times::{millis, time};
use crate::server::domain::audit::Entry;
use crate::server::domain::people::{Person, Role};
use crate::units::Sha256;

pub(super) fn write(transaction: &Transaction<'_>, person: &Person) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO people (name, role, room, hash, created) VALUES (?1,?2,?3,?4,?5)")?
        .execute(params![
            person.name,
            person.role.word(),
            person.role.room(),
            person.hash.0,
            millis(person.created)
        ])?;
    Ok(())
}

pub(super) fn revoke(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM people WHERE name = ?1", [name]).map(drop)
}

/// Reads all tokens. One with a role that this program does not know gives no rights.
pub(super) fn restore(connection: &Connection) -> rusqlite::Result<Vec<Person>> {
    let mut statement = connection.prepare("SELECT name, role, room, hash, created FROM people")?;
    let person = |row: &Row<'_>| {
        let role: String = row.get(1)?;
        let (name, hash, created) = (row.get(0)?, Sha256(row.get(3)?), time(row.get(4)?));
        Ok(Role::read(&role, row.get(2)?).ok().map(|role| Person { name, role, hash, created }))
    };
    let people: Vec<Option<Person>> = statement.query_map([], person)?.collect::<Result<_, _>>()?;
    Ok(people.into_iter().flatten().collect())
}

pub(super) fn note(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO audit (at, who, action, subject, detail) VALUES (?1,?2,?3,?4,?5)")?
        .execute(params![millis(entry.at), entry.who, entry.action, entry.subject, entry.detail])?;
    Ok(())
}

/// Deletes entries from the first one on, up to the first one that is not older.
pub(super) fn expire(transaction: &Transaction<'_>, before: Duration) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM audit WHERE number < coalesce(
                 (SELECT number FROM audit WHERE at >= ?1 ORDER BY number LIMIT 1), 9223372036854775807)",
        )?
        .execute([millis(before)])?;
    Ok(())
}

/// The latest entries since a time, at most `most`, the oldest of them first.
pub(super) fn audit(connection: &Connection, since: Duration, most: usize) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare_cached(
        "SELECT at, who, action, subject, detail FROM audit WHERE at >= ?1 ORDER BY number DESC LIMIT ?2",
    )?;
    let entry = |row: &Row<'_>| {
        Ok(Entry {
            at: time(row.get(0)?),
            who: row.get(1)?,
            action: row.get(2)?,
            subject: row.get(3)?,
            detail: row.get(4)?,
        })
    };
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut entries: Vec<Entry> =
        statement.query_map(params![millis(since), most], entry)?.collect::<Result<_, _>>()?;
    entries.reverse();
    Ok(entries)
}
