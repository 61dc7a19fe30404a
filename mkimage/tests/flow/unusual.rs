//! Disks with unusual tables and lengths: captured unchanged, or refused by name.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flashmob::io::image::folder::ImageFolder;
use flashmob::manifest::{BootAreaKind, Table};
use flashmob_testkit::loops::LoopDevice;

use super::{capture, capture_as, disks, mkimage, succeed};

/// Captures, and compares the disk with the image: table, boot areas, partitions.
fn goes_through(folder: &Path, disk: &Path) -> ImageFolder {
    let image = capture(folder, disk);
    succeed(&mkimage(&[&"verify", &image]));
    succeed(&mkimage(&[&"verify", &image, &"--disk", &disk]));
    ImageFolder::open(&image).expect("an image")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_table_of_256_entries_is_captured_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    disks::run("sgdisk", &["--resize-table=256", "--new=170:51200:+2M", path(&disk)]);
    let file = File::options().write(true).open(&disk).expect("the disk");
    file.write_all_at(&disks::noise(3, 9000), 25 << 20).expect("written");
    let image = goes_through(folder.path(), &disk);
    assert!(matches!(image.manifest().disk.table, Table::Gpt { entries: 256, .. }));
    let last = image.manifest().partitions.last().expect("partitions");
    assert_eq!((last.number, last.pieces.data), (170, 1));
}

#[test]
fn a_hybrid_mbr_is_kept_beside_its_gpt() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    disks::run("sgdisk", &["--hybrid=3", path(&disk)]);
    let said = capture_as("lab", &disk, folder.path().join("noted"), &[]);
    let (_, notes) = super::texts(&said);
    assert!(said.status.success() && notes.contains("they are kept as they are"), "{notes}");
    let image = goes_through(folder.path(), &disk);
    let areas = image.manifest().disk.boot_areas.iter();
    assert!(areas.filter(|area| area.kind == BootAreaKind::Table).any(|area| area.offset.0 < 512));
}

/// An MBR disk with code in an extended boot record and after it.
fn booted_from_its_extended_partition(folder: &Path) -> std::path::PathBuf {
    let disk = disks::mbr(folder);
    let file = File::options().write(true).open(&disk).expect("the disk");
    for (at, seed, length) in [(10240 * 512, 20, 440), (10242 * 512, 21, 3000), (46_000 * 512, 22, 512)] {
        file.write_all_at(&disks::noise(seed, length), at).expect("written");
    }
    disk
}

#[test]
fn code_in_an_extended_boot_record_and_what_it_loads_are_captured_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = goes_through(folder.path(), &booted_from_its_extended_partition(folder.path()));
    let kinds: Vec<_> =
        image.manifest().disk.boot_areas.iter().map(|a| (a.kind, a.offset.0 / 512, a.length)).collect();
    // The field before the entries has 446 bytes in these records.
    let code = (BootAreaKind::Table, 10240, 446);
    let loaded = (BootAreaKind::Gap, 10242, 6 * 512);
    assert!(kinds.contains(&code) && kinds.contains(&loaded), "{kinds:?}");
}

#[test]
fn an_mbr_with_an_empty_first_logical_partition_is_captured() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::mbr(folder.path());
    let file = File::options().write(true).open(&disk).expect("the disk");
    // The first logical partition is deleted, its record stays and leads to the next one.
    file.write_all_at(&[0; 16], 10240 * 512 + 446).expect("written");
    let image = goes_through(folder.path(), &disk);
    let numbers: Vec<_> = image.manifest().partitions.iter().map(|p| (p.number, p.first.0)).collect();
    assert_eq!(numbers, [(1, 2048), (5, 47104)]);
}

#[test]
fn what_terminals_refuse_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::mbr(folder.path());
    let repository = folder.path().join("r");
    let keeps: [&dyn AsRef<std::ffi::OsStr>; 6] = [&"--keep", &"1", &"--keep", &"5", &"--keep", &"6"];
    let said = super::fail(&capture_as("lab", &disk, &repository, &keeps), 3);
    assert!(said.contains("terminals would refuse this image: the image replaces no partition"), "{said}");
    assert!(!repository.exists());
}

#[test]
fn a_gpt_without_its_protective_mbr_is_refused_and_not_taken_for_one_partition() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let file = File::options().write(true).open(&disk).expect("the disk");
    file.write_all_at(&[0; 512], 0).expect("written");
    let said = super::fail(&capture_as("lab", &disk, folder.path().join("r"), &[]), 3);
    assert!(said.contains("no protective MBR"), "{said}");
}

#[test]
fn a_disk_image_with_more_behind_its_table_is_captured_without_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let before = goes_through(folder.path(), &disk);
    let file = File::options().write(true).open(&disk).expect("the disk");
    file.write_all_at(&disks::noise(3, 3 << 20), 40 << 20).expect("written");
    let other = tempfile::tempdir().expect("a folder");
    let after = goes_through(other.path(), &disk);
    assert_eq!(after.manifest().payload.sha256, before.manifest().payload.sha256);
    assert_eq!(after.manifest().disk.minimum_size, before.manifest().disk.minimum_size);
}

#[test]
fn a_disk_of_4096_byte_sectors_is_captured_from_its_file() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk.img");
    File::create(&disk).and_then(|file| file.set_len(32 << 20)).expect("a file");
    let device = LoopDevice::over(&disk, &["--sector-size", "4096"]);
    disks::run("sgdisk", &["--new=3:1024:+8M", "--typecode=3:8300", device.name()]);
    drop(device);
    let file = File::options().write(true).open(&disk).expect("the disk");
    file.write_all_at(&disks::noise(3, 100_000), 5 << 20).expect("written");
    let image = goes_through(folder.path(), &disk);
    let manifest = image.manifest();
    assert_eq!(manifest.disk.sector_size.get(), 4096);
    assert_eq!((manifest.partitions[0].first.0, manifest.partitions[0].size), (1024, 8 << 20));
    assert!(fs::metadata(&disk).is_ok());
}

#[test]
fn more_pieces_than_terminals_take_are_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    File::create(&disk).and_then(|file| file.set_len(3 << 40)).expect("a sparse file");
    let repository = folder.path().join("r");
    let said = super::fail(&capture_as("lab", &disk, &repository, &[&"--piece-length", &"1MiB"]), 3);
    assert!(
        said.contains("more than 2000000 pieces of 1") && said.contains("larger --piece-length"),
        "{said}"
    );
    assert!(!repository.exists());
}
