//! Sources that cannot be read everywhere: QEMU's storage daemon shows a disk and fails at the configured
//! places.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flashmob::io::image::folder::ImageFolder;
use flashmob_testkit::child::{Guarded, command, of_package};

use super::{capture_as, disks, fail, succeed};

/// A disk of which one sector cannot be read.
pub(crate) struct Damaged {
    daemon: Guarded,
    /// Where it can be read.
    pub path: PathBuf,
}

impl Damaged {
    /// Shows `disk`, without that sector of 512 bytes.
    pub(crate) fn of(disk: &Path, sector: u64) -> Self {
        let path = disk.with_extension("shown");
        File::create(&path).expect("a file");
        let debug = format!(
            r#"{{"driver":"blkdebug","node-name":"bad","image":"file","inject-error":[
                {{"event":"none","iotype":"read","sector":{sector},"errno":5}}]}}"#
        );
        let mut daemon = command(None, of_package("qemu-storage-daemon", "qemu-system-common"));
        daemon
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=file,read-only=on,filename={}", disk.display()))
            .args([
                "--blockdev",
                &debug,
                "--blockdev",
                "driver=raw,node-name=disk,read-only=on,file=bad",
                "--export",
            ])
            .arg(format!("type=fuse,id=view,node-name=disk,writable=off,mountpoint={}", path.display()));
        let damaged = Damaged { daemon: Guarded::start(&mut daemon), path };
        let begun = Instant::now();
        while fs::metadata(&damaged.path).expect("there").len() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the disk is not shown");
            std::thread::sleep(Duration::from_millis(20));
        }
        damaged
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        // Asked to, it takes its view away itself.
        self.daemon.terminate();
        let _ = self.daemon.wait(Duration::from_secs(20));
    }
}

#[test]
fn a_sector_that_cannot_be_read_is_named_and_can_be_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    fs::write(&disk, disks::noise(6, 1 << 20)).expect("a disk without a filesystem");
    // The first sector of a page: by pages the view is read.
    let damaged = Damaged::of(&disk, 1024);
    let repository = folder.path().join("r");
    let said = fail(&capture_as("lab@1", &damaged.path, &repository, &[&"--piece-length", &"64KiB"]), 5);
    assert!(said.contains("sector 1024") && said.contains("--rescue"), "{said}");
    assert!(!repository.join("lab/1").exists());
    let rescue: [&dyn AsRef<std::ffi::OsStr>; 3] = [&"--piece-length", &"64KiB", &"--rescue"];
    let said = succeed(&capture_as("lab@1", &damaged.path, &repository, &rescue));
    assert!(said.contains("LOST: 4096 bytes"), "{said}");
    let image = ImageFolder::open(&repository.join("lab/1")).expect("an image");
    let lost: Vec<_> = image.manifest().lost.iter().map(|lost| (lost.offset.0, lost.length)).collect();
    assert_eq!(lost, [(512 << 10, 4096)]);
}
