//! Sources that another program writes to during the capture are refused, before or after they were read.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use flashmob_testkit::child::{Guarded, command, of_package, wait_until};
use flashmob_testkit::loops::LoopDevice;

use super::damage::Damaged;
use super::disks::{MIB, noise};
use super::{SMALL, capture_as, fail, succeed};

/// A disk without a filesystem: 16 MiB of noise.
fn disk(folder: &Path) -> PathBuf {
    let disk = folder.join("disk.img");
    fs::write(&disk, noise(6, 1 << 20).repeat(16)).expect("a disk");
    disk
}

/// Captures while a thread writes to `place` again and again, from before the capture until after it.
fn captured_while_written(folder: &Path, source: &Path, place: &Path) -> String {
    let (done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let written = File::options().write(true).custom_flags(nix::libc::O_SYNC).open(place).expect("opened");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0u64.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                written.write_all_at(&number.to_le_bytes(), 9 * MIB).expect("written");
                writes.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let repository = folder.join("repository");
        let mut captures = 0;
        let output = loop {
            let before = writes.load(Ordering::Relaxed);
            let output = capture_as("lab", source, &repository, &SMALL);
            captures += 1;
            // On a busy disk one write may take longer than the capture, during which none begins or ends.
            let few = writes.load(Ordering::Relaxed) - before < 3;
            if !output.status.success() || !few || captures == 10 {
                break output;
            }
            fs::remove_dir_all(&repository).expect("removed");
        };
        done.store(true, Ordering::Relaxed);
        let versions = fs::read_dir(repository.join("lab")).expect("a folder").count();
        assert_eq!(versions, 0, "something of it is left");
        fail(&output, 1)
    })
}

#[test]
fn a_file_that_is_written_to_while_it_is_read_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disk(folder.path());
    let said = captured_while_written(folder.path(), &disk, &disk);
    assert!(said.contains("changed while it was read: it was written to"), "{said}");
}

#[test]
fn a_block_device_that_is_written_to_while_it_is_read_is_refused_also_where_its_file_is_written() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disk(folder.path());
    let device = LoopDevice::over(&disk, &[]);
    let device = device.path();
    let said = captured_while_written(folder.path(), device, device);
    assert!(said.contains("sectors of it were written"), "{said}");
    let said = captured_while_written(folder.path(), device, &disk);
    assert!(said.contains("disk.img changed while it was read"), "{said}");
    // Writes before the capture are no reason to refuse.
    let written = File::options().write(true).open(device).expect("the device");
    written.write_all_at(&noise(8, 1 << 20), 3 * MIB).expect("written");
    succeed(&capture_as("lab", device, folder.path().join("repository"), &SMALL));
}

/// QEMU, with a disk open for writing as for a virtual machine.
struct Machine {
    _process: Guarded,
}

impl Machine {
    fn of(disk: &Path, folder: &Path) -> Self {
        let socket = folder.join("nbd");
        let mut daemon = command(None, of_package("qemu-storage-daemon", "qemu-system-common"));
        daemon
            .args(["--blockdev", &format!("driver=file,node-name=disk,filename={}", disk.display())])
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())])
            .args(["--export", "type=nbd,id=disk,node-name=disk,writable=on"])
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .stdout(Stdio::null());
        let mut process = Guarded::start(&mut daemon);
        // QEMU writes this file when the export is there, which takes the lock.
        wait_until("QEMU lends the disk", Duration::from_secs(60), || {
            process.check()?;
            Ok(folder.join("pid").exists())
        })
        .expect("it comes up");
        Machine { _process: process }
    }
}

#[test]
fn a_view_that_says_the_present_time_whenever_it_is_asked_is_not_taken_for_one_that_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let shown = Damaged::of(&disk(folder.path()), 1 << 40);
    // Its seconds advance while it is read.
    for version in 0..4 {
        std::thread::sleep(Duration::from_millis(300));
        let image = format!("lab@{version}");
        succeed(&capture_as(&image, &shown.path, folder.path().join("repository"), &SMALL));
    }
}

#[test]
fn a_raw_file_that_qemu_has_open_for_writing_is_refused_also_behind_a_loop_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disk(folder.path());
    let repository = folder.path().join("repository");
    let machine = Machine::of(&disk, folder.path());
    let said = fail(&capture_as("lab", &disk, &repository, &SMALL), 3);
    assert!(said.contains("QEMU has it open for writing") && said.contains("Shut the virtual"), "{said}");
    if nix::unistd::geteuid().is_root() {
        let device = LoopDevice::over(&disk, &["--read-only"]);
        let said = fail(&capture_as("lab", &device, &repository, &SMALL), 3);
        assert!(said.contains("QEMU has it open for writing"), "{said}");
    }
    drop(machine);
    succeed(&capture_as("lab", &disk, &repository, &SMALL));
}
