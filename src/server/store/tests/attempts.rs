//! What was can be looked up.

use super::*;
use crate::server::domain::jobs::{JobChange, Member, stamp};
use crate::server::store::attempts as past;
use crate::testkit::lab::job;

fn database(changes: &[Change]) -> Connection {
    let folder = tempfile::tempdir().expect("temp");
    let connection = opening::open(folder.path()).expect("new");
    tables::write_all(&connection, std::iter::once(changes)).expect("written");
    connection
}

#[test]
fn attempts_come_newest_first_and_only_those_that_are_wanted() {
    let [a, b, _] = MACS;
    let (mut lab, mut changes) = (Lab::default(), Vec::new());
    for mac in MACS {
        changes.extend(lab.hello(at(10), "10.0.0.1".into(), hello_of(mac)).expect("room").1);
    }
    for (mac, job) in [(a, "1"), (b, "1"), (a, "1"), (a, "2")] {
        let target = Target { job: job.into(), ..target() };
        changes.extend(lab.take(at(20), mac, &target, "token".into()).expect("known").1);
    }
    changes.extend(lab.outcome(at(50), 4, "token", done(), &Ties::default()).expect("taken").1);
    let connection = database(&changes);
    let found = |terminal: Option<&str>, job: Option<&str>, most| {
        let which = WhichAttempts { terminal: terminal.map(Into::into), job: job.map(Into::into), most };
        past::attempts(&connection, &which).expect("read")
    };
    let numbers = |found: Vec<Past>| found.iter().map(|past| past.number).collect::<Vec<_>>();
    assert_eq!(numbers(found(None, None, 3)), [4, 3, 2]);
    assert_eq!(numbers(found(Some(a), None, 9)), [4, 3, 1]);
    assert_eq!(numbers(found(None, Some("1"), 9)), [3, 2, 1]);
    assert_eq!(numbers(found(Some(a), Some("1"), 1)), [3]);
    let last = found(Some(a), None, 1).remove(0);
    assert_eq!((last.outcome, last.ended), (Some(done()), Some(at(50))));
    assert_eq!(last.images, "debian@1 + data@2");
}

#[test]
fn the_members_of_each_run_of_a_job_are_found() {
    let [a, b, _] = MACS;
    let mut lab = Lab::default();
    let mut changes = Vec::new();
    for mac in MACS {
        changes.extend(lab.hello(at(10), "10.0.0.1".into(), hello_of(mac)).expect("room").1);
    }
    changes.push(Change::Job(JobChange::Job(Box::new(job(1, 0, 100)))));
    for (run, terminal, seconds) in [(1, a, 20), (1, b, 30), (2, a, 40)] {
        let member = Box::new(Member::waiting(stamp(at(seconds))));
        changes.push(Change::Job(JobChange::Member { job: 1, run, terminal: terminal.into(), member }));
    }
    let connection = database(&changes);
    let of = |run| past::members(&connection, 1, run).expect("read");
    assert_eq!(of(1).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [a, b]);
    assert_eq!(of(2), [(a.to_string(), Member::waiting(stamp(at(40))))]);
    assert_eq!(of(3), []);
}
