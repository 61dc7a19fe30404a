//! Databases of every schema are read, written and kept.
//!
//! `schemas/N.sql` is a database as programs of schema N wrote it. These files never change.

use super::super::migrations::{self, SCHEMA};
use super::*;

/// The database of each version, the first one first.
const OLD: [&str; 15] = [
    include_str!("schemas/1.sql"),
    include_str!("schemas/2.sql"),
    include_str!("schemas/3.sql"),
    include_str!("schemas/4.sql"),
    include_str!("schemas/5.sql"),
    include_str!("schemas/6.sql"),
    include_str!("schemas/7.sql"),
    include_str!("schemas/8.sql"),
    include_str!("schemas/9.sql"),
    include_str!("schemas/10.sql"),
    include_str!("schemas/11.sql"),
    include_str!("schemas/12.sql"),
    include_str!("schemas/13.sql"),
    include_str!("schemas/14.sql"),
    include_str!("schemas/15.sql"),
];

/// A state folder with the database that these statements make.
fn folder_with(statements: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temp");
    let connection = Connection::open(folder.path().join("flashmob.sqlite")).expect("made");
    connection.execute_batch(statements).expect("a database");
    folder
}

/// Columns of all tables, and the indexes.
fn shape(folder: &Path) -> Vec<String> {
    let connection = Connection::open(folder.join("flashmob.sqlite")).expect("there");
    let mut statement = connection
        .prepare(
            "SELECT m.type || ' ' || m.name
                 || coalesce(' ' || c.name || ' ' || c.type || ' ' || c.\"notnull\", '')
             FROM sqlite_schema m LEFT JOIN pragma_table_info(m.name) c ORDER BY 1",
        )
        .expect("a statement");
    statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("texts")
}

/// Rows of both tables.
fn rows(folder: &Path) -> (i64, i64) {
    let connection = Connection::open(folder.join("flashmob.sqlite")).expect("there");
    let count = |table: &str| {
        connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .expect("a number")
    };
    (count("terminals"), count("attempts"))
}

#[test]
fn there_is_a_database_of_every_schema() {
    assert_eq!(i64::try_from(OLD.len()), Ok(SCHEMA), "add schemas/{SCHEMA}.sql, and a line to OLD");
}

#[tokio::test]
async fn a_database_of_every_schema_is_read_and_written_without_loss() {
    let new = tempfile::tempdir().expect("temp");
    drop(Store::open(new.path()).expect("new"));
    for (version, statements) in (1..).zip(OLD) {
        let folder = folder_with(statements);
        let (store, restored, thread) = Store::open(folder.path()).expect("understood");
        let [one, two, stranger] = restored.terminals.as_slice() else { panic!("three terminals") };
        assert_eq!(restored.last_number, 3, "schema {version}");
        assert_eq!((one.id.as_str(), one.identity.macs.len(), one.agent.as_str()), (MACS[0], 2, "0.1.0"));
        assert_eq!(one.identity.uuid.map(|uuid| uuid.to_string().len()), Some(36));
        assert_eq!(one.own_macs, one.identity.macs[..1], "the one that names it, in schema {version}");
        assert_eq!(one.inventory.nics[0].speed, Some(1000));
        let done = one.last.as_ref().expect("its second attempt");
        assert!(matches!(done.outcome, Some(crate::event::Outcome::Done { seconds: 60, .. })));
        assert!(done.number == 3 && done.dirty && done.token == "token-3");
        assert_eq!((done.started, done.ended), (at(1_764_000_010), Some(at(1_764_000_070))));
        let known = |versions: &mut dyn Iterator<Item = bool>| versions.filter(|known| *known).count();
        assert_eq!(done.installed.len(), known(&mut [version >= 2].into_iter()), "schema {version}");
        assert_eq!(done.also.len(), known(&mut [version >= 3].into_iter()), "schema {version}");
        let disks = known(&mut [true, version >= 4].into_iter());
        assert_eq!(one.known_disks.len(), disks, "without a record those of the last hello");
        assert_eq!(one.chosen.len(), known(&mut [version >= 4].into_iter()), "schema {version}");
        let first = [one, two, stranger].map(|terminal| terminal.first.is_some());
        assert_eq!(first, [version >= 5; 3], "schema {version}");
        let accepted = [one, two, stranger].map(|terminal| terminal.accepted);
        assert_eq!(accepted, [true, true, false], "those that have an attempt, in schema {version}");
        let groups = one.place.groups.len();
        assert_eq!((one.place.room.is_some(), groups), (version >= 6, [0, 2][usize::from(version >= 6)]));
        assert_eq!(restored.secrets.len(), known(&mut [version >= 7].into_iter()), "schema {version}");
        assert_eq!(restored.captures.len(), known(&mut [version >= 13].into_iter()), "schema {version}");
        assert_eq!(restored.people.len(), known(&mut [version >= 8].into_iter()), "schema {version}");
        let running = two.last.as_ref().expect("it is imaging");
        assert_eq!(running.progress.as_ref().map(|p| p.stage), Some(Stage::Fetch));
        assert!(running.outcome.is_none() && stranger.last.is_none());
        let personal = done.personal.as_ref().and_then(|personal| personal.hostname.as_deref());
        assert_eq!(personal, (version >= 12).then_some("lab-01"), "schema {version}");
        assert_eq!((running.preflight, done.preflight), (version >= 11, false), "schema {version}");
        let stages = done.course.stages(done.heard).count();
        assert_eq!(stages, if version >= 14 { 2 } else { 0 }, "schema {version}");

        let changes = restored.terminals.iter().flat_map(|t| {
            let attempt = t.last.clone().map(|a| Change::Attempt(t.id.clone(), Box::new(a)));
            std::iter::once(Change::Terminal(Box::new(t.clone()))).chain(attempt)
        });
        store.save(changes.collect()).await.expect("written");
        drop(store);
        thread.join().expect("ends");
        assert_eq!(rows(folder.path()), (3, 3), "the first attempt of schema {version} is kept too");
        assert_eq!(shape(folder.path()), shape(new.path()), "schema {version}");
        let (_, again, _) = Store::open(folder.path()).expect("again");
        assert_eq!(again.terminals, restored.terminals, "schema {version}");
    }
}

#[test]
fn a_migration_that_fails_leaves_the_version_before_it() {
    // The second half of schema 4 fails, because its column is there.
    let folder = folder_with(&format!("{} ALTER TABLE terminals ADD COLUMN chosen TEXT;", OLD[1]));
    let before = shape(folder.path());
    assert!(matches!(Store::open(folder.path()).err(), Some(StoreError::Database { .. })));
    let connection = Connection::open(folder.path().join("flashmob.sqlite")).expect("there");
    assert_eq!(migrations::version(&connection), Ok(3), "schema 3 is complete");
    drop(connection);
    let after = shape(folder.path());
    assert_eq!(after.len(), before.len() + 1, "of schema 4 there is nothing");
    assert_eq!(rows(folder.path()), (3, 3));
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_left_alone() {
    let folder = folder_with("CREATE TABLE future (x); PRAGMA user_version = 99");
    let path = folder.path().join("flashmob.sqlite");
    let before = std::fs::read(&path).expect("there");
    let error = Store::open(folder.path()).err().expect("refused");
    assert!(matches!(error, StoreError::Newer { found: 99, .. }));
    assert!(error.advice().contains("newer flashmob"), "{}", error.advice());
    assert!(std::fs::read(&path).expect("there") == before, "it was changed");
}
