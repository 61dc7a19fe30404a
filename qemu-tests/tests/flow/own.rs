//! Terminals whose system becomes their own: a host name by rule, and a filesystem that fills the disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flashmob::api::TerminalState;
use flashmob_testkit::command::try_run;
use qemu_tests::assets::{Assets, capture};
use qemu_tests::lab::{DISK_SIZE, Job, Lab};
use qemu_tests::machine::{Bus, Firmware, Terminal};
use qemu_tests::slots::Slots;

use crate::{ASSETS, BOOTED, IMAGED, NEW_IS_UP, make_netboot};

/// First sector and size of the partition with this number.
pub(crate) fn partition(disk: &Path, number: u32) -> (u64, u64) {
    let text = try_run("sgdisk", ["-i", &number.to_string(), &disk.to_string_lossy()]).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (field("First sector: ") * 512, field("Partition size: ") * 512)
}

/// Copies a partition into a file of its own.
fn cut_out(disk: &Path, (start, size): (u64, u64), to: PathBuf) -> PathBuf {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    File::open(disk).unwrap().read_exact_at(&mut bytes, start).unwrap();
    std::fs::write(&to, bytes).unwrap();
    to
}

fn text(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap()
}

#[test]
fn a_terminal_gets_its_name_and_fills_its_larger_disk() {
    let assets = &*ASSETS;
    let _slots = Slots::take(1);
    let images = assets.folder.join("images-that-grow");
    capture(&assets.programs, &assets.golden, &images, &assets.secret, &["--grow"]).unwrap();
    let job = Job { hostname: Some("{room}-{seat:02}"), ..Job::for_all() };
    let lab = Lab::start(assets, "own", &[1], &job, &images).unwrap();
    let mut machine = lab.netboot(1, Firmware::Bios, Bus::Virtio).unwrap();
    lab.wait_for_state(&machine, TerminalState::Done, IMAGED).unwrap();
    machine.wait_for(NEW_IS_UP, BOOTED).unwrap();
    let report = lab.flashmob(&["job", "report", "1"]).unwrap();
    assert!(report.contains("personalised as qemu-01"), "{report}");

    let terminal = machine.cut_power();
    assert_named_and_grown(&terminal, "qemu-01");
    let esp = cut_out(&terminal.disk(), partition(&terminal.disk(), 2), lab.folder.join("esp.img"));
    let own = text("mtype", &["-i", &esp.to_string_lossy(), "::EFI/flashmob/terminal.json"]);
    assert!(own.contains("\"hostname\": \"qemu-01\"") && own.contains("\"ticket\""), "{own}");
}

/// Power was cut while the terminal's new system had its root mounted read-only.
pub(crate) fn assert_named_and_grown(terminal: &Terminal, name: &str) {
    let disk = terminal.disk();
    let table = text("sgdisk", &["--verify", &disk.to_string_lossy()]);
    assert!(table.contains("No problems found"), "{table}");
    let (start, size) = partition(&disk, 3);
    assert_eq!(start + size, DISK_SIZE - (1 << 20), "the root takes all that the backup table leaves");
    let root = cut_out(&disk, (start, size), terminal.folder.join("root.img"));
    let root = root.to_string_lossy();
    text("e2fsck", &["-f", "-n", &root]);
    let facts = text("dumpe2fs", &["-h", &root]);
    let number = |name: &str| -> u64 {
        facts.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    assert_eq!(number("Block count:") * number("Block size:"), size, "the filesystem fills the partition");
    assert_eq!(text("debugfs", &["-R", "cat /etc/hostname", &root]), format!("{name}\n"));
}

#[test]
fn an_ntfs_fills_a_larger_disk_where_ntfsresize_was_built_in() {
    let _slots = Slots::take(1);
    let folder = tempfile::Builder::new().prefix("ntfs").tempdir_in(&ASSETS.folder).unwrap();
    let at = |name: &str| folder.path().join(name);
    let (disk, netboot, images) = (at("golden.img"), at("netboot"), at("images"));
    let content = make_ntfs_disk(folder.path(), &disk);
    make_netboot(&netboot, &["--ntfs".as_ref()]);
    capture(&ASSETS.programs, &disk, &images, &ASSETS.secret, &["--grow"]).unwrap();
    let assets = Assets { netboot, ..ASSETS.clone() };
    let job = Job { hostname: Some("{room}-{seat:02}"), ..Job::for_all() };
    let lab = Lab::start(&assets, "own-ntfs", &[1], &job, &images).unwrap();
    let mut machine = lab.netboot(1, Firmware::Bios, Bus::Ahci).unwrap();
    machine.wait_for("the filesystem of partition 1 grew", IMAGED).unwrap();

    let terminal = machine.cut_power();
    let (start, size) = partition(&terminal.disk(), 1);
    assert_eq!(start + size, DISK_SIZE - (1 << 20), "the partition takes all that the backup table leaves");
    let ntfs = cut_out(&terminal.disk(), (start, size), lab.folder.join("ntfs.img"));
    let ntfs = ntfs.to_string_lossy();
    let facts = text("ntfsresize", &["--info", "--force", "--no-progress-bar", &ntfs]);
    let number = |name: &str| -> u64 {
        let line = facts.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches([' ', ':']).split(' ').next().unwrap().parse().unwrap()
    };
    assert!(number("Current volume size") > size - (64 << 10), "{size}: {facts}");
    // By force, because Windows is asked to check it at its first start.
    assert_eq!(text("ntfscat", &["--force", &ntfs, "lesson.txt"]), content);
}

/// Writes a disk with one NTFS in 48 MiB, and returns the text of its file.
fn make_ntfs_disk(folder: &Path, disk: &Path) -> String {
    const SIZE: u64 = 48 << 20;
    File::create(disk).unwrap().set_len(SIZE + (2 << 20)).unwrap();
    text("sgdisk", &["--new=1:2048:+48M", "--typecode=1:0700", &disk.to_string_lossy()]);
    let (start, size) = partition(disk, 1);
    let (ntfs, lesson) = (folder.join("ntfs.img"), folder.join("lesson.txt"));
    File::create(&ntfs).unwrap().set_len(size).unwrap();
    let content = "a lesson\n".repeat(100_000);
    std::fs::write(&lesson, &content).unwrap();
    let [image, file] = [ntfs.to_string_lossy(), lesson.to_string_lossy()];
    text("mkntfs", &["--fast", "--force", "--quiet", &image]);
    text("ntfscp", &["--quiet", &image, &file, "lesson.txt"]);
    let bytes = std::fs::read(&ntfs).unwrap();
    File::options().write(true).open(disk).unwrap().write_all_at(&bytes, start).unwrap();
    content
}
