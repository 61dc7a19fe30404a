//! Peers: the tracker tells them of each other and of the server's own seeder, and that one delivers.

use std::sync::{Arc, Mutex};

use super::*;
use crate::api::Compress;
use crate::io::image::folder::ImageFolder;
use crate::io::torrent::{Have, Session, SessionConfig, TorrentSpec};
use crate::manifest::reference::Reference;
use crate::storage::{Attributes, Storage, StorageError};

pub(super) const HASH: &str = "%9e%09%16%bc%9e%dc%5c%83%db%84%40%81%3a%2f%ab%9f%56%82%90%fb";

async fn announce(world: &World, id: char, port: u16, more: &str) -> Vec<u8> {
    let id = id.to_string().repeat(20);
    let url = world.url(&format!("/announce?info_hash={HASH}&peer_id={id}&port={port}{more}"));
    world.http.get(url).send().await.expect("an answer").bytes().await.expect("bytes").to_vec()
}

fn has(answer: &[u8], port: u16) -> bool {
    let peer = [&[127, 0, 0, 1][..], &port.to_be_bytes()].concat();
    answer.windows(6).any(|window| window == peer)
}

#[tokio::test]
async fn peers_learn_of_each_other_and_of_the_seeder() {
    let world = World::new("").await;
    let seeder = world.server.as_ref().expect("running").peer_port();
    let first = announce(&world, 'a', 7001, "&left=1").await;
    assert!(has(&first, seeder) && !has(&first, 7001), "{}", String::from_utf8_lossy(&first));
    let second = announce(&world, 'b', 7002, "&left=1&compact=1").await;
    assert!(has(&second, 7001) && has(&second, seeder));
    assert!(has(&announce(&world, 'a', 7001, "&left=0&event=completed").await, 7002));
    let list = announce(&world, 'c', 7003, "&left=1&compact=0").await;
    assert!(String::from_utf8_lossy(&list).contains("2:ip9:127.0.0.17:peer id20:aaaa"));
    announce(&world, 'b', 7002, "&event=stopped").await;
    assert!(!has(&announce(&world, 'c', 7003, "&left=1").await, 7002));
    let (_, scrape) = world.text(&format!("/scrape?info_hash={HASH}")).await;
    // Hashes are bytes, so only the tail of this is text.
    assert!(scrape.contains("d8:completei2e10:downloadedi1e10:incompletei1eeee"), "{scrape}");
}

#[tokio::test]
async fn an_unknown_swarm_gets_a_failure_reason() {
    let world = World::new("").await;
    let (status, text) =
        world.text("/announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=1").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.starts_with("d14:failure reason"), "{text}");
    assert!(world.text("/announce").await.1.contains("is missing"));
}

struct Memory(Mutex<Vec<u8>>);

impl Storage for Memory {
    fn len(&self) -> u64 {
        self.0.lock().expect("lock").len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let at = usize::try_from(offset).expect("small");
        into.copy_from_slice(&self.0.lock().expect("lock")[at..at + into.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        let at = usize::try_from(offset).expect("small");
        self.0.lock().expect("lock")[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn attributes(&self) -> Attributes {
        Attributes { alignment: 1, rotational: false, read_only: false }
    }
}

/// The golden image's torrent, to be fetched into memory.
fn of_golden(world: &World, image: &ImageFolder, memory: &Arc<Memory>) -> TorrentSpec {
    let storage = Arc::clone(memory) as Arc<dyn Storage>;
    TorrentSpec {
        trackers: vec![world.url("/announce")],
        ..TorrentSpec::new(Arc::clone(image.metainfo()), storage, Have::Nothing, 1 << 20)
    }
}

/// The payload that a peer fetches from the golden image's swarm.
async fn fetch(world: &World) -> Vec<u8> {
    let image = ImageFolder::open(&golden()).expect("golden");
    let total = image.metainfo().total_length();
    let memory = Arc::new(Memory(Mutex::new(vec![0xee; usize::try_from(total).expect("small")])));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let session = Session::start(SessionConfig { compress: Compress::Off, ..SessionConfig::new(listen) })
        .await
        .expect("starts");
    let swarm = session.add(of_golden(world, &image, &memory)).expect("added");
    let fetched = tokio::time::timeout(Duration::from_secs(30), swarm.complete()).await;
    fetched.expect("in time").expect("fetched");
    session.shutdown().await;
    memory.0.lock().expect("lock").clone()
}

fn golden_payload() -> Vec<u8> {
    let file = |name: &str| fs::read(golden().join("payload").join(name)).expect("read");
    [file("0000.bin"), file("0001.bin")].concat()
}

#[tokio::test]
async fn a_peer_fetches_an_image_from_the_servers_own_seeder() {
    let world = World::new("").await;
    assert!(fetch(&world).await == golden_payload(), "byte for byte");
    world.until("/metrics", "flashmob_seeder_sent_bytes_total{image=\"golden@format-1\"} 196608\n").await;
}

#[tokio::test]
async fn an_image_in_parts_is_seeded_and_is_no_web_seed() {
    let mut world = World::new("").await;
    let image = world.at("images/golden/format-1");
    fs::create_dir(image.join("parts")).expect("made");
    for (file, part) in [("0000.bin", "0001.bin"), ("0001.bin", "0000.bin")] {
        fs::rename(image.join("payload").join(file), image.join("parts").join(part)).expect("moved");
    }
    let reference =
        r#"{"kind":"parts","files":[{"name":"0000.bin"},{"name":"0001.bin"}],"runs":[[1,0,2],[0,0,1]]}"#;
    fs::write(image.join("payload.reference"), reference).expect("written");
    world.restart().await;
    assert!(fetch(&world).await == golden_payload(), "byte for byte");
    let (status, said) = world.text("/images/golden/format-1/payload/0000.bin").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(said.contains("comes through the swarm"), "{said}");
    for hidden in ["payload.reference", "parts/0000.bin"] {
        assert_eq!(world.text(&format!("/images/golden/format-1/{hidden}")).await.0, StatusCode::NOT_FOUND);
    }
    let torrent = world.http.get(world.url("/torrents/golden/format-1.torrent")).send().await.expect("sent");
    let torrent = torrent.bytes().await.expect("bytes");
    let has = |key: &[u8]| torrent.windows(key.len()).any(|window| window == key);
    assert!(has(b"8:announce") && !has(b"8:url-list"));
}

/// Puts the golden image's payload where its source is: pieces 0 and 1 are cells 0 and 4, piece 2 is the last
/// sector.
fn put_in_place(world: &World) -> PathBuf {
    let image = world.at("images/golden/format-1");
    let source = world.at("source.img");
    let payload = golden_payload();
    let mut disk = vec![0; 1_049_088];
    disk[..65_536].copy_from_slice(&payload[..65_536]);
    disk[262_144..327_680].copy_from_slice(&payload[65_536..131_072]);
    disk[1_048_576..].copy_from_slice(&payload[131_072..131_584]);
    // A free byte between the data of piece 1.
    disk[262_144] = 0x77;
    fs::write(&source, disk).expect("written");
    fs::remove_dir_all(image.join("payload")).expect("removed");
    let place = Reference::Source(crate::io::image::payload::look(&source).expect("a source"));
    fs::write(image.join("payload.reference"), place.to_bytes()).expect("written");
    source
}

#[tokio::test]
async fn an_image_in_place_is_seeded_until_its_source_changes() {
    let mut world = World::new("").await;
    let source = put_in_place(&world);
    world.restart().await;
    assert!(fetch(&world).await == golden_payload(), "byte for byte, without what was not captured");
    assert_eq!(world.text("/images/golden/format-1/payload/0000.bin").await.0, StatusCode::NOT_FOUND);
    let disk = fs::read(&source).expect("read");
    fs::write(&source, &disk[..1_048_576]).expect("written");
    world.until("/api/v1/lab", "captured from: it has 1048576 bytes").await;
    // The same except for one byte and the time.
    let mut wrong = disk.clone();
    wrong[300_000] ^= 1;
    let modified = fs::metadata(&source).and_then(|m| m.modified()).expect("a time");
    fs::write(&source, wrong).expect("written");
    let file = fs::File::options().write(true).open(&source).expect("open");
    file.set_modified(modified + Duration::from_secs(5)).expect("a time");
    world.until("/api/v1/lab", "captured from: it was written to").await;
}

#[tokio::test]
async fn a_piece_that_is_not_what_was_captured_is_not_sent_and_people_are_told() {
    let mut world = World::new("").await;
    let source = put_in_place(&world);
    let modified = fs::metadata(&source).and_then(|m| m.modified()).expect("a time");
    let file = fs::File::options().write(true).open(&source).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, b"?", 300_010).expect("written");
    file.set_modified(modified).expect("a time");
    world.restart().await;
    let image = ImageFolder::open(&golden()).expect("golden");
    let total = usize::try_from(image.metainfo().total_length()).expect("small");
    let memory = Arc::new(Memory(Mutex::new(vec![0; total])));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let session = Session::start(SessionConfig::new(listen)).await.expect("starts");
    let swarm = session.add(of_golden(&world, &image, &memory)).expect("added");
    world.until("/api/v1/lab", "piece 1 is not what was captured").await;
    let pieces = async {
        while swarm.stats().pieces_done < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), pieces).await.expect("the others come");
    let stats = swarm.stats();
    assert_eq!((stats.pieces_done, stats.pieces_bad), (2, 0), "it was never sent");
    session.shutdown().await;
}

#[tokio::test]
async fn a_peer_of_a_zone_is_told_its_rules_and_people_see_its_zone() {
    let zones = "[[zone]]\nname='room'\nnetworks=['127.0.0.0/8']\nlimit_mbit=80\nlinks=1\n";
    let world = World::new(&format!("{QUIET}{zones}")).await;
    world.begin(A).await;
    let told = |answer: &[u8]| {
        let from = answer.windows(4).position(|window| window == b"2:fm")?;
        Some(String::from_utf8_lossy(&answer[from..]).into_owned())
    };
    let announce = async |id: &str| {
        let url = world.url(&format!("/announce?info_hash={HASH}&peer_id=-FM0100-{id}&port=7001&left=1"));
        world.http.get(url).send().await.expect("an answer").bytes().await.expect("bytes").to_vec()
    };
    let rules = told(&announce("aaaaaaaaaaaa").await).expect("rules");
    assert!(rules.contains("127.0.0.0/8") && rules.contains("4:ratei10000000e"), "{rules}");
    assert!(rules.contains("4:room"), "{rules}");
    assert_eq!(told(&super::swarm::announce(&world, 'x', 7002, "&left=1").await), None, "no standard client");
    let (_, terminals) = world.text("/api/v1/terminals").await;
    assert!(terminals.contains(r#""zone":"room","gateway":true"#), "{terminals}");
    let (_, lab) = world.text("/api/v1/lab").await;
    let view = format!(r#""zones":[{{"name":"room","terminals":1,"imaging":1,"gateways":["{A}"]}}]"#);
    assert!(lab.contains(&view), "{lab}");
    std::fs::write(world.at("config.toml"), QUIET).expect("written");
    world.server.as_ref().expect("running").reload().await;
    world.until("/api/v1/lab", r#""zones":[]"#).await;
    let free = told(&announce("aaaaaaaaaaaa").await).expect("rules that end the old ones");
    assert!(free.contains("0.0.0.0/0") && !free.contains("4:rate"), "{free}");
}
