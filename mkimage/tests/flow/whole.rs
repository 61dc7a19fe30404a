//! Filesystems that would not be whole on a terminal are refused, each for each reason; sound ones that are
//! rare are taken.
//!
//! The table of docs/capture.md, by filesystems that the usual tools make and these tests then spoil.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flashmob_testkit::command::run;
use flashmob_testkit::loops::LoopDevice;

use super::disks::{self, MIB, noise};
use super::used::{image, written};
use super::{SMALL, capture, capture_as, fail, succeed, texts};

/// The capture's refusal; with `--raw 1` it succeeds.
fn refused(source: &Path) -> String {
    let repository = tempfile::tempdir().expect("a folder");
    let said = fail(&capture_as("lab", source, repository.path(), &SMALL), 3);
    assert!(said.contains("--raw 1"), "{said}");
    let raw = [&SMALL[..], &[&"--raw", &"1"]].concat();
    succeed(&capture_as("lab", source, repository.path(), &raw));
    said
}

/// The capture's remarks.
fn noted(source: &Path) -> String {
    let repository = tempfile::tempdir().expect("a folder");
    let output = capture_as("lab", source, repository.path(), &SMALL);
    succeed(&output);
    texts(&output).1
}

fn put(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("the filesystem");
    file.write_all_at(bytes, at).expect("written");
}

fn change(path: &Path, at: u64, change: impl Fn(u8) -> u8) {
    let mut byte = [0];
    let file = File::open(path).expect("the filesystem");
    file.read_exact_at(&mut byte, at).expect("read");
    put(path, at, &[change(byte[0])]);
}

fn ext4(folder: &Path, options: &[&str]) -> PathBuf {
    let source = image(folder, "ext4", 32 * MIB);
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-F", &"-t", &"ext4"];
    options.iter().for_each(|option| arguments.push(option));
    arguments.push(&source);
    run("mke2fs", &arguments);
    source
}

#[test]
fn an_ext4_whose_journal_is_elsewhere_or_that_was_not_unmounted_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = ext4(folder.path(), &[]);
    run("debugfs", &[&"-w", &"-R", &"ssv journal_inum 0", &source]);
    let said = refused(&source);
    assert!(said.contains("its journal lies on another device") && said.contains("tune2fs"), "{said}");

    let source = ext4(folder.path(), &["-O", "^has_journal"]);
    noted(&source);
    run("debugfs", &[&"-w", &"-R", &"ssv state 0", &source]);
    assert!(refused(&source).contains("it was not unmounted"));

    let journal = image(folder.path(), "journal", 32 * MIB);
    run("mke2fs", &[&"-q", &"-F", &"-O", &"journal_dev", &journal]);
    assert!(refused(&journal).contains("the journal of a filesystem that lies elsewhere"));
}

#[test]
fn a_linux_that_hibernates_is_named_before_its_filesystems_that_are_not_unmounted() {
    let folder = tempfile::tempdir().expect("a folder");
    let sleeping = |disk: &Path, root: u64, swap: u64| {
        // RECOVER of the superblock: the filesystem is mounted.
        change(disk, root + 1024 + 96, |features| features | 4);
        assert!(refused_somewhere(disk).contains("it was not unmounted"));
        put(disk, swap + 4086, b"S1SUSPEND\0");
        refused_somewhere(disk)
    };
    let disk = disks::mbr(folder.path());
    let said = sleeping(&disk, 12288 * 512, 47104 * 512);
    assert!(said.contains("partition 6 of") && said.contains("a Linux system is hibernated"), "{said}");

    let tree = folder.path().join("files");
    fs::create_dir(&tree).expect("a folder");
    let mut area = noise(5, 48 << 10);
    area[4086..4096].copy_from_slice(b"SWAPSPACE2");
    fs::write(tree.join("swapfile"), &area).expect("a file");
    let tree = tree.to_string_lossy().into_owned();
    let source = ext4(folder.path(), &["-d", &tree]);
    let bytes = fs::read(&source).expect("the filesystem");
    let swap = bytes.chunks_exact(4096).position(|block| block == &area[..4096]).expect("the file");
    let said = sleeping(&source, 0, 4096 * swap as u64);
    assert!(said.contains("partition 1, file /swapfile of") && said.contains("hibernated"), "{said}");
}

/// The refusal of a partition, whichever it is.
fn refused_somewhere(source: &Path) -> String {
    let repository = tempfile::tempdir().expect("a folder");
    fail(&capture_as("lab", source, repository.path(), &SMALL), 3)
}

#[test]
fn an_ext4_of_clusters_is_taken_whole_with_a_note_and_sound_where_it_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).expect("a folder");
    fs::write(tree.join("file"), noise(3, 3_000_000)).expect("a file");
    let tree = tree.to_string_lossy().into_owned();
    let source = ext4(folder.path(), &["-O", "bigalloc", "-C", "65536", "-d", &tree]);
    let said = noted(&source);
    assert!(said.contains("bigalloc") && said.contains("all but zeros is taken"), "{said}");
    let target = folder.path().join("target");
    written(&capture(folder.path(), &source), &target);
    run("e2fsck", &[&"-f", &"-n", &target]);
    let read = folder.path().join("read");
    run("debugfs", &[&"-R", &format!("dump file {}", read.display()), &target]);
    assert!(fs::read(&read).expect("read") == noise(3, 3_000_000));
}

#[test]
fn an_ntfs_whose_journal_was_not_carried_out_is_refused_though_it_is_not_marked_as_dirty() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = image(folder.path(), "ntfs", 32 * MIB);
    run("mkntfs", &[&"-q", &"-F", &"-Q", &source]);
    // mkfs fills the journal with ones, and nothing else is full of them.
    let bytes = fs::read(&source).expect("the volume");
    let log = bytes.chunks(4096).position(|page| page == [0xff; 4096]).expect("a journal") as u64 * 4096;
    let mut page = vec![0u8; 4096];
    page[..4].copy_from_slice(b"RSTR");
    for (at, value) in [(4, 30), (6, 9), (17, 0x10), (21, 0x10), (24, 0x40), (26, 1), (28, 1)] {
        page[at] = value;
    }
    // A client is in use (0x4c), the volume is not clean (0x4e).
    (page[0x40 + 3], page[0x48], page[0x4a], page[0x4b]) = (1, 1, 0xff, 0xff);
    put(&source, log, &page);
    put(&source, log + 4096, &page);
    let said = refused(&source);
    assert!(said.contains("$LogFile") && said.contains("was not carried out"), "{said}");
    for at in [log, log + 4096] {
        put(&source, at + 0x4e, &[2]);
    }
    noted(&source);
}

#[test]
fn an_ntfs_of_large_clusters_is_captured_and_sound_where_it_arrives() {
    for cluster in ["131072", "2097152"] {
        let folder = tempfile::tempdir().expect("a folder");
        let source = image(folder.path(), "ntfs", 128 * MIB);
        run("mkntfs", &[&"-q", &"-F", &"-Q", &"-c", &cluster, &source]);
        let file = folder.path().join("file");
        fs::write(&file, noise(4, 700_000)).expect("a file");
        run("ntfscp", &[&"-q", &source, &file, &"file"]);
        let target = folder.path().join("target");
        written(&capture(folder.path(), &source), &target);
        let read = std::process::Command::new("ntfscat").arg(&target).arg("file").output().expect("ntfscat");
        assert!(read.stdout == noise(4, 700_000), "{cluster}");
    }
}

#[test]
fn a_fat_whose_table_says_that_it_was_not_unmounted_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (bits, size, entry) in [("16", 24 * MIB, 3), ("32", 48 * MIB, 7)] {
        let source = image(folder.path(), "fat", size);
        run("mkfs.vfat", &[&"-F", &bits, &source]);
        noted(&source);
        let bytes = fs::read(&source).expect("the filesystem");
        let table = u64::from(u16::from_le_bytes([bytes[14], bytes[15]])) * 512;
        let flag = if bits == "16" { 0x80 } else { 0x08 };
        change(&source, table + entry, |byte| byte & !flag);
        assert!(refused(&source).contains("it was not unmounted"), "FAT{bits}");
    }
}

#[test]
fn an_f2fs_that_was_not_unmounted_or_lies_on_two_devices_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = image(folder.path(), "f2fs", 128 * MIB);
    run("mkfs.f2fs", &[&"-q", &"-f", &source]);
    noted(&source);
    // Its two checkpoints, a segment apart.
    for at in [512 * 4096, 1024 * 4096] {
        change(&source, at + 132, |flags| flags & !1);
    }
    let said = refused(&source);
    assert!(said.contains("last checkpoint was not carried out"), "{said}");
    put(&source, 1024 + 2201 + 68, b"/dev/sdb");
    assert!(refused(&source).contains("lies on several devices"));
}

#[test]
fn a_volume_group_over_two_disks_is_refused_and_one_on_one_disk_is_not() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (image(folder.path(), "one", 32 * MIB), image(folder.path(), "two", 32 * MIB));
    let devices = (LoopDevice::over(&one, &[]), LoopDevice::over(&two, &[]));
    let (first, second) = (&devices.0, &devices.1);
    let both = format!("{},{}", first.name(), second.name());
    run("pvcreate", &[&"--quiet", &"--devices", &both, first, second]);
    run("vgcreate", &[&"--quiet", &"--devices", &both, &"flashmob-lab", first]);
    assert!(!noted(&one).contains("all but zeros is taken"));
    run("vgextend", &[&"--quiet", &"--devices", &both, &"flashmob-lab", second]);
    drop(devices);
    let said = refused(&one);
    assert!(said.contains("1 of 2 are not on this disk") && said.contains("vgreduce"), "{said}");
    put(&two, 0, &vec![0; 4096]);
    File::options().write(true).open(&one).and_then(|file| file.set_len(30 * MIB)).expect("cut off");
    assert!(refused(&one).contains("2097152 bytes are missing"));
}

#[test]
fn volumes_over_two_partitions_of_the_disk_that_is_captured_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (image(folder.path(), "one", 128 * MIB), image(folder.path(), "two", 128 * MIB));
    run("mkfs.btrfs", &[&"-q", &"-f", &"-K", &"-d", &"single", &"-m", &"raid1", &one, &two]);
    let disk = image(folder.path(), "disk", 260 * MIB);
    disks::run("sgdisk", &["--new=1:2048:+128M", "--new=2:0:+128M", disk.to_str().expect("text")]);
    put(&disk, MIB, &fs::read(&one).expect("one"));
    put(&disk, 129 * MIB, &fs::read(&two).expect("two"));
    let said = noted(&disk);
    assert!(said.contains("lies on several devices; all but zeros is taken"), "{said}");
    // Without one of its partitions it is incomplete.
    let repository = folder.path().join("repository");
    let said = fail(&capture_as("kept", &disk, &repository, &[&"--keep", &"2"]), 3);
    assert!(said.contains("lies on several devices"), "{said}");
}

#[test]
fn a_member_of_a_linux_raid_is_refused_whatever_its_first_bytes_look_like() {
    let folder = tempfile::tempdir().expect("a folder");
    let magic = 0xa92b_4efcu32.to_le_bytes();
    for sector in [0u64, 8, 65520] {
        let source = ext4(folder.path(), &[]);
        noted(&source);
        put(&source, sector * 512, &[&magic[..], &[1, 0, 0, 0]].concat());
        put(&source, sector * 512 + 144, &sector.to_le_bytes());
        assert!(refused(&source).contains("a member of a Linux RAID (md)"), "{sector}");
    }
    let source = ext4(folder.path(), &[]);
    put(&source, 32 * MIB - 65536, &[&magic[..], &[0, 0, 0, 0, 90, 0, 0, 0]].concat());
    assert!(refused(&source).contains("a member of a Linux RAID (md)"));
}

#[test]
fn a_member_of_a_firmware_raid_is_noted() {
    let folder = tempfile::tempdir().expect("a folder");
    for (from_end, mark) in [(1024, &b"Intel Raid ISM Cfg Sig. 1.3.00"[..]), (512, b"\xde\x11\xde\x11")] {
        let disk = disks::mbr(folder.path());
        put(&disk, 32 * MIB - from_end, mark);
        let said = noted(&disk);
        assert!(said.contains("a member of a firmware RAID"), "{said}");
    }
}

#[test]
fn dynamic_disks_and_pools_of_windows_are_named_and_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::mbr(folder.path());
    for partition in ["1", "6"] {
        let disk = disk.to_str().expect("text");
        disks::run(
            "sfdisk",
            &["--quiet", "--no-reread", "--no-tell-kernel", "--part-type", disk, partition, "42"],
        );
        let refused = |more: &[&dyn AsRef<std::ffi::OsStr>]| {
            fail(&capture_as("lab", disk, folder.path().join("r"), more), 3)
        };
        // Its database is in no partition, so `--raw` does not help.
        for said in [refused(&[]), refused(&[&"--raw", &"1", &"--raw", &"6"])] {
            assert!(said.contains("Windows dynamic disk") && said.contains("basic disk"), "{said}");
        }
        disks::run(
            "sfdisk",
            &["--quiet", "--no-reread", "--no-tell-kernel", "--part-type", disk, partition, "83"],
        );
    }
    let disk = disks::gpt(folder.path());
    for (kind, words) in [
        ("5808C8AA-7E8F-42E0-85D2-E1E90434CFB3", "Windows dynamic disk"),
        ("AF9B60A0-1431-4F62-BC68-3311714A69AD", "Windows dynamic disk"),
        ("E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D", "Storage Spaces"),
    ] {
        disks::run("sgdisk", &[&format!("--typecode=1:{kind}"), disk.to_str().expect("text")]);
        let said = refused(&disk);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn bitlocker_to_go_is_not_taken_for_a_fat() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = image(folder.path(), "fat", 48 * MIB);
    run("mkfs.vfat", &[&"-F", &"32", &source]);
    put(&source, 0x1a8, b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01");
    assert!(refused(&source).contains("encrypted by BitLocker"));
}
