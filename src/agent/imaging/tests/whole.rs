//! From a seeder to a disk that starts, and the steps after it.

use super::*;
use crate::testkit::images::mbr_source;
use crate::units::PieceIndex;

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
    let said = crate::testkit::programs::run("sgdisk", &["-v", &disk.path]);
    assert!(said.contains("No problems found"), "{said}");
    assert_eq!(imaged.next, Next::Firmware);
    assert!(
        imaged.installed[0].disk.contains(disk.path.trim_start_matches("/dev/")),
        "{:?}",
        imaged.installed
    );
    let view = ctx.status.view();
    assert_eq!(view.progress.stage, Stage::Serve);
    assert_eq!(view.progress.percent, 100.0);
    assert_eq!(view.progress.bytes_done, image.payload.len() as u64);
    assert_eq!(view.progress.bytes_verified, image.payload.len() as u64);
    let data = image.grid.data_bytes();
    assert!(imaged.traffic().0 <= data + data / 10, "only data travels: {:?} of {data}", imaged.traffic());

    // With the first seeder gone, a second terminal gets everything from the first one's disk.
    let announce = announce_of(&imaged.session);
    lab.stop_seeding().await;
    lab.files.lock().expect("whole").insert("/announce".into(), announce);
    let second = LoopDisk::used(24 << 20, 512);
    let ctx = ImagingContext { disk_override: Some(second.path.clone()), listen: ANY_PORT, ..ctx };
    let again = tokio::time::timeout(DEADLINE, run(ctx, lab.assignment(&disk)));
    let again = again.await.expect("in time").expect("imaged");
    image.assert_on(&second.bytes(), &source);
    again.stop().await;
    imaged.stop().await;
    given_back(&disk).await;
}

#[tokio::test]
async fn a_job_with_a_limit_fetches_at_that_rate_from_a_seeder_that_has_none() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(40 << 20, 512);
    let assignment = Assignment { limit_mbit: Some(16), ..lab.assignment(&disk) };
    let begun = std::time::Instant::now();
    let result = tokio::time::timeout(DEADLINE, run(lab.context(), assignment)).await.expect("in time");
    let imaged = result.expect("imaged");
    let took = begun.elapsed().as_secs_f64();
    image.assert_on(&disk.bytes(), &source);
    // The piece that comes last need not be waited for.
    let least = (imaged.traffic().0 - u64::from(PIECE)) as f64 / (16.0 * 125_000.0);
    assert!(least > 0.2 && took > least, "{took} s for {} bytes", imaged.traffic().0);
    imaged.stop().await;
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
async fn an_attempt_that_is_dropped_in_the_middle_leaves_nothing_bootable_and_gives_the_disk_back() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    lab.stop_seeding().await;
    let disk = LoopDisk::of(&source, 512);
    let ctx = lab.context();
    let mut views = ctx.status.subscribe();
    let mut assignment = lab.assignment(&disk);
    assignment.task.compare = Compare::Full;
    let attempt = tokio::spawn(run(ctx, assignment));
    let fetching = views.wait_for(|view| view.progress.stage == Stage::Fetch);
    tokio::time::timeout(DEADLINE, fetching).await.expect("in time").expect("it goes on");
    attempt.abort();
    let _ = attempt.await;
    given_back(&disk).await;
    let half = disk.bytes();
    assert!(half[..1 << 20].iter().all(|byte| *byte == 0) && half[23 << 20..].iter().all(|byte| *byte == 0));
}

/// A disk whose fourth partition is an ext4 filesystem with a `/boot/vmlinuz` that is not a kernel.
fn linux_source() -> Vec<u8> {
    let mut source = gpt_source(512);
    let dir = tempfile::tempdir().expect("a folder");
    let boot = dir.path().join("tree/boot");
    std::fs::create_dir_all(&boot).expect("a folder");
    std::fs::write(boot.join("vmlinuz"), vec![0x42; 3 << 20]).expect("written");
    let file = dir.path().join("root.img");
    let (tree, file) = (dir.path().join("tree"), file.to_str().expect("text").to_string());
    crate::testkit::programs::run(
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

/// Sectors that the kernel has written to a disk since it is there.
fn sectors_written(disk: &LoopDisk) -> u64 {
    let name = disk.path.trim_start_matches("/dev/");
    let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).expect("its numbers");
    stat.split_whitespace().nth(6).and_then(|field| field.parse().ok()).expect("a number")
}

#[tokio::test]
async fn what_is_done_and_could_not_be_reported_is_found_at_the_next_start_and_not_written_again() {
    for source in [gpt_source(512), mbr_source()] {
        let image = image_of(&source, 512, PIECE, |_| ());
        let lab = Lab::new(&image).await;
        let disk = LoopDisk::used(40 << 20, 512);
        fetched(&lab, lab.assignment(&disk)).await;
        image.assert_on(&disk.bytes(), &source);

        // The server missed the outcome, and the terminal starts again.
        let written = sectors_written(&disk);
        assert!(written > 0);
        let ctx = lab.context();
        let status = ctx.status.clone();
        let result = tokio::time::timeout(DEADLINE, run(ctx, lab.assignment(&disk))).await.expect("in time");
        let imaged = result.expect("imaged");
        assert_eq!(sectors_written(&disk), written, "not a sector");
        assert_eq!(imaged.installed[0].id.version, "1");
        assert_eq!(imaged.traffic().0, 0);
        let view = status.view();
        assert!(view.notes.iter().any(|note| note.contains("nothing is written")), "{:?}", view.notes);
        assert_eq!((view.progress.stage, view.progress.percent), (Stage::Serve, 100.0));

        // It serves others like one that has just written it.
        let announce = announce_of(&imaged.session);
        lab.stop_seeding().await;
        lab.files.lock().expect("whole").insert("/announce".into(), announce);
        let second = LoopDisk::used(40 << 20, 512);
        fetched(&lab, lab.assignment(&second)).await;
        image.assert_on(&second.bytes(), &source);
        imaged.stop().await;
    }
}

#[tokio::test]
async fn a_disk_that_lacks_one_byte_of_what_an_attempt_leaves_is_written_again() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(40 << 20, 512);
    fetched(&lab, lab.assignment(&disk)).await;
    let first = image.grid.span(PieceIndex(0)).expect("a piece");
    let head = image.manifest.partitions[first.partition].first.0 * 512 + first.offset;
    // The boot code, the table, the gap, a head, and the backup table at the disk's end.
    for at in [3, 512 + 80, (1 << 20) - 100, head + 7, (40 << 20) - 512 + 30] {
        disk.corrupt(at);
        let (_, notes) = fetched(&lab, lab.assignment(&disk)).await;
        assert!(!notes.iter().any(|note| note.contains("nothing is written")), "{at}: {notes:?}");
        image.assert_on(&disk.bytes(), &source);
    }
    let (_, notes) = fetched(&lab, lab.assignment(&disk)).await;
    assert!(notes.iter().any(|note| note.contains("nothing is written")), "{notes:?}");
}
