//! Pieces that travel compressed: less on the wire, the same on the disk, nothing that standard clients would
//! notice, and nothing that a peer's frames could break.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flashmob::api::Compress;
use flashmob::io::storage::{FileStorage, Resize};
use flashmob::io::torrent::codec::Packer;
use flashmob::io::torrent::{Have, Phase, Session, SessionConfig};
use flashmob::metainfo::Metainfo;
use flashmob::swarm::wire::{
    Decoder, ExtendedHandshake, HANDSHAKE_LEN, Handshake, Message, OUR_EXTENSION_ID, OUR_EXTENSION_VERSION,
    Offered, SchedulingMessage, encode,
};
use flashmob::swarm::{Block, FRAME};
use flashmob::tracker::Event;
use flashmob::units::{PeerId, PieceIndex};
use flashmob_testkit::child::{self, Guarded};
use flashmob_testkit::net::free_port;
use flashmob_testkit::swarm::{add, session, torrent, within, write_torrent};
use flashmob_testkit::tracker::TestTracker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::clients;
use crate::command::{get, run};

const PIECE: usize = 64 * 1024;

/// Lines of text that all differ and compress to about a quarter.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(
            format!("terminal {:04} took piece {:06}\n", state >> 52, state >> 44 & 0xf_ffff).as_bytes(),
        );
    }
    bytes.truncate(length);
    bytes
}

async fn compressing(compress: Compress) -> Session {
    let config = SessionConfig { compress, ..SessionConfig::new("127.0.0.1:0".parse().unwrap()) };
    Session::start(config).await.expect("a free port")
}

/// A file's storage of `length` bytes.
fn target(path: &Path, length: usize) -> Arc<FileStorage> {
    Arc::new(FileStorage::create(path, length as u64, Resize::Refuse).unwrap().storage)
}

/// Runs a seeder and two terminals one after the other; returns the bytes that each received.
async fn received(compress: [Compress; 3]) -> [u64; 2] {
    let folder = tempfile::tempdir().unwrap();
    let bytes = text(60 * PIECE + 777);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let source = folder.path().join("source");
    std::fs::write(&source, &bytes).unwrap();
    let home = compressing(compress[0]).await;
    let seeder = add(&home, &meta, Arc::new(FileStorage::open(&source).unwrap()), Have::Everything, None);
    let mut before = home.local_addr();
    let mut terminals = Vec::new();
    for number in [1, 2] {
        let path = folder.path().join(format!("target{number}"));
        let terminal = compressing(compress[number]).await;
        let swarm = add(&terminal, &meta, target(&path, bytes.len()), Have::Nothing, None);
        swarm.add_peers(vec![before]).await;
        within(60, swarm.complete()).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes, "terminal {number}");
        assert_eq!((swarm.stats().pieces_bad, swarm.stats().bytes_done), (0, bytes.len() as u64));
        if number == 1 {
            // The second one fetches from the first.
            within(10, seeder.stop()).await;
        }
        before = terminal.local_addr();
        terminals.push((terminal, swarm.stats().bytes_in));
    }
    [terminals[0].1, terminals[1].1]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_compressed_travels_so_from_the_seeder_and_on_from_terminals() {
    let payload = (60 * PIECE + 777) as u64;
    let [first, second] = received([Compress::On; 3]).await;
    assert!(first < payload * 7 / 10, "from the seeder: {first} of {payload}");
    assert!(second < payload * 7 / 10, "passed on: {second} of {payload}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declines_gets_pieces_as_they_are() {
    let payload = (60 * PIECE + 777) as u64;
    assert_eq!(received([Compress::On, Compress::Off, Compress::On]).await, [payload, payload]);
    assert_eq!(received([Compress::Off, Compress::On, Compress::Off]).await[0], payload);
}

/// Forwards connections to `to`, one at a time, once it listens, and counts the bytes that come back.
async fn counting_wire(to: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, count) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = loop {
                match TcpStream::connect(to).await {
                    Ok(far) => break far,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let (mut from_near, mut to_near) = near.split();
                let (mut from_far, mut to_far) = far.split();
                let back = async {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(read @ 1..) = from_far.read(&mut buffer).await {
                        counted.fetch_add(read as u64, Ordering::Relaxed);
                        if to_near.write_all(&buffer[..read]).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! { () = back => {}, _ = tokio::io::copy(&mut from_near, &mut to_far) => {} }
            });
        }
    });
    (at, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_sends_less_than_the_payload_when_it_compresses() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = text(80 * PIECE);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let (source, path) = (folder.path().join("source"), folder.path().join("t.torrent"));
    std::fs::write(&source, &bytes).unwrap();
    std::fs::write(&path, meta.to_bytes()).unwrap();
    let home = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut seed = child::command(None, env!("CARGO_BIN_EXE_flashmob"));
    seed.arg("seed").arg(&path).arg(&source).args([
        "--json",
        "--compress",
        "on",
        "--listen",
        &home.to_string(),
    ]);
    let _seeder = Guarded::start(seed.stdout(Stdio::null()));
    for (mode, most) in [("on", 70), ("off", 110)] {
        let (wire, count) = counting_wire(home).await;
        let target = folder.path().join(mode);
        let (code, _, said) =
            run(get(&path, &target).args(["--compress", mode, "--peer", &wire.to_string()])).await;
        assert_eq!(code, 0, "{said}");
        assert!(std::fs::read(&target).unwrap() == bytes);
        let percent = count.load(Ordering::Relaxed) * 100 / bytes.len() as u64;
        assert!(percent <= most && (mode == "on" || percent >= 100), "{mode}: {percent} % of the payload");
    }
    let (code, ..) = run(get(&path, &folder.path().join("none")).args(["--compress", "perhaps"])).await;
    assert_eq!(code, 2, "there is no such mode");
}

#[tokio::test(flavor = "multi_thread")]
async fn aria2_and_libtorrent_beside_compressed_pieces_notice_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = text(150 * PIECE);
    let meta = torrent("image.bin", &bytes, PIECE, Vec::new());
    let mut tracker = TestTracker::start(meta.info_hash);
    let (source, path) = (folder.path().join("source"), folder.path().join("t.torrent"));
    std::fs::write(&source, &bytes).unwrap();
    write_torrent(&path, &meta, &tracker.url());
    let home = compressing(Compress::On).await;
    let storage = Arc::new(FileStorage::open(&source).unwrap());
    let _seeder = add(&home, &meta, storage, Have::Everything, Some(tracker.url()));
    within(10, tracker.wait_for(Event::Started, 1)).await;
    let start: [fn(&Path, &Path, &str) -> Guarded; 2] = [clients::aria2, clients::libtorrent];
    let mut others = Vec::new();
    for (number, start) in start.into_iter().enumerate() {
        let theirs = folder.path().join(format!("other{number}"));
        std::fs::create_dir(&theirs).unwrap();
        others.push((start(&path, &theirs, "leech"), theirs));
    }
    let mut ours = Vec::new();
    for number in 0..2 {
        let at = folder.path().join(format!("ours{number}"));
        let terminal = compressing(Compress::On).await;
        let swarm = add(&terminal, &meta, target(&at, bytes.len()), Have::Nothing, Some(tracker.url()));
        ours.push((terminal, swarm, at));
    }
    for (_, swarm, at) in &ours {
        within(90, swarm.complete()).await.unwrap();
        assert!(std::fs::read(at).unwrap() == bytes);
        assert_eq!(swarm.stats().pieces_bad, 0);
    }
    for (mut other, theirs) in others {
        assert_eq!(other.exit_code(60).await, 0, "{}", theirs.display());
        assert!(std::fs::read(theirs.join("image.bin")).unwrap() == bytes, "{}", theirs.display());
    }
    let wire: u64 = ours.iter().map(|(_, swarm, _)| swarm.stats().bytes_in).sum();
    assert!(wire < 2 * bytes.len() as u64, "nothing travelled compressed: {wire}");
}

/// A peer that offers piece 0 as `frame`, which may be garbage, and sends it on request. Returns when the
/// connection is closed.
async fn rogue(at: SocketAddr, meta: &Metainfo, frame: Vec<u8>) -> usize {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let id = PeerId(*b"-FM0100-rogue-rogue-");
    stream.write_all(&Handshake::ours(meta.info_hash, id).encode()).await.unwrap();
    let mut theirs = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut theirs).await.unwrap();
    let hello = ExtendedHandshake {
        flashmob_id: Some(OUR_EXTENSION_ID),
        flashmob_version: Some(OUR_EXTENSION_VERSION),
        frames: Some(1),
        ..ExtendedHandshake::default()
    };
    let offered = vec![Offered { piece: PieceIndex(0), frame: frame.len() as u32 }];
    let offer = SchedulingMessage::Offer { start_in: Duration::ZERO, pieces: offered };
    let mut out = BytesMut::new();
    encode(&Message::HaveAll, &mut out);
    encode(&Message::Extended { id: 0, payload: hello.encode().into() }, &mut out);
    encode(&Message::Unchoke, &mut out);
    stream.write_all(&out).await.unwrap();
    let (mut decoder, mut sent) = (Decoder::new(64), 0);
    loop {
        match stream.read_buf(decoder.buffer()).await {
            Ok(0) | Err(_) => return sent,
            Ok(_) => {}
        }
        let mut out = BytesMut::new();
        while let Some(message) = decoder.next_message().unwrap() {
            match message {
                Message::Interested => {
                    encode(
                        &Message::Extended { id: OUR_EXTENSION_ID, payload: offer.encode().into() },
                        &mut out,
                    );
                }
                Message::Request(Block { piece, offset, len }) => {
                    let start = (offset & !FRAME) as usize;
                    let data = Bytes::copy_from_slice(&frame[start..start + len as usize]);
                    encode(&Message::Piece { piece, offset, data }, &mut out);
                    sent += len as usize;
                }
                _ => {}
            }
        }
        let _ = stream.write_all(&out).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_and_garbage_for_frames_cost_their_sender_the_connection_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = text(20 * PIECE);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let mut packer = Packer::new().unwrap();
    let mut pack = |bytes: &[u8]| packer.pack(bytes, PIECE).expect("it can be compressed").to_vec();
    let frames = [
        ("a bomb", pack(&vec![0; 64 << 20])),
        ("garbage", vec![0x5a; 20_000]),
        ("too short", pack(&bytes[..PIECE - 1])),
        ("another piece's", pack(&bytes[PIECE..2 * PIECE])),
    ];
    for (what, frame) in frames {
        let path = folder.path().join(what);
        let terminal = compressing(Compress::On).await;
        let swarm = add(&terminal, &meta, target(&path, bytes.len()), Have::Nothing, None);
        let asked = within(30, rogue(terminal.local_addr(), &meta, frame.clone())).await;
        assert_eq!(asked, frame.len(), "{what}: the frame was asked for, and then the peer closed");
        assert_eq!((swarm.stats().pieces_done, swarm.phase()), (0, Phase::Fetching), "{what}");
        let good = session().await;
        let source = folder.path().join("source");
        std::fs::write(&source, &bytes).unwrap();
        add(&good, &meta, Arc::new(FileStorage::open(&source).unwrap()), Have::Everything, None);
        swarm.add_peers(vec![good.local_addr()]).await;
        within(30, swarm.complete()).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes, "{what}");
        assert_eq!(swarm.stats().pieces_bad, 1, "{what}");
    }
}
