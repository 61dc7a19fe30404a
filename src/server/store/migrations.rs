//! The database's schema, version by version.
//!
//! Invariant: a database of any older version is migrated to [`SCHEMA`] without loss. Each version is one
//! transaction together with its number, so a migration that fails or is killed leaves the version before it.
//! A version that was released never changes: `schemas/` has a database of each one, for the tests.

use rusqlite::Connection;

/// The statements that lead to each version from the one before it. A new version is one more line, and one
/// more file in `schemas/`.
const MIGRATIONS: [(i64, &str); 15] = [
    (
        1,
        "CREATE TABLE terminals (
             id TEXT PRIMARY KEY, macs TEXT NOT NULL, uuid TEXT, inventory TEXT NOT NULL,
             agent TEXT NOT NULL, address TEXT, heard INTEGER NOT NULL) STRICT;
         CREATE TABLE attempts (
             number INTEGER PRIMARY KEY, terminal TEXT NOT NULL REFERENCES terminals (id),
             token TEXT NOT NULL, job TEXT NOT NULL, image TEXT NOT NULL, version TEXT NOT NULL,
             started INTEGER NOT NULL, heard INTEGER NOT NULL, progress TEXT, ended INTEGER, outcome TEXT,
             tries INTEGER NOT NULL, dirty INTEGER NOT NULL, retried INTEGER NOT NULL,
             cancelled INTEGER NOT NULL) STRICT;
         CREATE INDEX attempts_of_terminal ON attempts (terminal, number);",
    ),
    (
        2,
        "ALTER TABLE attempts ADD COLUMN retried_as TEXT;
         ALTER TABLE attempts ADD COLUMN installed TEXT;",
    ),
    (3, "ALTER TABLE attempts ADD COLUMN also TEXT;"),
    (
        4,
        "ALTER TABLE terminals ADD COLUMN known_disks TEXT;
         ALTER TABLE terminals ADD COLUMN chosen TEXT;",
    ),
    (
        5,
        "ALTER TABLE terminals ADD COLUMN first INTEGER;
         CREATE TABLE given_numbers (highest INTEGER NOT NULL) STRICT;
         INSERT INTO given_numbers VALUES (0);",
    ),
    (
        6,
        "ALTER TABLE terminals ADD COLUMN label TEXT;
         ALTER TABLE terminals ADD COLUMN room TEXT;
         ALTER TABLE terminals ADD COLUMN seat TEXT;
         ALTER TABLE terminals ADD COLUMN groups TEXT NOT NULL DEFAULT '[]';
         ALTER TABLE terminals ADD COLUMN hostname TEXT;
         ALTER TABLE terminals ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
         UPDATE terminals SET accepted = 1 WHERE id IN (SELECT terminal FROM attempts);",
    ),
    (
        7,
        "CREATE TABLE secrets (
             terminal TEXT PRIMARY KEY REFERENCES terminals (id), hash BLOB NOT NULL,
             ticket INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
         CREATE TABLE ticket_key (key BLOB NOT NULL) STRICT;",
    ),
    (
        8,
        "CREATE TABLE people (
             name TEXT PRIMARY KEY, role TEXT NOT NULL, room TEXT, hash BLOB NOT NULL,
             created INTEGER NOT NULL) STRICT;
         CREATE TABLE audit (
             number INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
             subject TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
         CREATE INDEX audit_by_time ON audit (at);",
    ),
    (
        9,
        "CREATE TABLE jobs (
             number INTEGER PRIMARY KEY, run INTEGER NOT NULL, closes INTEGER NOT NULL, over INTEGER NOT NULL,
             job TEXT NOT NULL) STRICT;
         CREATE TABLE members (
             job INTEGER NOT NULL REFERENCES jobs (number), run INTEGER NOT NULL, terminal TEXT NOT NULL,
             state TEXT NOT NULL, since INTEGER NOT NULL, member TEXT NOT NULL,
             PRIMARY KEY (job, run, terminal)) STRICT;
         CREATE INDEX members_of_terminal ON members (terminal);",
    ),
    (
        10,
        "CREATE TABLE logs (
             attempt INTEGER PRIMARY KEY REFERENCES attempts (number) ON DELETE CASCADE,
             received INTEGER NOT NULL, log BLOB NOT NULL) STRICT;",
    ),
    (11, "ALTER TABLE attempts ADD COLUMN preflight INTEGER NOT NULL DEFAULT 0;"),
    (12, "ALTER TABLE attempts ADD COLUMN personal TEXT;"),
    (13, "CREATE TABLE captures (terminal TEXT PRIMARY KEY, capture TEXT NOT NULL) STRICT;"),
    (14, "ALTER TABLE attempts ADD COLUMN course TEXT;"),
    (15, "ALTER TABLE terminals ADD COLUMN own_macs TEXT;"),
];

/// The version that this program writes.
pub(super) const SCHEMA: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// The version of a database; 0 for an empty one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a database of version `found` up to date.
pub(super) fn migrate(connection: &Connection, found: i64) -> rusqlite::Result<()> {
    for (version, statements) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(statements)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
