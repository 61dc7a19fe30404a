//! Old history goes, and what the server needs of it stays.

use super::*;

/// Puts attempts (terminal, when it ended, or `None` while it runs) into a new database, numbered from 1 and
/// heard last at 500 s.
fn database(attempts: &[(&str, Option<u64>)]) -> Connection {
    let folder = tempfile::tempdir().expect("temp");
    let connection = opening::open(folder.path()).expect("new");
    let mut changes = Vec::new();
    let mut lab = Lab::default();
    for mac in MACS {
        changes.extend(lab.hello(at(10), "10.0.0.1".into(), hello_of(mac)).expect("room").1);
    }
    for ((terminal, ended), number) in attempts.iter().zip(1..) {
        let attempt = Attempt::after(None, number, "token".into(), &target(), at(500));
        let attempt = Attempt { ended: ended.map(at), ..attempt };
        changes.push(Change::Attempt((*terminal).into(), Box::new(attempt)));
    }
    tables::write_all(&connection, std::iter::once(&changes[..])).expect("written");
    connection
}

/// The numbers of the attempts that are left when those before 1000 s are deleted.
fn left(attempts: &[(&str, Option<u64>)]) -> Vec<i64> {
    let connection = database(attempts);
    let expire = Change::Expire { ended_before: at(1000) };
    tables::write_all(&connection, std::iter::once(&[expire][..])).expect("deleted");
    let mut statement = connection.prepare("SELECT number FROM attempts ORDER BY number").expect("valid");
    statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("numbers")
}

#[test]
fn old_attempts_are_deleted_but_for_the_last_one_of_each_terminal() {
    let [a, b, c] = MACS;
    assert_eq!(left(&[(a, Some(10)), (b, Some(20)), (a, Some(30)), (a, Some(40))]), [2, 4]);
    assert_eq!(left(&[(a, Some(10)), (a, Some(20)), (a, Some(1000)), (b, Some(1100))]), [3, 4]);
    assert_eq!(left(&[(a, Some(10)), (b, None), (a, Some(20)), (c, Some(2000))]), [2, 3, 4]);
    assert_eq!(left(&[]), [0; 0]);
}

#[test]
fn an_attempt_with_too_early_a_date_is_as_young_as_the_one_before_it() {
    let [a, b, _] = MACS;
    // The server's clock had no battery when the third one ended.
    assert_eq!(left(&[(a, Some(10)), (b, Some(1100)), (a, Some(3)), (a, Some(1200))]), [2, 3, 4]);
}

#[test]
fn a_forgotten_terminal_is_deleted_with_its_attempts_and_no_other() {
    let [a, b, c] = MACS;
    let connection = database(&[(a, Some(10)), (b, Some(20)), (b, None)]);
    tables::write_all(&connection, std::iter::once(&[Change::Forget(b.into())][..])).expect("deleted");
    let restored = tables::restore(&connection).expect("read");
    let ids: Vec<&str> = restored.terminals.iter().map(|t| t.id.as_str()).collect();
    assert_eq!(ids, [a, c]);
    assert!(restored.terminals[0].last.is_some());
    assert_eq!(restored.last_number, 3, "numbers are never given twice");
}

/// Attempts that have a log.
fn logged(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT attempt FROM logs ORDER BY attempt").expect("valid");
    statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("numbers")
}

fn log(attempt: u64, packed: &[u8]) -> Change {
    Change::Log { attempt, received: at(700), packed: packed.to_vec() }
}

#[test]
fn a_log_stays_as_long_as_its_attempt() {
    let [a, b, _] = MACS;
    let connection = database(&[(a, Some(10)), (b, Some(20)), (a, Some(30)), (a, Some(40))]);
    let logs = [log(1, b"one"), log(2, b"two"), log(4, b"early"), log(4, b"late"), log(99, b"of no attempt")];
    tables::write_all(&connection, logs.iter().map(std::slice::from_ref))
        .expect("written, although one has no attempt");
    assert_eq!(logged(&connection), [1, 2, 4]);
    let read = logs::read(&connection, 4).expect("read").expect("there");
    assert_eq!((read.terminal.as_str(), read.received, &read.packed[..]), (a, at(700), &b"late"[..]));
    assert_eq!(logs::read(&connection, 3).expect("read"), None);

    tables::write_all(&connection, std::iter::once(&[Change::Expire { ended_before: at(1000) }][..]))
        .expect("deleted");
    assert_eq!(logged(&connection), [2, 4]);
    tables::write_all(&connection, std::iter::once(&[Change::Forget(a.into())][..])).expect("deleted");
    assert_eq!(logged(&connection), [2]);
}
