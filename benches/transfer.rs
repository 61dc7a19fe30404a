//! A seeder and a leecher in one process, over loopback: for builds that have no `flashmob` program, as that
//! for musl.
//!
//!     cargo bench --bench transfer --target x86_64-unknown-linux-musl --no-default-features --features agent

#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flashmob::io::hash::{HashProgress, hash_pieces};
use flashmob::io::storage::{FileStorage, Resize};
use flashmob::io::torrent::{Have, Session, SessionConfig, Swarm, TorrentSpec};
use flashmob::metainfo::{FileEntry, Metainfo, MetainfoBuilder, Pieces};
use flashmob::storage::Storage;
use nix::sys::resource::{UsageWho, getrusage};

const BYTES: u64 = 1 << 30;
const PIECE: u32 = 4 << 20;
const RUNS: usize = 5;

fn main() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let source = folder.path().join("source");
    let mut random = std::fs::File::open("/dev/urandom").unwrap().take(BYTES);
    std::io::copy(&mut random, &mut std::fs::File::create(&source).unwrap()).unwrap();
    let meta = torrent(&source);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut figures: Vec<(f64, f64)> = (0..RUNS)
        .map(|_| runtime.block_on(transfer(&meta, &source, &folder.path().join("target"))))
        .collect();
    figures.sort_by(|a, b| b.0.total_cmp(&a.0));
    let least = figures.iter().map(|(_, cpu)| *cpu).min_by(f64::total_cmp).unwrap();
    let middle = figures[RUNS / 2];
    println!(
        "{} MiB in pieces of {} KiB, best (middle) of {RUNS}: {:.0} ({:.0}) MB/s, {least:.2} ({:.2}) CPU s \
         a GiB of both ends",
        BYTES >> 20,
        PIECE >> 10,
        figures[0].0,
        middle.0,
        middle.1
    );
}

fn torrent(source: &Path) -> Arc<Metainfo> {
    let storage = FileStorage::open(source).unwrap();
    let hashes = hash_pieces(&storage, PIECE, |_| true, &HashProgress::default()).unwrap();
    let builder = MetainfoBuilder {
        name: "transfer".into(),
        piece_length: PIECE,
        files: vec![FileEntry::data(Vec::new(), BYTES)],
        pieces: Pieces::Hashed(hashes.into_iter().map(Option::unwrap).collect()),
        private: true,
    };
    Arc::new(builder.build().unwrap())
}

/// Fetches everything once: MB/s, and processor seconds a GiB.
async fn transfer(meta: &Arc<Metainfo>, source: &Path, target: &Path) -> (f64, f64) {
    let _ = std::fs::remove_file(target);
    let target = FileStorage::create(target, BYTES, Resize::Refuse).unwrap().storage;
    let (seeding, _) = start(meta, Arc::new(FileStorage::open(source).unwrap()), Have::Everything).await;
    let (begun, before) = (Instant::now(), processor());
    let (fetching, leecher) = start(meta, Arc::new(target), Have::Nothing).await;
    leecher.add_peers(vec![seeding.local_addr()]).await;
    leecher.complete().await.unwrap();
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), processor() - before);
    fetching.shutdown().await;
    seeding.shutdown().await;
    let gib = BYTES as f64 / f64::from(1 << 30);
    (BYTES as f64 / 1e6 / seconds, cpu / gib)
}

async fn start(meta: &Arc<Metainfo>, storage: Arc<dyn Storage>, have: Have) -> (Session, Swarm) {
    let session = Session::start(SessionConfig::new("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let spec = TorrentSpec::new(Arc::clone(meta), storage, have, 256 << 20);
    let swarm = session.add(spec).unwrap();
    (session, swarm)
}

/// Processor time of this process.
fn processor() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_usec()).unwrap() * 1000)
            .as_secs_f64()
    };
    seconds(usage.user_time()) + seconds(usage.system_time())
}
