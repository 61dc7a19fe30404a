//! Versions share unchanged pieces, in each form that filesystems allow, and stay complete without each
//! other.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flashmob::io::image::folder::ImageFolder;
use flashmob::manifest::reference::Reference;

use super::{capture, capture_as, contents, disks, fail, mkimage, succeed};

const PIECE: u64 = 64 << 10;

/// Captures `disk` as another version of the image that [`capture`] makes.
fn version(folder: &Path, disk: &Path, version: &str, more: &[&str]) -> Output {
    let more: Vec<&dyn AsRef<OsStr>> = more.iter().map(|argument| argument as &dyn AsRef<OsStr>).collect();
    capture_as(&format!("lab@{version}"), disk, folder.join("repository"), &more)
}

/// The payload as it reads.
fn payload(folder: &Path) -> Vec<u8> {
    let image = ImageFolder::open(folder).expect("an image");
    let mut bytes = vec![0; usize::try_from(image.grid().payload_len()).expect("small")];
    image.payload().expect("a payload").read_at(0, &mut bytes).expect("read");
    bytes
}

/// A byte of a disk changes at each of these places.
fn change(disk: &Path, places: &[u64]) {
    let file = File::options().read(true).write(true).open(disk).expect("the disk");
    for at in places {
        let mut byte = [0];
        file.read_exact_at(&mut byte, *at).expect("read");
        file.write_all_at(&[byte[0] ^ 0x5a], *at).expect("written");
    }
}

/// A disk without a filesystem: 40 pieces of noise.
fn noise(folder: &Path) -> PathBuf {
    let disk = folder.join("disk");
    fs::write(&disk, disks::noise(6, 40 << 16)).expect("a disk");
    disk
}

#[test]
fn a_version_reads_as_if_it_had_been_copied_and_outlives_its_parents() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let one = capture(folder.path(), &disk);
    for (number, parent, place) in [("2", "1", disks::MIB + 5000), ("3", "2", 2 * disks::MIB + 700)] {
        change(&disk, &[place]);
        let said = succeed(&version(folder.path(), &disk, number, &["--parent", parent]));
        assert!(said.contains(&format!("pieces are unchanged since {parent}")), "{said}");
        assert!(said.contains("shared with it on disk"), "{said}");
        let other = tempfile::tempdir().expect("a folder");
        let copied = capture(other.path(), &disk);
        let made = one.with_file_name(number);
        assert!(payload(&made) == payload(&copied), "{number}");
        let of = |folder: &Path| ImageFolder::open(folder).expect("an image").manifest().clone();
        assert_eq!(of(&made).payload.sha256, of(&copied).payload.sha256);
        assert_eq!(of(&made).payload.file_size, of(&copied).payload.file_size, "as the parent's");
        // All that is new is one piece; where extents are shared there are no parts.
        if let Some(Reference::Parts(list)) = ImageFolder::open(&made).expect("an image").reference() {
            assert_eq!(list.files.iter().filter(|part| part.from.is_none()).count(), 1);
            assert_eq!(fs::metadata(made.join("parts/0000.bin")).expect("its own").len(), PIECE);
            assert!(succeed(&mkimage(&[&"inspect", &made])).contains("only flashmob can seed"));
        }
    }
    fs::remove_dir_all(&one).expect("gone");
    fs::remove_dir_all(one.with_file_name("2")).expect("gone");
    succeed(&mkimage(&[&"verify", &one.with_file_name("3")]));
    succeed(&mkimage(&[&"verify", &one.with_file_name("3"), &"--disk", &disk]));
}

#[test]
fn the_same_again_takes_no_room_and_any_client_can_seed_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = noise(folder.path());
    let one = capture(folder.path(), &disk);
    succeed(&version(folder.path(), &disk, "2", &["--parent", "1"]));
    let two = one.with_file_name("2");
    assert!(contents(&two.join("payload")) == contents(&one.join("payload")));
    assert!(!two.join("payload.reference").exists() && !two.join("parts").exists());
    // A tenth changed: payload files remain only on request.
    change(&disk, &[100, 500_000]);
    succeed(&version(folder.path(), &disk, "3", &["--parent", "2", "--whole-files"]));
    let three = one.with_file_name("3");
    let copied = tempfile::tempdir().expect("a folder");
    let expected = contents(&capture(copied.path(), &disk).join("payload"));
    assert!(contents(&three.join("payload")) == expected && !three.join("parts").exists());
    succeed(&mkimage(&[&"verify", &three]));
}

#[test]
fn damage_of_the_parent_is_not_inherited() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = noise(folder.path());
    let one = capture(folder.path(), &disk);
    change(&one.join("payload/0001.bin"), &[PIECE + 7]);
    let said = succeed(&version(folder.path(), &disk, "2", &["--parent", "1"]));
    assert!(said.contains("1 pieces of 1 are DAMAGED") && said.contains("39 of 40"), "{said}");
    succeed(&mkimage(&[&"verify", &one.with_file_name("2")]));
    fail(&mkimage(&[&"verify", &one]), 4);
}

#[test]
fn a_lost_part_is_named_and_so_is_a_reference_that_says_something_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = noise(folder.path());
    let one = capture(folder.path(), &disk);
    change(&disk, &[100]);
    succeed(&version(folder.path(), &disk, "2", &["--parent", "1"]));
    let two = one.with_file_name("2");
    if !two.join("parts").exists() {
        eprintln!("skipped: extents are shared here");
        return;
    }
    let reference = fs::read_to_string(two.join("payload.reference")).expect("a reference");
    fs::write(two.join("payload.reference"), reference.replace("[0,0,1]", "[0,0,2]")).expect("written");
    let said = fail(&mkimage(&[&"verify", &two]), 4);
    assert!(said.contains("payload.reference: it places 41 pieces"), "{said}");
    fs::write(two.join("payload.reference"), reference).expect("written");
    fs::remove_file(two.join("parts/0001.bin")).expect("removed");
    assert!(fail(&mkimage(&[&"verify", &two]), 3).contains("parts/0001.bin"));
}

#[test]
fn parents_that_share_nothing_are_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = noise(folder.path());
    let one = capture(folder.path(), &disk);
    let refused = |code, more: &[&str]| {
        let said = fail(&version(folder.path(), &disk, "2", more), code);
        assert!(!one.with_file_name("2").exists());
        said
    };
    assert!(refused(3, &["--parent", "0"]).contains("lab/0/manifest.json"));
    assert!(refused(2, &["--parent", "../x"]).contains("cannot be the name"));
    let said = refused(3, &["--parent", "1", "--piece-length", "128KiB"]);
    assert!(said.contains("share nothing") && said.contains("Leave out --piece-length"), "{said}");
    let said = refused(2, &["--parent", "1", "--piece-hashes", "none"]);
    assert!(said.contains("without hashes nobody knows"), "{said}");
    assert!(refused(2, &["--whole-files"]).contains("--parent"));
    succeed(&version(folder.path(), &disk, "9", &["--piece-length", "64KiB", "--piece-hashes", "none"]));
    let said = refused(3, &["--parent", "9"]);
    assert!(said.contains("without hashes") && said.contains("mkimage hash"), "{said}");
}

/// Captures two versions, of which a tenth differs, on a new filesystem, and verifies the second one without
/// the first. Returns the second capture's output and the KiB that it added; `None` without the rights to
/// mount. `meanwhile` happens between the two.
fn on(make: &str, meanwhile: &str) -> Option<(String, u64)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, other) = (noise(folder.path()), folder.path().join("other"));
    fs::copy(&disk, &other).expect("a copy");
    change(&other, &[100, 9 * PIECE, 33 * PIECE, 39 * PIECE]);
    let script = r#"
        set -e
        truncate -s 400M filesystem
        $MAKE
        mkdir place
        mount -o loop filesystem place
        capture() {
            "$PROGRAM" capture $1 --repository place --name lab --version $2 --file-size 1MiB $3 $4 $5 $6 2>&1
        }
        used() { sync; df --output=used -k place | tail -n 1; }
        capture disk 1 --piece-length 64KiB
        $MEANWHILE
        before=$(used)
        capture other 2 --parent 1
        echo "took $(($(used) - before)) KiB"
        umount place/lab/1 2> umount.log || true
        rm -r place/lab/1
        "$PROGRAM" verify place/lab/2
        "$PROGRAM" verify place/lab/2 --disk other
    "#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .current_dir(folder.path())
        .envs([("MAKE", make), ("MEANWHILE", meanwhile), ("PROGRAM", env!("CARGO_BIN_EXE_flashmob-mkimage"))])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .expect("unshare");
    let said = succeed(&output);
    let took = said.lines().find_map(|line| line.strip_prefix("took ")?.strip_suffix(" KiB")?.parse().ok());
    assert!(said.contains("36 of 40 pieces are unchanged since 1"), "{said}");
    Some((said, took.expect("a number")))
}

#[test]
fn extents_are_shared_where_the_filesystem_can() {
    for make in ["mkfs.xfs -q -m reflink=1 filesystem", "mkfs.btrfs -q filesystem"] {
        let Some((said, took)) = on(make, "") else { return };
        assert!(said.contains("shared with it on disk (reflinks)"), "{said}");
        assert!(took < 1000, "{took} KiB for four pieces\n{said}");
    }
}

#[test]
fn files_of_pieces_are_shared_where_it_cannot() {
    let Some((said, took)) = on("mkfs.ext4 -q -F filesystem", "") else { return };
    assert!(said.contains("hard links in parts/"), "{said}");
    assert!((256..600).contains(&took), "{took} KiB for four pieces\n{said}");
}

#[test]
fn without_reflinks_and_hard_links_it_is_a_copy_and_says_so() {
    // Mounts are a border for hard links, also within one filesystem.
    let border = "mount --bind place/lab/1 place/lab/1";
    let Some((said, took)) = on("mkfs.ext4 -q -F filesystem", border) else { return };
    assert!(said.contains("cannot be linked here") && said.contains("since 1, copied"), "{said}");
    assert!(took >= 2560, "{took}");
}

#[test]
fn whole_files_that_are_unchanged_are_hard_links() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = noise(folder.path());
    let one = capture(folder.path(), &disk);
    let said = succeed(&version(folder.path(), &disk, "2", &["--parent", "1"]));
    let ino = |version: &str| {
        fs::metadata(one.with_file_name(version).join("payload/0000.bin")).expect("a file").ino()
    };
    assert_eq!(said.contains("in the same payload files (hard links)"), ino("1") == ino("2"), "{said}");
}
