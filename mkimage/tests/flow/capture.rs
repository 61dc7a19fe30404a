//! Disks become images, all of them or none.

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flashmob::io::image::folder::{ImageFolder, list};
use flashmob::layout::extents::RangeKind;
use flashmob::manifest::{BootAreaKind, Entry, PieceCount, Policy, Role, Table};
use flashmob::units::{DiskOffset, Lba};
use flashmob_testkit::child::{Guarded, command};
use flashmob_testkit::loops::LoopDevice;

use crate::disks::{self, MIB};
use crate::{capture, capture_as, contents, fail, mkimage, restore, succeed};

#[test]
fn a_gpt_disk_is_captured_with_its_table_its_filesystems_and_how_it_starts() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(dir.path());
    let image = ImageFolder::open(&capture(dir.path(), &disk)).expect("an image");
    let m = image.manifest();
    assert!(matches!(m.disk.table, Table::Gpt { entries: 128, first_usable: Lba(34), .. }));
    // The end of partition 4 and room for the backup GPT, to the next MiB.
    assert_eq!(m.disk.minimum_size, 25 * MIB);
    let found: Vec<_> =
        m.partitions.iter().map(|p| (p.number, p.first.0, p.size, p.role, p.filesystem.as_deref())).collect();
    assert_eq!(
        found,
        [
            (1, 2048, MIB, Role::BiosBoot, None),
            (2, 4096, 4 * MIB, Role::Esp, Some("vfat")),
            (3, 12288, 16 * MIB, Role::Data, Some("ext4")),
            (4, 45056, 2 * MIB, Role::Swap, None),
        ]
    );
    assert!(matches!(&m.partitions[2].entry, Entry::Gpt { name, .. } if name == "Wurzel ä"));
    assert_eq!(m.partitions[0].pieces, PieceCount { data: 1, zero: 15, free: 0 });
    assert_eq!(m.partitions[3].pieces, PieceCount { data: 0, zero: 32, free: 0 });

    assert_eq!(m.disk.boot_areas.len(), 1);
    assert_eq!(m.disk.boot_areas[0].kind, BootAreaKind::BootCode);
    assert_eq!(image.boot_bytes(), disks::noise(4, 440));
    assert!(m.boot.bios);
    let loaders: Vec<_> =
        m.boot.uefi.iter().map(|l| (l.partition, l.path.as_str(), l.label.as_str())).collect();
    assert_eq!(
        loaders,
        [
            (2, "/EFI/debian/shimx64.efi", "debian"),
            (2, "/EFI/Microsoft/Boot/bootmgfw.efi", "Windows Boot Manager"),
            (2, "/EFI/BOOT/BOOTX64.EFI", "UEFI OS"),
        ]
    );
    let linux = m.boot.linux.as_ref().expect("a kernel");
    assert_eq!((linux.partition, linux.kernel.as_str()), (3, "/boot/vmlinuz-6.1"));
    assert_eq!(linux.initrd.as_deref(), Some("/boot/initrd-6.1"));
    assert_eq!(linux.cmdline, "root=LABEL=root ro quiet");
}

#[test]
fn what_is_written_from_an_image_is_the_disk_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(dir.path());
    let image = ImageFolder::open(&capture(dir.path(), &disk)).expect("an image");
    let original = fs::read(&disk).expect("the disk");
    for (i, p) in image.manifest().partitions.iter().enumerate() {
        let start = usize::try_from(p.first.0 * 512).expect("small");
        let mut rebuilt = vec![0xffu8; usize::try_from(p.size).expect("small")];
        restore(&image, i, &mut rebuilt);
        for span in image.grid().free_cells().filter(|span| span.partition == i) {
            // Unused ranges may hold anything.
            let at = usize::try_from(span.offset).expect("small");
            let len = span.len as usize;
            rebuilt[at..at + len].copy_from_slice(&original[start + at..start + at + len]);
        }
        // Inside cells that have data, unused ranges are zero.
        let pairs = rebuilt.iter().zip(&original[start..]);
        assert!(pairs.clone().all(|(new, old)| new == old || *new == 0), "partition {}", p.number);
        let lost = pairs.filter(|(new, old)| new != old).count();
        assert!(lost < 4096, "partition {}: {lost} bytes", p.number);
    }
    assert!(image.metainfo().files.len() > 1, "the payload has several files");
}

#[test]
fn payload_files_and_reads_of_holes_cost_no_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(dir.path());
    let folder = capture(dir.path(), &disk);
    let image = ImageFolder::open(&folder).expect("an image");
    let on_disk: u64 = fs::read_dir(folder.join("payload"))
        .expect("a folder")
        .map(|file| file.expect("a file").metadata().expect("its size").blocks() * 512)
        .sum();
    let data = image.grid().data_bytes();
    assert!(on_disk <= data + data / 8 + 64 * 1024, "{on_disk} bytes on disk for {data} of data");
    assert!(data < image.grid().payload_len());
    let runs = (0..4).flat_map(|i| image.grid().runs(i));
    assert_eq!(runs.filter(|run| run.kind == RangeKind::Data).map(|run| run.len).sum::<u64>(), data);
}

#[test]
fn logical_partitions_of_an_mbr_disk_and_the_gap_behind_it_are_captured() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::mbr(dir.path());
    let image = ImageFolder::open(&capture(dir.path(), &disk)).expect("an image");
    let m = image.manifest();
    let Table::Mbr { signature, extended } = &m.disk.table else { panic!("{:?}", m.disk.table) };
    assert_eq!((signature, extended.len(), extended[0].kind), (&[1, 2, 3, 4], 1, 0x0f));
    let found: Vec<_> = m.partitions.iter().map(|p| (p.number, p.first.0, p.filesystem.as_deref())).collect();
    assert_eq!(found, [(1, 2048, None), (5, 12288, Some("ext4")), (6, 47104, Some("swap"))]);
    assert_eq!(m.partitions[0].entry, Entry::Mbr { kind: 0x83, active: true, ebr: None });
    // Up to the end of the extended partition.
    assert_eq!(m.disk.minimum_size, 29 * MIB);
    let areas: Vec<_> = m.disk.boot_areas.iter().map(|a| (a.kind, a.offset, a.length)).collect();
    // 20,000 bytes from byte 17 of sector 3 on take 40 sectors.
    assert_eq!(
        areas,
        [(BootAreaKind::BootCode, DiskOffset(0), 440), (BootAreaKind::Gap, DiskOffset(3 * 512), 40 * 512)]
    );
    assert_eq!(image.boot_bytes()[440 + 17..440 + 17 + 20_000], disks::noise(7, 20_000));
    assert_eq!(m.boot.linux.as_ref().map(|linux| linux.partition), Some(5));
}

#[test]
fn a_bare_filesystem_is_one_partition_without_a_table() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = disks::ext4(dir.path());
    let image = ImageFolder::open(&capture(dir.path(), &source)).expect("an image");
    let m = image.manifest();
    assert_eq!(m.disk.table, Table::None);
    assert_eq!((m.disk.minimum_size, m.disk.boot_areas.len()), (16 * MIB, 0));
    assert_eq!((m.partitions.len(), m.partitions[0].size), (1, 16 * MIB));
    assert!(m.boot.linux.is_some());
}

#[test]
fn the_same_disk_twice_gives_the_same_payload_and_the_next_version() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(dir.path());
    let repository = dir.path().join("repository");
    for _ in 0..2 {
        succeed(&capture_as("lab", &disk, &repository, &[]));
    }
    let images = list(&repository).expect("a repository");
    assert_eq!(images.len(), 2);
    let images: Vec<_> = images.iter().map(|i| ImageFolder::open(&i.path).expect("an image")).collect();
    let (one, two) = (images[0].manifest(), images[1].manifest());
    assert_eq!((one.sequence, two.sequence), (1, 2));
    assert!(one.version.ends_with(".1") && two.version.ends_with(".2") && one.version.starts_with("20"));
    assert_eq!(one.payload.sha256, two.payload.sha256);
    assert_eq!(one.partitions, two.partitions);
    assert_eq!(images[0].piece_hashes(), images[1].piece_hashes());
    assert_eq!(images[0].metainfo().pieces, images[1].metainfo().pieces);
}

#[test]
fn a_kept_partition_is_described_and_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(dir.path());
    let repository = dir.path().join("r");
    let keep = |number: &str| {
        capture_as("lab@1", &disk, &repository, &[&"--piece-length", &"64KiB", &"--keep", &number])
    };
    assert!(fail(&keep("9"), 2).contains("no partition 9"));
    succeed(&keep("3"));
    let image = ImageFolder::open(&repository.join("lab/1")).expect("an image");
    let kept = &image.manifest().partitions[2];
    assert_eq!((kept.policy, kept.sha256), (Policy::Keep, None));
    assert_eq!(kept.pieces, PieceCount { data: 0, zero: 0, free: 256 });
    assert!(image.grid().pieces_of(2).is_empty());
    succeed(&mkimage(&[&"verify", &repository.join("lab/1"), &"--disk", &disk]));
}

#[test]
fn kernels_can_be_named_and_must_exist() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = disks::ext4(dir.path());
    let repository = dir.path().join("r");
    let with = |kernel: &str| {
        let cmdline = "root=/dev/vda1 console=ttyS0";
        capture_as("lab@1", &source, &repository, &[&"--kernel", &kernel, &"--cmdline", &cmdline])
    };
    assert!(fail(&with("/vmlinuz"), 2).contains("/vmlinuz"));
    assert!(list(&repository).is_err() || list(&repository).expect("a list").is_empty());
    succeed(&with("/boot/vmlinuz-6.1"));
    let image = ImageFolder::open(&repository.join("lab/1")).expect("an image");
    let linux = image.manifest().boot.linux.clone().expect("a kernel");
    assert_eq!((linux.cmdline.as_str(), linux.initrd), ("root=/dev/vda1 console=ttyS0", None));
}

#[test]
fn what_cannot_be_captured_is_refused_clearly_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let repository = dir.path().join("r");
    let refused = |source: &Path, code: i32| fail(&capture_as("lab", source, &repository, &[]), code);
    let disk = disks::gpt(dir.path());
    let bytes = fs::read(&disk).expect("the disk");
    let altered = dir.path().join("altered.img");

    fs::write(&altered, &bytes[..20 << 20]).expect("a file");
    assert!(refused(&altered, 3).contains("there are only 20971520 bytes"));
    let mut damaged = bytes.clone();
    damaged[1024] ^= 1;
    fs::write(&altered, &damaged).expect("a file");
    assert!(refused(&altered, 3).contains("damaged"));
    fs::write(&altered, vec![0; 1 << 20]).expect("a file");
    assert!(refused(&altered, 3).contains("only zeros"));
    fs::write(&altered, vec![1; 1000]).expect("a file");
    assert!(refused(&altered, 3).contains("whole number of sectors"));
    assert!(refused(Path::new("/nonexistent/disk"), 2).contains("/nonexistent/disk"));
    assert!(refused(dir.path(), 2).contains("neither a block device nor a file"));
    let left = repository.join("lab");
    assert!(!left.exists() || fs::read_dir(left).expect("a folder").next().is_none());

    capture(dir.path(), &disk);
    let again = capture_as("lab@1", &disk, dir.path().join("repository"), &[]);
    assert!(fail(&again, 3).contains("exists"));
}

#[test]
fn filesystems_that_cannot_be_read_are_captured_all_the_same_when_one_asks_for_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(dir.path());
    let file = fs::File::options().write(true).open(&disk).expect("the disk");
    use std::os::unix::fs::FileExt;
    // The FAT's sector size, and everything of the ext4 superblock but its mark.
    file.write_all_at(&[0xff; 8], 2 * MIB + 11).expect("written");
    file.write_all_at(&[0xff; 56], 6 * MIB + 1024).expect("written");
    let repository = dir.path().join("r");
    let said = fail(&capture_as("lab@1", &disk, &repository, &[]), 3);
    assert!(said.contains("--raw 2"), "{said}");
    let output = capture_as("lab@1", &disk, &repository, &[&"--raw", &"2", &"--raw", &"3"]);
    succeed(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("partition 3: no kernel"), "{output:?}");
    let image = ImageFolder::open(&repository.join("lab/1")).expect("an image");
    assert!(image.manifest().boot.uefi.is_empty() && image.manifest().boot.linux.is_none());
}

#[test]
fn a_killed_capture_leaves_no_image_and_the_next_one_cleans_up() {
    let dir = tempfile::tempdir().expect("a folder");
    // Big enough that it is still reading when it is killed: nothing but data.
    let source = dir.path().join("big");
    let block = disks::noise(9, 16 << 20);
    for _ in 0..24 {
        use std::io::Write;
        let file = fs::File::options().create(true).append(true).open(&source);
        file.and_then(|mut file| file.write_all(&block)).expect("written");
    }
    let repository = dir.path().join("repository");
    let mut capturing = command(None, env!("CARGO_BIN_EXE_flashmob-mkimage"));
    capturing
        .arg("capture")
        .arg(&source)
        .arg("--repository")
        .arg(&repository)
        .args(["--name", "lab", "--version", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = Guarded::start(&mut capturing);
    let image = repository.join("lab");
    let partial = image.join(format!(".partial-{}", child.id()));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !partial.join("payload/0000.bin").exists() {
        assert!(child.is_running(), "it ended before it could be killed");
        assert!(Instant::now() < deadline, "it does not begin");
        std::thread::yield_now();
    }
    child.kill();
    assert!(partial.exists() && !image.join("1").exists());
    assert_eq!(list(&repository).expect("a repository"), []);

    let small = disks::ext4(dir.path());
    let folder = capture(dir.path(), &small);
    assert!(!partial.exists());
    assert_eq!(list(&repository).expect("a repository").len(), 1);
    assert!(contents(&folder).contains_key("manifest.json"));
}

#[test]
fn a_full_repository_is_a_clear_error_and_leaves_nothing() {
    // A small filesystem in a private mount namespace, which only root can make.
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let source = dir.path().join("source");
    fs::write(&source, disks::noise(10, 8 << 20)).expect("a file");
    let script = "mount -t tmpfs -o size=3m none \"$1\" && { \"$2\" capture \"$3\" --repository \"$1\" \
        --name lab; \
                  code=$?; ls -A \"$1/lab\"; exit $code; }";
    let place = dir.path().join("full");
    fs::create_dir(&place).expect("a folder");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&place)
        .arg(env!("CARGO_BIN_EXE_flashmob-mkimage"))
        .arg(&source)
        .output()
        .expect("unshare");
    let complaint = fail(&output, 3);
    assert!(complaint.contains("No space left on device") && complaint.contains("0000.bin"), "{complaint}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "the folder of the image is empty again");
}

#[test]
fn a_mounted_source_is_refused_and_a_free_block_device_is_captured() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let file = disks::ext4(dir.path());
    let device = LoopDevice::over(&file, &[]);
    let place = dir.path().join("place");
    fs::create_dir(&place).expect("a folder");
    // Mounted in a private namespace, which ends with the program.
    let mounted = |options: &str, source: &Path, version: &str| {
        let script = "mount -o \"$1\" \"$2\" \"$3\" && exec \"$4\" capture \"$5\" --repository \"$6\" \
            --name lab \
                      --version \"$7\"";
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh", options, device.name()])
            .arg(&place)
            .arg(env!("CARGO_BIN_EXE_flashmob-mkimage"))
            .arg(source)
            .arg(dir.path().join("r"))
            .arg(version)
            .output()
            .expect("unshare")
    };
    let complaint = fail(&mounted("rw", device.path(), "1"), 3);
    assert!(complaint.contains("mounted read-write at") && complaint.contains("umount"), "{complaint}");
    let complaint = fail(&mounted("rw", &file, "1"), 3);
    assert!(complaint.contains("through a loop device"), "{complaint}");
    assert!(!dir.path().join("r/lab/1").exists());
    succeed(&mounted("ro", device.path(), "2"));
    let folder = capture(dir.path(), device.path());
    succeed(&mkimage(&[&"verify", &folder, &"--disk", &device]));
    let held =
        fs::File::options().read(true).custom_flags(nix::libc::O_EXCL).open(device.path()).expect("held");
    let again = capture_as("held", &device, dir.path(), &[]);
    assert!(fail(&again, 3).contains("is in use"));
    drop(held);
}
