//! Changes between versions, virtual disks as sources, and hashes that come later.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flashmob::io::image::folder::ImageFolder;

use super::{SMALL, capture, capture_as, contents, disks, fail, mkimage, succeed};

#[test]
fn a_virtual_disk_gives_the_payload_of_the_raw_one_and_is_gone_from_view_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let raw = disks::gpt(folder.path());
    let expected = contents(&capture(folder.path(), &raw).join("payload"));
    for format in ["qcow2", "vhdx", "vmdk", "vdi"] {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = folder.path().join(format!("a,b.{format}"));
        let (from, to) = (raw.to_string_lossy(), disk.to_string_lossy());
        disks::run("qemu-img", &["convert", "-f", "raw", "-O", format, &from, &to]);
        let image = capture(folder.path(), &disk);
        assert!(contents(&image.join("payload")) == expected, "{format}");
        succeed(&mkimage(&[&"verify", &image, &"--disk", &disk]));
        assert!(!is_shown(folder.path()), "{format}: QEMU still shows it");
    }
}

/// Some program was started with a path in `folder`.
fn is_shown(folder: &Path) -> bool {
    let folder = folder.to_string_lossy();
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(&*folder))
}

#[test]
fn a_virtual_disk_that_is_broken_is_refused_with_what_qemu_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("broken.qcow2");
    fs::write(&disk, [b"QFI\xfb".as_slice(), &[0xff; 4], &[0; 2000]].concat()).expect("written");
    let said = fail(&capture_as("x", &disk, folder.path().join("r"), &[]), 3);
    assert!(said.contains("qcow2") && said.contains("QEMU cannot show it"), "{said}");
}

#[test]
fn what_a_machine_wrote_to_its_raw_disk_makes_no_virtual_disk_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, disks::noise(9, 1 << 20)).expect("a file of somebody else");
    let disk = disks::gpt(folder.path());
    // The boot code is a qcow2's header, which names that file as the one below.
    let name = secret.to_string_lossy().into_owned();
    let mut header = vec![0; 104];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    (header[15], header[19]) = (104, u8::try_from(name.len()).expect("a short name"));
    header.extend(name.as_bytes());
    let file = File::options().write(true).open(&disk).expect("the disk");
    file.write_all_at(&header, 0).expect("written");
    let repository = folder.path().join("repository");
    let said = fail(&capture_as("lab", &disk, &repository, &SMALL), 3);
    assert!(said.contains("begins like a virtual disk") && said.contains("--format raw"), "{said}");
    let raw = [&SMALL[..], &[&"--format", &"raw"]].concat();
    succeed(&capture_as("lab@1", &disk, &repository, &raw));
    let image = repository.join("lab/1");
    succeed(&mkimage(&[&"verify", &image, &"--disk", &disk, &"--format", &"raw"]));
    // Told that it is one, QEMU does not look at the other file either.
    let named = [&SMALL[..], &[&"--format", &"qcow2"]].concat();
    let said = fail(&capture_as("lab", &disk, &repository, &named), 3);
    assert!(said.contains("laid over another disk, which nobody named"), "{said}");
    let renamed = disk.with_extension("raw");
    fs::rename(&disk, &renamed).expect("renamed");
    succeed(&capture_as("lab@2", &renamed, &repository, &SMALL));
}

#[test]
fn a_difference_names_pieces_and_bytes_by_partition() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let one = capture(folder.path(), &disk);
    let said = succeed(&mkimage(&[&"diff", &one, &one, &"--json"]));
    let same: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(same["bytes"], 0);
    // The loader's last bytes in the ESP, as after an update.
    let file = File::options().read(true).write(true).open(&disk).expect("the disk");
    let mut byte = [0];
    let at = disks::MIB + 5000;
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[!byte[0]], at).expect("written");
    let other = tempfile::tempdir().expect("a folder");
    let two = capture(other.path(), &disk);
    let said = succeed(&mkimage(&[&"diff", &one, &two, &"--json"]));
    let changed: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let of = |number: usize| changed["partitions"][number - 1]["changed"].as_u64().expect("a number");
    assert_eq!((of(1), of(2), of(3)), (1, 0, 0), "{said}");
    assert_eq!(changed["partitions"][0]["moved"], 0);
    let bytes = changed["bytes"].as_u64().expect("a number");
    assert!((4096..=65536).contains(&bytes), "{bytes}");
    assert!(succeed(&mkimage(&[&"diff", &one, &two])).contains("partition 1: 1 of 1 pieces differ"));
}

#[test]
fn hashes_can_be_added_to_an_image_that_is_distributed_already() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let usual = ImageFolder::open(&capture(folder.path(), &disk)).expect("an image");
    let (secret, public) = (folder.path().join("secret"), folder.path().join("public"));
    succeed(&mkimage(&[&"keygen", &"--secret", &secret, &"--public", &public]));
    let repository = folder.path().join("fast");
    let image = repository.join("lab/1");
    let unhashed: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"--piece-hashes", &"none", &"--key", &secret];
    let said = succeed(&capture_as("lab@1", &disk, &repository, &[SMALL, unhashed].concat()));
    assert!(said.contains("NOT hashed"), "{said}");
    let before = ImageFolder::open(&image).expect("an image");
    assert!(before.metainfo().unhashed && before.piece_hashes().is_empty());
    assert!(contents(&image.join("payload")) == contents(&usual.path().join("payload")));
    assert!(fail(&mkimage(&[&"verify", &image]), 3).contains("without hashes"));
    succeed(&mkimage(&[&"hash", &image, &"--key", &secret]));
    let after = ImageFolder::open(&image).expect("an image");
    assert_eq!(after.manifest().payload.info_hash, before.manifest().payload.info_hash);
    assert_eq!(after.manifest().payload.sha256, usual.manifest().payload.sha256);
    succeed(&mkimage(&[&"verify", &image, &"--disk", &disk, &"--public", &public]));
    assert!(fail(&mkimage(&[&"hash", &image]), 3).contains("already"));
}
