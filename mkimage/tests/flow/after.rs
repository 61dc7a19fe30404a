//! The administrator's files for terminals.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::{capture, disks, fail, mkimage, succeed};

fn write(folder: &Path, name: &str, content: &str, mode: u32) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn an_image_gets_files_by_rule_is_unsigned_then_and_keeps_its_payload() {
    let dir = tempfile::tempdir().expect("a folder");
    let (secret, public) = (dir.path().join("key"), dir.path().join("pub"));
    succeed(&mkimage(&[&"keygen", &"--secret", &secret, &"--public", &public]));
    let folder = capture(dir.path(), &disks::ext4(dir.path()));
    let signed = || mkimage(&[&"verify", &folder, &"--public", &public]);
    succeed(&mkimage(&[&"sign", &folder, &"--key", &secret]));
    let torrent = fs::read(folder.join("image.torrent")).expect("there");
    let files = dir.path().join("files");
    write(&files, "etc/motd", "welcome\n", 0o644);
    write(&files, "etc/flashmob/first-start.d/10-join", "#!/bin/sh\n", 0o755);
    let said = succeed(&mkimage(&[&"after", &folder, &files]));
    assert!(said.contains("has 2 files") && said.contains("all: 2 files for all terminals"), "{said}");
    assert!(said.contains("not signed now"), "{said}");
    assert!(fail(&signed(), 4).contains("not signed"));
    let list = fs::read_to_string(folder.join("after.json")).expect("there");
    assert!(list.contains("\"path\": \"etc/flashmob/first-start.d/10-join\"") && list.contains("\"0755\""));
    succeed(&mkimage(&[&"sign", &folder, &"--key", &secret]));
    assert!(succeed(&signed()).contains("all right"));
    assert_eq!(fs::read(folder.join("image.torrent")).expect("there"), torrent);

    // Replaced by others, with rules.
    let files = dir.path().join("others");
    write(&files, "all/etc/motd", "welcome\n", 0o644);
    write(&files, "cad/licence", "secret", 0o600);
    let rules = "[[rule]]\nfolder = 'all'\n[[rule]]\nfolder = 'cad'\nto = '/opt/cad'\n\
        groups = ['cad']\nmodels = ['OptiPlex']\nsystem = 'linux'\n";
    write(&files, "rules.toml", rules, 0o644);
    succeed(&mkimage(&[&"after", &folder, &files, &"--key", &secret]));
    let said = succeed(&mkimage(&[&"inspect", &folder, &"--public", &public]));
    assert!(said.contains("cad: 1 for group cad, model OptiPlex, their Linux"), "{said}");
    assert!(fs::read_to_string(folder.join("after.json")).expect("there").contains("\"opt/cad/licence\""));
    assert_eq!(fs::read_dir(folder.join("after")).expect("listed").count(), 2, "what no rule has is gone");
    // Somebody changes a file behind the signature's back.
    let one = fs::read_dir(folder.join("after")).expect("listed").flatten().next().expect("one").path();
    let content = fs::read(&one).expect("read");
    fs::write(&one, vec![b'x'; content.len()]).expect("changed");
    assert!(fail(&signed(), 4).contains("does not have the content of its name"));
    fs::remove_file(&one).expect("removed");
    assert!(fail(&signed(), 4).contains("missing"));

    succeed(&mkimage(&[&"after", &folder, &"--remove", &"--key", &secret]));
    assert!(succeed(&signed()).contains("all right"));
    assert!(!folder.join("after.json").exists() && !folder.join("after").exists());
}

#[test]
fn files_that_terminals_would_refuse_are_refused_and_the_image_stays_as_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = capture(dir.path(), &disks::ext4(dir.path()));
    let before = fs::read(folder.join("manifest.json")).expect("there");
    let files = dir.path().join("files");
    let refused = |why: &str| {
        let said = fail(&mkimage(&[&"after", &folder, &files]), 3);
        assert!(said.contains(why), "{said}");
        fs::remove_dir_all(&files).expect("removed");
    };
    fs::create_dir(&files).expect("made");
    refused("has no files");
    write(&files, "etc/x", "", 0o644);
    symlink("/etc/shadow", files.join("etc/link")).expect("linked");
    refused("neither a file nor a folder");
    write(&files, "etc/flashmob/terminal.json", "", 0o644);
    refused("the file that flashmob writes");
    write(&files, "C:x", "", 0o644);
    refused("colon");
    write(&files, "large", "", 0o644);
    fs::File::options()
        .write(true)
        .open(files.join("large"))
        .and_then(|f| f.set_len(17 << 20))
        .expect("long");
    refused("may have");
    for (rules, why) in [
        ("[[rule]]\nfolder = '../away'\n", "no plain name"),
        ("[[rule]]\nfolder = 'a'\nroom = '1'\n", "rules.toml"),
        ("[[rule]]\nfolder = 'a'\npartition = 9\n", "does not write a partition 9"),
        ("[[rule]]\nfolder = 'a'\nto = '../up'\n", "'..'"),
        ("[[rule]]\nfolder = 'a'\nsystem = 'windows'\n", "no partition of one"),
        ("[[rule]]\nfolder = 'a'\nsystem = 'beos'\n", "rules.toml"),
        ("[[rule]]\nfolder = 'a'\ngroups = []\n", "empty list of groups, which names nobody"),
    ] {
        write(&files, "a/x", "x", 0o644);
        write(&files, "rules.toml", rules, 0o644);
        refused(why);
    }
    assert_eq!(fs::read(folder.join("manifest.json")).expect("there"), before);
    assert!(!folder.join("after").exists() && !folder.join("after.json").exists());
}
