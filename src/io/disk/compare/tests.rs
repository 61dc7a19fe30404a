//! Records and disks: filesystems of the usual tools, used as people use them.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::proof::{Proof, Volume};
use super::*;
use crate::layout::present::OldCell;
use crate::layout::traces::{Doubt, look};
use crate::rng::Rng;
use crate::testkit::disks::{LoopDisk, MIB};
use crate::testkit::programs::{run, run_patiently, unmount};
use crate::units::PieceLength;

/// The smallest length, so that a change is not noticed by chance because it shares a piece with another.
const PIECE: u32 = 16 << 10;

fn length() -> PieceLength {
    PieceLength::new(PIECE).expect("a length")
}

fn cells(bytes: &[u8]) -> Vec<OldCell> {
    let pieces = (0..).step_by(PIECE as usize).zip(bytes.chunks(PIECE as usize));
    let cells = pieces.map(|(start, bytes)| OldCell {
        range: start..start + bytes.len() as u64,
        hash: hash_of(bytes, length()),
    });
    cells.collect()
}

/// A disk with one partition and a new filesystem, and its record.
struct Made {
    disk: LoopDisk,
    bytes: Vec<u8>,
    cells: Vec<OldCell>,
}

impl Made {
    fn by(program: &str, options: &[&str], mib: u64) -> Made {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("disk.img");
        File::create(&file).and_then(|file| file.set_len(mib * MIB)).expect("a file");
        let path = file.to_str().expect("text").to_string();
        let mut arguments = options.to_vec();
        arguments.push(&path);
        run(program, &arguments);
        let bytes = std::fs::read(&file).expect("its bytes");
        Made { disk: LoopDisk::on(dir, file, 512), cells: cells(&bytes), bytes }
    }

    /// Records the disk's present content.
    fn recorded(&mut self) {
        self.bytes = self.disk.bytes();
        self.cells = cells(&self.bytes);
    }

    /// Whether the disk is unchanged, as far as it is read.
    fn look(&self) -> Result<(), Doubt> {
        run("blockdev", &["--flushbufs", &self.disk.path]);
        let disk = Disk::open(&self.disk.path, false).expect("it opens");
        let mut proof = Proof::new(&disk, self.cells.clone(), length());
        look(&mut Volume::new(&mut proof, 0..self.bytes.len() as u64))
    }

    fn is_noticed(&self) -> bool {
        match self.look() {
            Ok(()) => false,
            Err(Doubt::Changed(why)) => why.contains("was changed at byte"),
            Err(Doubt::Unclear) => panic!("the filesystem must be understood"),
        }
    }

    /// Mounts it as its system does, has `change` do something there, and unmounts it.
    fn mounted(&self, change: impl FnOnce(&Path)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("text");
        run_patiently("mount", &[&self.disk.path, path]);
        let unmount = Unmount(path);
        change(folder.path());
        drop(unmount);
    }

    /// The first place of these bytes at a multiple of `step`.
    fn find(&self, step: usize, mark: &[u8]) -> usize {
        let at = (0..self.bytes.len()).step_by(step).find(|at| self.bytes[*at..].starts_with(mark));
        at.expect("it is somewhere")
    }

    /// Each of some bytes of `range`, changed alone, is noticed.
    fn assert_each_byte_is_noticed(&self, what: &str, range: Range<usize>) {
        let mut chance = Rng::new(range.start as u64);
        let inside = (0..6).map(|_| range.start + chance.below(range.len()));
        for at in inside.chain([range.start, range.end - 1]) {
            self.disk.corrupt(at as u64);
            assert!(self.is_noticed(), "{what}: byte {at} of {range:?}");
            // Corrupting the same byte again restores it.
            self.disk.corrupt(at as u64);
        }
        assert_eq!(self.look(), Ok(()), "{what}");
    }
}

struct Unmount<'a>(&'a str);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        match std::thread::panicking() {
            true => drop(Command::new("umount").arg(self.0).status()),
            false => unmount(self.0),
        }
    }
}

fn ntfs() -> Made {
    Made::by("mkntfs", &["-q", "-Q", "-F", "-p", "0", "-s", "512", "-H", "16", "-S", "63"], 64)
}

#[test]
fn a_mount_alone_is_noticed_where_the_filesystem_counts_it_or_has_a_log() {
    let of = |program, options: &[&str], mib| Made::by(program, options, mib);
    for made in [
        of("mke2fs", &["-q", "-t", "ext2"], 64),
        of("mke2fs", &["-q", "-t", "ext3"], 64),
        of("mke2fs", &["-q", "-t", "ext4"], 64),
        of("mkfs.xfs", &["-q"], 320),
    ] {
        assert_eq!(made.look(), Ok(()));
        made.mounted(|_| ());
        assert!(made.is_noticed());
    }
}

#[test]
fn one_more_file_is_noticed_in_every_filesystem() {
    let of = |program, options: &[&str], mib| Made::by(program, options, mib);
    let write = |folder: &Path| std::fs::write(folder.join("file"), [7; 100_000]).expect("written");
    for made in [
        of("mke2fs", &["-q", "-t", "ext2"], 64),
        of("mke2fs", &["-q", "-t", "ext4", "-b", "1024", "-O", "^64bit"], 64),
        of("mkfs.xfs", &["-q"], 320),
        of("mkfs.btrfs", &["-q"], 160),
    ] {
        assert_eq!(made.look(), Ok(()));
        made.mounted(write);
        assert!(made.is_noticed());
    }
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path());
    let file = folder.path().join("file");
    let file = file.to_str().expect("text");
    let made = ntfs();
    assert_eq!(made.look(), Ok(()));
    run("ntfscp", &["-q", "-f", &made.disk.path, file, "file"]);
    assert!(made.is_noticed());
    for (bits, sectors, mib) in [("12", "16", 16), ("16", "8", 64), ("32", "1", 64)] {
        let made = of("mkfs.vfat", &["-F", bits, "-s", sectors], mib);
        assert_eq!(made.look(), Ok(()));
        run("mcopy", &["-i", &made.disk.path, file, "::/FILE"]);
        assert!(made.is_noticed(), "FAT{bits}");
    }
}

#[test]
fn each_byte_that_a_mount_changes_is_looked_at() {
    let ntfs = ntfs();
    let table = ntfs.find(4096, b"FILE");
    ntfs.assert_each_byte_is_noticed("$MFT", table..table + 16 * 1024);
    // mkfs fills the log with ones; Windows begins with two restart pages.
    let log = ntfs.find(4096, &[0xff; 1 << 20]);
    ntfs.assert_each_byte_is_noticed("$LogFile", log..log + 8192);

    for options in [&["-q", "-t", "ext4"][..], &["-q", "-t", "ext3", "-b", "1024"]] {
        let ext = Made::by("mke2fs", options, 128);
        ext.assert_each_byte_is_noticed("superblock", 1024..2048);
        let journal = ext.find(1024, &[0xc0, 0x3b, 0x39, 0x98]);
        ext.assert_each_byte_is_noticed("journal", journal..journal + 1024);
    }

    let xfs = Made::by("mkfs.xfs", &["-q"], 320);
    xfs.assert_each_byte_is_noticed("superblock", 0..512);
    let log = xfs.find(512, &[0xfe, 0xed, 0xba, 0xbe]);
    xfs.assert_each_byte_is_noticed("log", log..log + 4096);

    let btrfs = Made::by("mkfs.btrfs", &["-q"], 160);
    btrfs.assert_each_byte_is_noticed("superblock", 64 << 10..68 << 10);
    btrfs.assert_each_byte_is_noticed("its copy", 64 << 20..(64 << 20) + 4096);

    let f2fs = Made::by("mkfs.f2fs", &["-q"], 128);
    // The superblock says where: the first segment begins with the first checkpoint, the second with the
    // other.
    for checkpoint in [512 * 4096, 1024 * 4096] {
        f2fs.assert_each_byte_is_noticed("checkpoint", checkpoint..checkpoint + 4096);
    }

    let fat = Made::by("mkfs.vfat", &["-F", "32", "-s", "1"], 128);
    fat.assert_each_byte_is_noticed("FAT", 32 * 512..1000 * 512);
    let exfat = Made::by("mkfs.exfat", &["-c", "4096"], 128);
    let at =
        |field: usize| u32::from_le_bytes(exfat.bytes[field..field + 4].try_into().expect("four")) as usize;
    exfat.assert_each_byte_is_noticed("FAT", at(80) * 512..(at(80) + at(84)) * 512);
    let map = at(88) * 512;
    exfat.assert_each_byte_is_noticed("map of what is in use", map..map + 4000);
}

#[test]
fn the_head_of_a_log_that_was_used_is_found_wherever_it_is() {
    let mut xfs = Made::by("mkfs.xfs", &["-q"], 320);
    for round in 0..4 {
        xfs.mounted(|folder| {
            for file in 0..200 * round {
                std::fs::write(folder.join(format!("{round}-{file}")), [7; 5000]).expect("written");
            }
        });
        assert!(xfs.is_noticed());
        xfs.recorded();
        assert_eq!(xfs.look(), Ok(()), "after round {round}");
        // All but the log is put back, as if the mount had written nothing else.
        let log = xfs.find(512, &[0xfe, 0xed, 0xba, 0xbe]);
        let blocks: [u8; 4] = xfs.bytes[96..100].try_into().expect("four");
        let end = log + u32::from_be_bytes(blocks) as usize * 4096;
        xfs.mounted(|_| ());
        let file = File::options().write(true).open(&xfs.disk.file).expect("the disk");
        file.write_all_at(&xfs.bytes[..log], 0).expect("written");
        file.write_all_at(&xfs.bytes[end..], end as u64).expect("written");
        assert!(xfs.is_noticed(), "after round {round}");
        file.write_all_at(&xfs.bytes, 0).expect("written");
    }
}
