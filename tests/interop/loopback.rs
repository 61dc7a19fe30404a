//! Sessions of this process with each other: files, folders, block devices, resume, wrong data, failing
//! disks.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flashmob::event::Class;
use flashmob::io::storage::{BlockStorage, FileStorage, FolderStorage, Resize};
use flashmob::io::torrent::{Have, Phase};
use flashmob::metainfo::FileEntry;
use flashmob::storage::{Attributes, Storage, StorageError};
use flashmob::swarm::wire::Handshake;
use flashmob::tracker::Event;
use flashmob::units::PeerId;
use flashmob_testkit::loops::LoopDevice;
use flashmob_testkit::swarm::{add, payload, session, torrent, within};
use flashmob_testkit::tracker::TestTracker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PIECE: usize = 64 * 1024;

/// A storage in memory that can be told to fail.
#[derive(Default)]
struct Memory {
    bytes: std::sync::Mutex<Vec<u8>>,
    broken: AtomicBool,
    synced: AtomicU64,
}

impl Memory {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Memory { bytes: std::sync::Mutex::new(bytes), ..Memory::default() })
    }

    fn fail(&self, action: &'static str) -> Result<(), StorageError> {
        if !self.broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        let source = std::io::Error::from_raw_os_error(5);
        Err(StorageError { action, target: "memory".into(), offset: 0, length: 0, source })
    }
}

impl Storage for Memory {
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let start = offset as usize;
        into.copy_from_slice(&self.bytes.lock().unwrap()[start..start + into.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        self.fail("writing")?;
        let start = offset as usize;
        self.bytes.lock().unwrap()[start..start + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.synced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        Attributes { alignment: 1, rotational: false, read_only: false }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_leechers_and_a_seeder_meet_at_the_tracker_and_all_end_complete() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = payload(40 * PIECE + 777, 1);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let mut tracker = TestTracker::start(meta.info_hash);
    let source = folder.path().join("source");
    std::fs::write(&source, &bytes).unwrap();
    let seeder = session().await;
    let storage = Arc::new(FileStorage::open(&source).unwrap());
    add(&seeder, &meta, storage, Have::Everything, Some(tracker.url()));
    tracker.wait_for(Event::Started, 1).await;
    let mut leechers = Vec::new();
    for i in 0..3 {
        let path = folder.path().join(format!("target{i}"));
        let storage = FileStorage::create(&path, bytes.len() as u64, Resize::Refuse).unwrap().storage;
        let session = session().await;
        let swarm = add(&session, &meta, Arc::new(storage), Have::Nothing, Some(tracker.url()));
        leechers.push((session, swarm, path));
    }
    for (_, swarm, path) in &leechers {
        within(60, swarm.complete()).await.unwrap();
        assert!(std::fs::read(path).unwrap() == bytes, "{} differs", path.display());
        assert_eq!(swarm.stats().bytes_done, bytes.len() as u64);
        assert_eq!(swarm.phase(), Phase::Complete);
    }
    within(10, tracker.wait_for(Event::Completed, 3)).await;
    for (session, ..) in leechers {
        within(10, session.shutdown()).await;
    }
    within(10, seeder.shutdown()).await;
    within(10, tracker.wait_for(Event::Stopped, 4)).await;
    assert_eq!(tracker.count(Event::Stopped), 4, "each said good-bye");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_arrives_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = payload(5 * PIECE + 100, 2);
    let entry = |path: &[&str], length: usize| {
        FileEntry::data(path.iter().map(ToString::to_string).collect(), length as u64)
    };
    let files = vec![
        entry(&["a"], 3),
        entry(&["deep", "er", "b"], 2 * PIECE),
        entry(&["empty"], 0),
        entry(&["z"], 3 * PIECE + 97),
    ];
    let meta = torrent("folder", &bytes, PIECE, files.clone());
    let target = folder.path().join("target");
    let opened = FolderStorage::create(&target, &files, Resize::Refuse).unwrap();
    let (one, two) = (session().await, session().await);
    add(&one, &meta, Memory::new(bytes.clone()), Have::Everything, None);
    let swarm = add(&two, &meta, Arc::new(opened.storage), Have::Nothing, None);
    swarm.add_peers(vec![one.local_addr()]).await;
    within(30, swarm.complete()).await.unwrap();
    assert_eq!(std::fs::read(target.join("a")).unwrap(), bytes[..3]);
    assert_eq!(std::fs::read(target.join("deep/er/b")).unwrap(), bytes[3..3 + 2 * PIECE]);
    assert_eq!(std::fs::read(target.join("empty")).unwrap(), b"");
    assert_eq!(std::fs::read(target.join("z")).unwrap(), bytes[3 + 2 * PIECE..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_device_is_claimed_and_written_up_to_the_payloads_end() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = payload(9 * PIECE + 1000, 3);
    let meta = torrent("partition", &bytes, PIECE, Vec::new());
    let backing = folder.path().join("disk");
    let device = LoopDevice::blank(&backing, 1 << 20);
    let mut file = std::fs::OpenOptions::new().write(true).open(&backing).unwrap();
    file.write_all(&vec![0xee; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let small = BlockStorage::claim(device.path(), (1 << 20) + 1).err().unwrap();
    assert_eq!(small.class, Class::Refused);
    let storage = Arc::new(BlockStorage::claim(device.path(), bytes.len() as u64).unwrap());
    let busy = BlockStorage::claim(device.path(), bytes.len() as u64).err().unwrap();
    assert_eq!(busy.class, Class::Refused, "somebody holds it: {busy}");
    let (one, two) = (session().await, session().await);
    add(&one, &meta, Memory::new(bytes.clone()), Have::Everything, None);
    let swarm = add(&two, &meta, storage, Have::Check, None);
    swarm.add_peers(vec![one.local_addr()]).await;
    within(30, swarm.complete()).await.unwrap();
    within(10, two.shutdown()).await;
    drop(swarm);
    let end = bytes.len();
    let again = BlockStorage::claim(device.path(), end as u64).expect("it was let go");
    let mut odd = vec![0; 5000];
    again.read_at(777, &mut odd).unwrap();
    assert!(odd == bytes[777..5777], "unaligned reads see what was written");
    drop(again);
    let on_disk = std::fs::read(device.path()).unwrap();
    assert!(on_disk[..end] == bytes, "the payload is on the device");
    assert!(on_disk[end..].iter().all(|byte| *byte == 0xee), "what lies behind it is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_and_right_is_not_fetched_again() {
    let bytes = payload(20 * PIECE, 4);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let mut there = bytes.clone();
    there[12 * PIECE..].fill(0);
    there[5] ^= 1;
    let storage = Memory::new(there);
    let (one, two) = (session().await, session().await);
    add(&one, &meta, Memory::new(bytes.clone()), Have::Everything, None);
    let swarm = add(&two, &meta, storage.clone(), Have::Check, None);
    swarm.add_peers(vec![one.local_addr()]).await;
    within(30, swarm.complete()).await.unwrap();
    assert!(*storage.bytes.lock().unwrap() == bytes);
    assert_eq!(swarm.stats().bytes_in, 9 * PIECE as u64, "eight that were missing and one that was wrong");
    assert!(storage.synced.load(Ordering::Relaxed) > 0, "complete means synced");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_data_of_a_seeder_is_never_written_and_a_good_one_helps_out() {
    let bytes = payload(6 * PIECE, 5);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let mut wrong = bytes.clone();
    wrong[2 * PIECE + 9] ^= 0x40;
    let (bad, good, leecher) = (session().await, session().await, session().await);
    add(&bad, &meta, Memory::new(wrong), Have::Everything, None);
    add(&good, &meta, Memory::new(bytes.clone()), Have::Everything, None);
    let storage = Memory::new(vec![0; bytes.len()]);
    let swarm = add(&leecher, &meta, storage.clone(), Have::Nothing, None);
    swarm.add_peers(vec![bad.local_addr()]).await;
    within(30, async {
        while swarm.stats().pieces_bad == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(storage.bytes.lock().unwrap()[2 * PIECE..3 * PIECE].iter().all(|byte| *byte == 0));
    assert_eq!(swarm.phase(), Phase::Fetching);
    swarm.add_peers(vec![good.local_addr()]).await;
    within(30, swarm.complete()).await.unwrap();
    assert!(*storage.bytes.lock().unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_ends_the_swarm_as_a_failure_of_the_disk() {
    let bytes = payload(6 * PIECE, 6);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let (one, two) = (session().await, session().await);
    add(&one, &meta, Memory::new(bytes.clone()), Have::Everything, None);
    let storage = Memory::new(vec![0; bytes.len()]);
    storage.broken.store(true, Ordering::Relaxed);
    let swarm = add(&two, &meta, storage, Have::Nothing, None);
    swarm.add_peers(vec![one.local_addr()]).await;
    let failure = within(30, swarm.complete()).await.unwrap_err();
    assert_eq!(failure.class, Class::Disk);
    assert!(failure.message.contains("memory"), "{failure}");
    within(10, two.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_strangers_do_not_end_a_session() {
    let bytes = payload(6 * PIECE, 7);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let (one, two) = (session().await, session().await);
    add(&one, &meta, Memory::new(bytes.clone()), Have::Everything, None);
    let hello = Handshake::ours(meta.info_hash, PeerId(*b"-XX0000-000000000000")).encode();
    let mut other = hello;
    other[30] ^= 1;
    let huge = [&hello[..], &[0xff; 64]].concat();
    let nonsense = [&hello[..], &payload(5000, 8)].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &hello[..40], &other, &huge, &nonsense] {
        let mut stream = tokio::net::TcpStream::connect(one.local_addr()).await.unwrap();
        // The other side may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        within(10, async {
            let mut sink = Vec::new();
            let _ = stream.read_to_end(&mut sink).await;
        })
        .await;
    }
    let storage = Memory::new(vec![0; bytes.len()]);
    let swarm = add(&two, &meta, storage.clone(), Have::Nothing, None);
    swarm.add_peers(vec![one.local_addr()]).await;
    within(30, swarm.complete()).await.unwrap();
    assert!(*storage.bytes.lock().unwrap() == bytes);
}
