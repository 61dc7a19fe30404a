//! Attempts of the past and members of earlier runs, as people look them up.
//!
//! Invariant: only reads. An attempt's token never leaves the database here.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::Store;
use super::error::StoreError;
use super::json::unjson;
use super::tables::ids;
use super::times::time;
use crate::event::Outcome;
use crate::image_id::{self, ImageId};
use crate::server::domain::course::Course;
use crate::server::domain::jobs::Member;
use crate::server::domain::personal::Personal;

/// Which attempts are wanted: those that fit all that is named.
#[derive(Debug, Clone, Default)]
pub(crate) struct Which {
    /// The terminal's name in calls.
    pub(crate) terminal: Option<String>,
    pub(crate) job: Option<String>,
    /// At most this number, the newest.
    pub(crate) most: u32,
}

/// An attempt without its token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Past {
    pub(crate) terminal: String,
    pub(crate) number: u64,
    pub(crate) job: String,
    /// `name@version` of its images.
    pub(crate) images: String,
    pub(crate) started: Duration,
    pub(crate) heard: Duration,
    pub(crate) ended: Option<Duration>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) tries: u32,
    pub(crate) cancelled: bool,
    pub(crate) personal: Option<Personal>,
    pub(crate) course: Course,
}

impl Store {
    /// Reads attempts, the newest first.
    pub(crate) fn attempts(
        &self,
        which: Which,
    ) -> impl Future<Output = Result<Vec<Past>, StoreError>> + use<> {
        self.read(Box::new(move |connection| attempts(connection, &which)))
    }

    /// Reads the terminals of a run of a job, by name.
    pub(crate) fn run_of_job(
        &self,
        job: u64,
        run: u32,
    ) -> impl Future<Output = Result<Vec<(String, Member)>, StoreError>> + use<> {
        self.read(Box::new(move |connection| members(connection, job, run)))
    }
}

pub(super) fn attempts(connection: &Connection, which: &Which) -> rusqlite::Result<Vec<Past>> {
    // One condition for each choice, because only then the index of the terminals is used.
    let wanted = match (&which.terminal, &which.job) {
        (Some(_), Some(_)) => "terminal = ?1 AND job = ?2",
        (Some(_), None) => "terminal = ?1 AND ?2 IS NULL",
        (None, Some(_)) => "?1 IS NULL AND job = ?2",
        (None, None) => "?1 IS NULL AND ?2 IS NULL",
    };
    let statement = format!(
        "SELECT terminal, number, job, image, version, also, started, heard, ended, outcome, tries, cancelled,
                personal, course
         FROM attempts WHERE {wanted} ORDER BY number DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&statement)?;
    statement.query_map(params![which.terminal, which.job, which.most], past)?.collect()
}

fn past(row: &Row<'_>) -> rusqlite::Result<Past> {
    let first = ImageId::new(row.get::<_, String>(3)?, row.get::<_, String>(4)?);
    let also = ids(row, 5)?;
    Ok(Past {
        terminal: row.get(0)?,
        number: row.get::<_, i64>(1)?.cast_unsigned(),
        job: row.get(2)?,
        images: image_id::title(std::iter::once(&first).chain(&also)),
        started: time(row.get(6)?),
        heard: time(row.get(7)?),
        ended: row.get::<_, Option<i64>>(8)?.map(time),
        outcome: unjson(row, 9)?,
        tries: row.get(10)?,
        cancelled: row.get(11)?,
        personal: unjson(row, 12)?,
        course: unjson(row, 13)?.unwrap_or_default(),
    })
}

pub(super) fn members(
    connection: &Connection,
    job: u64,
    run: u32,
) -> rusqlite::Result<Vec<(String, Member)>> {
    let member = |row: &Row<'_>| Ok(unjson::<Member>(row, 1)?.map(|member| (row.get(0), member)));
    let mut statement = connection.prepare_cached(
        "SELECT terminal, member FROM members WHERE job = ?1 AND run = ?2 ORDER BY terminal",
    )?;
    let rows = statement.query_map(params![i64::try_from(job).unwrap_or(i64::MAX), run], member)?;
    let mut found = Vec::new();
    for row in rows {
        if let Some((terminal, member)) = row? {
            found.push((terminal?, member));
        }
    }
    Ok(found)
}
