//! Whole attempts against a small server, a seeder and loop devices.

mod difference;
mod disks;
mod files;
mod late;
mod preflight;
mod refusals;
mod sets;
mod unhashed;
mod whole;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minisign::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::api::Compress;
use crate::api::{After, Compare, LayoutMode, Task};
use crate::event::Class;
use crate::image_id::ImageId;
use crate::io::disk::claim::claim;
use crate::io::storage::FolderStorage;
use crate::io::torrent::{Have, TorrentSpec};
use crate::manifest::TrustedKeys;
use crate::manifest::{Manifest, names};
use crate::swarm::SwarmStats;
use crate::testkit::disks::LoopDisk;
use crate::testkit::images::{TestImage, gpt_source, image_of};

const PIECE: u32 = 256 << 10;
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// No test takes longer, or it hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// A server of files, with one tracker answer for all peers.
struct Lab {
    url: String,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    keys: TrustedKeys,
    pair: KeyPair,
    folder: tempfile::TempDir,
    seeder: Mutex<Option<Session>>,
    seeds: Mutex<Vec<Swarm>>,
}

impl Lab {
    /// Publishes and seeds `image`.
    async fn new(image: &TestImage) -> Lab {
        let seeder = Session::start(SessionConfig::new(ANY_PORT)).await.expect("a session");
        let announce = announce_of(&seeder);
        let files = Arc::new(Mutex::new(HashMap::from([("/announce".to_string(), announce)])));
        let url = serve(Arc::clone(&files)).await;
        let pair = KeyPair::generate_unencrypted_keypair().expect("a key pair");
        let keys = TrustedKeys::parse(&pair.pk.to_base64()).expect("its public key");
        let (seeder, seeds) = (Mutex::new(Some(seeder)), Mutex::default());
        let folder = tempfile::tempdir().expect("a folder");
        let lab = Lab { url, files, keys, pair, folder, seeder, seeds };
        lab.publish(image);
        lab
    }

    /// Publishes and seeds one more image or version.
    fn publish(&self, image: &TestImage) {
        let Manifest { name, version, .. } = &image.manifest;
        let folder = self.folder.path().join(name).join(version);
        image.write(&folder);
        let storage = FolderStorage::open(&folder, &image.torrent.files).expect("the payload");
        let torrent = Arc::new(image.torrent.clone());
        let spec = TorrentSpec::new(torrent, Arc::new(storage), Have::Everything, 8 << 20);
        let seeder = self.seeder.lock().expect("whole");
        let seed = seeder.as_ref().expect("it seeds").add(spec).expect("seeding");
        self.seeds.lock().expect("whole").push(seed);
        let mut files = self.files.lock().expect("whole");
        for (sidecar, bytes) in &image.sidecars {
            files.insert(format!("/images/{name}/{version}/{sidecar}"), bytes.clone());
        }
        let manifest = image.manifest.to_bytes();
        let signature = minisign::sign(None, &self.pair.sk, &manifest[..], None, None).expect("signed");
        let path = |file: &str| format!("/images/{name}/{version}/{file}");
        files.insert(path(names::MANIFEST), manifest);
        files.insert(path(names::SIGNATURE), signature.into_string().into_bytes());
    }

    /// The seeder's counters for each swarm.
    fn seeded(&self) -> Vec<SwarmStats> {
        self.seeds.lock().expect("whole").iter().map(Swarm::stats).collect()
    }

    async fn stop_seeding(&self) {
        let seeder = self.seeder.lock().expect("whole").take();
        seeder.expect("it still seeds").shutdown().await;
    }

    fn put(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().expect("whole").insert(format!("/images/lab/1/{name}"), bytes);
    }

    fn remove(&self, name: &str) {
        self.files.lock().expect("whole").remove(&format!("/images/lab/1/{name}"));
    }

    fn sign(&self, manifest: &[u8], pair: &KeyPair) {
        let signature = minisign::sign(None, &pair.sk, manifest, None, None).expect("signed").into_string();
        self.put(names::MANIFEST, manifest.to_vec());
        self.put(names::SIGNATURE, signature.into_bytes());
    }

    fn context(&self) -> ImagingContext {
        ImagingContext { server: self.url.clone(), keys: self.keys.clone(), ..context() }
    }

    fn assignment(&self, disk: &LoopDisk) -> Assignment {
        Assignment {
            job: "test".into(),
            attempt: 1,
            token: "t".into(),
            task: Task {
                id: ImageId::new("lab", "1"),
                folder: "/images/lab/1/".into(),
                disk: disk.path.clone(),
                layout: LayoutMode::WholeDisk,
                partitions: None,
                compare: Compare::Auto,
                ticket: None,
            },
            also: vec![],
            installed: vec![],
            known_disks: vec![],
            chosen: vec![],
            compress: Compress::Auto,
            after: After::Reboot,
            verify: true,
            longest_stay: 60,
            preflight: false,
            limit_mbit: None,
            personal: None,
            growth: false,
            finish: false,
            date: None,
        }
    }

    /// Runs an attempt that must fail without touching the disk.
    async fn refused(&self, ctx: ImagingContext, assignment: Assignment, disk: &LoopDisk) -> Failure {
        let before = disk.bytes();
        let result = tokio::time::timeout(DEADLINE, run(ctx, assignment)).await.expect("in time");
        let (failure, touched) = result.map(|_| ()).expect_err("it must be refused");
        assert!(!touched, "{failure:?}");
        assert!(disk.bytes() == before, "not a byte was written");
        failure
    }
}

/// An attempt's context, without a server.
pub(super) fn context() -> ImagingContext {
    ImagingContext {
        server: String::new(),
        keys: TrustedKeys::default(),
        allow_insecure: false,
        may_trust: true,
        status: Status::new(),
        disk_override: None,
        attended: false,
        late_disks: Duration::ZERO,
        bounds: Bounds::default(),
        compress: None,
        http: crate::io::net::api_client::client().expect("a client"),
        memory_limit: 8 << 20,
        listen: ANY_PORT,
    }
}

/// A tracker's answer that names this one peer.
fn announce_of(peer: &Session) -> Vec<u8> {
    let mut announce = b"d8:intervali1e5:peers6:\x7f\0\0\x01".to_vec();
    announce.extend_from_slice(&peer.local_addr().port().to_be_bytes());
    announce.push(b'e');
    announce
}

/// GET of these files over HTTP/1.1, one request a connection.
async fn serve(files: Arc<Mutex<HashMap<String, Vec<u8>>>>) -> String {
    let listener = TcpListener::bind(ANY_PORT).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let files = Arc::clone(&files);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split_whitespace().nth(1).unwrap_or_default();
                let path = path.split('?').next().unwrap_or_default();
                let body = files.lock().expect("whole").get(path).cloned();
                let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                let body = body.unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body).await;
            });
        }
    });
    url
}

/// Waits until nobody holds the disk any more: the threads and tasks of an attempt that has ended release it
/// when they are scheduled.
async fn given_back(disk: &LoopDisk) {
    let begun = std::time::Instant::now();
    loop {
        let info = disk.info();
        let claimed = tokio::task::spawn_blocking(move || claim(&info, LayoutMode::WholeDisk, &[]));
        match claimed.await.expect("no panic") {
            Ok(_) => return,
            Err(refused) => assert!(begun.elapsed() < DEADLINE, "not given back: {refused:?}"),
        }
    }
}

fn small_image() -> (Vec<u8>, TestImage) {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, |_| ());
    (source, image)
}

/// Carries out `assignment`, which must succeed, and leaves. Returns the bytes received from peers, and the
/// notes.
async fn fetched(lab: &Lab, assignment: Assignment) -> (u64, Vec<String>) {
    let ctx = lab.context();
    let status = ctx.status.clone();
    let imaged = tokio::time::timeout(DEADLINE, run(ctx, assignment)).await.expect("in time");
    let imaged = imaged.expect("imaged");
    let received = imaged.traffic().0;
    imaged.stop().await;
    (received, status.view().notes)
}
