//! The bound of a session's memory, in a separate program, because it measures its whole process.
//!
//! Invariant: the seeder has no buffers and no payload (its bytes follow from their places), so the growth of
//! the process is the leecher's.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "this whole program is a test, of a fixed size"
)]

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use flashmob::io::hash::sha1;
use flashmob::io::torrent::{Have, Session, SessionConfig, Swarm, TorrentSpec};
use flashmob::metainfo::{FileEntry, Metainfo, MetainfoBuilder, Pieces};
use flashmob::storage::{Attributes, Storage, StorageError};

const MIB: u64 = 1 << 20;
const PIECE: u64 = MIB;
const PAYLOAD: u64 = 256 * MIB;
/// The leecher's memory for pieces, in bytes.
const MEMORY: u64 = 24 * MIB;
/// Everything else, in bytes: buffers for reading and writing, messages, stacks, tables
/// (docs/architecture.md).
const REST: u64 = 8 * MIB;

/// Bytes that follow from their place.
fn fill(offset: u64, into: &mut [u8]) {
    for (at, part) in (offset..).step_by(8).zip(into.chunks_mut(8)) {
        part.copy_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[..part.len()]);
    }
}

/// A storage without a device: the place determines the bytes read, and writes wait at a gate.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Storage for Gate {
    fn len(&self) -> u64 {
        PAYLOAD
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        fill(offset, into);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), StorageError> {
        let open = self.open.lock().unwrap();
        let _open = self.opened.wait_while(open, |open| !*open).unwrap();
        Ok(())
    }

    fn uses_page_cache(&self) -> bool {
        true
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        Attributes { alignment: 1, rotational: false, read_only: false }
    }
}

/// Resident memory of this process, now and at most, in bytes.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn torrent() -> Arc<Metainfo> {
    let mut piece = vec![0; PIECE as usize];
    let hash = |at: u64| {
        fill(at * PIECE, &mut piece);
        sha1(&piece)
    };
    let builder = MetainfoBuilder {
        name: "memory".into(),
        piece_length: PIECE as u32,
        files: vec![FileEntry::data(Vec::new(), PAYLOAD)],
        pieces: Pieces::Hashed((0..PAYLOAD / PIECE).map(hash).collect()),
        private: true,
    };
    Arc::new(builder.build().expect("a torrent"))
}

async fn start(meta: &Arc<Metainfo>, storage: Arc<Gate>, have: Have) -> (Session, Swarm) {
    let session = Session::start(SessionConfig::new("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let spec = TorrentSpec::new(Arc::clone(meta), storage, have, MEMORY);
    let swarm = session.add(spec).expect("it fits");
    (session, swarm)
}

/// Returns when nothing has left the seeder for two seconds and half of the leecher's memory is full: every
/// buffer that pieces are fetched into, and for a quarter of `memory` other uses. A machine that is only slow
/// gets there too.
async fn until_it_stalls(seeder: &Swarm, leecher: &Swarm) -> u64 {
    let (mut before, mut quiet) = (0, 0);
    while quiet < 8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = seeder.stats().bytes_out;
        let full = leecher.stats().bytes_in >= MEMORY / 2;
        quiet = if now == before && full { quiet + 1 } else { 0 };
        before = now;
    }
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_keep_up_stops_the_senders_and_not_the_machine() {
    let meta = torrent();
    let gate = Arc::new(Gate::default());
    let (seeding, seeder) = start(&meta, Arc::new(Gate::default()), Have::Everything).await;
    let before = memory().0;
    let (fetching, leecher) = start(&meta, Arc::clone(&gate), Have::Nothing).await;
    leecher.add_peers(vec![seeding.local_addr()]).await;
    let run = async {
        let left = until_it_stalls(&seeder, &leecher).await;
        let here = leecher.stats().bytes_in;
        assert!(here <= MEMORY, "{here} bytes are here and none is written");
        assert!(left < PAYLOAD / 2, "the seeder goes on sending: {left}");
        gate.open();
        leecher.complete().await.expect("everything is written");
        let gained = memory().1.saturating_sub(before);
        println!("{} MiB gained at most", gained / MIB);
        assert!(gained >= MEMORY / 2, "the measure sees the buffers: {gained}");
        assert!(gained <= MEMORY + REST, "{gained} bytes at most, and {MEMORY} are allowed");
    };
    tokio::time::timeout(Duration::from_secs(120), run).await.expect("it ends before the deadline");
    fetching.shutdown().await;
    seeding.shutdown().await;
}
