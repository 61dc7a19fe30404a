//! `--payload reference`: images whose payload stays on the source.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use flashmob::io::image::folder::ImageFolder;
use flashmob::manifest::reference::Reference;
use flashmob_testkit::loops::LoopDevice;

use super::{capture, capture_as, disks, fail, mkimage, succeed, used};

/// Captures into `<folder>/repository/placed/1`, without a copy of the payload.
fn place(folder: &Path, source: &Path, more: &[&str]) -> (PathBuf, Output) {
    let repository = folder.join("repository");
    let mut terms: Vec<&dyn AsRef<OsStr>> = vec![&"--piece-length", &"64KiB", &"--payload", &"reference"];
    more.iter().for_each(|argument| terms.push(argument));
    (repository.join("placed/1"), capture_as("placed@1", source, &repository, &terms))
}

fn payload(folder: &Path) -> Vec<u8> {
    let image = ImageFolder::open(folder).expect("an image");
    let mut bytes = vec![0; usize::try_from(image.grid().payload_len()).expect("small")];
    image.payload_to_serve().expect("a payload").read_at(0, &mut bytes).expect("read");
    bytes
}

#[test]
fn a_payload_in_place_is_the_same_as_a_copy_and_takes_no_room() {
    let folder = tempfile::tempdir().expect("a folder");
    for disk in [disks::gpt(folder.path()), disks::mbr(folder.path())] {
        let folder = tempfile::tempdir().expect("a folder");
        let (image, said) = place(folder.path(), &disk, &[]);
        let said = succeed(&said);
        assert!(said.contains("the payload stays on") && said.contains("keep it as it is"), "{said}");
        let copy = capture(folder.path(), &disk);
        assert!(payload(&image) == payload(&copy));
        assert!(!image.join("payload").exists());
        succeed(&mkimage(&[&"verify", &image]));
        succeed(&mkimage(&[&"diff", &copy, &image]));
        assert!(succeed(&mkimage(&[&"inspect", &image])).contains("in place, on /"));
        // Terminals see no paths of this machine.
        let name = disk.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(!fs::read_to_string(image.join("manifest.json")).expect("text").contains(&name));
    }
}

#[test]
fn a_source_that_was_written_to_is_not_served_whatever_its_time_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let (image, said) = place(folder.path(), &disk, &[]);
    succeed(&said);
    let file = File::options().write(true).open(&disk).expect("the disk");
    let modified = file.metadata().and_then(|m| m.modified()).expect("a time");
    file.write_all_at(b"?", disks::MIB + 5000).expect("written");
    file.set_modified(modified + std::time::Duration::from_secs(1)).expect("a time");
    let said = fail(&mkimage(&[&"verify", &image]), 3);
    assert!(said.contains("captured from: it was written to") && said.contains("capture it again"), "{said}");
    file.set_modified(modified).expect("a time");
    let said = fail(&mkimage(&[&"verify", &image]), 4);
    assert!(said.contains("piece 0 is not what was captured"), "{said}");
    fs::remove_file(&disk).expect("removed");
    assert!(fail(&mkimage(&[&"verify", &image]), 3).contains("gpt.img"));
}

#[test]
fn deleted_files_stay_at_home_also_where_clusters_are_smaller_than_units() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let source = used::fat_of_small_clusters(folder.path());
    let (image, said) = place(folder.path(), &source, &[]);
    succeed(&said);
    let opened = ImageFolder::open(&image).expect("an image");
    let Some(Reference::Source(reference)) = opened.reference() else { panic!("no reference") };
    assert!(!reference.masks.is_empty(), "units that are used in part");
    let bytes = payload(&image);
    assert!(bytes == payload(&capture(folder.path(), &source)));
    assert!(!bytes.windows(used::SECRET.len()).any(|window| window == used::SECRET));
}

#[test]
fn a_block_device_is_held_while_it_is_served() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let device = LoopDevice::over(&disk, &[]);
    let (image, said) = place(folder.path(), device.path(), &[]);
    succeed(&said);
    let served = ImageFolder::open(&image).and_then(|image| image.payload_to_serve()).expect("a payload");
    succeed(&mkimage(&[&"verify", &image]));
    let taken = capture_as("taken", &device, folder.path(), &[]);
    assert!(fail(&taken, 3).contains("is in use"));
    served.read_at(0, &mut [0]).expect("read");
    drop(served);
}

#[test]
fn what_cannot_be_served_in_place_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |source: &Path, code, more: &[&str]| {
        let (image, said) = place(folder.path(), source, more);
        assert!(!image.exists());
        fail(&said, code)
    };
    let virtual_disk = folder.path().join("disk.qcow2");
    fs::write(&virtual_disk, [b"QFI\xfb".as_slice(), &[0; 2000]].concat()).expect("written");
    let said = refused(&virtual_disk, 3, &[]);
    assert!(said.contains("cannot be served in place") && said.contains("qemu-img convert"), "{said}");
    let disk = folder.path().join("disk");
    fs::write(&disk, disks::noise(6, 1 << 20)).expect("a disk");
    assert!(refused(&disk, 2, &["--piece-hashes", "none"]).contains("without hashes nobody can prove"));
    assert!(refused(&disk, 2, &["--parent", "0"]).contains("shares nothing with a parent"));
    let (image, said) = place(folder.path(), &disk, &[]);
    succeed(&said);
    let repository = folder.path().join("repository");
    let said = fail(&capture_as("placed", &disk, &repository, &[&"--parent", &"1"]), 3);
    assert!(said.contains("there is nothing to share"), "{said}");
    assert!(image.exists());
}
