//! Captures over the network as rows of the database's table.
//!
//! Invariant: a row holds the whole value as JSON.

use rusqlite::{Connection, Transaction, params};

use super::json::{json, unjson};
use crate::server::domain::captures::Request;

/// Writes the capture of a terminal, or deletes it.
pub(super) fn write(
    transaction: &Transaction<'_>,
    terminal: &str,
    capture: Option<&Request>,
) -> rusqlite::Result<()> {
    match capture {
        Some(capture) => transaction
            .prepare_cached(
                "INSERT INTO captures (terminal, capture) VALUES (?1,?2)
                 ON CONFLICT (terminal) DO UPDATE SET capture=?2",
            )?
            .execute(params![terminal, json(capture)?])?,
        None => {
            transaction.prepare_cached("DELETE FROM captures WHERE terminal = ?1")?.execute([terminal])?
        }
    };
    Ok(())
}

/// Reads all captures, by their terminals.
pub(super) fn restore(connection: &Connection) -> rusqlite::Result<Vec<(String, Request)>> {
    let mut statement = connection.prepare("SELECT terminal, capture FROM captures")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, unjson(row, 1)?)))?;
    rows.filter_map(|row| row.map(|(id, capture)| Some((id, capture?))).transpose()).collect()
}
