//! `--shrink`: images of a golden disk of 300 MiB arrive whole on disks of 200 MiB, and the golden disk stays
//! as it is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use flashmob::io::disk::table;
use flashmob::io::hash::sha256;
use flashmob::io::image::folder::ImageFolder;
use flashmob::units::SectorSize;
use flashmob_testkit::child::command;
use flashmob_testkit::command::run;
use flashmob_testkit::loops::LoopDevice;

use super::disks::{self, MIB, noise};
use super::filesystems::{said, tree};
use super::imaging::{beside, serve};
use super::used::{has_secret, image, secret};
use super::{SMALL, capture_as, contents, fail, mkimage, succeed, texts};

/// The last partition; 1 MiB behind it is left to the GPT's copy.
const START: u64 = 21 * MIB;
const SIZE: u64 = 300 * MIB - START - MIB;
const SMALLER: u64 = 200 * MIB;

/// The table of a disk.
#[derive(Clone, Copy, PartialEq)]
enum Scheme {
    /// With sectors of this many bytes.
    Gpt(u32),
    Mbr,
}

impl Scheme {
    fn sector(self) -> u32 {
        match self {
            Scheme::Gpt(sector) => sector,
            Scheme::Mbr => 512,
        }
    }

    /// A loop device with these sectors; `None` where the kernel has none.
    fn device(self, disk: &Path) -> Option<LoopDevice> {
        let sector = self.sector().to_string();
        let options = ["--find", "--show", "--sector-size", &sector];
        let output = Command::new("losetup").args(options).arg(disk).output().expect("losetup");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED: no loop device with sectors of {sector} bytes: {}", said.trim());
            return None;
        }
        run("losetup", &[&"--detach", &String::from_utf8_lossy(&output.stdout).trim()]);
        Some(LoopDevice::over(disk, &options[2..]))
    }
}

/// A disk with a partition of 20 MiB and `filesystem` in the rest; `None` where the kernel has no such
/// sectors.
fn golden(folder: &Path, filesystem: &Path, scheme: Scheme) -> Option<PathBuf> {
    let size = fs::metadata(filesystem).expect("a filesystem").len();
    let disk = image(folder, "golden.img", START + size + MIB);
    let sector = u64::from(scheme.sector());
    let (start, end) = (START / sector, (START + size) / sector - 1);
    if scheme != Scheme::Mbr {
        let device = scheme.device(&disk)?;
        let new = format!("--new=2:{start}:{end}");
        let first = format!("--new=1:{}:+20M", MIB / sector);
        disks::run("sgdisk", &[&first, &new, device.name()]);
    } else {
        let script =
            format!("label: dos\nstart=2048, size=40960, type=83\nstart={start}, size={}, type=83\n", {
                size / 512
            });
        let file = folder.join("script");
        fs::write(&file, script).expect("written");
        let line =
            format!("sfdisk --quiet --no-reread --no-tell-kernel {} < {}", disk.display(), file.display());
        run("sh", &[&"-c", &line]);
    }
    let file = File::options().write(true).open(&disk).expect("the disk");
    file.write_all_at(&noise(3, 1 << 20), MIB).expect("written");
    file.write_all_at(&fs::read(filesystem).expect("a filesystem"), START).expect("written");
    Some(disk)
}

/// An ext4 whose last files lie far behind its middle, behind a deleted one.
fn ext4(folder: &Path, tree: &Path) -> PathBuf {
    let path = image(folder, "filesystem", SIZE);
    run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &"-b", &"4096", &"-d", &tree, &path]);
    let gone = folder.join("gone");
    fs::write(&gone, secret(180 << 20)).expect("a file");
    fs::write(tree.join("late"), noise(12, 9_000_000)).expect("a file");
    for (from, name) in [(&gone, "gone"), (&tree.join("late"), "late")] {
        run("debugfs", &[&"-w", &"-R", &format!("write {} {name}", from.display()), &path]);
    }
    run("debugfs", &[&"-w", &"-R", &"rm gone", &path]);
    fs::remove_file(gone).expect("removed");
    path
}

/// Captures with `--shrink=8MiB`. Checks that the source stays as it is, and that a disk of `smaller` bytes
/// is enough.
fn shrunk(folder: &Path, disk: &Path, smaller: u64) -> PathBuf {
    let before = sha256(&fs::read(disk).expect("the disk"));
    let options = [&SMALL[..], &[&"--shrink=8MiB"]].concat();
    let output = capture_as("lab@1", disk, folder.join("images"), &options);
    succeed(&output);
    let notes = texts(&output).1;
    assert!(notes.contains("partition 2 is shrunk from "), "{notes}");
    assert!(sha256(&fs::read(disk).expect("the disk")) == before, "the source has changed");
    let image = folder.join("images/lab/1");
    let found = ImageFolder::open(&image).expect("an image");
    assert!(found.manifest().disk.minimum_size <= smaller, "{}", found.manifest().disk.minimum_size);
    assert!(found.manifest().partitions[1].size < smaller - START);
    assert!(!has_secret(&image), "deleted content travels");
    image
}

/// A disk of `size` bytes that was imaged, and a device with its second partition.
fn installed(folder: &Path, size: u64, scheme: Scheme) -> (PathBuf, LoopDevice) {
    let server = serve(None, &folder.join("images"), &folder.join("state"), "127.0.0.1:0");
    let disk = image(folder, "smaller.img", size);
    let file = File::options().read(true).write(true).open(&disk).expect("the disk");
    file.write_all_at(&noise(9, 32 << 20), START).expect("old content");
    let device = scheme.device(&disk).expect("as the golden disk");
    let mut agent = command(None, beside("flashmob-agent"));
    agent.args(["--server", &server.url, "--insecure", "--listen", "127.0.0.1:0", "--image", "lab"]);
    succeed(&agent.arg("--disk").arg(device.path()).output().expect("it starts"));
    drop(device);
    let sector = SectorSize::new(scheme.sector()).expect("a size");
    let found = table::read(&mut &file, size, sector).expect("read").expect("a table");
    let partition = LoopDevice::part(&disk, START, found.partitions[1].size);
    (disk, partition)
}

#[test]
fn a_shrunk_ext4_arrives_whole_on_a_smaller_disk() {
    for scheme in [Scheme::Gpt(512), Scheme::Mbr, Scheme::Gpt(4096)] {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let tree = tree(folder);
        let Some(disk) = golden(folder, &ext4(folder, &tree), scheme) else { continue };
        if scheme == Scheme::Mbr {
            shrunk(folder, LoopDevice::over(&disk, &["--read-only"]).path(), SMALLER);
        } else {
            shrunk(folder, &disk, SMALLER);
        }
        let (smaller, partition) = installed(folder, SMALLER, scheme);
        run("e2fsck", &[&"-f", &"-n", &partition]);
        let read = tempfile::tempdir_in(folder).expect("a folder");
        run("debugfs", &[&"-R", &format!("rdump / {}", read.path().display()), &partition]);
        fs::remove_dir_all(read.path().join("lost+found")).expect("removed");
        assert!(contents(read.path()) == contents(&tree), "files differ");
        let checker = if scheme == Scheme::Mbr { "sfdisk --verify" } else { "sgdisk --verify" };
        let device = scheme.device(&smaller).expect("as the golden disk");
        run("sh", &[&"-c", &format!("PATH=$PATH:/usr/sbin {checker} {}", device.name())]);
        drop(device);
        let verify = mkimage(&[&"verify", &folder.join("images/lab/1"), &"--disk", &smaller]);
        succeed(&verify);
    }
}

#[test]
fn a_shrunk_ntfs_arrives_whole_on_a_smaller_disk_and_is_not_marked_for_a_check() {
    for scheme in [Scheme::Gpt(512), Scheme::Gpt(4096)] {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let filesystem = image(folder, "filesystem", SIZE);
        run("mkntfs", &[&"-q", &"-F", &"-Q", &"-s", &scheme.sector().to_string(), &filesystem]);
        let files: Vec<(String, Vec<u8>)> =
            (0..8).map(|i| (format!("file{i}.bin"), noise(50 + i, 1_500_000))).collect();
        for (name, bytes) in &files {
            let file = folder.join(name);
            fs::write(&file, bytes).expect("a file");
            run("ntfscp", &[&"-q", &filesystem, &file, name]);
        }
        let Some(disk) = golden(folder, &filesystem, scheme) else { continue };
        shrunk(folder, &disk, SMALLER);
        let (_, partition) = installed(folder, SMALLER, scheme);
        let checked = said("ntfsresize", &["--info", "--no-progress-bar"], partition.path());
        assert!(!checked.contains("scheduled for check"), "{checked}");
        run("ntfsfix", &[&"-n", &partition]);
        for (name, bytes) in &files {
            let read = Command::new("ntfscat").arg(&partition).arg(name).output();
            assert!(read.expect("ntfscat of ntfs-3g").stdout == *bytes, "{name} is not the same");
        }
    }
}

#[test]
fn a_shrunk_btrfs_arrives_whole_on_a_smaller_disk() {
    if !fs::read_to_string("/proc/filesystems").is_ok_and(|known| known.contains("\tbtrfs")) {
        eprintln!("skipped: this kernel has no btrfs");
        return;
    }
    for scheme in [Scheme::Gpt(512), Scheme::Gpt(4096)] {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let tree = tree(folder);
        // No Btrfs is smaller than 256 MiB.
        let smaller = 320 * MIB;
        let filesystem = image(folder, "filesystem", smaller * 3 / 2 - START - MIB);
        run("mkfs.btrfs", &[&"-q", &"-f", &"-m", &"single", &"--rootdir", &tree, &filesystem]);
        let Some(disk) = golden(folder, &filesystem, scheme) else { continue };
        shrunk(folder, &disk, smaller);
        let (_, partition) = installed(folder, smaller, scheme);
        said("btrfs", &["check", "--readonly"], partition.path());
        let read = tempfile::tempdir_in(folder).expect("a folder");
        run("btrfs", &[&"restore", &partition, &read.path()]);
        assert!(contents(read.path()) == contents(&tree), "files differ");
    }
}

#[test]
fn what_cannot_be_shrunk_is_refused_by_name_or_noted() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let refused = |source: &Path, code: i32, more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let options = [&SMALL[..], &[&"--shrink"], more].concat();
        fail(&capture_as("lab", source, folder.join("images"), &options), code)
    };
    // A bare filesystem, a disk that ends with a partition that is found by its place, a logical partition.
    assert!(refused(&disks::ext4(folder), 3, &[]).contains("has no partition table"));
    let disk = disks::gpt(folder);
    disks::run("sgdisk", &["--typecode=4:ef02", disk.to_str().expect("text")]);
    let said = refused(&disk, 3, &[]);
    assert!(said.contains("partition 4, the last one") && said.contains("no known filesystem"), "{said}");
    assert!(refused(&disks::mbr(folder), 3, &[]).contains("is a logical partition"));
    let said = refused(&disks::gpt(folder), 2, &[&"--payload", &"reference"]);
    assert!(said.contains("Leave out --shrink"), "{said}");
    // A dirty one is refused as always, and one that is full stays as it is.
    let disk = image(folder, "full", 24 * MIB);
    disks::run("sgdisk", &["--new=1:2048:43007", disk.to_str().expect("text")]);
    let filesystem = image(folder, "filesystem", 20 * MIB);
    run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &filesystem]);
    let put = || {
        let file = File::options().write(true).open(&disk).expect("the disk");
        file.write_all_at(&fs::read(&filesystem).expect("a filesystem"), MIB).expect("written");
    };
    run("debugfs", &[&"-w", &"-R", &"feature needs_recovery", &filesystem]);
    put();
    assert!(refused(&disk, 3, &[]).contains("was not unmounted"));
    run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &filesystem]);
    put();
    let options = [&SMALL[..], &[&"--shrink"]].concat();
    let output = capture_as("full", &disk, folder.join("images"), &options);
    succeed(&output);
    let notes = texts(&output).1;
    assert!(notes.contains("partition 1 is not shrunk: all of its 20.0 MiB are needed"), "{notes}");
}
