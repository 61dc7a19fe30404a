//! The attempts' logs as rows.
//!
//! Invariant: a log goes with its attempt, and only the latest one of an attempt is kept.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::times::{millis, time};

/// The log of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The terminal's name in calls.
    pub terminal: String,
    /// When it came.
    pub received: Duration,
    /// A zstd frame.
    pub packed: Vec<u8>,
}

/// Keeps a log; one whose attempt is gone is dropped.
pub(super) fn write(
    transaction: &Transaction<'_>,
    attempt: u64,
    received: Duration,
    packed: &[u8],
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO logs (attempt, received, log)
                 SELECT number, ?2, ?3 FROM attempts WHERE number = ?1
             ON CONFLICT (attempt) DO UPDATE SET received=?2, log=?3",
        )?
        .execute(params![i64::try_from(attempt).unwrap_or(i64::MAX), millis(received), packed])?;
    Ok(())
}

pub(super) fn read(connection: &Connection, attempt: u64) -> rusqlite::Result<Option<Log>> {
    let log =
        |row: &Row<'_>| Ok(Log { terminal: row.get(0)?, received: time(row.get(1)?), packed: row.get(2)? });
    connection
        .prepare_cached(
            "SELECT a.terminal, l.received, l.log FROM logs l JOIN attempts a ON a.number = l.attempt
             WHERE l.attempt = ?1",
        )?
        .query_row([i64::try_from(attempt).unwrap_or(i64::MAX)], log)
        .optional()
}
