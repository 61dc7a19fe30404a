//! Which loader terminals start, where a disk has several.

use std::path::{Path, PathBuf};
use std::process::Output;

use flashmob::io::image::folder::ImageFolder;
use flashmob_testkit::command::{run_command, tool};

use crate::disks::{self, MIB};
use crate::{capture_as, fail, succeed};

/// A disk with one EFI system partition that has these files.
fn disk(folder: &Path, name: &str, files: &[&str]) -> PathBuf {
    let disk = folder.join(name);
    std::fs::File::create(&disk).and_then(|file| file.set_len(64 * MIB)).expect("a file");
    let text = |path: &Path| path.to_str().expect("text").to_string();
    disks::run("sgdisk", &["-n", "1:2048:100000", "-t", "1:ef00", &text(&disk)]);
    let esp = folder.join("esp");
    std::fs::File::create(&esp).and_then(|file| file.set_len(97_953 * 512)).expect("a file");
    disks::run("mkfs.vfat", &["-F", "32", "-i", "12345678", &text(&esp)]);
    let mtools = |program: &str, arguments: &[&str]| {
        run_command(tool(program).arg("-i").arg(&esp).args(arguments));
    };
    let content = folder.join("content");
    std::fs::write(&content, "a loader").expect("written");
    mtools("mmd", &["::/EFI"]);
    let mut made: Vec<String> = Vec::new();
    for file in files {
        let parts: Vec<&str> = file.split('/').collect();
        for depth in 1..parts.len() {
            let path = format!("::/EFI/{}", parts[..depth].join("/"));
            if !made.contains(&path) {
                mtools("mmd", &[&path]);
                made.push(path);
            }
        }
        mtools("mcopy", &[content.to_str().expect("text"), &format!("::/EFI/{file}")]);
    }
    let (from, to) = (format!("if={}", text(&esp)), format!("of={}", text(&disk)));
    disks::run("dd", &[&from, &to, "bs=1M", "seek=1", "conv=notrunc", "status=none"]);
    disk
}

/// The loaders' paths, the first to start first, and the output.
fn captured(folder: &Path, image: &str, disk: &Path, more: &[&str]) -> (Vec<String>, Output) {
    let repository = folder.join("repository");
    let more: Vec<&dyn AsRef<std::ffi::OsStr>> = more.iter().map(|word| word as _).collect();
    let output = capture_as(&format!("{image}@1"), disk, &repository, &more);
    succeed(&output);
    let image = ImageFolder::open(&repository.join(image).join("1")).expect("an image");
    (image.manifest().boot.uefi.iter().map(|loader| loader.path.clone()).collect(), output)
}

#[test]
fn files_that_wait_for_the_golden_machines_helper_are_remarked() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, files, expected) in [
        ("waits", &["BOOT/BOOTX64.EFI", "flashmob/after/files.txt"][..], true),
        ("own", &["BOOT/BOOTX64.EFI", "flashmob/terminal.json"], false),
    ] {
        let disk = disk(folder.path(), name, files);
        let (_, output) = captured(folder.path(), name, &disk, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("EFI/flashmob/after of partition 1"), expected, "{said}");
    }
}

const WINDOWS: &str = "/EFI/Microsoft/Boot/bootmgfw.efi";

#[test]
fn a_boot_menu_comes_before_windows_whichever_was_installed_first_and_a_person_may_choose() {
    let folder = tempfile::tempdir().expect("a folder");
    let orders = [
        ["Microsoft/Boot/bootmgfw.efi", "BOOT/BOOTX64.EFI", "debian/shimx64.efi"],
        ["debian/shimx64.efi", "Microsoft/Boot/bootmgfw.efi", "BOOT/BOOTX64.EFI"],
    ];
    for (n, files) in orders.iter().enumerate() {
        let disk = disk(folder.path(), &format!("disk{n}"), files);
        let (loaders, output) = captured(folder.path(), &format!("by-itself-{n}"), &disk, &[]);
        assert_eq!(loaders, ["/EFI/debian/shimx64.efi", WINDOWS, "/EFI/BOOT/BOOTX64.EFI"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the disk has 2 systems; terminals start debian"), "{said}");

        let (loaders, output) = captured(
            folder.path(),
            &format!("chosen-{n}"),
            &disk,
            &["--loader", "\\EFI\\microsoft\\boot\\bootmgfw.efi"],
        );
        assert_eq!(loaders, [WINDOWS, "/EFI/debian/shimx64.efi", "/EFI/BOOT/BOOTX64.EFI"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("2 systems"), "{said}");
    }
}

#[test]
fn loaders_of_other_distributions_are_known_and_one_without_a_usual_name_may_be_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = ["opensuse/shim.efi", "rocky/shimx64.efi", "systemd/systemd-bootx64.efi", "own/start.efi"];
    let disk = disk(folder.path(), "disk", &files);
    let (loaders, _) = captured(folder.path(), "usual", &disk, &[]);
    assert_eq!(
        loaders,
        ["/EFI/opensuse/shim.efi", "/EFI/rocky/shimx64.efi", "/EFI/systemd/systemd-bootx64.efi"]
    );
    let (loaders, _) = captured(folder.path(), "own", &disk, &["--loader", "/EFI/own/start.efi"]);
    assert_eq!(loaders[0], "/EFI/own/start.efi");

    let repository = folder.path().join("repository");
    let complaint = fail(&capture_as("missing@1", &disk, &repository, &[&"--loader", &"/EFI/none.efi"]), 2);
    assert!(complaint.contains("has no loader /EFI/none.efi; it has: /EFI/opensuse/shim.efi"), "{complaint}");
}
