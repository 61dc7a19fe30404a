//! Stored state is read again, even by a newer program.

use std::time::Duration;

use super::*;
use crate::event::{Class, Progress, Stage};
use crate::image_id::ImageId;
use crate::server::domain::config::Job;
use crate::server::domain::lab::{Lab, Terminal};
use crate::server::domain::target::Target;
use crate::server::domain::ties::Ties;
use crate::testkit::lab::hello_of;
use crate::testkit::lab::{done, failed};

const MACS: [&str; 3] = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"];

#[test]
fn a_new_state_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (store, _, thread) = Store::open(&state).unwrap();
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    drop(store);
    thread.join().unwrap();
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn target() -> Target {
    let job = Job { name: "lab".into(), ..Job::by_hand("debian".parse().expect("valid")) };
    Target { job, image: ImageId::new("debian", "1"), also: vec!["data@2".parse().expect("valid")] }
}

#[tokio::test]
async fn all_of_the_lab_comes_back() {
    let folder = tempfile::tempdir().expect("temp");
    let mut lab = Lab::default();
    let mut changes = Vec::new();
    {
        let (store, restored, thread) = Store::open(folder.path()).expect("new");
        assert!(restored.terminals.is_empty() && restored.last_number == 0);
        for mac in MACS {
            changes.push(lab.hello(at(10), "10.0.0.1".into(), hello_of(mac)).expect("room").1);
        }
        for mac in [MACS[0], MACS[1], MACS[0]] {
            changes.extend(lab.take(at(20), mac, &target(), format!("token-{mac}")).expect("known").1);
        }
        let token = format!("token-{}", MACS[0]);
        changes.extend(
            lab.progress(at(30), 3, &token, Progress::at(Stage::Disarm), &Ties::default()).expect("taken").1,
        );
        changes.extend(
            lab.outcome(at(40), 3, &token, failed(Class::Disk, true), &Ties::default()).expect("taken").1,
        );
        let token = format!("token-{}", MACS[1]);
        changes.extend(lab.outcome(at(50), 2, &token, done(), &Ties::default()).expect("taken").1);
        store.save(changes).await.expect("written");
        drop(store);
        thread.join().expect("ends");
    }
    let (_, restored, _) = Store::open(folder.path()).expect("again");
    assert_eq!(restored.last_number, 3);
    let before: Vec<&Terminal> = lab.iter().collect();
    assert_eq!(restored.terminals.iter().collect::<Vec<_>>(), before);
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_read_and_written() {
    let folder = tempfile::tempdir().expect("temp");
    let path = folder.path().join("flashmob.sqlite");
    let (store, _, thread) = Store::open(folder.path()).expect("new");
    drop(store);
    thread.join().expect("ends");
    let connection = Connection::open(&path).expect("it is there");
    let old = "ALTER TABLE attempts DROP COLUMN retried_as; ALTER TABLE attempts DROP COLUMN installed; \
        ALTER TABLE attempts DROP COLUMN also;
         ALTER TABLE terminals DROP COLUMN chosen; ALTER TABLE terminals DROP COLUMN known_disks;
         INSERT INTO terminals VALUES ('t', '52:54:00:00:00:01', NULL,
             '{\"machine\":\"\",\"serial\":null,\"cpu\":\"\",\"memory\":0,\"firmware\":\"\",\
             \"disks\":[{\"name\":\"sda\",\"size\":1,\"sector_size\":512,\
             \"model\":null,\"serial\":\"A\",\"wwn\":null,\"bus\":\"ata\",\
             \"path\":\"p\",\"rotational\":false,\"removable\":false,\"read_only\":false}],\"nics\":[]}',
             '1', NULL, 0);
         INSERT INTO attempts VALUES (1, 't', 'token', 'j', 'i', '1', 0, 0, NULL, NULL, NULL, 1, 0, 0, 0);
         PRAGMA user_version = 1;";
    connection.execute_batch(old).expect("as the first schema was");
    drop(connection);
    let (store, restored, _) = Store::open(folder.path()).expect("understood");
    let terminal = restored.terminals.first().expect("one");
    let attempt = terminal.last.clone().expect("its attempt");
    assert_eq!((attempt.image.name.as_str(), attempt.installed.len()), ("i", 0));
    assert_eq!(
        terminal.known_disks.len(),
        1,
        "its disks of the last hello are those that are missed from now on"
    );
    let change = Change::Attempt("t".into(), Box::new(attempt));
    store.save(vec![change]).await.expect("written");
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_left_alone() {
    let folder = tempfile::tempdir().expect("temp");
    let path = folder.path().join("flashmob.sqlite");
    Connection::open(&path).expect("made").execute_batch("PRAGMA user_version = 9").expect("set");
    assert!(matches!(Store::open(folder.path()).err(), Some(StoreError::Newer { found: 9, .. })));
}

#[test]
fn a_file_where_the_folder_should_be_is_an_error() {
    let file = tempfile::NamedTempFile::new().expect("temp");
    assert!(matches!(Store::open(file.path()).err(), Some(StoreError::Folder { .. })));
}
