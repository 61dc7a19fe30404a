//! Private loop devices for tests.
//!
//! Invariant: a loop device is made by and for one test, and is detached when its value is dropped, even
//! after a panic.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::api::DiskInfo;
use crate::io::disk::list;
use crate::testkit::programs::{run, run_patiently};

pub(crate) const MIB: u64 = 1 << 20;

/// The sector sizes that disks of this machine can have; one that the kernel refuses is said and left out.
pub(crate) fn sector_sizes() -> Vec<u32> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("disk.img");
    fs::write(&file, vec![0; 1 << 20]).expect("its content");
    let has = |sector: &u32| {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--sector-size", &sector.to_string()]).arg(&file);
        let output = losetup.output().expect("losetup");
        let path = String::from_utf8_lossy(&output.stdout).trim().to_string();
        if output.status.success() {
            run("losetup", &["--detach", &path]);
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED: no loop device with sectors of {sector} bytes: {}", said.trim());
        }
        output.status.success()
    };
    [512, 4096].into_iter().filter(has).collect()
}

/// A loop device and the file behind it.
pub(crate) struct LoopDisk {
    pub(crate) path: String,
    pub(crate) file: PathBuf,
    pub(crate) _dir: tempfile::TempDir,
}

impl LoopDisk {
    /// A disk whose bytes are all 0xAA, as if another system had used it.
    pub(crate) fn used(size: u64, sector: u32) -> Self {
        let disk = Self::of(&vec![0xaa; usize::try_from(size).expect("small")], sector);
        assert_eq!(fs::metadata(&disk.file).expect("there").len(), size);
        disk
    }

    /// A disk with this content.
    pub(crate) fn of(bytes: &[u8], sector: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("disk.img");
        fs::write(&file, bytes).expect("its content");
        Self::on(dir, file, sector)
    }

    /// A disk on a file that is there.
    pub(crate) fn on(dir: tempfile::TempDir, file: PathBuf, sector: u32) -> Self {
        let sector = sector.to_string();
        let name = file.to_str().expect("text");
        let path = run("losetup", &["--find", "--show", "--sector-size", &sector, name]);
        LoopDisk { path: path.trim().to_string(), file, _dir: dir }
    }

    pub(crate) fn info(&self) -> DiskInfo {
        list::find(&self.path).expect("it is there")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.file).expect("its bytes")
    }

    /// Has the kernel forget the partitions.
    pub(crate) fn forget_partitions(&self) {
        run_patiently("partx", &["--delete", &self.path]);
    }

    /// Changes a byte of the medium past all caches.
    pub(crate) fn corrupt(&self, offset: u64) {
        let file = fs::OpenOptions::new().read(true).write(true).open(&self.file).expect("it is there");
        let mut byte = [0u8];
        file.read_exact_at(&mut byte, offset).expect("read");
        file.write_all_at(&[byte[0] ^ 1], offset).expect("written");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let done = Command::new("losetup").args(["--detach", &self.path]).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} was not detached", self.path);
        }
    }
}

/// Bytes that look like nothing and are the same each time.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        })
        .collect()
}

/// The bytes of an ext2, ext3 or ext4 of 8 MiB with `files`, made by `mke2fs` with `options`.
pub(crate) fn ext_with(files: &[(&str, &[u8])], options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, content) in files {
        let path = folder.path().join("files").join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }
    let image = folder.path().join("image");
    fs::File::create(&image).and_then(|file| file.set_len(8 * MIB)).expect("made");
    let (from, to) = (folder.path().join("files"), image.to_string_lossy());
    run("mke2fs", &[&["-q", "-F", "-d", &from.to_string_lossy()], options, &[&to]].concat());
    fs::read(&image).expect("read")
}
