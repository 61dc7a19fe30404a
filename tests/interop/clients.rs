//! With the clients that labs have: aria2, libtorrent and Transmission, each as the seeder and as the
//! leecher, and all in one swarm.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use flashmob::io::storage::{FileStorage, FolderStorage, Resize};
use flashmob::io::torrent::Have;
use flashmob::metainfo::{FileKind, Metainfo};
use flashmob::tracker::Event;
use flashmob_testkit::child::{self, Guarded, command, of_package};
use flashmob_testkit::command::write_program;
use flashmob_testkit::net::free_port;
use flashmob_testkit::swarm::{add, payload, session, torrent, within, write_torrent};
use flashmob_testkit::tracker::TestTracker;

const PIECE: usize = 256 * 1024;

/// One swarm: its torrent, tracker and folder.
struct World {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    meta: Arc<Metainfo>,
    tracker: TestTracker,
}

impl World {
    async fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bytes = payload(40 * PIECE + 12345, seed);
        let meta = torrent("image.bin", &bytes, PIECE, Vec::new());
        let tracker = TestTracker::start(meta.info_hash);
        write_torrent(&folder.path().join("t.torrent"), &meta, &tracker.url());
        std::fs::create_dir(folder.path().join("theirs")).unwrap();
        World { folder, bytes, meta, tracker }
    }

    /// They seed, we fetch.
    async fn fetch_from(mut self, start: impl Fn(&Path, &Path, &str) -> Guarded) {
        std::fs::write(self.folder.path().join("theirs/image.bin"), &self.bytes).unwrap();
        let _theirs =
            start(&self.folder.path().join("t.torrent"), &self.folder.path().join("theirs"), "seed");
        within(60, self.tracker.wait_for(Event::Started, 1)).await;
        let target = self.folder.path().join("ours");
        let storage = FileStorage::create(&target, self.bytes.len() as u64, Resize::Refuse).unwrap().storage;
        let session = session().await;
        let swarm = add(&session, &self.meta, Arc::new(storage), Have::Nothing, Some(self.tracker.url()));
        within(90, swarm.complete()).await.unwrap();
        assert!(std::fs::read(&target).unwrap() == self.bytes, "what arrived is what they had");
        assert_eq!(swarm.stats().pieces_bad, 0);
        within(10, session.shutdown()).await;
    }

    /// We seed, they fetch and end by themselves.
    async fn serve_to(mut self, start: impl Fn(&Path, &Path, &str) -> Guarded) {
        let source = self.folder.path().join("ours");
        std::fs::write(&source, &self.bytes).unwrap();
        let session = session().await;
        let storage = Arc::new(FileStorage::open(&source).unwrap());
        let swarm = add(&session, &self.meta, storage, Have::Everything, Some(self.tracker.url()));
        within(10, self.tracker.wait_for(Event::Started, 1)).await;
        let mut theirs =
            start(&self.folder.path().join("t.torrent"), &self.folder.path().join("theirs"), "leech");
        assert_eq!(theirs.exit_code(45).await, 0, "they say that it went well");
        let theirs = std::fs::read(self.folder.path().join("theirs/image.bin")).unwrap();
        assert!(theirs == self.bytes, "what they have is what we sent");
        within(10, swarm.stop()).await;
        assert!(swarm.stats().bytes_out >= self.bytes.len() as u64);
    }
}

pub(crate) fn aria2(torrent: &Path, folder: &Path, role: &str) -> Guarded {
    let mut command = command(None, of_package("aria2c", "aria2"));
    command
        .args(["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"])
        .args(["--enable-peer-exchange=false", "--disable-ipv6", "--interface=127.0.0.1"])
        .args(["--file-allocation=none", "--bt-tracker-interval=3", "--summary-interval=0"])
        .args(["--bt-request-peer-speed-limit=1000M", "--show-console-readout=false"])
        .arg(format!("--listen-port={}", free_port()))
        .arg(format!("--dir={}", folder.display()))
        .stdout(Stdio::null());
    match role {
        "seed" => command.args(["--check-integrity=true", "--seed-ratio=0"]),
        _ => command.arg("--seed-time=0"),
    };
    Guarded::start(command.arg(torrent))
}

pub(crate) fn libtorrent(torrent: &Path, folder: &Path, role: &str) -> Guarded {
    let mut command = child::libtorrent(None);
    Guarded::start(command.arg(role).arg("127.0.0.1:0").arg(torrent).arg(folder))
}

/// Transmission has no option to end when it is done: a shell ends it when its script has run.
fn transmission(torrent: &Path, folder: &Path, role: &str) -> Guarded {
    let (settings, done) = (folder.with_extension("settings"), folder.with_extension("done"));
    std::fs::create_dir(&settings).unwrap();
    let options = r#"{"dht-enabled":false,"lpd-enabled":false,"pex-enabled":false,"utp-enabled":false,
        "port-forwarding-enabled":false,"bind-address-ipv4":"127.0.0.1","preallocation":0}"#;
    std::fs::write(settings.join("settings.json"), options).unwrap();
    let script = folder.with_extension("script");
    write_program(&script, &format!("#!/bin/sh\n: > '{}'\n", done.display()));
    let client = format!(
        "setpriv --pdeathsig KILL {} -g '{}' -w '{}' -p {} -f '{}' {} '{}'",
        of_package("transmission-cli", "transmission-cli"),
        settings.display(),
        folder.display(),
        free_port(),
        script.display(),
        if role == "seed" { "-v" } else { "" },
        torrent.display()
    );
    let done = done.display();
    let line = match role {
        "seed" => format!("exec {client}"),
        _ => format!(
            "{client} & pid=$!; until [ -e '{done}' ]; do sleep 0.1; done; kill $pid; wait $pid; exit 0"
        ),
    };
    let mut command = command(None, "sh");
    Guarded::start(command.args(["-c", &line]).stdout(Stdio::null()).stderr(Stdio::null()))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fetches_from_transmission() {
    World::new(15).await.fetch_from(transmission).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_seeds_to_transmission() {
    World::new(16).await.serve_to(transmission).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_mixed_swarm_everybody_gets_everything() {
    let mut world = World::new(17).await;
    let source = world.folder.path().join("source");
    std::fs::write(&source, &world.bytes).unwrap();
    let (home, terminal) = (session().await, session().await);
    let storage = Arc::new(FileStorage::open(&source).unwrap());
    let _seeder = add(&home, &world.meta, storage, Have::Everything, Some(world.tracker.url()));
    within(10, world.tracker.wait_for(Event::Started, 1)).await;
    let torrent = world.folder.path().join("t.torrent");
    let start: [fn(&Path, &Path, &str) -> Guarded; 3] = [aria2, libtorrent, transmission];
    let mut others = Vec::new();
    for (number, start) in start.into_iter().enumerate() {
        let folder = world.folder.path().join(format!("other{number}"));
        std::fs::create_dir(&folder).unwrap();
        others.push((start(&torrent, &folder, "leech"), folder));
    }
    let target = world.folder.path().join("ours");
    let storage = FileStorage::create(&target, world.bytes.len() as u64, Resize::Refuse).unwrap().storage;
    let ours = add(&terminal, &world.meta, Arc::new(storage), Have::Nothing, Some(world.tracker.url()));
    within(90, ours.complete()).await.unwrap();
    assert!(std::fs::read(&target).unwrap() == world.bytes);
    for (mut other, folder) in others {
        assert_eq!(other.exit_code(60).await, 0, "{}", folder.display());
        assert!(std::fs::read(folder.join("image.bin")).unwrap() == world.bytes, "{}", folder.display());
    }
    within(10, terminal.shutdown()).await;
    within(10, home.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fetches_from_aria2() {
    World::new(11).await.fetch_from(aria2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_seeds_to_aria2() {
    World::new(12).await.serve_to(aria2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fetches_from_libtorrent() {
    World::new(13).await.fetch_from(libtorrent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_seeds_to_libtorrent() {
    World::new(14).await.serve_to(libtorrent).await;
}

/// A torrent of `folder` as libtorrent makes it: BitTorrent v1 and v2 in one (BEP 52), with padding between
/// files.
fn hybrid_by_libtorrent(folder: &Path) -> Vec<u8> {
    let make = "import libtorrent as lt, sys\n\
                files = lt.file_storage()\n\
                lt.add_files(files, sys.argv[1])\n\
                made = lt.create_torrent(files, 65536)\n\
                lt.set_piece_hashes(made, sys.argv[1].rsplit('/', 1)[0])\n\
                sys.stdout.buffer.write(lt.bencode(made.generate()))";
    let output = Command::new("/usr/bin/python3").args(["-c", make]).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hybrid_torrent_of_libtorrent_is_fetched_without_its_padding() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("set");
    std::fs::create_dir(&theirs).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(theirs.join(name), payload(100_000, u64::from(name.as_bytes()[0]))).unwrap();
    }
    let bytes = hybrid_by_libtorrent(&theirs);
    let meta = Arc::new(Metainfo::parse(&bytes).unwrap());
    assert!(meta.files.iter().any(|file| file.kind == FileKind::Padding), "{:?}", meta.files);
    let mut tracker = TestTracker::start(meta.info_hash);
    let (path, url) = (folder.path().join("t.torrent"), tracker.url());
    // `announce` sorts before the keys that libtorrent wrote.
    let head = format!("d8:announce{}:{url}", url.len());
    std::fs::write(&path, [head.as_bytes(), &bytes[1..]].concat()).unwrap();
    let _seeder = libtorrent(&path, folder.path(), "seed");
    within(60, tracker.wait_for(Event::Started, 1)).await;
    let ours = folder.path().join("ours");
    let storage = FolderStorage::create(&ours, &meta.files, Resize::Refuse).unwrap().storage;
    let session = session().await;
    let swarm = add(&session, &meta, Arc::new(storage), Have::Nothing, Some(url));
    within(60, swarm.complete()).await.unwrap();
    assert_eq!(std::fs::read_dir(&ours).unwrap().count(), 3, "no padding on disk");
    for name in ["a", "b", "c"] {
        assert!(
            std::fs::read(ours.join(name)).unwrap() == std::fs::read(theirs.join(name)).unwrap(),
            "{name}"
        );
    }
    within(10, session.shutdown()).await;
}
