//! Jobs and the terminals of each run as rows of the database's tables.
//!
//! Invariant: a row holds the whole value as JSON; its other columns repeat what the statements look at.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::json::{json, unjson};
use super::times::millis;
use crate::server::domain::jobs::{Job, JobChange, Member};

/// Writes one change.
pub(super) fn write(transaction: &Transaction<'_>, change: &JobChange) -> rusqlite::Result<()> {
    match change {
        JobChange::Job(job) => transaction
            .prepare_cached(
                "INSERT INTO jobs (number, run, closes, over, job) VALUES (?1,?2,?3,?4,?5)
                 ON CONFLICT (number) DO UPDATE SET run=?2, closes=?3, over=?4, job=?5",
            )?
            .execute(params![
                number(job.number),
                job.run.number,
                job.run.closes.as_millisecond(),
                job.is_over(),
                json(job)?,
            ])?,
        JobChange::Member { job, run, terminal, member } => transaction
            .prepare_cached(
                "INSERT INTO members (job, run, terminal, state, since, member) VALUES (?1,?2,?3,?4,?5,?6)
                 ON CONFLICT (job, run, terminal) DO UPDATE SET state=?4, since=?5, member=?6",
            )?
            .execute(params![
                number(*job),
                run,
                terminal,
                member.state.word(),
                member.since.as_millisecond(),
                json(member)?,
            ])?,
    };
    Ok(())
}

/// Deletes jobs that were over before this time, but for the latest one, whose number must not be given
/// again, and earlier runs of others.
pub(super) fn expire(transaction: &Transaction<'_>, ended_before: Duration) -> rusqlite::Result<()> {
    let before = millis(ended_before);
    for statement in [
        "DELETE FROM members WHERE since < ?1 AND run < (SELECT run FROM jobs WHERE number = members.job)",
        "DELETE FROM members WHERE job IN (SELECT number FROM jobs WHERE over AND closes < ?1
             AND number < (SELECT max(number) FROM jobs))",
        "DELETE FROM jobs WHERE over AND closes < ?1 AND number < (SELECT max(number) FROM jobs)",
    ] {
        transaction.prepare_cached(statement)?.execute([before])?;
    }
    Ok(())
}

/// A job with the terminals of its latest run.
pub(in crate::server) type Stored = (Job, Vec<(String, Member)>);

/// Reads all jobs, each with the terminals of its latest run.
pub(super) fn restore(connection: &Connection) -> rusqlite::Result<Vec<Stored>> {
    let mut jobs = connection.prepare("SELECT job FROM jobs ORDER BY number")?;
    let mut members =
        connection.prepare("SELECT terminal, member FROM members WHERE job = ?1 AND run = ?2")?;
    let mut restored = Vec::new();
    for job in jobs.query_map([], |row| unjson::<Job>(row, 0))? {
        let Some(job) = job? else { continue };
        let member = |row: &rusqlite::Row<'_>| {
            let member = unjson::<Member>(row, 1)?;
            Ok((row.get(0)?, member.unwrap_or_else(|| Member::waiting(Timestamp::UNIX_EPOCH))))
        };
        let all = members.query_map(params![number(job.number), job.run.number], member)?;
        restored.push((job, all.collect::<Result<_, _>>()?));
    }
    Ok(restored)
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
