//! Partitions of one image: each fetched by itself into its place, each served by itself from where it lives.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use flashmob::event::{Class, Event};
use flashmob::io::hash::{sha1, sha256};
use flashmob::layout::extents::{Extents, RangeKind, Run, RunBuilder};
use flashmob::layout::grid::{Grid, classify, count};
use flashmob::layout::image::payload_files;
use flashmob::manifest::{
    Boot, Disk, Entry, FORMAT, Manifest, Partition, Payload, Policy, Role, Table, names,
};
use flashmob::metainfo::{Metainfo, MetainfoBuilder, Pieces};
use flashmob::tracker::Event as Announced;
use flashmob::units::{InfoHash, Lba, PieceIndex, PieceLength, SectorSize};

use crate::command::{get, run, seed, seed_command, seed_loud};

use RangeKind::{Data, Free, Zero};
use flashmob_testkit::child::Guarded;
use flashmob_testkit::loops::LoopDevice;
use flashmob_testkit::swarm::{payload, within, write_torrent};
use flashmob_testkit::tracker::TestTracker;

const PIECE: usize = 64 * 1024;
const KIB: u64 = 1024;

/// Kind and bytes of each range, from the partition's first byte.
type Ranges = &'static [(RangeKind, u64)];

/// Number, policy and ranges of each partition, in pieces of 64 KiB. 1 has two with data, one of zeros, a
/// free one, one with data and zeros, and a short one with data; 2 has nothing that travels; 3 has four with
/// data between zeros.
const PARTITIONS: [(u32, Policy, Ranges); 3] = [
    (
        1,
        Policy::Replace,
        &[
            (Data, 72 * KIB),
            (Free, 56 * KIB),
            (Zero, 64 * KIB),
            (Free, 64 * KIB),
            (Data, 20 * KIB),
            (Zero, 44 * KIB),
            (Data, 21 * 512),
        ],
    ),
    (2, Policy::Keep, &[(Data, 64 * KIB)]),
    (3, Policy::Replace, &[(Zero, 64 * KIB), (Data, 200 * KIB), (Zero, 120 * KIB)]),
];

/// An image in a folder, and the partitions it was made of.
struct Image {
    folder: tempfile::TempDir,
    meta: Metainfo,
    payload: Vec<u8>,
    /// Each partition's bytes; free ranges hold deleted files.
    sources: Vec<Vec<u8>>,
    runs: Vec<Vec<Run>>,
}

impl Image {
    fn new() -> Image {
        let piece_length = PieceLength::new(PIECE as u32).unwrap();
        let mut lba = 64;
        let (mut partitions, mut sources, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for (number, policy, ranges) in PARTITIONS {
            let mut builder = RunBuilder::default();
            let mut bytes = Vec::new();
            for (kind, length) in ranges {
                builder.push(*kind, *length);
                bytes.extend(match kind {
                    Data => payload(*length as usize, u64::from(number) + builder.end()),
                    Zero => vec![0; *length as usize],
                    Free => vec![0xdd; *length as usize],
                });
            }
            let these = builder.finish();
            let size = bytes.len() as u64;
            partitions.push(Partition {
                number,
                first: Lba(lba),
                size,
                entry: Entry::Mbr { kind: 0x83, active: false, ebr: None },
                role: Role::Data,
                filesystem: None,
                policy,
                grow: false,
                blank: None,
                pieces: count(&classify(&these, size, piece_length)),
                sha256: None,
            });
            lba += size / 512;
            sources.push(bytes);
            runs.push(these);
        }
        let replaced = partitions.iter().filter(|partition| partition.policy == Policy::Replace);
        let pieces = replaced.map(|partition| partition.pieces.data).sum();
        let file_size = 4 * PIECE as u64;
        let extents = Extents { partitions: runs.clone() };
        let encoded = extents.encode();
        let mut manifest = Manifest {
            format: FORMAT,
            name: "lab".into(),
            version: "1".into(),
            sequence: 1,
            created: "2026-01-01T00:00:00Z".into(),
            piece_length,
            disk: Disk {
                sector_size: SectorSize::DEFAULT,
                minimum_size: (lba + 64) * 512,
                table: Table::Mbr { signature: [1, 2, 3, 4], extended: vec![] },
                boot_areas: vec![],
            },
            partitions,
            boot: Boot::default(),
            payload: Payload { pieces, file_size, info_hash: InfoHash([0; 20]), sha256: None },
            sidecars: Default::default(),
            lost: Vec::new(),
        };
        let grid = Grid::new(&manifest, extents).expect("they agree");
        let payload = payload_of(&grid, &sources);
        let builder = MetainfoBuilder {
            name: "1".into(),
            piece_length: PIECE as u32,
            files: payload_files(payload.len() as u64, file_size),
            pieces: Pieces::Hashed(payload.chunks(PIECE).map(sha1).collect()),
            private: true,
        };
        let meta = builder.build().expect("a torrent");
        manifest.payload.info_hash = meta.info_hash;
        let pieces: Vec<u8> = payload.chunks(PIECE).flat_map(|piece| sha256(piece).0).collect();
        let torrent = meta.to_bytes();
        let sidecars: [(&str, &[u8]); 4] = [
            (names::EXTENTS, &encoded),
            (names::PIECES, &pieces),
            (names::BOOT, &[]),
            (names::TORRENT, &torrent),
        ];
        manifest.sidecars =
            sidecars.iter().map(|(name, bytes)| ((*name).to_string(), sha256(bytes))).collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(names::MANIFEST), manifest.to_bytes()).unwrap();
        std::fs::write(folder.path().join(names::EXTENTS), encoded).unwrap();
        Image { folder, meta, payload, sources, runs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A tracker for it, and the torrent that names the tracker.
    async fn tracker(&self) -> (TestTracker, PathBuf) {
        let tracker = TestTracker::start(self.meta.info_hash);
        let torrent = self.path("t.torrent");
        write_torrent(&torrent, &self.meta, &tracker.url());
        (tracker, torrent)
    }

    /// Adds `--manifest` and `--partition`.
    fn of_partition(&self, mut command: Command, number: u32) -> Command {
        command.arg("--manifest").arg(self.path(names::MANIFEST)).arg("--partition").arg(number.to_string());
        command
    }

    /// Checks that data is there, that zero ranges are zero, and that whole free pieces were left alone.
    fn assert_on(&self, position: usize, target: &[u8], before: u8) {
        for run in &self.runs[position] {
            let range = run.start as usize..run.end() as usize;
            let there = &target[range.clone()];
            let inside_a_piece = PIECE as u64 > run.len;
            match run.kind {
                Free if !inside_a_piece => assert!(there.iter().all(|byte| *byte == before), "{run:?}"),
                Free => assert!(there.iter().all(|byte| *byte == 0), "{run:?}"),
                Data | Zero => assert!(there == &self.sources[position][range], "{run:?}"),
            }
        }
    }
}

/// The pieces that travel, one after another: data, and zeros for everything else.
fn payload_of(grid: &Grid, sources: &[Vec<u8>]) -> Vec<u8> {
    let mut all = vec![0; grid.payload_len() as usize];
    for (piece, bytes) in (0..).map(PieceIndex).zip(all.chunks_mut(PIECE)) {
        let span = grid.span(piece).expect("a piece");
        let from = &sources[span.partition][span.offset as usize..];
        for range in grid.data_ranges(piece) {
            let range = range.start as usize..range.end as usize;
            bytes[range.clone()].copy_from_slice(&from[range]);
        }
    }
    all
}

fn completed_with(events: &[Event]) -> Option<u64> {
    events.iter().find_map(|event| match event {
        Event::Complete { bytes, .. } => Some(*bytes),
        _ => None,
    })
}

/// A file as another system left it.
fn used_file(path: &Path, length: usize) {
    std::fs::write(path, vec![0xee; length]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_partition_of_an_image_is_fetched_into_its_own_place() {
    let image = Image::new();
    let (mut tracker, torrent) = image.tracker().await;
    std::fs::create_dir(image.path("payload")).unwrap();
    for (part, number) in image.payload.chunks(4 * PIECE).zip(0..) {
        std::fs::write(image.path(&format!("payload/{number:04}.bin")), part).unwrap();
    }
    let mut seeder = seed(&torrent, image.folder.path());
    within(20, tracker.wait_for(Announced::Started, 1)).await;

    let target = image.path("target");
    used_file(&target, image.sources[2].len());
    let (code, events, err) = run(&mut image.of_partition(get(&torrent, &target), 3)).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(completed_with(&events), Some(4 * PIECE as u64), "what is wanted, not the torrent");
    image.assert_on(2, &std::fs::read(&target).unwrap(), 0xee);

    let wanted = 4 * PIECE as u64;
    assert_eq!(tracker.left(Announced::Started), [0, wanted], "what is wanted and missing");
    within(10, tracker.wait_for(Announced::Stopped, 1)).await;
    assert_eq!(tracker.left(Announced::Stopped), [0]);

    // The last piece is a short one, and the device continues after it.
    let backing = image.path("disk");
    let device = LoopDevice::blank(&backing, 1 << 20);
    std::fs::write(device.path(), vec![0xee; 1 << 20]).unwrap();
    let (code, events, err) = run(&mut image.of_partition(get(&torrent, device.path()), 1)).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(completed_with(&events), Some(4 * PIECE as u64));
    let on_disk = std::fs::read(device.path()).unwrap();
    let size = image.sources[0].len();
    image.assert_on(0, &on_disk[..size], 0xee);
    assert!(on_disk[size..].iter().all(|byte| *byte == 0xee), "what lies behind it is left alone");

    seeder.terminate();
    assert_eq!(seeder.exit_code(10).await, 0);
    let (code, events, err) = run(&mut image.of_partition(get(&torrent, &target), 3)).await;
    assert_eq!(code, 0, "all of its own pieces are there, so no peer is needed: {err}");
    assert_eq!(completed_with(&events), Some(4 * PIECE as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_served_apart_make_the_whole_together() {
    let image = Image::new();
    let (mut tracker, torrent) = image.tracker().await;
    let mut seeders = Vec::new();
    for (position, number) in [(0, 1), (2, 3)] {
        let source = image.path(&format!("source{number}"));
        std::fs::write(&source, &image.sources[position]).unwrap();
        let mut command = image.of_partition(seed_command(&torrent, &source), number);
        seeders.push(Guarded::start(&mut command));
    }
    within(20, tracker.wait_for(Announced::Started, 2)).await;
    assert_eq!(tracker.left(Announced::Started), [0, 0], "each has all that it wants");
    let target = image.path("whole");
    let (code, events, err) = run(&mut get(&torrent, &target)).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(completed_with(&events), Some(image.payload.len() as u64));
    let mut fetched = std::fs::read(target.join("payload/0000.bin")).unwrap();
    fetched.extend(std::fs::read(target.join("payload/0001.bin")).unwrap());
    assert!(fetched == image.payload, "what is free on a source travels as zeros");
    for seeder in &mut seeders {
        seeder.terminate();
        assert_eq!(seeder.exit_code(10).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_in_the_image_is_refused() {
    let image = Image::new();
    let (_tracker, torrent) = image.tracker().await;
    let small = image.path("small");
    std::fs::write(&small, b"precious").unwrap();
    let cases = [(7, Class::Usage, "partition 7"), (2, Class::Refused, "kept"), (1, Class::Refused, "small")];
    for (number, class, word) in cases {
        let (code, events, err) = run(&mut image.of_partition(get(&torrent, &small), number)).await;
        assert_eq!(code, i32::from(class.exit_code()), "{err}");
        assert!(err.contains(word), "{err}");
        assert!(matches!(events.last(), Some(Event::Error(failure)) if failure.class == class), "{events:?}");
    }
    assert_eq!(std::fs::read(&small).unwrap(), b"precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_payload_is_elsewhere_is_served_by_its_folder() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("mkimage/tests/golden/format-1");
    let folder = tempfile::tempdir().unwrap();
    let (version, torrent, target) =
        (folder.path().join("format-1"), folder.path().join("t.torrent"), folder.path().join("target"));
    std::fs::create_dir_all(version.join(names::PARTS)).unwrap();
    for name in [names::MANIFEST, names::EXTENTS, names::PIECES, names::BOOT, names::TORRENT] {
        std::fs::copy(golden.join(name), version.join(name)).unwrap();
    }
    let files =
        ["0000.bin", "0001.bin"].map(|name| std::fs::read(golden.join("payload").join(name)).unwrap());
    std::fs::write(version.join("parts/all.bin"), [&files[1][..], &files[0]].concat()).unwrap();
    let reference = r#"{"kind":"parts","files":[{"name":"all.bin"}],"runs":[[0,1,2],[0,0,1]]}"#;
    std::fs::write(version.join(names::REFERENCE), reference).unwrap();
    let meta = Metainfo::parse(&std::fs::read(golden.join(names::TORRENT)).unwrap()).unwrap();
    let mut tracker = TestTracker::start(meta.info_hash);
    write_torrent(&torrent, &meta, &tracker.url());
    // The folder, or the one above it.
    for source in [version.as_path(), folder.path()] {
        let mut seeder = seed(&torrent, source);
        within(20, tracker.wait_for(Announced::Started, 1)).await;
        let (code, _, err) = run(&mut get(&torrent, &target)).await;
        assert_eq!(code, 0, "{err}");
        for (name, bytes) in ["0000.bin", "0001.bin"].iter().zip(&files) {
            assert!(std::fs::read(target.join("payload").join(name)).unwrap() == *bytes, "{name}");
        }
        seeder.terminate();
        assert_eq!(seeder.exit_code(10).await, 0);
        std::fs::remove_dir_all(&target).unwrap();
        tracker = TestTracker::start(meta.info_hash);
        write_torrent(&torrent, &meta, &tracker.url());
    }
    let other = Image::new();
    let (_tracker, others) = other.tracker().await;
    let (code, _, err) = run(&mut seed_loud(&others, &version)).await;
    assert_eq!(code, i32::from(Class::Usage.exit_code()));
    assert!(err.contains("is not of this torrent but of golden@format-1"), "{err}");
}

/// Seeds `bytes` by a torrent with these hashes and fetches them; where the fetched file is.
async fn carry(bytes: &[u8], pieces: Pieces, options: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (source, target, torrent) =
        (folder.path().join("source"), folder.path().join("target"), folder.path().join("t.torrent"));
    std::fs::write(&source, bytes).unwrap();
    let builder = MetainfoBuilder {
        name: "file".into(),
        piece_length: PIECE as u32,
        files: vec![flashmob::metainfo::FileEntry::data(Vec::new(), bytes.len() as u64)],
        pieces,
        private: true,
    };
    let meta = Arc::new(builder.build().expect("a torrent"));
    let mut tracker = TestTracker::start(meta.info_hash);
    write_torrent(&torrent, &meta, &tracker.url());
    let _seeder = seed(&torrent, &source);
    within(20, tracker.wait_for(Announced::Started, 1)).await;
    let (code, events, err) = run(get(&torrent, &target).args(options)).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(completed_with(&events), Some(bytes.len() as u64));
    (folder, target)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_without_hashes_is_carried() {
    let bytes = payload(9 * PIECE + 100, 31);
    let (_folder, target) = carry(&bytes, Pieces::Unhashed { nonce: [7; 16] }, &[]).await;
    assert!(std::fs::read(target).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_verify_takes_pieces_whatever_their_hashes() {
    let bytes = payload(9 * PIECE, 32);
    let others = payload(9 * PIECE, 33).chunks(PIECE).map(sha1).collect();
    let (_folder, target) = carry(&bytes, Pieces::Hashed(others), &["--no-verify"]).await;
    assert!(std::fs::read(target).unwrap() == bytes);
}
