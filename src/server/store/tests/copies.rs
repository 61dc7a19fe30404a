//! Copies of the database are whole, also while it is written.

use super::*;
use crate::api::NicInfo;

/// A lab with this many terminals, in a new database.
pub(super) async fn lab_of(folder: &Path, terminals: u32) -> (Lab, Store, std::thread::JoinHandle<()>) {
    let (store, _, thread) = Store::open(folder).expect("new");
    let mut lab = Lab::default();
    let mut changes = Vec::new();
    let nic = NicInfo { name: "x".repeat(100), driver: Some("x".repeat(100)), ..NicInfo::default() };
    for n in 0..terminals {
        let mac = format!("52:54:00:01:{:02x}:{:02x}", n / 256, n % 256);
        let mut hello = hello_of(&mac);
        hello.inventory.nics = vec![nic.clone(); 20];
        let (id, hello) = lab.hello(at(10), "10.0.0.1".into(), hello).expect("room");
        changes.extend(hello);
        changes.extend(lab.take(at(20), &id, &target(), id.clone()).expect("known").1);
    }
    store.save(changes).await.expect("written");
    (lab, store, thread)
}

/// Puts a copy into an empty folder, as an administrator does to restore it, and opens it as a server does.
fn restored(mut copy: File) -> Restored {
    let folder = tempfile::tempdir().expect("temp");
    let path = folder.path().join("flashmob.sqlite");
    std::io::copy(&mut copy, &mut File::create(&path).expect("made")).expect("copied");
    assert_eq!(std::fs::read(&path).expect("read")[18], 1, "a copy is one file, without a write-ahead log");
    Store::open(folder.path()).expect("a sound database").1
}

#[tokio::test]
async fn a_copy_has_everything_that_was_acknowledged_before() {
    let folder = tempfile::tempdir().expect("temp");
    let (lab, store, thread) = lab_of(folder.path(), 3).await;
    let restored = restored(store.copy().await.expect("a copy"));
    assert_eq!(restored.terminals.iter().collect::<Vec<_>>(), lab.iter().collect::<Vec<_>>());
    assert_eq!(restored.last_number, 3);
    assert!(!folder.path().join(SPOOL).exists());
    drop(store);
    thread.join().expect("ends");
}

#[tokio::test]
async fn changes_during_a_copy_are_written_and_the_copy_is_of_one_moment() {
    let folder = tempfile::tempdir().expect("temp");
    let (_, store, thread) = lab_of(folder.path(), 3000).await;
    drop(store);
    thread.join().expect("ends");
    let connection = opening::open(folder.path()).expect("there");
    let all = tables::restore(&connection).expect("read").terminals;
    let to = tempfile::NamedTempFile::new().expect("temp");
    let mut steps = 0;
    // Each step one transaction that changes the first and the last terminal together.
    copy::copy(&connection, to.path(), || {
        steps += 1;
        let changed = [&all[0], all.last().expect("many")]
            .map(|t| Change::Terminal(Box::new(Terminal { agent: format!("step {steps}"), ..t.clone() })));
        tables::write_all(&connection, std::iter::once(&changed[..])).expect("written meanwhile");
        Ok(())
    })
    .expect("a copy");
    assert!(steps > 3, "{steps} steps");
    let copied = restored(File::open(to.path()).expect("there")).terminals;
    assert_eq!(copied.len(), 3000);
    let agents = [&copied[0].agent, &copied.last().expect("many").agent];
    assert_eq!(agents[0], agents[1], "no transaction is torn");
    assert!(agents[0].starts_with("step"), "{agents:?}");
    assert_eq!(copied[1..2999], all[1..2999]);
}

#[tokio::test]
async fn a_second_copy_at_the_same_time_is_refused() {
    let folder = tempfile::tempdir().expect("temp");
    let (_, store, _) = lab_of(folder.path(), 1000).await;
    let go_on = super::trouble::block(&store);
    let (first, second) = (store.copy(), store.copy());
    drop(go_on);
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(second, Err(StoreError::UnderWay)), "{second:?}");
    assert_eq!(restored(first.expect("a copy")).terminals.len(), 1000);
}

#[tokio::test]
async fn a_server_that_stops_leaves_no_half_of_a_copy() {
    let folder = tempfile::tempdir().expect("temp");
    let (_, store, thread) = lab_of(folder.path(), 1000).await;
    let copying = store.copy();
    drop(store);
    thread.join().expect("it does not wait for the copy's receiver");
    assert!(!folder.path().join(SPOOL).exists());
    // It may have been fast enough.
    assert!(matches!(copying.await, Ok(_) | Err(StoreError::Stopping)));
    let (store, ..) = Store::open(folder.path()).expect("sound");
    assert!(store.copy().await.is_ok());
}

#[tokio::test]
async fn what_a_killed_server_left_of_a_copy_is_removed() {
    let folder = tempfile::tempdir().expect("temp");
    std::fs::write(folder.path().join(SPOOL), "half").expect("written");
    let (store, ..) = Store::open(folder.path()).expect("new");
    assert!(!folder.path().join(SPOOL).exists());
    assert!(store.copy().await.is_ok());
}

#[tokio::test]
async fn a_state_without_a_server_is_copied_as_it_is() {
    let folder = tempfile::tempdir().expect("temp");
    let to = tempfile::NamedTempFile::new().expect("temp");
    let (lab, store, thread) = lab_of(folder.path(), 3).await;
    let busy = copy_at_rest(folder.path(), to.path()).expect_err("a server has it");
    assert!(matches!(busy, StoreError::Locked { .. }) && busy.advice().contains("--server"), "{busy:?}");
    drop(store);
    thread.join().expect("ends");
    copy_at_rest(folder.path(), to.path()).expect("a copy");
    assert_eq!(examine(to.path()).expect("sound"), Contents { schema: migrations::SCHEMA, terminals: 3 });
    let restored = restored(File::open(to.path()).expect("there"));
    assert_eq!(restored.terminals.iter().collect::<Vec<_>>(), lab.iter().collect::<Vec<_>>());

    let nowhere = folder.path().join("nowhere");
    assert!(matches!(copy_at_rest(&nowhere, to.path()), Err(StoreError::Missing { .. })));
    assert!(!nowhere.exists(), "a backup makes no state");
}

#[tokio::test]
async fn a_copy_that_is_cut_short_is_found_out() {
    let folder = tempfile::tempdir().expect("temp");
    let (_, store, _) = lab_of(folder.path(), 300).await;
    let mut copy = store.copy().await.expect("a copy");
    let short = tempfile::NamedTempFile::new().expect("temp");
    let half = copy.metadata().expect("its size").len() / 2;
    std::io::copy(&mut std::io::Read::take(&mut copy, half), &mut File::create(short.path()).expect("made"))
        .expect("copied");
    assert!(matches!(examine(short.path()), Err(StoreError::Damaged { .. })));
}
