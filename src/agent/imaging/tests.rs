//! Whole attempts against a small server, a seeder and loop devices.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use minisign::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::api::After;
use crate::event::Class;
use crate::io::storage::FolderStorage;
use crate::io::testing::{LoopDisk, TestImage, gpt_source, image_of, mbr_source};
use crate::manifest::names;
use crate::metainfo::{MetainfoBuilder, Pieces};
use crate::swarm::WholePieces;
use crate::units::PieceIndex;

const PIECE: u32 = 256 << 10;
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// No test takes longer, or it hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// A server of files, and of one tracker answer for everybody.
struct Lab {
    url: String,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    keys: TrustedKeys,
    pair: KeyPair,
    _folder: tempfile::TempDir,
    seeder: Mutex<Option<Session>>,
}

impl Lab {
    /// Publishes and seeds `image`.
    async fn new(image: &TestImage) -> Lab {
        let folder = tempfile::tempdir().expect("a folder");
        let version = folder.path().join("1");
        image.write(&version);
        let seeder = Session::start(SessionConfig::new(ANY_PORT)).await.expect("a session");
        let storage = FolderStorage::open(&version, &image.torrent.files).expect("the payload");
        seeder
            .add(TorrentSpec {
                meta: Arc::new(image.torrent.clone()),
                storage: Arc::new(storage),
                shape: Arc::new(WholePieces),
                have: Have::Everything,
                wanted: None,
                trackers: vec![],
                verify: true,
                memory: 8 << 20,
            })
            .expect("seeding");
        let mut announce = b"d8:intervali1e5:peers6:".to_vec();
        announce.extend_from_slice(&[127, 0, 0, 1]);
        announce.extend_from_slice(&seeder.local_addr().port().to_be_bytes());
        announce.push(b'e');
        let mut files = HashMap::from([("/announce".to_string(), announce)]);
        for (name, bytes) in &image.sidecars {
            files.insert(format!("/images/lab/1/{name}"), bytes.clone());
        }
        let files = Arc::new(Mutex::new(files));
        let url = serve(Arc::clone(&files)).await;
        let pair = KeyPair::generate_unencrypted_keypair().expect("a key pair");
        let keys = TrustedKeys::parse(&pair.pk.to_base64()).expect("its public key");
        let seeder = Mutex::new(Some(seeder));
        let lab = Lab { url, files, keys, pair, _folder: folder, seeder };
        lab.sign(&image.manifest.to_bytes(), &lab.pair);
        lab
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
        ImagingContext {
            server: self.url.clone(),
            keys: self.keys.clone(),
            allow_insecure: false,
            status: Status::new(),
            disk_override: None,
            http: crate::io::http::client().expect("a client"),
            memory_limit: 8 << 20,
            listen: ANY_PORT,
        }
    }

    fn assignment(&self, disk: &LoopDisk) -> Assignment {
        Assignment {
            job: "test".into(),
            attempt: 1,
            token: "t".into(),
            image: "lab".into(),
            version: "1".into(),
            folder: "/images/lab/1/".into(),
            disk: disk.path.clone(),
            layout: LayoutMode::WholeDisk,
            compare: Compare::Auto,
            after: After::Reboot,
            verify: true,
            longest_stay: 60,
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

fn small_image() -> (Vec<u8>, TestImage) {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, |_| ());
    (source, image)
}

#[tokio::test]
async fn an_image_travels_from_a_seeder_onto_a_larger_disk_and_is_served_from_there() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(40 << 20, 512);
    let ctx = lab.context();
    let result =
        tokio::time::timeout(DEADLINE, run(ctx.clone(), lab.assignment(&disk))).await.expect("in time");
    let imaged = result.expect("imaged");
    let after = disk.bytes();
    image.assert_on(&after, &source);
    let said = crate::io::testing::run("sgdisk", &["-v", &disk.path]);
    assert!(said.contains("No problems found"), "{said}");
    assert_eq!(imaged.next, Next::Firmware);
    assert!(imaged.disk.contains(disk.path.trim_start_matches("/dev/")), "{}", imaged.disk);
    let view = ctx.status.view();
    assert_eq!(view.progress.stage, Stage::Serve);
    assert_eq!(view.progress.percent, 100.0);
    assert_eq!(view.progress.bytes_done, image.payload.len() as u64);
    assert_eq!(view.progress.bytes_verified, image.payload.len() as u64);
    let data = image.grid.data_bytes();
    assert!(imaged.traffic().0 <= data + data / 10, "only data travels: {:?} of {data}", imaged.traffic());

    // With the first seeder gone, a second terminal gets everything from the first one's disk.
    let addr = imaged.session.local_addr();
    lab.stop_seeding().await;
    let mut announce = b"d8:intervali1e5:peers6:\x7f\0\0\x01".to_vec();
    announce.extend_from_slice(&addr.port().to_be_bytes());
    announce.push(b'e');
    lab.files.lock().expect("whole").insert("/announce".into(), announce);
    let second = LoopDisk::used(24 << 20, 512);
    let ctx = ImagingContext { disk_override: Some(second.path.clone()), listen: ANY_PORT, ..ctx };
    let again = tokio::time::timeout(DEADLINE, run(ctx, lab.assignment(&disk)));
    let again = again.await.expect("in time").expect("imaged");
    image.assert_on(&second.bytes(), &source);
    again.stop().await;
    imaged.stop().await;
    claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect("the disk was given back");
}

/// Bytes that an attempt on `disk` receives.
async fn fetched(lab: &Lab, assignment: Assignment) -> u64 {
    let imaged = tokio::time::timeout(DEADLINE, run(lab.context(), assignment)).await.expect("in time");
    let imaged = imaged.expect("imaged");
    let received = imaged.traffic().0;
    imaged.stop().await;
    received
}

#[tokio::test]
async fn what_is_on_the_disk_already_is_not_fetched_again_and_what_is_damaged_is() {
    use std::os::unix::fs::FileExt;
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(40 << 20, 512);
    let everything = fetched(&lab, lab.assignment(&disk)).await;
    assert_eq!(everything, image.grid.data_bytes(), "a disk that never had the image has nothing of it");
    // One byte in the middle of the last piece of data.
    let span = image.grid.span(PieceIndex(image.grid.pieces() - 1)).expect("a piece");
    let partition = &image.manifest.partitions[span.partition];
    let at = partition.first.0 * 512 + span.offset + 5;
    let file = std::fs::File::options().read(true).write(true).open(&disk.path).expect("the disk");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[!byte[0]], at).expect("written");
    file.sync_all().expect("synced");
    drop(file);
    let again = fetched(&lab, lab.assignment(&disk)).await;
    image.assert_on(&disk.bytes(), &source);
    // The damaged piece, and the first MiB of each partition, which the disarm wipes.
    let replaced = image.manifest.partitions.iter().filter(|p| p.policy == Policy::Replace).count() as u64;
    assert!(again <= u64::from(PIECE) + (replaced << 20), "{again} of {everything}");
    assert!(again > 0 && again < everything / 3, "{again} of {everything}");
    // Without looking, everything comes again.
    let full = Assignment { compare: Compare::Full, ..lab.assignment(&disk) };
    assert_eq!(fetched(&lab, full).await, everything);
    image.assert_on(&disk.bytes(), &source);
}

/// The image as it is while it has no hashes, and the manifest that it has afterwards.
fn unhashed(mut image: TestImage) -> (TestImage, Manifest) {
    let builder = MetainfoBuilder {
        name: image.torrent.name.clone(),
        piece_length: image.torrent.piece_length,
        files: image.torrent.files.clone(),
        pieces: Pieces::Unhashed { nonce: [3; 16] },
        private: true,
    };
    image.torrent = builder.build().expect("a torrent");
    let bytes = image.torrent.to_bytes();
    image.manifest.payload.info_hash = image.torrent.info_hash;
    image.manifest.sidecars.insert(names::TORRENT.into(), crate::io::image::sha256(&bytes));
    image
        .sidecars
        .iter_mut()
        .filter(|(name, _)| *name == names::TORRENT)
        .for_each(|(_, old)| *old = bytes.clone());
    let hashed = image.manifest.clone();
    image.manifest.payload.sha256 = None;
    image.manifest.partitions.iter_mut().for_each(|partition| partition.sha256 = None);
    image.manifest.sidecars.remove(names::PIECES);
    (image, hashed)
}

/// Runs an attempt until all is written and it waits for hashes.
async fn written(lab: &Lab, disk: &LoopDisk) -> tokio::task::JoinHandle<Result<Imaged, (Failure, bool)>> {
    let ctx = lab.context();
    let attempt = tokio::spawn(run(ctx.clone(), lab.assignment(disk)));
    let waits = async {
        while ctx.status.view().progress.stage != Stage::Hashes {
            assert!(!attempt.is_finished(), "it must wait");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waits).await.expect("in time");
    assert!(
        disk.bytes()[..512].iter().all(|byte| *byte == 0),
        "nothing starts from a disk that is not proved"
    );
    attempt
}

#[tokio::test]
async fn an_image_without_hashes_is_written_and_committed_when_it_has_some() {
    let (source, image) = small_image();
    let (image, hashed) = unhashed(image);
    let lab = Lab::new(&image).await;
    lab.remove(names::PIECES);
    let disk = LoopDisk::used(40 << 20, 512);
    let attempt = written(&lab, &disk).await;
    lab.put(names::PIECES, image.hashes.iter().flat_map(|hash| hash.0).collect());
    lab.sign(&hashed.to_bytes(), &lab.pair);
    let imaged = tokio::time::timeout(DEADLINE, attempt).await.expect("in time").expect("no panic");
    imaged.expect("imaged").stop().await;
    image.assert_on(&disk.bytes(), &source);
}

#[tokio::test]
async fn hashes_that_come_with_another_image_or_do_not_fit_the_disk_boot_nothing() {
    let (_, image) = small_image();
    let (image, hashed) = unhashed(image);
    for (change, class) in [
        ((|manifest: &mut Manifest| manifest.sequence += 1) as fn(&mut Manifest), Class::Untrusted),
        (|_| (), Class::Disk),
    ] {
        let lab = Lab::new(&image).await;
        let disk = LoopDisk::used(40 << 20, 512);
        let attempt = written(&lab, &disk).await;
        let mut manifest = hashed.clone();
        change(&mut manifest);
        let mut hashes = image.hashes.clone();
        if class == Class::Disk {
            // Signed, and of other bytes than those that were written.
            hashes[0] = crate::io::image::sha256(b"something else");
            manifest.payload.sha256 = Some(crate::io::image::sha256_of_hashes(&hashes));
        }
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        manifest.sidecars.insert(names::PIECES.into(), crate::io::image::sha256(&bytes));
        lab.put(names::PIECES, bytes);
        lab.sign(&manifest.to_bytes(), &lab.pair);
        let result = tokio::time::timeout(DEADLINE, attempt).await.expect("in time").expect("no panic");
        let (failure, touched) = result.map(|_| ()).expect_err("it must fail");
        assert_eq!((failure.class, touched), (class, true), "{failure:?}");
        assert!(disk.bytes()[..512].iter().all(|byte| *byte == 0));
    }
}

#[tokio::test]
async fn an_mbr_image_travels_too() {
    let source = mbr_source();
    let image = image_of(&source, 512, PIECE, |_| ());
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    let result =
        tokio::time::timeout(DEADLINE, run(lab.context(), lab.assignment(&disk))).await.expect("in time");
    result.expect("imaged").stop().await;
    image.assert_on(&disk.bytes(), &source);
}

#[tokio::test]
async fn what_cannot_be_trusted_is_refused_and_nothing_is_written() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    let good = image.manifest.to_bytes();
    let refused = async |what: &str| {
        let failure = lab.refused(lab.context(), lab.assignment(&disk), &disk).await;
        assert_eq!(failure.class, Class::Untrusted, "{failure:?}");
        assert!(failure.message.contains(what), "{failure:?}");
    };

    lab.put(
        names::MANIFEST,
        String::from_utf8(good.clone()).expect("text").replace("\"lab\"", "\"bal\"").into_bytes(),
    );
    refused("not signed by any of the 1 known keys").await;

    lab.sign(&good, &KeyPair::generate_unencrypted_keypair().expect("another pair"));
    refused("not signed").await;

    lab.remove(names::SIGNATURE);
    lab.put(names::MANIFEST, good.clone());
    refused("there is no manifest.json.minisig").await;

    let mut other = image.manifest.clone();
    other.version = "2".into();
    lab.sign(&other.to_bytes(), &lab.pair);
    refused("the manifest of lab@2 for lab@1").await;

    lab.sign(&good, &lab.pair);
    for (name, bytes) in &image.sidecars {
        let mut altered = bytes.clone();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        lab.put(name, altered);
        refused(&format!("{name} of lab@1 is not the one")).await;
        let long = [bytes.as_slice(), &vec![0; 40 << 20]].concat();
        if *name != names::TORRENT {
            lab.put(name, long);
            refused("is longer than").await;
        }
        lab.put(name, bytes.clone());
    }
}

#[tokio::test]
async fn an_unsigned_image_is_used_only_where_that_is_allowed() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    lab.remove(names::SIGNATURE);
    let disk = LoopDisk::used(24 << 20, 512);
    let ctx = ImagingContext { allow_insecure: true, ..lab.context() };
    let status = ctx.status.clone();
    let result = tokio::time::timeout(DEADLINE, run(ctx, lab.assignment(&disk))).await.expect("in time");
    result.expect("imaged").stop().await;
    image.assert_on(&disk.bytes(), &source);
    assert!(status.view().notes.iter().any(|note| note.contains("signature is not trusted")));
}

#[tokio::test]
async fn disks_that_do_not_fit_are_refused_untouched() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let small = LoopDisk::used((24 << 20) - 512, 512);
    let failure = lab.refused(lab.context(), lab.assignment(&small), &small).await;
    assert_eq!(failure.class, Class::Refused, "{failure:?}");
    assert!(failure.message.contains("24.0 MiB"), "{failure:?}");
    let coarse = LoopDisk::used(24 << 20, 4096);
    let failure = lab.refused(lab.context(), lab.assignment(&coarse), &coarse).await;
    assert_eq!(failure.class, Class::Refused, "{failure:?}");
    assert!(failure.message.contains("sectors of 4096 bytes"), "{failure:?}");
    let disk = LoopDisk::used(24 << 20, 512);
    let keep = Assignment { layout: LayoutMode::Keep, ..lab.assignment(&disk) };
    let failure = lab.refused(lab.context(), keep, &disk).await;
    assert!(failure.message.contains("cannot be kept"), "{failure:?}");
    let _holder = claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect("free");
    let failure = lab.refused(lab.context(), lab.assignment(&disk), &disk).await;
    assert_eq!(failure.class, Class::Refused, "{failure:?}");
    assert!(failure.message.contains("in use"), "{failure:?}");
    let unclear = Assignment { disk: "biggest".into(), ..lab.assignment(&disk) };
    assert_eq!(lab.refused(lab.context(), unclear, &disk).await.class, Class::Usage);
}

#[tokio::test]
async fn an_image_of_one_partition_goes_only_where_somebody_named() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    let mut manifest = image.manifest.clone();
    manifest.disk.table = Table::None;
    for described in ["internal", "size=24MiB", "bus=loop"] {
        let assignment = Assignment { disk: described.into(), ..lab.assignment(&disk) };
        let failure = choose(&lab.context(), &assignment, &manifest).expect_err(described);
        assert_eq!(failure.class, Class::Refused, "{failure:?}");
        assert!(failure.message.contains("single partition"), "{failure:?}");
    }
    let name = disk.path.trim_start_matches("/dev/").to_string();
    for named in [disk.path.clone(), format!("name={name}")] {
        let assignment = Assignment { disk: named, ..lab.assignment(&disk) };
        assert_eq!(choose(&lab.context(), &assignment, &manifest).expect("named").name, name);
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_lacks_the_image_is_tried_again_later() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(24 << 20, 512);
    let elsewhere = Assignment { folder: "/images/none/1/".into(), ..lab.assignment(&disk) };
    let failure = lab.refused(lab.context(), elsewhere, &disk).await;
    assert_eq!(failure.class, Class::Retry, "{failure:?}");
    let closed = TcpListener::bind(ANY_PORT).await.expect("a port").local_addr().expect("its address");
    let ctx = ImagingContext { server: format!("http://{closed}"), ..lab.context() };
    let failure = lab.refused(ctx, lab.assignment(&disk), &disk).await;
    assert_eq!(failure.class, Class::Retry, "{failure:?}");
}

#[tokio::test]
async fn an_attempt_that_is_dropped_in_the_middle_leaves_nothing_bootable_and_gives_the_disk_back() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    lab.stop_seeding().await;
    let disk = LoopDisk::of(&source, 512);
    let ctx = lab.context();
    let mut views = ctx.status.subscribe();
    let attempt = tokio::spawn(run(ctx, lab.assignment(&disk)));
    let fetching = views.wait_for(|view| view.progress.stage == Stage::Fetch);
    tokio::time::timeout(DEADLINE, fetching).await.expect("in time").expect("it goes on");
    attempt.abort();
    let _ = attempt.await;
    let free = async {
        while claim(&disk.info(), LayoutMode::WholeDisk, &[]).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, free).await.expect("given back");
    let half = disk.bytes();
    assert!(half[..1 << 20].iter().all(|byte| *byte == 0) && half[23 << 20..].iter().all(|byte| *byte == 0));
}

/// A disk whose fourth partition is an ext4 filesystem with `/boot/vmlinuz`, which is no kernel.
fn linux_source() -> Vec<u8> {
    let mut source = gpt_source(512);
    let dir = tempfile::tempdir().expect("a folder");
    let boot = dir.path().join("tree/boot");
    std::fs::create_dir_all(&boot).expect("a folder");
    std::fs::write(boot.join("vmlinuz"), vec![0x42; 3 << 20]).expect("written");
    let file = dir.path().join("root.img");
    let (tree, file) = (dir.path().join("tree"), file.to_str().expect("text").to_string());
    crate::io::testing::run(
        "mke2fs",
        &["-q", "-t", "ext4", "-d", tree.to_str().expect("text"), &file, "16M"],
    );
    let filesystem = std::fs::read(file).expect("its bytes");
    source[6 << 20..23 << 20].fill(0);
    source[6 << 20..22 << 20].copy_from_slice(&filesystem);
    source
}

#[tokio::test]
async fn where_the_kernel_cannot_be_loaded_a_restart_takes_its_place_and_says_why() {
    let source = linux_source();
    let linux = |kernel: &str| crate::manifest::LinuxBoot {
        partition: 4,
        kernel: kernel.into(),
        initrd: None,
        cmdline: "quiet".into(),
    };
    let cases = [
        (None, "records no Linux kernel"),
        (Some(linux("/boot/none")), "reading /boot/none"),
        (Some(linux("/boot/vmlinuz")), "the running kernel refused to load it"),
    ];
    for (linux, reason) in cases {
        let image = image_of(&source, 512, PIECE, |manifest| manifest.boot.linux = linux);
        let lab = Lab::new(&image).await;
        let disk = LoopDisk::used(24 << 20, 512);
        let assignment = Assignment { after: After::Kexec, ..lab.assignment(&disk) };
        let result = tokio::time::timeout(DEADLINE, run(lab.context(), assignment)).await.expect("in time");
        let imaged = result.expect("imaged");
        assert_eq!(imaged.next, Next::Firmware);
        assert!(imaged.warnings.iter().any(|w| w.contains(reason)), "{reason}: {:?}", imaged.warnings);
        imaged.stop().await;
    }
}
