//! A Windows that starts by BIOS: an MBR disk with NTFS alone. Its terminals have their own file in a blank,
//! which an agent fills without a change of the filesystem.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flashmob::io::image::folder::ImageFolder;
use flashmob::layout::blank::{self, LENGTH};
use flashmob::layout::personal::OwnFile;
use flashmob_testkit::child::command;
use flashmob_testkit::command::{run, run_line};
use flashmob_testkit::loops::LoopDevice;

use super::disks::{MIB, noise};
use super::filesystems::said;
use super::imaging::{Server, beside, serve};
use super::used::image;
use super::windows_disk::{Mounted, put};
use super::{SMALL, capture_as, succeed, texts};

/// Bytes of the file that the helper makes.
const FILE: usize = 64 << 10;
/// Its path; names of an NTFS differ by more than their case.
const IN_NTFS: &str = "ProgramData/Flashmob/terminal.json";
const START: u64 = MIB;
const SIZE: u64 = 40 * MIB;

/// The file that the helper makes.
fn made() -> Vec<u8> {
    let mut bytes = blank::empty();
    bytes.resize(FILE, b' ');
    bytes
}

/// A golden disk; `fill` writes the files of its Windows.
fn golden(folder: &Path, fill: impl FnOnce(&Path)) -> PathBuf {
    let ntfs = image(folder, "ntfs", SIZE);
    run("mkntfs", &[&"-q", &"-F", &"-Q", &"-p", &"2048", &"-H", &"255", &"-S", &"63", &ntfs]);
    let mounted = Mounted::new(&ntfs, "rw,compression");
    let root = mounted.path();
    fs::create_dir_all(root.join("Windows/System32")).expect("folders");
    fs::write(root.join("Windows/System32/ntoskrnl.exe"), noise(1, 3_000_000)).expect("a file");
    fs::create_dir_all(root.join("ProgramData/Flashmob")).expect("folders");
    fill(root);
    drop(mounted);
    on_disk(folder, &[&ntfs])
}

/// A disk with these partitions, each of 40 MiB.
fn on_disk(folder: &Path, partitions: &[&Path]) -> PathBuf {
    let count = partitions.len() as u64;
    let disk = image(folder, "golden.img", START + count * SIZE + MIB);
    let script = folder.join("table");
    let line = |i: u64| format!("start={}, size={}, type=7\n", (START + i * SIZE) / 512, SIZE / 512);
    let table: String = (0..count).map(line).collect();
    fs::write(&script, format!("label: dos\nlabel-id: 0x12345678\n{table}")).expect("a script");
    run("sh", &[&"-c", &"sfdisk --quiet \"$0\" < \"$1\"", &disk, &script]);
    for (i, partition) in partitions.iter().enumerate() {
        put(&disk, (START + i as u64 * SIZE) / MIB, partition);
    }
    disk
}

/// The file in a Windows that is mounted at `root`.
fn file(root: &Path) -> PathBuf {
    root.join(IN_NTFS)
}

/// Where the image's blank is in partition 1, and what the capture said.
fn captured(folder: &Path, disk: &Path, more: &[&dyn AsRef<OsStr>]) -> (Option<u64>, String) {
    let output = capture_as("lab@1", disk, folder.join("images"), &[&SMALL[..], more].concat());
    succeed(&output);
    let image = ImageFolder::open(&folder.join("images/lab/1")).expect("an image");
    (image.manifest().partitions[0].blank, texts(&output).1)
}

/// Images `disk` with `lab`.
fn imaged(server: &Server, disk: &Path, more: &[&str]) {
    let device = LoopDevice::over(disk, &[]);
    let mut agent = command(None, beside("flashmob-agent"));
    agent.args(["--server", &server.url, "--insecure", "--listen", "127.0.0.1:0", "--image", "lab"]);
    succeed(&agent.args(more).arg("--disk").arg(device.path()).output().expect("it starts"));
}

/// The first bytes of the blank on a disk.
fn bytes_of(disk: &Path, blank: u64) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    File::open(disk).and_then(|disk| disk.read_exact_at(&mut bytes, START + blank)).expect("its bytes");
    bytes
}

#[test]
fn a_windows_that_starts_by_bios_reads_its_own_file_and_its_ntfs_is_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let disk = golden(folder, |root| fs::write(file(root), made()).expect("a file"));
    let (at, _) = captured(folder, &disk, &[]);
    let at = at.expect("the blank is found");
    let server = serve(None, &folder.join("images"), &folder.join("state"), "127.0.0.1:0");
    let terminal = image(folder, "terminal.img", 64 * MIB);
    File::options()
        .write(true)
        .open(&terminal)
        .and_then(|disk| (0..64).try_for_each(|i| disk.write_all_at(&noise(9, 1 << 20), i * MIB)))
        .expect("old content");
    imaged(&server, &terminal, &[]);
    let there = bytes_of(&terminal, at);
    assert!(there == blank::empty());

    // As the agent does, whose own tests prove that it writes this and nothing else.
    let own = OwnFile { hostname: "lab-01".into(), attempt: 7, ..OwnFile::default() };
    let new = blank::filled(&own).expect("it fits");
    let file_of = File::options().write(true).open(&terminal).expect("the disk");
    for (offset, bytes) in blank::writes(&there, &new, 512) {
        file_of.write_all_at(&bytes, START + at + offset as u64).expect("written");
    }
    let partition = LoopDevice::part(&terminal, START, SIZE);
    let read = run_line("ntfscat", &format!("{} {IN_NTFS}", partition.path().display()));
    assert_eq!(read.len(), FILE, "the file keeps its length");
    assert_eq!(serde_json::from_str::<OwnFile>(&read).expect("JSON"), own);
    let checked = said("ntfsresize", &["--info", "--no-progress-bar"], partition.path());
    assert!(!checked.contains("scheduled for check"), "{checked}");
    run("ntfsfix", &[&"-n", &partition]);
    let mounted = Mounted::new(partition.path(), "ro");
    let kernel = mounted.path().join("Windows/System32/ntoskrnl.exe");
    assert!(fs::read(kernel).expect("there") == noise(1, 3_000_000));
    drop(mounted);
    drop(partition);

    imaged(&server, &terminal, &["--compare", "auto"]);
    assert!(bytes_of(&terminal, at) == blank::empty(), "the difference is found and written again");
}

#[test]
fn a_blank_is_found_where_a_shrunk_filesystem_has_moved_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let disk = golden(folder, |root| {
        // The blank lies behind a large file that is deleted.
        fs::write(root.join("large"), noise(2, 24 << 20)).expect("a file");
        fs::write(file(root), made()).expect("a file");
        fs::remove_file(root.join("large")).expect("removed");
    });
    let (before, _) = captured(folder, &disk, &[]);
    fs::remove_dir_all(folder.join("images")).expect("removed");
    let (after, _) = captured(folder, &disk, &[&"--shrink=2MiB"]);
    let (before, after) = (before.expect("found"), after.expect("found"));
    assert!(after < before, "{after} is not before {before}");
    let server = serve(None, &folder.join("images"), &folder.join("state"), "127.0.0.1:0");
    let terminal = image(folder, "terminal.img", 64 * MIB);
    imaged(&server, &terminal, &[]);
    assert!(bytes_of(&terminal, after) == blank::empty());
}

#[test]
fn a_blank_in_many_fragments_is_found_and_one_of_a_golden_machine_that_was_a_terminal_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let own = OwnFile { hostname: "golden".into(), attempt: 3, ..OwnFile::default() };
    let mut filled = blank::filled(&own).expect("it fits");
    filled.resize(FILE, b' ');
    let disk = golden(folder, |root| {
        let small = |i: u32| root.join(format!("small-{i}"));
        (0..200).for_each(|i| fs::write(small(i), noise(3, 4096)).expect("a file"));
        assert!(fs::write(root.join("rest"), noise(3, 64 << 20)).is_err(), "nothing is free");
        (0..200).step_by(2).for_each(|i| fs::remove_file(small(i)).expect("removed"));
        fs::write(file(root), filled).expect("a file");
    });
    let ntfs = folder.join("ntfs");
    let runs = run_line("ntfsinfo", &format!("-v -v -F {IN_NTFS} {}", ntfs.display()));
    assert!(runs.contains("(fragments: ") && !runs.contains("(fragments: 1)"), "not fragmented: {runs}");
    let (at, _) = captured(folder, &disk, &[]);
    assert!(blank::is_one(&bytes_of(&disk, at.expect("found"))));
}

#[test]
fn a_file_that_cannot_be_filled_in_place_is_left_out_and_the_capture_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let compressed = |root: &Path| {
        let set = "import os, sys; os.setxattr(sys.argv[1], 'system.ntfs_attrib', b'\\0\\x08\\0\\0')";
        run("python3", &[&"-c", &set, &root.join("ProgramData/Flashmob")]);
        fs::write(file(root), made()).expect("a file");
    };
    let sparse = |root: &Path| {
        File::create(file(root)).and_then(|file| file.set_len(FILE as u64)).expect("a file");
    };
    type Fill<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Fill<'_>, &str); 6] = [
        ("resident", &|root| fs::write(file(root), &made()[..200]).expect("a file"), "is so short"),
        ("short", &|root| fs::write(file(root), &made()[..3000]).expect("a file"), "less than 4096 bytes"),
        ("other", &|root| fs::write(file(root), noise(4, FILE)).expect("a file"), "does not begin"),
        ("compressed", &compressed, "compressed"),
        ("sparse", &sparse, "sparse"),
        ("folder", &|root| fs::create_dir(file(root)).expect("a folder"), "is no file"),
    ];
    for (name, fill, why) in cases {
        let folder = folder.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        let (at, said) = captured(&folder, &golden(&folder, fill), &[]);
        assert!(at.is_none() && said.contains(why) && said.contains("-Blank"), "{name}: {said}");
    }
    let none = folder.path().join("none");
    fs::create_dir(&none).expect("a folder");
    let (at, said) = captured(&none, &golden(&none, |_| ()), &[]);
    assert!(at.is_none() && !said.contains("terminal.json"), "{said}");
}

#[test]
fn of_two_windows_with_a_blank_none_is_chosen_by_chance() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    golden(folder, |root| fs::write(file(root), made()).expect("a file"));
    let ntfs = folder.join("ntfs");
    let both = on_disk(folder, &[&ntfs, &ntfs]);
    let (at, said) = captured(folder, &both, &[]);
    assert!(at.is_none() && said.contains("partitions 1, 2 all have"), "{said}");
}
