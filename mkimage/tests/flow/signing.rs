//! `minisign` accepts our keys and signatures.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{capture, capture_as, disks, fail, mkimage, succeed};

fn keygen(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (secret, public) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pub")));
    let said = succeed(&mkimage(&[&"keygen", &"--secret", &secret, &"--public", &public]));
    assert!(said.contains("NOT protected by a password"), "{said}");
    (secret, public)
}

fn minisign(folder: &Path, public: &Path) -> std::process::Output {
    let minisign = Command::new("minisign")
        .args(["-V", "-p"])
        .arg(public)
        .arg("-m")
        .arg(folder.join("manifest.json"))
        .output();
    minisign.expect("minisign is installed (package minisign)")
}

#[test]
fn the_minisign_program_accepts_our_signatures_and_so_do_we() {
    let dir = tempfile::tempdir().expect("a folder");
    let (secret, public) = keygen(dir.path(), "mine");
    let (_, other) = keygen(dir.path(), "other");
    let source = disks::ext4(dir.path());
    let repository = dir.path().join("r");
    succeed(&capture_as("lab@7", &source, &repository, &[&"--key", &secret]));
    let folder = repository.join("lab/7");
    let said = succeed(&minisign(&folder, &public));
    assert!(said.contains("Trusted comment: flashmob image lab@7 sequence 1"), "{said}");
    assert!(!minisign(&folder, &other).status.success());
    assert!(
        succeed(&mkimage(&[&"verify", &folder, &"--public", &public])).contains("good, by the given key")
    );
    assert!(fail(&mkimage(&[&"verify", &folder, &"--public", &other]), 4).contains("no good signature"));
    assert!(fail(&mkimage(&[&"inspect", &folder, &"--public", &other]), 4).contains("no good signature"));

    // One other letter in the manifest that contradicts nothing.
    let text = fs::read_to_string(folder.join("manifest.json")).expect("the manifest");
    fs::write(folder.join("manifest.json"), text.replace("\"sequence\": 1", "\"sequence\": 9"))
        .expect("written");
    assert!(!minisign(&folder, &public).status.success());
    succeed(&mkimage(&[&"verify", &folder]));
    fail(&mkimage(&[&"verify", &folder, &"--public", &public]), 4);
}

#[test]
fn an_image_can_be_signed_later_and_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (secret, public) = keygen(dir.path(), "mine");
    let folder = capture(dir.path(), &disks::ext4(dir.path()));
    assert!(fail(&mkimage(&[&"verify", &folder, &"--public", &public]), 4).contains("not signed"));
    for comment in ["first", "second"] {
        succeed(&mkimage(&[&"sign", &folder, &"--key", &secret, &"--trusted-comment", &comment]));
        assert!(succeed(&minisign(&folder, &public)).contains(&format!("Trusted comment: {comment}")));
    }
    let left: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    fail(&mkimage(&[&"sign", &folder, &"--key", &secret, &"--trusted-comment", &"two\nlines"]), 2);
    fail(&mkimage(&[&"sign", &folder, &"--key", &public]), 2);
    fs::write(folder.join("boot.bin"), b"x").expect("written");
    assert!(fail(&mkimage(&[&"sign", &folder, &"--key", &secret]), 4).contains("boot.bin"));
}

#[test]
fn keys_are_private_and_never_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    let (secret, public) = keygen(dir.path(), "mine");
    let mode = |path: &Path| fs::metadata(path).expect("the key").permissions().mode() & 0o777;
    assert_eq!(mode(&secret), 0o600);
    let before = (fs::read(&secret).expect("a key"), fs::read(&public).expect("a key"));
    let new = dir.path().join("new");
    assert!(fail(&mkimage(&[&"keygen", &"--secret", &secret, &"--public", &new]), 3).contains("exists"));
    assert!(fail(&mkimage(&[&"keygen", &"--secret", &new, &"--public", &public]), 3).contains("exists"));
    assert!(!new.exists());
    assert_eq!(before, (fs::read(&secret).expect("a key"), fs::read(&public).expect("a key")));
}
