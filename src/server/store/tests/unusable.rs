//! A database or folder that cannot be used is refused with a reason and advice, and is not changed.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::io::sysfs;

#[test]
fn a_damaged_database_is_refused_and_the_advice_is_the_backup() {
    let folder = tempfile::tempdir().expect("temp");
    let path = folder.path().join("flashmob.sqlite");
    let connection = Connection::open(&path).expect("made");
    connection.execute_batch(include_str!("schemas/4.sql")).expect("a database of this program");
    let many = "WITH RECURSIVE n (x) AS (SELECT 4 UNION ALL SELECT x + 1 FROM n WHERE x < 300)
        INSERT INTO attempts SELECT x, terminal, token, job, image, version, started, heard, progress,
            ended, outcome, tries, dirty, retried, cancelled, retried_as, installed, also
        FROM n, attempts a WHERE number = 3";
    connection.execute(many, []).expect("written");
    // A page of old attempts, which no start reads.
    let find = "SELECT pageno FROM dbstat WHERE name = 'attempts' AND pagetype = 'leaf'
        ORDER BY path LIMIT 1 OFFSET 1";
    let page: u64 = connection.query_row(find, [], |row| row.get::<_, u32>(0)).expect("many pages").into();
    drop(connection);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("there");
    file.write_all_at(&[0xff; 2000], (page - 1) * 4096).expect("written");
    let before = std::fs::read(&path).expect("there");
    let error = Store::open(folder.path()).err().expect("refused");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.advice().contains("backup"), "{}", error.advice());
    assert!(std::fs::read(&path).expect("there") == before, "nothing was changed");

    std::fs::write(&path, "this was a database once").expect("written");
    let error = Store::open(folder.path()).err().expect("refused");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_row_that_no_program_wrote_is_damage() {
    let folder = tempfile::tempdir().expect("temp");
    let connection = Connection::open(folder.path().join("flashmob.sqlite")).expect("made");
    connection.execute_batch(include_str!("schemas/4.sql")).expect("a database of this program");
    connection.execute("UPDATE attempts SET outcome = '{' WHERE number = 3", []).expect("changed");
    drop(connection);
    let error = Store::open(folder.path()).err().expect("refused");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_file_where_the_folder_should_be_is_an_error() {
    let file = tempfile::NamedTempFile::new().expect("temp");
    assert!(matches!(Store::open(file.path()).err(), Some(StoreError::Folder { .. })));
}

/// Runs `test` with a filesystem of this size, which only its thread sees. Without root the test is skipped.
pub(super) fn on_a_small_filesystem(size: &str, test: impl FnOnce(&Path) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root may mount");
        return;
    }
    let folder = tempfile::tempdir().expect("temp");
    let path = folder.path().to_path_buf();
    let options = format!("size={size}");
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a namespace of its own");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
        let_go_of_mounts();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("mounted");
        test(&path);
    };
    std::thread::spawn(run).join().expect("the test holds");
}

/// Unmounts this thread's copies of what tests beside this one have mounted in the folder for temporary
/// files, because a disk stays in use for as long as a copy of its mount is there.
fn let_go_of_mounts() {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("its mounts");
    let temporary = std::env::temp_dir();
    let places = sysfs::mounts(&mounts).map(|mount| PathBuf::from(mount.place));
    for place in places.filter(|place| place.starts_with(&temporary) && *place != temporary) {
        // One that has gone with its folder, or with the mount around it, is no harm.
        let _ = umount2(&place, MntFlags::MNT_DETACH);
    }
}

fn remount(folder: &Path, flags: MsFlags) {
    mount(None::<&str>, folder, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).expect("mounted");
}

/// Waits for the store as a handler does.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    on_a_small_filesystem("1m", |folder| {
        let (store, _, thread) = Store::open(folder).expect("new");
        drop(store);
        thread.join().expect("ends");
        remount(folder, MsFlags::MS_RDONLY);
        for state in [folder.to_path_buf(), folder.join("new")] {
            let error = Store::open(&state).err().expect("refused");
            assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
            assert!(error.to_string().contains("ead-only"), "{error}");
            assert!(error.advice().contains("--state"), "{}", error.advice());
        }
    });
}

#[test]
fn a_full_filesystem_is_named_at_the_start() {
    on_a_small_filesystem("16k", |folder| {
        std::fs::write(folder.join("other"), [1; 12 << 10]).expect("nearly full");
        let error = Store::open(folder).err().expect("refused");
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert!(error.advice().contains("Make room"), "{}", error.advice());
    });
}

#[test]
fn a_filesystem_that_fills_up_loses_nothing_that_was_acknowledged() {
    on_a_small_filesystem("2m", |folder| {
        let (store, _, thread) = Store::open(folder).expect("new");
        let mut lab = Lab::default();
        let mut hello = |n: u32| {
            let mac = format!("52:54:00:02:{:02x}:{:02x}", n / 256, n % 256);
            lab.hello(at(10), "10.0.0.1".into(), hello_of(&mac)).expect("room").1
        };
        wait(store.save(hello(0))).expect("there is room");
        std::fs::write(folder.join("other"), vec![1; 2 << 20]).expect_err("full");
        let mut kept = 1;
        let error = loop {
            match wait(store.save(hello(kept))) {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept < 3000, "the filesystem is full");
        };
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert!(matches!(wait(store.copy()), Err(StoreError::NoSpace { .. })));
        std::fs::remove_file(folder.join("other")).expect("there is room again");
        wait(store.save(hello(kept + 1))).expect("written, and the one before it");
        drop(store);
        thread.join().expect("ends");
        let (_, restored, _) = Store::open(folder).expect("sound");
        assert_eq!(restored.terminals.len(), usize::try_from(kept + 2).expect("few"));
    });
}
