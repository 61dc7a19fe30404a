//! From a seeder to a disk that starts, and what follows.

use super::*;
use crate::io::testing::mbr_source;

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
    claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect("the disk was given back");
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
