//! Whatever happens to the disk while the server runs, the database gets all that memory has.

use std::collections::BTreeSet;
use std::sync::mpsc;

use super::copies::lab_of;
use super::unusable::{on_a_small_filesystem, wait};
use super::*;
use crate::server::domain::audit::Entry;
use crate::server::domain::jobs::JobChange;
use crate::testkit::lab::{job, moment};

fn mac(n: u32) -> String {
    format!("52:54:00:03:{:02x}:{:02x}", n / 256, n % 256)
}

/// The changes of a terminal's hello.
fn hello(lab: &mut Lab, n: u32) -> Vec<Change> {
    lab.hello(at(10), "10.0.0.1".into(), hello_of(&mac(n))).expect("room").1
}

/// Stops the store and compares what it restores with the lab.
fn assert_all_is_there(folder: &Path, store: Store, thread: std::thread::JoinHandle<()>, lab: &Lab) {
    drop(store);
    thread.join().expect("ends");
    let (_, restored, _) = Store::open(folder).expect("sound");
    assert_eq!(restored.terminals.iter().collect::<Vec<_>>(), lab.iter().collect::<Vec<_>>());
    let jobs = lab.jobs();
    let members = |number| jobs.members(number).map(|(id, m)| (id.to_string(), m.clone())).collect();
    let expected: Vec<(_, Vec<_>)> = jobs.iter().map(|job| (job.clone(), members(job.number))).collect();
    assert_eq!(restored.jobs, expected);
}

/// Lets the database grow to at most `pages` pages.
fn limit(store: &Store, pages: u32) {
    store.run(move |connection| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        connection.query_row(&pragma, [], |row| row.get::<_, u32>(0)).expect("set");
    });
}

/// Keeps the thread busy until the returned sender is dropped.
pub(super) fn block(store: &Store) -> mpsc::Sender<()> {
    let (go_on, blocked) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    store.run(move |_| {
        begun.send(()).expect("the test waits");
        let _ = blocked.recv();
    });
    begins.recv().expect("it begins");
    go_on
}

#[tokio::test]
async fn while_the_database_is_full_nothing_is_acknowledged_and_later_everything_is_there() {
    let folder = tempfile::tempdir().expect("temp");
    let (store, _, thread) = Store::open(folder.path()).expect("new");
    let mut lab = Lab::default();
    store.save(hello(&mut lab, 0)).await.expect("room");
    let token = "token".to_string();
    let taken = lab.take(at(20), &mac(0), &target(), token.clone()).expect("known").1;
    store.save(taken).await.expect("room");
    limit(&store, 1);
    let mut n = 1;
    while store.save(hello(&mut lab, n)).await.is_ok() {
        n += 1;
        assert!(n < 3000, "the database is full");
    }
    // A job begins, and one of its terminals goes on, each in changes of its own.
    let created = lab.add_job(job(1, 0, 1000), &BTreeSet::from([mac(1)]), &moment(30));
    let error = store.save(created).await.expect_err("full");
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    let name = lab.jobs().get(1).expect("created").name();
    let target = Target { job: name, ..target() };
    let taken = lab.begin(&mac(1), target, "other".into(), at(40)).expect("known").changes;
    assert!(taken.iter().any(|c| matches!(c, Change::Job(JobChange::Member { .. }))), "{taken:?}");
    store.save(taken).await.expect_err("full");
    // The terminal reports its outcome until it is acknowledged.
    let mut report = || lab.outcome(at(50), 1, &token, done(), &Ties::default()).expect("taken").1;
    store.save(report()).await.expect_err("full");
    store.save(report()).await.expect_err("what is repeated is not on the disk either");
    let problems = store.health().problems();
    assert!(problems.len() == 1 && problems[0].error.contains("is full"), "{problems:?}");
    assert!(store.health().unwritten() >= 4);

    limit(&store, 1 << 20);
    store.save(report()).await.expect("room again");
    assert_eq!((store.health().unwritten(), store.health().lost()), (0, 0));
    assert!(store.health().problems().is_empty());
    assert_all_is_there(folder.path(), store, thread, &lab);
}

#[tokio::test]
async fn a_batch_that_breaks_a_constraint_does_not_disturb_its_neighbours() {
    let folder = tempfile::tempdir().expect("temp");
    let (store, _, thread) = Store::open(folder.path()).expect("new");
    let mut lab = Lab::default();
    let mut elsewhere = Lab::default();
    hello(&mut elsewhere, 7);
    let created = elsewhere.add_job(job(9, 0, 1000), &BTreeSet::from([mac(7)]), &moment(30));
    let mut poisoned = hello(&mut elsewhere, 8);
    poisoned.extend(created.into_iter().filter(|c| matches!(c, Change::Job(JobChange::Member { .. }))));
    assert_eq!(poisoned.len(), 2, "a good change, and a member of a job that the database does not know");
    let go_on = block(&store);
    let (before, culprit) = (store.save(hello(&mut lab, 1)), store.save(poisoned));
    let after = store.save(hello(&mut lab, 2));
    drop(go_on);
    let (before, culprit, after) = tokio::join!(before, culprit, after);
    before.expect("written");
    after.expect("written");
    assert!(matches!(culprit, Err(StoreError::Refused { .. })), "{culprit:?}");
    assert_eq!((store.health().unwritten(), store.health().lost()), (0, 2));
    let problems = store.health().problems();
    assert!(problems.len() == 1 && problems[0].advice.contains("restart"), "{problems:?}");
    assert_all_is_there(folder.path(), store, thread, &lab);
}

#[tokio::test]
async fn a_queue_that_overflows_keeps_all_changes_in_their_order() {
    let folder = tempfile::tempdir().expect("temp");
    let (store, _, thread) = Store::open(folder.path()).expect("new");
    let mut lab = Lab::default();
    hello(&mut lab, 1);
    let mut terminal = lab.iter().next().expect("known").clone();
    let go_on = block(&store);
    let mut last = None;
    for n in 0..QUEUE + 100 {
        terminal.agent = format!("hello {n}");
        last = Some(store.save(vec![Change::Terminal(Box::new(terminal.clone()))]));
    }
    let refused = last.expect("many").await;
    assert!(matches!(refused, Err(StoreError::Behind)), "at once, though the thread is busy: {refused:?}");
    assert!(matches!(store.save(Vec::new()).await, Err(StoreError::Behind)), "the repeated request");
    assert!(matches!(store.results().await, Err(StoreError::Behind)));
    drop(go_on);
    while store.meter().waiting() > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    store.save(Vec::new()).await.expect("written");
    assert_eq!((store.health().unwritten(), store.health().lost()), (0, 0));
    drop(store);
    thread.join().expect("ends");
    let (_, restored, _) = Store::open(folder.path()).expect("sound");
    assert_eq!(restored.terminals, [terminal]);
}

#[tokio::test]
async fn changes_beyond_the_bound_are_lost_loudly_and_the_others_are_written() {
    let folder = tempfile::tempdir().expect("temp");
    let (store, _, thread) = Store::open(folder.path()).expect("new");
    let mut lab = Lab::default();
    let entry = Entry {
        at: at(1),
        who: "w".into(),
        action: "a".into(),
        subject: String::new(),
        detail: String::new(),
    };
    let go_on = block(&store);
    let many = store.save(vec![Change::Audit(entry.clone()); health::MOST]);
    let lost = store.save(vec![Change::Audit(entry)]).await;
    assert!(matches!(lost, Err(StoreError::Lost)), "{lost:?}");
    drop(go_on);
    many.await.expect("written");
    store.save(hello(&mut lab, 1)).await.expect("there is room again");
    assert_eq!((store.health().unwritten(), store.health().lost()), (0, 1));
    assert!(store.health().problems()[0].advice.contains("restart the server"));
    assert_eq!(store.audit(Duration::ZERO, usize::MAX).await.expect("read").len(), health::MOST);
    assert_all_is_there(folder.path(), store, thread, &lab);
}

#[tokio::test]
async fn a_copy_that_cannot_follow_the_changes_is_given_up_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("temp");
    let (mut lab, store, thread) = lab_of(folder.path(), 1000).await;
    let go_on = block(&store);
    // It begins in the midst of the copy, because one transaction takes that many requests.
    let copying = store.copy();
    for _ in 1..writer::TOGETHER - 1 {
        drop(store.save(Vec::new()));
    }
    store.run(|connection| connection.pragma_update(None, "query_only", true).expect("set"));
    let late = store.save(hello(&mut lab, 1));
    drop(go_on);
    assert!(matches!(late.await, Err(StoreError::ReadOnly { .. })));
    let copied = copying.await;
    assert!(matches!(copied, Err(StoreError::Unwritten)), "{copied:?}");
    store.run(|connection| connection.pragma_update(None, "query_only", false).expect("set"));
    store.save(Vec::new()).await.expect("written");
    store.copy().await.expect("a copy");
    assert_all_is_there(folder.path(), store, thread, &lab);
}

#[test]
fn a_full_filesystem_that_gets_room_is_written_without_another_request() {
    on_a_small_filesystem("2m", |folder| {
        let (store, lab, thread) = filled_up(folder);
        std::fs::remove_file(folder.join("other")).expect("there is room again");
        let mut tenths = 0;
        while store.health().unwritten() > 0 {
            std::thread::sleep(Duration::from_millis(100));
            tenths += 1;
            assert!(tenths < 300, "{:?}", store.health().problems());
        }
        assert_all_is_there(folder, store, thread, &lab);
    });
}

#[test]
fn a_server_that_stops_stores_what_could_not_be_written_before() {
    on_a_small_filesystem("2m", |folder| {
        let (store, lab, thread) = filled_up(folder);
        std::fs::remove_file(folder.join("other")).expect("there is room again");
        assert_all_is_there(folder, store, thread, &lab);
    });
}

/// A store on a filesystem that is full, so that some changes of the lab are not written.
fn filled_up(folder: &Path) -> (Store, Lab, std::thread::JoinHandle<()>) {
    let (store, _, thread) = Store::open(folder).expect("new");
    let mut lab = Lab::default();
    std::fs::write(folder.join("other"), vec![1; 2 << 20]).expect_err("full");
    let mut n = 0;
    while wait(store.save(hello(&mut lab, n))).is_ok() {
        n += 1;
        assert!(n < 3000, "the filesystem is full");
    }
    for more in 1..=10 {
        wait(store.save(hello(&mut lab, n + more))).expect_err("full");
    }
    (store, lab, thread)
}
