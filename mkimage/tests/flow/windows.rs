//! States in which Windows leaves a disk: hibernation, fast startup, paging files, BitLocker; and LUKS beside
//! it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use flashmob_testkit::command::run;

use super::disks::{MIB, noise};
use super::used::{has_secret, image, secret, written};
use super::{capture, capture_as, fail, succeed};

/// An NTFS with these files in its root folder.
fn ntfs(folder: &Path, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let source = image(folder, "ntfs", 32 * MIB);
    run("mkntfs", &[&"-q", &"-F", &"-Q", &source]);
    for (name, bytes) in files {
        let file = folder.join("file");
        fs::write(&file, bytes).expect("a file");
        run("ntfscp", &[&"-q", &source, &file, name]);
    }
    source
}

fn hibernation(mark: &[u8]) -> Vec<u8> {
    [mark, &noise(5, 4096)[mark.len()..], &secret(300_000)].concat()
}

fn refused(folder: &Path, source: &Path) -> String {
    fail(&capture_as("lab", source, folder.join("refused"), &[]), 3)
}

#[test]
fn a_hibernated_windows_is_refused_unless_taken_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    for mark in [b"hibr", b"HIBR", b"RSTR"] {
        let source = ntfs(folder.path(), &[("hiberfil.sys", hibernation(mark))]);
        let said = refused(folder.path(), &source);
        assert!(said.contains("Windows is hibernated") && said.contains("powercfg /h off"), "{said}");
        assert!(said.contains("Shift") && said.contains("--raw 1"), "{said}");
        succeed(&capture_as("lab", &source, folder.path().join("raw"), &[&"--raw", &"1"]));
    }
}

#[test]
fn paging_and_hibernation_files_travel_as_their_headers() {
    let folder = tempfile::tempdir().expect("a folder");
    let header = noise(6, 4096);
    let pages = [header.clone(), secret(2 << 20)].concat();
    let source = ntfs(
        folder.path(),
        &[
            ("kept", noise(2, 500_000)),
            ("PageFile.sys", pages.clone()),
            ("swapfile.sys", pages),
            // It woke up properly.
            ("hiberfil.sys", hibernation(b"wake")),
        ],
    );
    let image = capture(folder.path(), &source);
    assert!(!has_secret(&image));
    let target = folder.path().join("target");
    written(&image, &target);
    run("ntfsfix", &[&"-n", &target]);
    let read = |name: &str| Command::new("ntfscat").arg(&target).arg(name).output().expect("ntfscat").stdout;
    assert_eq!(read("kept"), noise(2, 500_000));
    assert_eq!(read("PageFile.sys")[..4096], header[..]);
    assert_eq!(read("PageFile.sys").len(), 4096 + (2 << 20));
    assert_eq!(&read("hiberfil.sys")[..4], b"wake");
    // Another file with the same content is not a paging file.
    let source = ntfs(folder.path(), &[("page.sys", secret(2 << 20))]);
    let repository = folder.path().join("other");
    succeed(&capture_as("lab@1", &source, &repository, &[]));
    assert!(has_secret(&repository.join("lab/1")));
}

#[test]
fn encrypted_partitions_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    for (at, mark, name, advice) in [
        (3, b"-FVE-FS-".as_slice(), "BitLocker", "Switch BitLocker off"),
        (0, b"LUKS\xba\xbe", "LUKS", "Open it and capture what is inside"),
    ] {
        let source = image(folder.path(), "encrypted", MIB);
        let file = File::options().write(true).open(&source).expect("the partition");
        file.write_all_at(&noise(7, 1 << 20), 0).expect("written");
        file.write_all_at(mark, at).expect("written");
        let said = refused(folder.path(), &source);
        assert!(said.contains(name) && said.contains(advice) && said.contains("--raw 1"), "{said}");
    }
}
