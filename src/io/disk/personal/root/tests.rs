//! Roots in temporary folders.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::io::disk::personal::power;
use crate::testkit::programs::{run, unmount};

#[test]
fn no_link_leads_out_of_the_root_and_no_file_that_is_a_link_is_changed() {
    let (outside, inside) = (tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp"));
    let at = |name: &str| inside.path().join(name);
    fs::create_dir_all(at("real/etc")).expect("made");
    fs::create_dir(outside.path().join("etc")).expect("made");
    fs::write(outside.path().join("hostname"), "host").expect("written");
    // As on systems whose /etc is a link: absolute, below the system's root.
    symlink("/real/etc", at("etc")).expect("linked");
    symlink(outside.path(), at("away")).expect("linked");
    symlink(outside.path().join("hostname"), at("real/etc/hostname")).expect("linked");
    symlink("../../../../../..", at("up")).expect("linked");
    let root = Root::open(inside.path()).expect("open");
    assert!(root.write("etc/hosts", b"x").expect("written"));
    assert_eq!(fs::read(at("real/etc/hosts")).expect("there"), b"x");
    assert!(!root.write("etc/hosts", b"x").expect("the same"));
    assert!(root.write("etc/hostname", b"evil").expect_err("a link").to_string().contains("link"));
    assert!(
        root.write("away/hostname", b"evil").is_err() && root.read("away/hostname").expect("none").is_none()
    );
    assert!(root.has("up/real") && !root.has("up/proc"), "up is the root itself");
    assert_eq!(fs::read(outside.path().join("hostname")).expect("there"), b"host");
}

#[test]
fn a_file_that_is_put_somewhere_follows_no_link_on_its_way() {
    let (outside, dir) = (tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp"));
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("usr/lib")).expect("made");
    fs::write(at("usr/lib/old"), vec![1; 99]).expect("written");
    symlink("usr/lib", at("lib")).expect("linked");
    symlink(outside.path(), at("away")).expect("linked");
    symlink("/etc/passwd", at("usr/link")).expect("linked");
    let root = Root::open(dir.path()).expect("open");
    root.put("usr/lib/old", b"new", 0o755).expect("written");
    root.put("a/b/c", b"secret", 0o600).expect("folders are made");
    for (path, content, mode) in [("usr/lib/old", "new", 0o755), ("a/b/c", "secret", 0o600)] {
        assert_eq!(fs::read_to_string(at(path)).expect("there"), content);
        assert_eq!(fs::metadata(at(path)).expect("there").permissions().mode() & 0o7777, mode);
    }
    for (path, why) in [
        ("lib/x", "'lib' on the way"),
        ("away/x", "'away' on the way"),
        ("usr/link", "symbolic link"),
        ("usr/lib/old/x", "'old' on the way"),
        ("usr/lib", "directory"),
    ] {
        let said = root.put(path, b"x", 0o644).expect_err(path).to_string();
        assert!(said.contains(why), "{path}: {said}");
    }
    assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 0);
}

#[test]
fn a_file_that_is_put_somewhere_replaces_the_old_one_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("temp");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("etc")).expect("made");
    fs::write(at("etc/fstab"), "old").expect("written");
    fs::hard_link(at("etc/fstab"), at("snapshot")).expect("linked");
    nix::unistd::mkfifo(&at("etc/pipe"), Mode::S_IRWXU).expect("made");
    fs::write(at("etc").join(NEW), "of a run that was cut off").expect("written");
    let root = Root::open(dir.path()).expect("open");
    let mut cut = 0;
    loop {
        power::test::fails_after(Some(cut));
        let put = root.put("etc/fstab", b"new", 0o640);
        power::test::fails_after(None);
        let now = fs::read_to_string(at("etc/fstab")).expect("there");
        assert_eq!(now, if put.is_ok() { "new" } else { "old" }, "cut off before change {cut}");
        if put.is_ok() {
            break;
        }
        cut += 1;
    }
    assert!(cut >= 3, "{cut} changes");
    assert_eq!(fs::read_to_string(at("snapshot")).expect("there"), "old", "another name of the old file");
    assert!(root.put("etc/pipe", b"x", 0o644).expect_err("a pipe").to_string().contains("no file"));
    assert_eq!(root.names("etc").expect("listed"), [".", "..", "fstab", "pipe"], "nothing is left over");
}

#[test]
fn a_file_that_is_written_has_its_old_content_or_its_new_one_whenever_the_power_fails() {
    let dir = tempfile::tempdir().expect("temp");
    let (path, snapshot) = (dir.path().join("hosts"), dir.path().join("snapshot"));
    fs::write(&path, "old").expect("written");
    std::os::unix::fs::chown(&path, Some(7), Some(8)).expect("given away");
    fs::set_permissions(&path, Permissions::from_mode(0o4640)).expect("set");
    fs::hard_link(&path, &snapshot).expect("linked");
    let root = Root::open(dir.path()).expect("open");
    let mut cut = 0;
    loop {
        power::test::fails_after(Some(cut));
        let written = root.write("hosts", b"new and longer");
        power::test::fails_after(None);
        let now = fs::read_to_string(&path).expect("there");
        let expected = if written.is_ok() { "new and longer" } else { "old" };
        assert_eq!(now, expected, "cut off before change {cut}");
        let is = fs::metadata(&path).expect("there");
        assert_eq!((is.uid(), is.gid(), is.mode() & 0o7777), (7, 8, 0o4640), "{cut}");
        if written.is_ok() {
            break;
        }
        cut += 1;
    }
    assert!(cut >= 3, "{cut} changes");
    assert_eq!(fs::read_to_string(&snapshot).expect("there"), "old", "another name of the old file");
    assert_eq!(root.names(".").expect("listed"), [".", "..", "hosts", "snapshot"], "nothing is left over");
}

#[test]
fn a_file_system_that_is_full_keeps_the_old_file() {
    let dir = tempfile::tempdir().expect("temp");
    let place = dir.path().to_str().expect("text");
    run("mount", &["-t", "tmpfs", "-o", "size=64k", "none", place]);
    fs::write(dir.path().join("fstab"), "old").expect("written");
    let root = Root::open(dir.path()).expect("open");
    let put = root.put("fstab", &vec![1; 256 << 10], 0o644);
    let written = root.write("fstab", &vec![1; 256 << 10]);
    let now = (fs::read_to_string(dir.path().join("fstab")).expect("there"), root.names("."));
    drop(root);
    unmount(place);
    for done in [put, written.map(drop)] {
        assert_eq!(done.expect_err("full").kind(), io::ErrorKind::StorageFull);
    }
    assert_eq!(
        (now.0.as_str(), now.1.expect("listed")),
        ("old", [".", "..", "fstab"].map(String::from).to_vec())
    );
}

#[test]
fn a_file_that_is_written_keeps_its_mode_and_what_is_no_file_is_left_alone() {
    let dir = tempfile::tempdir().expect("temp");
    let path = dir.path().join("machine-id");
    fs::write(&path, "0123\n").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("set");
    nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).expect("made");
    let root = Root::open(dir.path()).expect("open");
    assert!(root.write("machine-id", b"").expect("written"));
    let now = fs::metadata(&path).expect("there");
    assert_eq!((now.len(), now.permissions().mode() & 0o777), (0, 0o444));
    assert!(root.read("pipe").is_err() && root.write("pipe", b"x").is_err());
    assert!(root.remove("pipe").expect("removed") && !root.remove("pipe").expect("gone"));
    assert_eq!(root.names("nowhere").expect("none"), Vec::<String>::new());
}
