//! The formats never change: an old image is read for ever, byte for byte.
//!
//! `tests/golden/` was made once, from the source that [`source`] describes. It is never made again; a format
//! that changes gets a new number and a new folder beside it.

use std::fs;
use std::path::{Path, PathBuf};

use flashmob::io::image::folder::ImageFolder;

use crate::{capture_as, contents, disks, mkimage, succeed};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1")
}

/// 1 MiB and 512 bytes: data, zeros, data that is not aligned, and a last sector.
fn source() -> Vec<u8> {
    let mut bytes = vec![0u8; (1 << 20) + 512];
    bytes[..10_000].copy_from_slice(&disks::noise(11, 10_000));
    bytes[300_000..300_100].copy_from_slice(&disks::noise(12, 100));
    bytes[1 << 20..].copy_from_slice(&disks::noise(13, 512));
    bytes
}

#[test]
fn the_golden_image_is_read_and_verified() {
    let image = ImageFolder::open(&golden()).expect("the golden image");
    assert_eq!(image.manifest().id().to_string(), "golden@format-1");
    assert_eq!(image.manifest().to_bytes(), image.manifest_bytes());
    let public = golden().join("../format-1.pub");
    succeed(&mkimage(&[&"verify", &golden(), &"--public", &public]));
}

#[test]
fn a_capture_of_the_same_source_gives_the_golden_bytes_but_for_the_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("source.img");
    fs::write(&path, source()).expect("a file");
    let terms: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"--piece-length", &"64KiB", &"--file-size", &"128KiB"];
    succeed(&capture_as("golden@format-1", &path, dir.path(), &terms));
    let mut made = contents(&dir.path().join("golden/format-1"));
    let mut kept = contents(&golden());
    kept.remove("manifest.json.minisig").expect("it is signed");
    let manifest = |files: &mut std::collections::BTreeMap<String, Vec<u8>>| {
        let text = String::from_utf8(files.remove("manifest.json").expect("a manifest")).expect("text");
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("\"created\""));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(manifest(&mut made), manifest(&mut kept));
    assert_eq!(made.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
    for (name, bytes) in &kept {
        assert!(made[name] == *bytes, "{name} is not the golden one");
    }
}
