//! The netboot files: the same bytes each time, and small enough for a hundred terminals to fetch.

use std::fs;
use std::path::Path;
use std::process::Command;

use flashmob_testkit::command::try_command;

use crate::ASSETS;

/// Builds with `drivers` into a new folder and returns the files.
fn build(drivers: &str) -> Vec<(String, Vec<u8>)> {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(&ASSETS.programs.initramfs);
    command.arg("build").arg("--agent").arg(&ASSETS.programs.agent).arg("--out").arg(out.path());
    command.arg("--cache").arg(ASSETS.folder.join("kernel")).args(["--drivers", drivers]);
    try_command(command.arg("--keys").arg(ASSETS.folder.join("keys/lab.pub"))).unwrap();
    let mut files: Vec<_> = fs::read_dir(out.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (name(&path), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn netboot_files_are_the_same_bytes_each_time() {
    let first = build("virtio");
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "boot.ipxe",
        "initramfs.img",
        "localboot.0",
        "localboot.efi",
        "snponly.efi",
        "undionly.kpxe",
        "vmlinuz",
    ];
    assert_eq!(names, expected);
    for (one, other) in first.iter().zip(build("virtio")) {
        assert!(*one == other, "{} differs between two builds", one.0);
    }
}

#[test]
fn netboot_files_with_all_drivers_stay_within_64_mib() {
    let files = build("all");
    let size: usize = files.iter().map(|(_, content)| content.len()).sum();
    assert!(size <= 64 << 20, "{size} bytes");
    let agent = fs::metadata(&ASSETS.programs.agent).unwrap().len();
    assert!(agent <= 8 << 20, "the agent has {agent} bytes");
}
