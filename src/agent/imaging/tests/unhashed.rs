//! Images that get their hashes after they were written.

use super::*;
use crate::metainfo::{MetainfoBuilder, Pieces};

/// The image before it has hashes, and its later manifest.
pub(super) fn unhashed(mut image: TestImage) -> (TestImage, Manifest) {
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
    image.manifest.sidecars.insert(names::TORRENT.into(), crate::io::hash::sha256(&bytes));
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
    written_by(lab.context(), lab, disk).await
}

async fn written_by(
    ctx: ImagingContext,
    lab: &Lab,
    disk: &LoopDisk,
) -> tokio::task::JoinHandle<Result<Imaged, (Failure, bool)>> {
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
async fn hashes_that_come_with_another_image_or_fit_no_piece_that_anyone_has_boot_nothing() {
    let (_, image) = small_image();
    let (image, hashed) = unhashed(image);
    for (change, class) in [
        ((|manifest: &mut Manifest| manifest.sequence += 1) as fn(&mut Manifest), Class::Untrusted),
        (|_| (), Class::Retry),
    ] {
        let lab = Lab::new(&image).await;
        let disk = LoopDisk::used(40 << 20, 512);
        let mut ctx = lab.context();
        ctx.bounds.piece = Duration::from_secs(30);
        let attempt = written_by(ctx, &lab, &disk).await;
        let mut manifest = hashed.clone();
        change(&mut manifest);
        let mut hashes = image.hashes.clone();
        if class == Class::Retry {
            // Signed, and of other bytes than those that were written.
            hashes[0] = crate::io::hash::sha256(b"something else");
            manifest.payload.sha256 = Some(crate::io::hash::sha256_of_hashes(&hashes));
        }
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        manifest.sidecars.insert(names::PIECES.into(), crate::io::hash::sha256(&bytes));
        lab.put(names::PIECES, bytes);
        lab.sign(&manifest.to_bytes(), &lab.pair);
        let result = tokio::time::timeout(DEADLINE, attempt).await.expect("in time").expect("no panic");
        let (failure, touched) = result.map(|_| ()).expect_err("it must fail");
        assert_eq!((failure.class, touched), (class, true), "{failure:?}");
        // The piece is named, and the disk is not blamed for a piece that no peer has.
        assert!(class == Class::Untrusted || failure.message.contains("piece 0 came"), "{failure:?}");
        assert!(disk.bytes()[..512].iter().all(|byte| *byte == 0));
    }
}

#[tokio::test]
async fn pieces_that_came_wrong_before_there_were_hashes_are_fetched_again() {
    use std::os::unix::fs::FileExt;
    let (source, image) = small_image();
    let (image, hashed) = unhashed(image);
    let lab = Lab::new(&image).await;
    lab.remove(names::PIECES);
    // The seeder's disk gives three pieces wrongly, a partition's first one among them.
    let length = u64::from(PIECE);
    let payload = |piece: u64| {
        let per_file = image.manifest.payload.file_size / length;
        let name = format!("lab/1/payload/{:04}.bin", piece / per_file);
        let file = std::fs::File::options().read(true).write(true).open(lab.folder.path().join(name));
        (file.expect("a payload file"), piece % per_file * length)
    };
    let flip = || {
        for piece in [0, 3, u64::from(image.grid.pieces()) - 1] {
            let ((file, at), mut byte) = (payload(piece), [0]);
            file.read_exact_at(&mut byte, at + 7).expect("read");
            file.write_all_at(&[!byte[0]], at + 7).expect("written");
        }
    };
    flip();
    let disk = LoopDisk::used(40 << 20, 512);
    let attempt = written(&lab, &disk).await;
    flip();
    // Another seeder takes over, because the first one remembers its reads.
    lab.stop_seeding().await;
    let seeder = Session::start(SessionConfig::new(ANY_PORT)).await.expect("a session");
    let announce = announce_of(&seeder);
    *lab.seeder.lock().expect("whole") = Some(seeder);
    lab.publish(&image);
    lab.files.lock().expect("whole").insert("/announce".into(), announce);
    lab.put(names::PIECES, image.hashes.iter().flat_map(|hash| hash.0).collect());
    lab.sign(&hashed.to_bytes(), &lab.pair);
    let imaged = tokio::time::timeout(DEADLINE, attempt).await.expect("in time").expect("no panic");
    let imaged = imaged.expect("imaged");
    assert!(imaged.traffic().0 <= 3 * length, "{:?}: only the wrong ones came again", imaged.traffic());
    imaged.stop().await;
    image.assert_on(&disk.bytes(), &source);
}

#[tokio::test]
async fn hashes_that_never_come_end_the_attempt_and_the_next_goes_on_with_what_was_written() {
    let (source, image) = small_image();
    let (image, hashed) = unhashed(image);
    let lab = Lab::new(&image).await;
    lab.remove(names::PIECES);
    let disk = LoopDisk::used(40 << 20, 512);
    let mut ctx = lab.context();
    ctx.bounds.hashes = Duration::from_millis(500);
    let result = tokio::time::timeout(DEADLINE, run(ctx, lab.assignment(&disk))).await.expect("in time");
    let (failure, touched) = result.map(|_| ()).expect_err("nobody makes them");
    assert_eq!((failure.class, touched), (Class::Retry, true));
    assert!(failure.message.contains("no hashes") && failure.advice.contains("mkimage hash"), "{failure:?}");
    lab.put(names::PIECES, image.hashes.iter().flat_map(|hash| hash.0).collect());
    lab.sign(&hashed.to_bytes(), &lab.pair);
    let (received, _) = fetched(&lab, lab.assignment(&disk)).await;
    image.assert_on(&disk.bytes(), &source);
    assert!(received * 2 < image.grid.data_bytes(), "{received}: most of it was there");
}
