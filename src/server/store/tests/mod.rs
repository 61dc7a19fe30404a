//! Stored state is read again, even by a newer program.

use std::time::Duration;

mod attempts;
mod copies;
mod history;
mod schemas;
mod trouble;
mod unusable;

use super::*;
use crate::event::{Class, Progress, Stage};
use crate::server::domain::attempt::Attempt;
use crate::server::domain::jobs::Placement;
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

#[test]
fn in_a_folder_that_others_may_enter_the_database_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (store, _, thread) = Store::open(folder.path()).unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
        files += 1;
    }
    assert!(files > 0);
    drop(store);
    thread.join().unwrap();
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn target() -> Target {
    let mut target = crate::testkit::lab::target();
    target.terms.images.push(Placement::whole("data@2".parse().expect("valid")));
    target
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
            changes.extend(lab.hello(at(10), "10.0.0.1".into(), hello_of(mac)).expect("room").1);
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
