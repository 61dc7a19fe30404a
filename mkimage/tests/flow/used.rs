//! Free blocks stay at home: filesystems with real and deleted files, captured, written to another disk,
//! checked there.
//!
//! These tests attach loop devices and mount nothing; files come and go by debugfs, mtools and the ntfs-3g
//! tools.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use flashmob::io::image::folder::ImageFolder;
use flashmob_testkit::command::run;

use super::disks::{self, noise};
use super::{capture, capture_as, contents, fail, restore, succeed};

/// The content of deleted files.
pub(crate) const SECRET: &[u8] = b"deleted, and nobody else's business ";

pub(crate) fn secret(len: usize) -> Vec<u8> {
    SECRET.iter().copied().cycle().take(len).collect()
}

pub(crate) fn image(folder: &Path, name: &str, size: u64) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).expect("a file").set_len(size).expect("its size");
    path
}

/// Writes a one-partition image onto a disk full of old bytes.
pub(crate) fn written(image: &Path, target: &Path) {
    let image = ImageFolder::open(image).expect("an image");
    let size = image.manifest().partitions[0].size;
    let size = usize::try_from(size).expect("small");
    let mut disk = noise(9, 1 << 20).repeat(size.div_ceil(1 << 20));
    disk.truncate(size);
    restore(&image, 0, &mut disk);
    fs::write(target, disk).expect("written");
}

pub(crate) fn has_secret(image: &Path) -> bool {
    let begins = |bytes: &[u8]| bytes.first() == SECRET.first() && bytes == SECRET;
    let found = |bytes: &Vec<u8>| bytes.windows(SECRET.len()).any(begins);
    contents(&image.join("payload")).values().any(found)
}

#[test]
fn an_ext4_travels_without_its_deleted_files_and_is_sound_where_it_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = image(folder.path(), "ext4", 24 << 20);
    run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &source]);
    let kept = folder.path().join("kept");
    fs::write(&kept, noise(1, 700_000)).expect("a file");
    let gone = folder.path().join("gone");
    fs::write(&gone, secret(3_000_000)).expect("a file");
    for (path, name) in [(&gone, "gone"), (&kept, "kept")] {
        run("debugfs", &[&"-w", &"-R", &format!("write {} {name}", path.display()), &source]);
    }
    run("debugfs", &[&"-w", &"-R", &"rm gone", &source]);
    run("e2fsck", &[&"-f", &"-n", &source]);
    let image = capture(folder.path(), &source);
    assert!(!has_secret(&image));
    let target = folder.path().join("target");
    written(&image, &target);
    run("e2fsck", &[&"-f", &"-n", &target]);
    let read = folder.path().join("read");
    run("debugfs", &[&"-R", &format!("dump kept {}", read.display()), &target]);
    assert_eq!(fs::read(&read).expect("read"), noise(1, 700_000));
    // With `--raw` everything travels.
    let repository = folder.path().join("raw");
    succeed(&capture_as("raw", &source, &repository, &[&"--raw", &"1"]));
    let version = fs::read_dir(repository.join("raw")).expect("a folder").next().expect("a version");
    assert!(has_secret(&version.expect("an entry").path()));
}

#[test]
fn an_ntfs_travels_without_its_deleted_files_and_is_sound_where_it_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = image(folder.path(), "ntfs", 32 << 20);
    run("mkntfs", &[&"-q", &"-F", &"-Q", &source]);
    let kept = folder.path().join("kept");
    fs::write(&kept, noise(2, 500_000)).expect("a file");
    run("ntfscp", &[&"-q", &source, &kept, &"kept"]);
    // Free clusters with deleted data: the volume's last ones, before the copy of its boot sector.
    let file = File::options().write(true).open(&source).expect("the volume");
    file.write_all_at(&secret(1 << 20), (32 << 20) - (2 << 20)).expect("written");
    let image = capture(folder.path(), &source);
    assert!(!has_secret(&image));
    let target = folder.path().join("target");
    written(&image, &target);
    run("ntfsfix", &[&"-n", &target]);
    let read = Command::new("ntfscat").arg(&target).arg("kept").output().expect("ntfscat of package ntfs-3g");
    assert_eq!(read.stdout, noise(2, 500_000));
}

/// A FAT of this kind with files that were written between others which then went.
fn fat(folder: &Path, bits: &str, size: u64) -> PathBuf {
    let source = image(folder, "fat", size);
    run("mkfs.vfat", &[&"-F", &bits, &source]);
    fill_fat(folder, &source);
    source
}

/// A FAT whose clusters are single sectors, filled in the same way.
pub(crate) fn fat_of_small_clusters(folder: &Path) -> PathBuf {
    let source = image(folder, "fat", 24 << 20);
    run("mkfs.vfat", &[&"-F", &"16", &"-s", &"1", &source]);
    fill_fat(folder, &source);
    source
}

fn fill_fat(folder: &Path, source: &Path) {
    let (kept, gone) = (folder.join("kept"), folder.join("gone"));
    fs::write(&kept, noise(3, 60_000)).expect("a file");
    fs::write(&gone, secret(100_000)).expect("a file");
    for number in 0..8 {
        run("mcopy", &[&"-i", &source, &gone, &format!("::gone{number}")]);
        run("mcopy", &[&"-i", &source, &kept, &format!("::kept{number}")]);
    }
    (0..8).for_each(|number| drop(run("mdel", &[&"-i", &source, &format!("::gone{number}")])));
}

fn fat_is_whole(folder: &Path, target: &Path) {
    run("fsck.fat", &[&"-n", &target]);
    for number in 0..8 {
        let read = folder.join("read");
        run("mcopy", &[&"-o", &"-i", &target, &format!("::kept{number}"), &read]);
        assert!(fs::read(&read).expect("read") == noise(3, 60_000), "kept{number}");
    }
}

#[test]
fn a_fat_travels_without_its_deleted_files_and_is_sound_where_it_arrives() {
    for (bits, size) in [("16", 24 << 20), ("32", 48 << 20)] {
        let folder = tempfile::tempdir().expect("a folder");
        let source = fat(folder.path(), bits, size);
        let image = capture(folder.path(), &source);
        assert!(!has_secret(&image), "FAT{bits}");
        let target = folder.path().join("target");
        written(&image, &target);
        fat_is_whole(folder.path(), &target);
    }
}

#[test]
fn a_fat12_is_taken_whole_because_maps_of_it_are_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = fat(folder.path(), "12", 4 << 20);
    let image = capture(folder.path(), &source);
    let target = folder.path().join("target");
    written(&image, &target);
    fat_is_whole(folder.path(), &target);
}

#[test]
fn a_swap_area_travels_as_its_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = image(folder.path(), "swap", 8 << 20);
    fs::write(&source, secret(8 << 20)).expect("old pages");
    run("mkswap", &[&"-q", &"-L", &"pages", &source]);
    let image = capture(folder.path(), &source);
    assert!(!has_secret(&image));
    let target = folder.path().join("target");
    written(&image, &target);
    let said = Command::new("blkid")
        .args(["-p", "-o", "value", "-s", "LABEL"])
        .arg(&target)
        .output()
        .expect("blkid");
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "pages");
}

#[test]
fn filesystems_that_are_not_whole_are_refused_by_name_unless_taken_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = disks::ext4(folder.path());
    run("debugfs", &[&"-w", &"-R", &"ssv state 2", &source]);
    let repository = folder.path().join("repository");
    let said = fail(&capture_as("lab", &source, &repository, &[]), 3);
    assert!(said.contains("marked as damaged") && said.contains("--raw 1"), "{said}");
    succeed(&capture_as("lab", &source, &repository, &[&"--raw", &"1"]));
    let said = fail(&capture_as("x", &source, &repository, &[&"--raw", &"7"]), 2);
    assert!(said.contains("no partition 7"), "{said}");
}

#[test]
fn a_damaged_filesystem_is_refused_with_what_partclone_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = disks::ext4(folder.path());
    // Group descriptors gone: partclone cannot find the bitmaps.
    let file = File::options().write(true).open(&source).expect("the filesystem");
    file.write_all_at(&noise(5, 2048), 2048).expect("written");
    let said = fail(&capture_as("lab", &source, folder.path().join("repository"), &[]), 3);
    assert!(said.contains("partclone.extfs") && said.contains("--raw 1"), "{said}");
}
