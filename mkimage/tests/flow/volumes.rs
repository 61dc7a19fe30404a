//! LVM: what the filesystems in logical volumes do not use, and what no volume owns, stays at home.
//!
//! The groups are made with LVM's own tools on a loop device and are never activated; `lvcreate` says which
//! extents a volume has, so the tests know where its bytes are.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flashmob::io::image::folder::ImageFolder;
use flashmob::layout::extents::{Extents, RangeKind};
use flashmob_testkit::command::run;
use flashmob_testkit::loops::LoopDevice;

use super::disks::{MIB, noise};
use super::filesystems::{BLOCK, files_of, make_xfs, old, said, secrets, tree};
use super::used::{image, secret, written};
use super::{SMALL, capture, capture_as, contents, fail, succeed, texts};

const EXTENT: u64 = 4 * MIB;
const STRIPE: u64 = 64 << 10;
/// LVM's first extent.
const FIRST: u64 = MIB;

/// A physical volume in a file, and its group.
struct Group {
    pv: PathBuf,
    name: String,
}

impl Group {
    /// A physical volume of `extents` extents full of secrets.
    fn new(folder: &Path, extents: u64) -> Self {
        let name = format!("fm{}", folder.file_name().expect("a name").to_string_lossy().replace('.', ""));
        let group = Group { pv: old(folder, "pv", FIRST + extents * EXTENT, FIRST), name };
        let device = LoopDevice::over(&group.pv, &[]);
        run("pvcreate", &[&"--quiet", &"--devices", &device, &device]);
        // Else udev may activate the volumes while another program has the device.
        let alone = ["--setautoactivation", "n"];
        run("vgcreate", &[&"--quiet", &alone[0], &alone[1], &"--devices", &device, &group.name, &device]);
        drop(device);
        group
    }

    /// Runs a tool of LVM without the kernel's device mapper.
    fn tool(&self, program: &str, arguments: impl FnOnce(&str) -> Vec<String>) {
        let device = LoopDevice::over(&self.pv, &[]);
        let arguments = arguments(device.name());
        let options = ["--quiet", "--devices", device.name(), "--driverloaded", "n"].map(String::from);
        let all: Vec<String> = options.into_iter().chain(arguments).collect();
        let all: Vec<&dyn AsRef<OsStr>> = all.iter().map(|text| text as &dyn AsRef<OsStr>).collect();
        run(program, &all);
    }

    /// Makes a linear volume of these ranges of extents.
    fn volume(&self, name: &str, extents: &[Range<u64>]) -> Vec<Range<u64>> {
        for (i, range) in extents.iter().enumerate() {
            let count = (range.end - range.start).to_string();
            let place = |device: &str| format!("{device}:{}-{}", range.start, range.end - 1);
            if i == 0 {
                self.tool("lvcreate", |device| {
                    let options = ["-an", "-y", "-Zn", "-Wn", "-n", name, "-l", &count, &self.name];
                    options.map(String::from).into_iter().chain([place(device)]).collect()
                });
            } else {
                self.tool("lvextend", |device| {
                    vec![format!("-l+{count}"), format!("{}/{name}", self.name), place(device)]
                });
            }
        }
        extents.iter().map(|range| FIRST + range.start * EXTENT..FIRST + range.end * EXTENT).collect()
    }

    /// Makes a volume of `extents`, an even number, in two stripes. LVM itself makes stripes on different
    /// devices only, so the group's metadata is restored with them.
    fn striped(&self, folder: &Path, name: &str, extents: Range<u64>) -> Vec<Range<u64>> {
        self.volume(name, std::slice::from_ref(&extents));
        let half = u64::midpoint(extents.start, extents.end);
        self.edit(folder, |text| {
            let at = text.find(&format!("\t{name} {{")).expect("the volume");
            let (before, own) = text.split_at(at);
            let own = own.replacen("stripe_count = 1", "stripe_count = 2\nstripe_size = 128", 1);
            let stripe = format!("\"pv0\", {}", extents.start);
            format!("{before}{}", own.replacen(&stripe, &format!("{stripe}, \"pv0\", {half}"), 1))
        });
        let rows = 0..(half - extents.start) * EXTENT / STRIPE;
        let stripes = rows.flat_map(|row| [extents.start, half].map(|at| FIRST + at * EXTENT + row * STRIPE));
        stripes.map(|at| at..at + STRIPE).collect()
    }

    /// Changes the group's metadata.
    fn edit(&self, folder: &Path, edit: impl FnOnce(String) -> String) {
        let file = folder.join("backup");
        let arguments = || vec!["-f".into(), file.to_string_lossy().into_owned(), self.name.clone()];
        self.tool("vgcfgbackup", |_| arguments());
        let text = edit(fs::read_to_string(&file).expect("a backup"));
        fs::write(&file, text).expect("written");
        self.tool("vgcfgrestore", |_| arguments());
    }

    fn put(&self, places: &[Range<u64>], from: &Path) {
        let (bytes, pv) = (fs::read(from).expect("a file"), File::options().write(true).open(&self.pv));
        let (mut at, pv) = (0, pv.expect("the volume"));
        for place in places {
            let len = usize::try_from(place.end - place.start).expect("small");
            pv.write_all_at(&bytes[at..at + len], place.start).expect("written");
            at += len;
        }
        assert_eq!(at, bytes.len());
    }
}

/// The bytes of a volume, in a file of its own.
fn taken_out(pv: &Path, places: &[Range<u64>], folder: &Path, name: &str) -> PathBuf {
    let pv = File::open(pv).expect("the volume");
    let mut bytes = Vec::new();
    for place in places {
        let mut part = vec![0; usize::try_from(place.end - place.start).expect("small")];
        pv.read_exact_at(&mut part, place.start).expect("read");
        bytes.extend(part);
    }
    let path = folder.join(name);
    fs::write(&path, bytes).expect("written");
    path
}

/// An ext4 with the files of `tree` and a deleted one full of secrets.
fn ext4(folder: &Path, tree: &Path, size: u64) -> PathBuf {
    let path = image(folder, "ext4", size);
    run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &"-d", &tree, &path]);
    let gone = folder.join("gone");
    fs::write(&gone, secret(5_000_000)).expect("a file");
    run("debugfs", &[&"-w", &"-R", &format!("write {} gone", gone.display()), &path]);
    run("debugfs", &[&"-w", &"-R", &"rm gone", &path]);
    run("e2fsck", &[&"-f", &"-n", &path]);
    path
}

fn ext4_is_whole(folder: &Path, filesystem: &Path, tree: &Path) {
    run("e2fsck", &[&"-f", &"-n", &filesystem]);
    let read = tempfile::tempdir_in(folder).expect("a folder");
    run("debugfs", &[&"-R", &format!("rdump / {}", read.path().display()), &filesystem]);
    fs::remove_dir_all(read.path().join("lost+found")).expect("removed");
    assert!(contents(read.path()) == contents(tree), "files differ");
}

/// Bytes that an ext4 has in use, by its own count.
fn ext4_in_use(filesystem: &Path) -> u64 {
    let said = run("dumpe2fs", &[&"-h", &filesystem]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a number");
        line.trim().parse::<u64>().expect("a number")
    };
    (number("Block count:") - number("Free blocks:")) * number("Block size:")
}

/// Bytes of an image that travel.
fn travels(image: &Path) -> u64 {
    let manifest = ImageFolder::open(image).expect("an image").manifest().clone();
    let bytes = fs::read(image.join("extents.bin")).expect("extents");
    let extents = Extents::decode(&bytes, &manifest).expect("extents");
    let runs = extents.partitions.iter().flatten();
    runs.filter(|run| run.kind == RangeKind::Data).map(|run| run.len).sum()
}

fn notes(source: &Path, more: &[&dyn AsRef<OsStr>]) -> String {
    let repository = tempfile::tempdir().expect("a folder");
    let output = capture_as("lab", source, repository.path(), &[&SMALL[..], more].concat());
    succeed(&output);
    texts(&output).1
}

#[test]
fn volumes_travel_without_what_is_free_and_are_sound_where_they_arrive() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let group = Group::new(folder, 112);
    let tree = tree(folder);
    let root = group.volume("root", &[10..15, 0..5]);
    let pages = group.volume("pages", std::slice::from_ref(&(6..8)));
    let work = group.striped(folder, "work", 20..28);
    let data = group.volume("data", &[30..60, 62..112]);
    let root_was = ext4(folder, &tree, 10 * EXTENT);
    let in_use = ext4_in_use(&root_was) * 2;
    group.put(&root, &root_was);
    let work_was = ext4(folder, &tree, 8 * EXTENT);
    group.put(&work, &work_was);
    let swap = image(folder, "swap", 2 * EXTENT);
    fs::write(&swap, secret(usize::try_from(2 * EXTENT).expect("small"))).expect("old pages");
    run("mkswap", &[&"-q", &swap]);
    group.put(&pages, &swap);
    let xfs = old(folder, "xfs", 80 * EXTENT, MIB);
    make_xfs(folder, &tree, &xfs);
    group.put(&data, &xfs);

    let output = capture_as("lab@1", &group.pv, folder.join("repository"), &SMALL);
    succeed(&output);
    let notes = texts(&output).1;
    for (volume, filesystem) in [("root", "ext4"), ("work", "ext4"), ("data", "xfs"), ("pages", "swap")] {
        assert!(notes.contains(&format!("volume {}/{volume} ({filesystem}): ", group.name)), "{notes}");
    }
    let image = folder.join("repository/lab/1");
    // Each of XFS' four groups begins with a block of which only four sectors are written.
    assert!(secrets(&image) <= 4, "{} blocks with deleted content travel", secrets(&image));
    // XFS counts its log of 64 MiB, which is empty; its files are those of the others.
    let (travels, in_use) = (travels(&image), in_use + in_use / 2);
    assert!(travels * 100 <= in_use * 105, "{travels} bytes travel, {in_use} are in use");

    let target = folder.join("target");
    written(&image, &target);
    let out = |places, name| taken_out(&target, places, folder, name);
    ext4_is_whole(folder, &out(&root, "root"), &tree);
    ext4_is_whole(folder, &out(&work, "work"), &tree);
    let data = out(&data, "data");
    said("xfs_repair", &["-n"], &data);
    let bytes = fs::read(&data).expect("the filesystem");
    let there: HashSet<&[u8]> = bytes.chunks(BLOCK).collect();
    for file in files_of(&tree) {
        assert!(file.chunks(BLOCK).all(|block| there.contains(block)), "a block of a file is missing");
    }
    let header = fs::read(out(&pages, "pages")).expect("the swap area");
    assert_eq!(&header[4086..4096], b"SWAPSPACE2");
    // A second version stores only what changed.
    let parts = [&SMALL[..], &[&"--parent", &"1"]].concat();
    let said = succeed(&capture_as("lab@2", &group.pv, folder.join("repository"), &parts));
    let words = said.lines().find(|line| line.contains("unchanged since")).expect("a count").trim();
    let pieces: Vec<&str> = words.split(' ').collect();
    assert_eq!(pieces.first(), pieces.get(2), "{words}");
    // LVM finds the same group there.
    let there = Group { pv: target, name: group.name.clone() };
    there.tool("vgck", |_| vec![group.name.clone()]);
}

#[test]
fn volumes_of_kinds_that_are_not_known_travel_whole_and_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let group = Group::new(folder, 24);
    let tree = tree(folder);
    let root = group.volume("root", std::slice::from_ref(&(0..10)));
    group.volume("snap", std::slice::from_ref(&(12..13)));
    let home = group.volume("home", std::slice::from_ref(&(13..14)));
    let vault = group.volume("vault", std::slice::from_ref(&(14..15)));
    group.put(&root, &ext4(folder, &tree, 10 * EXTENT));
    let empty = image(folder, "empty", EXTENT);
    run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &empty]);
    group.put(&home, &empty);
    let full = secret(usize::try_from(EXTENT).expect("small"));
    fs::write(&empty, [&b"LUKS\xba\xbe"[..], &full[6..]].concat()).expect("written");
    group.put(&vault, &empty);
    group.edit(folder, |text| {
        let at = text.rfind("\t}\n\n}\n").expect("the end of the volumes");
        let snapshot = "snapshot0 {\nid = \"aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa\"\n\
            status = [\"READ\", \"WRITE\"]\nflags = []\nsegment_count = 1\nsegment1 {\nstart_extent = 0\n\
            extent_count = 10\ntype = \"snapshot\"\nchunk_size = 8\norigin = \"root\"\n\
            cow_store = \"snap\"\n}\n}\n";
        format!("{}{snapshot}{}", &text[..at], &text[at..])
    });
    let image = capture(folder, &group.pv);
    // The deleted file of root and all of snap and vault, but not what no volume owns.
    let found = secrets(&image) as u64;
    let whole = 5_000_000 / BLOCK as u64 + 2 * EXTENT / BLOCK as u64;
    assert!(found.abs_diff(whole) < 16, "{found} blocks with secrets, {whole} belong to such volumes");
    let said = notes(&group.pv, &[]);
    let says = |volume: &str, words: &str| {
        let line = said.lines().find(|line| line.contains(&format!("/{volume}"))).unwrap_or_default();
        assert!(line.contains(words), "{words}: {said}");
    };
    says("root", "it is used by snapshot0 (snapshot); all but zeros is taken");
    says("snap", "it is used by snapshot0 (snapshot); all but zeros is taken");
    says("vault", "which blocks luks uses cannot be known; all but zeros is taken");
    says("home", "(ext4): ");
}

#[test]
fn damaged_metadata_of_a_group_is_said_and_all_but_zeros_travels() {
    let folder = tempfile::tempdir().expect("a folder");
    let group = Group::new(folder.path(), 8);
    group.volume("root", std::slice::from_ref(&(0..2)));

    let change = |at: u64| {
        let file = File::options().read(true).write(true).open(&group.pv).expect("the volume");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    };
    let bytes = fs::read(&group.pv).expect("the volume");
    let find = |text: &[u8]| bytes.windows(text.len()).rposition(|window| window == text).expect("there");
    assert!(!notes(&group.pv, &[]).contains("damaged"));
    for (at, words) in [
        (find(b"extent_count = 2"), "its metadata is damaged: its checksum is wrong"),
        (find(b"LABELONE") + 16, "its label is damaged: its checksum is wrong"),
    ] {
        change(at as u64);
        let said = notes(&group.pv, &[]);
        assert!(said.contains("its logical volumes are not known") && said.contains(words), "{said}");
        assert!(said.contains("all but zeros is taken, also deleted files"), "{said}");
        change(at as u64);
    }
}

#[test]
fn a_filesystem_in_a_volume_that_is_not_whole_is_refused_by_name_unless_taken_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let group = Group::new(folder, 24);
    // Two segments, the first behind the second.
    let root = group.volume("root", &[12..14, 0..8]);
    let filesystem = image(folder, "root", 10 * EXTENT);
    run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &filesystem]);
    let refused = |words: &str| {
        let said = fail(&capture_as("lab", &group.pv, folder.join("repository"), &SMALL), 3);
        assert!(said.contains(&format!("volume {}/", group.name)) && said.contains(words), "{said}");
        assert!(said.contains("--raw 1"), "{said}");
        notes(&group.pv, &[&"--raw", &"1"]);
    };
    // The journal was not carried out.
    run("debugfs", &[&"-w", &"-R", &"feature needs_recovery", &filesystem]);
    group.put(&root, &filesystem);
    refused("was not unmounted");
    // Group descriptors gone.
    run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &filesystem]);
    let file = File::options().write(true).open(&filesystem).expect("the filesystem");
    file.write_all_at(&noise(5, 2048), 2048).expect("written");
    group.put(&root, &filesystem);
    refused("partclone.extfs");
    // A hibernated system.
    let mut swap = noise(6, usize::try_from(10 * EXTENT).expect("small"));
    swap[4086..4096].copy_from_slice(b"S1SUSPEND\0");
    fs::write(&filesystem, swap).expect("written");
    group.put(&root, &filesystem);
    refused("hibernated");
}
