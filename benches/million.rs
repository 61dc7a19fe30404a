//! The cost of many pieces: opening an image of a million pieces, joining its swarm, and meeting peers in it.
//!
//!     cargo bench --bench million -- [--pieces 1000000] [--peers 32]
//!
//! The image is made here: a partition of zeros that counts as data, in sparse payload files, so 1 TiB takes
//! a few MiB on the disk. Memory is the growth of the process (VmRSS).

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use flashmob::bitfield::Bitfield;
use flashmob::buf::BufPool;
use flashmob::io::hash::{sha256, sha256_of_hashes};
use flashmob::io::image::folder::ImageFolder;
use flashmob::io::storage::ImageShape;
use flashmob::io::torrent::{Have, Session, SessionConfig, TorrentSpec};
use flashmob::layout::extents::{Extents, RangeKind, RunBuilder};
use flashmob::layout::image::payload_files;
use flashmob::manifest::{
    Boot, Disk, Entry, FORMAT, Manifest, Partition, Payload, PieceCount, Policy, Role, Table, names,
};
use flashmob::metainfo::{MetainfoBuilder, Pieces};
use flashmob::storage::{Attributes, Storage, StorageError};
use flashmob::swarm::wire::{Handshake, Message};
use flashmob::swarm::{ConnId, Engine, EngineConfig, Input};
use flashmob::units::{Lba, Now, PeerId, PieceIndex, PieceLength, SectorSize, Sha1};
use sha1::Digest;

const PIECE: u32 = 1 << 20;
const FILE_SIZE: u64 = 64 << 30;

#[derive(Parser)]
struct Arguments {
    /// Pieces of 1 MiB.
    #[arg(long, default_value_t = 1_000_000)]
    pieces: u32,
    /// Peers with half of the pieces each that an engine meets.
    #[arg(long, default_value_t = 32)]
    peers: u32,
    /// Only makes the image, in this folder: the memory for that is another process's.
    #[arg(long, hide = true)]
    make_in: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// MiB that this process holds.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_or(0.0, |kib: f64| kib / 1024.0)
}

fn measure<T>(name: &str, what: impl FnOnce() -> T) -> T {
    let (before, begun) = (resident(), Instant::now());
    let made = what();
    let (took, more) = (begun.elapsed().as_secs_f64(), resident() - before);
    println!("| {name} | {took:.2} s | {more:.0} MiB |");
    made
}

/// Writes the image's folder. Every third piece has a hole, so that there are as many ranges as a used
/// filesystem has.
fn make(folder: &Path, pieces: u32) {
    let length = PieceLength::new(PIECE).expect("a length");
    let size = u64::from(pieces) * length.bytes();
    let mut runs = RunBuilder::default();
    for piece in 0..pieces {
        if piece % 3 == 0 {
            runs.push(RangeKind::Data, 512 << 10);
            runs.push(RangeKind::Free, 4 << 10);
            runs.push(RangeKind::Data, 508 << 10);
        } else {
            runs.push(RangeKind::Data, length.bytes());
        }
    }
    let extents = Extents { partitions: vec![runs.finish()] };
    let zeros = vec![0; PIECE as usize];
    let (sha1, hash) = (Sha1(sha1::Sha1::digest(&zeros).into()), sha256(&zeros));
    let torrent = MetainfoBuilder {
        name: "1".into(),
        piece_length: PIECE,
        files: payload_files(size, FILE_SIZE),
        pieces: Pieces::Hashed(vec![sha1; pieces as usize]),
        private: true,
    };
    let torrent = torrent.build().expect("a torrent");
    let hashes = vec![hash; pieces as usize];
    let sidecars = [
        (names::EXTENTS, extents.encode()),
        (names::PIECES, hashes.iter().flat_map(|hash| hash.0).collect()),
        (names::BOOT, Vec::new()),
        (names::TORRENT, torrent.to_bytes()),
    ];
    let all = sha256_of_hashes(&hashes);
    let manifest = Manifest {
        format: FORMAT,
        name: "million".into(),
        version: "1".into(),
        sequence: 1,
        created: "2026-11-25T00:00:00Z".into(),
        piece_length: length,
        disk: Disk {
            sector_size: SectorSize::DEFAULT,
            minimum_size: size,
            table: Table::None,
            boot_areas: Vec::new(),
        },
        partitions: vec![Partition {
            number: 1,
            first: Lba(0),
            size,
            entry: Entry::None,
            role: Role::Data,
            filesystem: None,
            policy: Policy::Replace,
            grow: false,
            blank: None,
            pieces: PieceCount { data: pieces, zero: 0, free: 0 },
            sha256: Some(all),
        }],
        boot: Boot::default(),
        payload: Payload { pieces, file_size: FILE_SIZE, info_hash: torrent.info_hash, sha256: Some(all) },
        sidecars: sidecars.iter().map(|(name, bytes)| ((*name).to_string(), sha256(bytes))).collect(),
        lost: Vec::new(),
    };
    for (name, bytes) in &sidecars {
        fs::write(folder.join(name), bytes).expect("written");
        println!("{name}: {} bytes", bytes.len());
    }
    let bytes = manifest.to_bytes();
    println!("{}: {} bytes\n", names::MANIFEST, bytes.len());
    fs::write(folder.join(names::MANIFEST), bytes).expect("written");
    fs::create_dir(folder.join(names::PAYLOAD)).expect("made");
    for file in payload_files(size, FILE_SIZE) {
        let path = file.path.iter().fold(folder.to_path_buf(), |path, element| path.join(element));
        File::create(path).and_then(|new| new.set_len(file.length)).expect("a sparse file");
    }
}

/// Takes everything and keeps nothing.
struct Nothing(u64);

impl Storage for Nothing {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        into.fill(0);
        Ok(())
    }

    fn write_at(&self, _offset: u64, _from: &[u8]) -> Result<(), StorageError> {
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        Attributes { alignment: 1, rotational: false, read_only: false }
    }
}

fn engine(image: &ImageFolder, have: Bitfield) -> Engine {
    let meta = image.metainfo();
    let id = PeerId(*b"-FM0100-000000000000");
    let config = EngineConfig::new(meta.info_hash, id, meta.piece_length, meta.total_length(), have);
    let pool = BufPool::new(PIECE as usize, 8);
    Engine::new(config, pool, Arc::new(ImageShape(Arc::clone(image.grid())))).expect("an engine")
}

/// An engine that has nothing meets peers that have every other piece each, and loses them again.
fn meet(image: &ImageFolder, peers: u32) {
    let pieces = image.metainfo().piece_count();
    let mut engine =
        measure("engine of a terminal that has nothing", || engine(image, Bitfield::none(pieces)));
    let now = Now(Duration::from_secs(1));
    let fields: Vec<Vec<u8>> = (0..2)
        .map(|odd| {
            let mut field = Bitfield::none(pieces);
            (odd..pieces).step_by(2).for_each(|piece| {
                field.insert(PieceIndex(piece));
            });
            field.as_wire().to_vec()
        })
        .collect();
    measure(&format!("{peers} peers with half of the pieces come"), || {
        for peer in 0..peers {
            let conn = ConnId(u64::from(peer));
            let [.., a, b] = peer.to_be_bytes();
            let addr = SocketAddr::from(([10, 0, a, b], 6881));
            let mut id = *b"-XX0100-0000000000__";
            id[18..].copy_from_slice(&[a, b]);
            let info_hash = image.metainfo().info_hash;
            let handshake = Handshake { info_hash, peer_id: PeerId(id), fast: true, extended: false };
            engine.handle(now, Input::Connected { conn, addr, incoming: true, handshake });
            let field = fields[(peer % 2) as usize].clone();
            engine.handle(now, Input::Message { conn, message: Message::Bitfield(field.into()) });
            while engine.poll().is_some() {}
        }
    });
    measure(&format!("a thousand looks at {peers} peers (a second's work at most)"), || {
        for step in 0..1000 {
            engine.handle(Now(Duration::from_millis(1000 + step)), Input::Tick);
            while engine.poll().is_some() {}
        }
    });
    measure(&format!("{peers} peers go"), || {
        for peer in 0..peers {
            engine.handle(Now(Duration::from_secs(3)), Input::Closed { conn: ConnId(u64::from(peer)) });
            while engine.poll().is_some() {}
        }
    });
}

/// A seeder and a terminal on loopback: how long until the terminal has its first pieces.
async fn join(image: &ImageFolder) {
    let start =
        || async { Session::start(SessionConfig::new(([127, 0, 0, 1], 0).into())).await.expect("a session") };
    let spec = |storage: Arc<dyn Storage>, have: Have| TorrentSpec {
        shape: Arc::new(ImageShape(Arc::clone(image.grid()))),
        ..TorrentSpec::new(Arc::clone(image.metainfo()), storage, have, 64 << 20)
    };
    let (before, begun) = (resident(), Instant::now());
    let seeder = start().await;
    seeder.add(spec(image.payload().expect("a payload"), Have::Everything)).expect("seeding");
    let terminal = start().await;
    let total = image.metainfo().total_length();
    let swarm = terminal.add(spec(Arc::new(Nothing(total)), Have::Nothing)).expect("fetching");
    swarm.add_peers(vec![seeder.local_addr()]).await;
    for wanted in [1, 500] {
        while swarm.stats().pieces_done < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (took, more) = (begun.elapsed().as_secs_f64(), resident() - before);
        println!(
            "| seeder and terminal start, until {wanted} pieces are there | {took:.2} s | {more:.0} MiB |"
        );
    }
    terminal.shutdown().await;
    seeder.shutdown().await;
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(folder) = &arguments.make_in {
        make(folder, arguments.pieces);
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::env::current_exe().expect("this program");
    let number = arguments.pieces.to_string();
    let made = Command::new(program).args(["--pieces", &number, "--make-in"]).arg(folder.path()).status();
    assert!(made.expect("it starts").success());
    println!("| {} pieces of 1 MiB | time | memory |\n|---|---|---|", arguments.pieces);
    let image = measure("open the image: read, hash, check all sidecars", || {
        ImageFolder::open(folder.path()).expect("an image")
    });
    meet(&image, arguments.peers);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(join(&image));
}
