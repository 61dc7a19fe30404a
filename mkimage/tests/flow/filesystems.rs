//! Free blocks of exFAT, XFS, Btrfs and F2FS stay at home, and everything that the filesystems need travels.
//!
//! The filesystems are made over a partition full of old secrets and filled by their mkfs tools, so that each
//! free block has a secret in it. The images are written over noise, so that a missing block is noticed.
//! Nothing is mounted.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use flashmob_testkit::command::run;

use super::disks::{MIB, noise};
use super::used::{SECRET, image, secret, written};
use super::{capture, capture_as, fail, succeed};

pub(crate) const BLOCK: usize = 4096;

/// A partition full of secrets from `from` on.
pub(crate) fn old(folder: &Path, name: &str, size: u64, from: u64) -> PathBuf {
    let path = image(folder, name, size);
    let file = File::options().write(true).open(&path).expect("the partition");
    file.write_all_at(&secret(usize::try_from(size - from).expect("small")), from).expect("written");
    path
}

/// A folder of many small files and a large one, all of whole blocks.
pub(crate) fn tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("sub")).expect("folders");
    for i in 1..=300 {
        let bytes = noise(1000 + i as u64, (i % 5 + 1) * BLOCK);
        fs::write(tree.join(format!("sub/{i}")), bytes).expect("a file");
    }
    fs::write(tree.join("large"), noise(8, 3 << 20)).expect("a file");
    tree
}

pub(crate) fn files_of(tree: &Path) -> Vec<Vec<u8>> {
    super::contents(tree).into_values().collect()
}

/// Blocks with a secret in them; a sector full of secrets has one at its beginning.
pub(crate) fn secrets(image: &Path) -> usize {
    let in_sector = |sector: &[u8]| sector.iter().take(2 * SECRET.len()).copied().collect::<Vec<_>>();
    let is_secret = |sector: &[u8]| in_sector(sector).windows(SECRET.len()).any(|window| window == SECRET);
    let payload = super::contents(&image.join("payload"));
    let blocks = payload.values().flat_map(|file| file.chunks(BLOCK));
    blocks.filter(|block| block.chunks(512).any(is_secret)).count()
}

/// Captures, writes over noise, and returns the written file. Checks that it has all of `files`, and that no
/// more secrets travel than there are partly used blocks.
fn through_an_image(folder: &Path, source: &Path, files: &[Vec<u8>], in_part: usize) -> PathBuf {
    let image = capture(folder, source);
    let found = secrets(&image);
    assert!(found <= in_part, "{found} blocks with deleted content travel");
    let target = folder.join("target");
    written(&image, &target);
    let bytes = fs::read(&target).expect("the target");
    let there: HashSet<&[u8]> = bytes.chunks(BLOCK).collect();
    for (number, file) in files.iter().enumerate() {
        let missing = file.chunks(BLOCK).filter(|block| !there.contains(*block)).count();
        assert_eq!(missing, 0, "{missing} blocks of file {number} are missing");
    }
    target
}

/// The output of a program that finds nothing wrong with a filesystem.
pub(crate) fn said(program: &str, arguments: &[&str], target: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(target).output();
    let output = output.expect("a program of the packages in qemu-tests/setup.sh");
    let text = format!("{}{}", succeed(&output), String::from_utf8_lossy(&output.stderr));
    for complaint in ["ERROR", "verify failed", "corrupted\n", "[Fail]"] {
        assert!(!text.contains(complaint), "{program}: {text}");
    }
    text
}

/// Makes an XFS with the files of `tree`.
pub(crate) fn make_xfs(folder: &Path, tree: &Path, target: &Path) {
    let mut proto = "/\n0 0\nd--755 0 0\n".to_string();
    for (name, path) in super::contents(tree).keys().map(|path| (path.replace('/', "-"), tree.join(path))) {
        proto.push_str(&format!("{name} ---644 0 0 {}\n", path.display()));
    }
    proto.push_str("$\n");
    let list = folder.join("proto");
    fs::write(&list, proto).expect("a file");
    run("mkfs.xfs", &[&"-q", &"-f", &"-K", &"-p", &list, &target]);
}

#[test]
fn an_xfs_travels_without_what_is_free_and_is_sound_where_it_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = tree(folder.path());
    let source = old(folder.path(), "xfs", 320 * MIB, MIB);
    make_xfs(folder.path(), &tree, &source);
    // Each of its four groups begins with a block of which only four sectors are written.
    let target = through_an_image(folder.path(), &source, &files_of(&tree), 4);
    said("xfs_repair", &["-n"], &target);
}

#[test]
fn an_xfs_that_was_not_unmounted_or_lies_on_two_devices_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("repository");
    let refused = |source: &Path| fail(&capture_as("lab", source, &repository, &[]), 3);
    let source = image(folder.path(), "xfs", 320 * MIB);
    run("mkfs.xfs", &[&"-q", &"-K", &source]);
    // The record that says "unmounted" becomes another one.
    let bytes = fs::read(&source).expect("the filesystem");
    let record = bytes.chunks(512).position(|sector| sector.starts_with(&[0xfe, 0xed, 0xba, 0xbe]));
    let flags = (record.expect("a record of the log") as u64 + 1) * 512 + 9;
    let file = File::options().write(true).open(&source).expect("the filesystem");
    file.write_all_at(&[0], flags).expect("written");
    let complaint = refused(&source);
    assert!(complaint.contains("log was not carried out") && complaint.contains("--raw 1"), "{complaint}");

    let (source, log) = (image(folder.path(), "data", 320 * MIB), image(folder.path(), "log", 64 * MIB));
    run("mkfs.xfs", &[&"-q", &"-K", &"-l", &format!("logdev={},size=64m", log.display()), &source]);
    let complaint = refused(&source);
    assert!(complaint.contains("lies on another device"), "{complaint}");
}

#[test]
fn a_filesystem_that_says_it_is_larger_than_its_partition_is_refused_with_the_bytes_that_are_missing() {
    let makers: [(&str, &[&str]); 8] = [
        ("mke2fs", &["-q", "-F", "-t", "ext4"]),
        ("mkfs.xfs", &["-q", "-f"]),
        ("mkfs.btrfs", &["-q", "-f"]),
        ("mkntfs", &["-q", "-Q", "-F"]),
        ("mkfs.vfat", &["-F", "32"]),
        ("mkfs.exfat", &[]),
        ("mkfs.f2fs", &["-q", "-f"]),
        ("mkswap", &["-q"]),
    ];
    for (program, options) in makers {
        let folder = tempfile::tempdir().expect("a folder");
        let source = image(folder.path(), "source", 320 * MIB);
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = Vec::new();
        options.iter().for_each(|option| arguments.push(option));
        arguments.push(&source);
        run(program, &arguments);
        let repository = folder.path().join("repository");
        succeed(&capture_as("whole", &source, &repository, &[]));
        File::options().write(true).open(&source).and_then(|file| file.set_len(300 * MIB)).expect("cut off");
        let complaint = fail(&capture_as("cut", &source, &repository, &[]), 3);
        assert!(
            complaint.contains("bytes are missing") && complaint.contains("314572800"),
            "{program}: {complaint}"
        );
    }
}

#[test]
fn a_btrfs_travels_without_what_is_free_and_with_both_copies_of_its_metadata() {
    for options in [["-n", "4096"], ["--csum", "sha256"], ["-M", "-q"]] {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = tree(folder.path());
        let source = old(folder.path(), "btrfs", 128 * MIB, MIB);
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-f", &"-K", &"--rootdir", &tree];
        options.iter().for_each(|option| arguments.push(option));
        arguments.push(&source);
        run("mkfs.btrfs", &arguments);
        let target = through_an_image(folder.path(), &source, &files_of(&tree), 0);
        said("btrfs", &["check", "--readonly", "--check-data-csum"], &target);
        let (before, after) =
            (fs::read(&source).expect("the filesystem"), fs::read(&target).expect("the target"));
        let copy = 64 << 20;
        assert_eq!(after[copy..copy + BLOCK], before[copy..copy + BLOCK], "the superblock's copy");
        // Used nodes exist as often as before, unused ones not at all.
        let (before, after) = (btrfs_nodes(&before), btrfs_nodes(&after));
        assert!(after.values().any(|copies| *copies == 2) || options.contains(&"-M"));
        for (node, copies) in after {
            assert_eq!(copies, before[node], "a copy of a tree node is missing");
        }
    }
}

/// The blocks that begin a tree node, and how often each is there.
fn btrfs_nodes(volume: &[u8]) -> HashMap<&[u8], usize> {
    let filesystem = &volume[0x10020..0x10030];
    let mut nodes = HashMap::new();
    let begins = |block: &&[u8]| block[0x20..0x30] == *filesystem && block[0x40..0x48] != *b"_BHRfS_M";
    volume.chunks_exact(BLOCK).filter(begins).for_each(|block| *nodes.entry(block).or_default() += 1);
    nodes
}

#[test]
fn a_btrfs_of_which_a_device_is_elsewhere_and_a_damaged_one_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("repository");
    let take = |source: &Path, name: &str| capture_as(name, source, &repository, &[]);
    let (one, two) = (old(folder.path(), "one", 128 * MIB, MIB), image(folder.path(), "two", 128 * MIB));
    run("mkfs.btrfs", &[&"-q", &"-f", &"-K", &"-d", &"single", &"-m", &"raid1", &one, &two]);
    let complaint = fail(&take(&one, "two-devices"), 3);
    assert!(complaint.contains("lies on several devices") && complaint.contains("--raw 1"), "{complaint}");

    let source = image(folder.path(), "damaged", 128 * MIB);
    run("mkfs.btrfs", &[&"-q", &"-K", &source]);
    let file = File::options().read(true).write(true).open(&source).expect("the filesystem");
    // All copies of the chunk tree's root: everything between the superblocks.
    file.write_all_at(&noise(4, 1 << 20).repeat(60), MIB).expect("written");
    let complaint = fail(&take(&source, "damaged"), 3);
    assert!(complaint.contains("tree node") && complaint.contains("--raw 1"), "{complaint}");
}

#[test]
fn an_f2fs_travels_without_what_is_free_and_is_sound_where_it_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = tree(folder.path());
    // Its tables lie before that, and travel whole.
    let source = old(folder.path(), "f2fs", 128 * MIB, 32 * MIB);
    run("mkfs.f2fs", &[&"-q", &"-f", &"-t", &"0", &source]);
    run("sload.f2fs", &[&"-f", &tree, &source]);
    let target = through_an_image(folder.path(), &source, &files_of(&tree), 0);
    said("fsck.f2fs", &["--dry-run"], &target);
}

#[test]
fn an_exfat_travels_without_what_is_free_and_is_sound_where_it_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = old(folder.path(), "exfat", 64 * MIB, MIB);
    run("mkfs.exfat", &[&source]);
    let files = [noise(21, 50 * BLOCK), noise(22, 8 * BLOCK)];
    put_into_exfat(&source, &[("one", 2000, &files[0]), ("two", 9000, &files[1])]);
    said("fsck.exfat", &["-n"], &source);
    let target = through_an_image(folder.path(), &source, &files, 0);
    let text = said("fsck.exfat", &["-n"], &target);
    assert!(text.contains("files 2"), "{text}");
}

/// Adds files (name, first cluster, content) to the root folder of an exFAT that mkfs has just made, each in
/// one run of clusters (exFAT specification, sections 3, 6 and 7).
fn put_into_exfat(volume: &Path, files: &[(&str, u32, &Vec<u8>)]) {
    let file = File::options().read(true).write(true).open(volume).expect("the volume");
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).expect("read");
        bytes
    };
    let boot = read(0, 512);
    let sector = 1u64 << boot[108];
    let cluster = sector << boot[109];
    let place = |index: u32| u64::from(index - 2) * cluster + u64::from(number(&boot, 88)) * sector;
    let root = place(number(&boot, 96));
    let mut folder = read(root, usize::try_from(cluster).expect("small"));
    let bitmap = folder.chunks(32).find(|entry| entry[0] == 0x81).map(|entry| place(number(entry, 20)));
    let bitmap = bitmap.expect("a bitmap");
    for (name, first, content) in files {
        let count = (content.len() as u64).div_ceil(cluster);
        for bit in u64::from(first - 2)..u64::from(first - 2) + count {
            let byte = read(bitmap + bit / 8, 1)[0] | 1 << (bit % 8);
            file.write_all_at(&[byte], bitmap + bit / 8).expect("written");
        }
        file.write_all_at(content, place(*first)).expect("written");
        let free = folder.chunks(32).position(|entry| entry[0] == 0).expect("room") * 32;
        folder[free..free + 96].copy_from_slice(&exfat_entries(name, *first, content.len() as u64));
    }
    file.write_all_at(&folder, root).expect("written");
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn exfat_entries(name: &str, first: u32, len: u64) -> [u8; 96] {
    let sum = |sum: u16, byte: u8| sum.rotate_right(1).wrapping_add(u16::from(byte));
    let mut set = [0u8; 96];
    (set[0], set[1], set[4]) = (0x85, 2, 0x20);
    // One run of clusters, without a chain in the FAT.
    (set[32], set[33]) = (0xc0, 3);
    set[35] = u8::try_from(name.len()).expect("a short name");
    let upper = name.to_uppercase();
    let hash = upper.encode_utf16().flat_map(u16::to_le_bytes).fold(0, sum);
    set[36..38].copy_from_slice(&hash.to_le_bytes());
    set[40..48].copy_from_slice(&len.to_le_bytes());
    set[52..56].copy_from_slice(&first.to_le_bytes());
    set[56..64].copy_from_slice(&len.to_le_bytes());
    set[64] = 0xc1;
    let letters = name.encode_utf16().flat_map(u16::to_le_bytes);
    set[66..].iter_mut().zip(letters).for_each(|(to, from)| *to = from);
    let bytes = set.iter().enumerate().filter(|(at, _)| !(2..4).contains(at));
    let checksum = bytes.fold(0, |so_far, (_, byte)| sum(so_far, *byte));
    set[2..4].copy_from_slice(&checksum.to_le_bytes());
    set
}
