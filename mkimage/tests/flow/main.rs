//! The command line: disks made with the usual tools, captured, inspected, verified, damaged.
//!
//! - `disks`: sources for the tests, made without mounts or loop devices
//! - `capture`: disks become images, completely or not at all
//! - `verify`: damage is found and named
//! - `shrink`: images that fit smaller disks
//! - `signing`: `minisign` accepts our signatures
//! - `damage`: sources that cannot be read everywhere
//! - `used`: free blocks stay at home: ext, NTFS, FAT, swap
//! - `filesystems`: free blocks stay at home: exFAT, XFS, Btrfs and F2FS
//! - `whole`: filesystems that would be incomplete on a terminal are refused
//! - `imaging`: from a golden disk to terminals
//! - `volumes`: free blocks of logical volumes (LVM) stay at home
//! - `windows`: hibernated, encrypted, and with paging files
//! - `bios`: a Windows that starts by BIOS and the file of each terminal in it
//! - `windows_disk`: the partitions of a Windows, on larger disks
//! - `power`: the power is cut at any moment of an attempt
//! - `versions`: changes between versions, and virtual disks
//! - `parents`: versions that share unchanged pieces
//! - `meanwhile`: other writers to a source
//! - `loaders`: which system terminals start
//! - `in_place`: payloads that stay on their source
//! - `unusual`: tables and lengths that are rare
//! - `forms`: every command answers for every form of an image
//! - `lending`: terminals that lend their disks
//! - `network`: disks that an NBD server lends
//! - `golden`: the formats never change

mod after;
mod bios;
mod capture;
mod damage;
mod disks;
mod filesystems;
mod forms;
mod golden;
mod imaging;
mod in_place;
mod lending;
mod loaders;
mod meanwhile;
mod network;
mod parents;
mod power;
mod shrink;
mod signing;
mod unusual;
mod used;
mod verify;
mod versions;
mod volumes;
mod whole;
mod windows;
mod windows_disk;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use flashmob::io::image::folder::ImageFolder;
use flashmob::units::PieceIndex;

fn mkimage(arguments: &[&dyn AsRef<OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flashmob-mkimage"));
    for argument in arguments {
        command.arg(argument);
    }
    command.output().expect("the program starts")
}

/// Its output if it ended well.
fn succeed(output: &Output) -> String {
    let (out, err) = texts(output);
    assert!(output.status.success(), "{:?}\n{out}\n{err}", output.status);
    out
}

/// Its complaint if it ended with this exit code.
fn fail(output: &Output, code: i32) -> String {
    let (out, err) = texts(output);
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    err
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into())
}

/// Pieces and payload files small enough that small disks have several.
const SMALL: [&dyn AsRef<OsStr>; 4] = [&"--piece-length", &"64KiB", &"--file-size", &"256KiB"];

/// Captures into `<folder>/repository/lab/1` with pieces of 64 KiB and returns that folder.
fn capture(folder: &Path, source: &Path) -> std::path::PathBuf {
    let repository = folder.join("repository");
    succeed(&capture_as("lab@1", source, &repository, &SMALL));
    repository.join("lab").join("1")
}

/// Captures as `image`, a name or `name@version`, with `more` behind the arguments that are always needed.
fn capture_as(
    image: &str,
    source: impl AsRef<OsStr>,
    repository: impl AsRef<OsStr>,
    more: &[&dyn AsRef<OsStr>],
) -> Output {
    let (name, version) =
        image.split_once('@').map_or((image, None), |(name, version)| (name, Some(version)));
    let mut arguments: Vec<&dyn AsRef<OsStr>> =
        vec![&"capture", &source, &"--repository", &repository, &"--name", &name];
    if let Some(version) = &version {
        arguments.extend([&"--version" as &dyn AsRef<OsStr>, version]);
    }
    mkimage(&[&arguments[..], more].concat())
}

/// Writes partition `i` of an image over the disk's content; free ranges stay.
fn restore(image: &ImageFolder, i: usize, disk: &mut [u8]) {
    let (grid, payload) = (image.grid(), image.payload().expect("a payload"));
    for span in grid.zero_cells().filter(|span| span.partition == i) {
        let at = usize::try_from(span.offset).expect("small");
        disk[at..at + span.len as usize].fill(0);
    }
    for piece in grid.pieces_of(i).map(PieceIndex) {
        let span = grid.span(piece).expect("a piece");
        let at = usize::try_from(span.offset).expect("small");
        let part = &mut disk[at..at + span.len as usize];
        payload.read_at(u64::from(piece.0) * image.manifest().piece_length.bytes(), part).expect("read");
    }
}

/// Every file below a folder, with its bytes.
fn contents(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().to_string();
        if path.is_dir() {
            found
                .extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).expect("a file"));
        }
    }
    found
}
