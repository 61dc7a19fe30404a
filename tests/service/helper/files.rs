//! The administrator's files that wait for the helper.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{System, server, sha256, shells, succeeds};

#[test]
fn files_that_wait_for_the_helper_are_copied_once_and_a_damaged_one_is_not() {
    let (url, _) = server(&[204]);
    let system = System::new(&url);
    let waiting = "boot/efi/EFI/flashmob/after";
    let [join, licence] = ["join\n", "licence\n"].map(sha256);
    system.put(&format!("{waiting}/0000.bin"), "join\n");
    system.put(&format!("{waiting}/0001.bin"), "damaged\n");
    let list = format!(
        "0000.bin {join} 0755 etc/flashmob/first-start.d/10 join me\n0001.bin {licence} 0600 opt/x/licence\n"
    );
    system.put(&format!("{waiting}/files.txt"), &list);
    let output = system.run(&["sh"], "early");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("/opt/x/licence is damaged"));
    assert_eq!(system.text("etc/flashmob/first-start.d/10 join me"), "join\n");
    assert!(!system.at("opt/x/licence").exists());
    system.put(&format!("{waiting}/0001.bin"), "licence\n");
    assert!(succeeds(&system.run(&["dash"], "early")).contains("files are copied"));
    assert_eq!(system.text("opt/x/licence"), "licence\n");
    let mode = |path: &str| fs::metadata(system.at(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("opt/x/licence"), mode("etc/flashmob/first-start.d/10 join me")], [0o600, 0o755]);
    assert!(!system.at(waiting).exists(), "secrets do not stay there");
}

#[test]
fn files_for_a_windows_on_the_same_disk_are_left_to_it() {
    for shell in shells() {
        let system = System::new("http://127.0.0.1:9");
        let waiting = "boot/efi/EFI/flashmob/after";
        let line = |name: &str, path: &str| format!("{name}.bin {} 0600 {path}\n", sha256(name));
        let names = ["linux-0000", "windows-0001", "windows-0002"];
        names.iter().for_each(|name| system.put(&format!("{waiting}/{name}.bin"), name));
        let windows = line(names[1], "lab/join me.ps1") + &line(names[2], "etc/motd");
        system.put(&format!("{waiting}/files.txt"), &(line(names[0], "etc/motd") + &windows));
        succeeds(&system.run(shell, "early"));
        assert_eq!(system.text("etc/motd"), names[0], "{shell:?}");
        assert!(!system.at("lab").exists(), "{shell:?}");
        assert_eq!(
            system.text(&format!("{waiting}/files.txt")),
            windows,
            "{shell:?}: the list is the others'"
        );
        let mut left: Vec<_> = fs::read_dir(system.at(waiting)).unwrap().flatten().collect();
        left.sort_by_key(fs::DirEntry::file_name);
        let left: Vec<_> = left.iter().map(fs::DirEntry::file_name).collect();
        assert_eq!(left, ["files.txt", "windows-0001.bin", "windows-0002.bin"], "{shell:?}");
        // Another attempt has only files for Windows.
        let file = system.text("boot/efi/EFI/flashmob/terminal.json").replace("7-abc", "8-abc");
        system.put("boot/efi/EFI/flashmob/terminal.json", &file);
        let said = succeeds(&system.run(shell, "early"));
        assert!(!said.contains("files are copied"), "{shell:?}: {said}");
        assert_eq!(system.text(&format!("{waiting}/files.txt")), windows, "{shell:?}");
    }
}

#[test]
fn a_file_that_cannot_be_copied_repeats_nothing_else_at_the_next_start() {
    for shell in shells() {
        let system = System::new("http://127.0.0.1:9");
        let waiting = "boot/efi/EFI/flashmob/after";
        let (motd, tool) = ("welcome\n", "tool\n");
        system.put(&format!("{waiting}/0000.bin"), motd);
        system.put(&format!("{waiting}/0001.bin"), tool);
        let list =
            format!("0000.bin {} 0600 etc/motd\n0001.bin {} 0755 opt/tool\n", sha256(motd), sha256(tool));
        system.put(&format!("{waiting}/files.txt"), &list);
        // A file cannot take the place of a folder.
        system.put("opt/tool/data", "");
        let output = system.run(shell, "early");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{shell:?}: {said}");
        assert!(said.contains("/opt/tool cannot be written"), "{shell:?}: {said}");
        assert_eq!(fs::read_dir(system.at("opt/tool")).unwrap().count(), 1, "{shell:?}");
        assert_eq!(fs::read_dir(system.at("opt")).unwrap().count(), 1, "{shell:?}");
        let key = system.text("etc/ssh/ssh_host_ed25519_key");
        assert!(key.contains("PRIVATE KEY"), "{shell:?}");
        // The administrator of this one machine changes what the first start has made.
        let own = [("etc/motd", "changed\n"), ("etc/hostname", "other\n"), ("etc/machine-id", "0123\n")];
        own.iter().for_each(|(path, text)| system.put(path, text));
        assert_eq!(system.run(shell, "early").status.code(), Some(1), "{shell:?}: the file is tried again");
        assert_eq!(system.text("etc/ssh/ssh_host_ed25519_key"), key, "{shell:?}");
        own.iter().for_each(|(path, text)| assert_eq!(system.text(path), *text, "{shell:?}"));
        fs::remove_dir_all(system.at("opt/tool")).unwrap();
        succeeds(&system.run(shell, "early"));
        assert_eq!([system.text("opt/tool"), system.text("etc/motd")], [tool, "changed\n"], "{shell:?}");
        assert_eq!(system.text("etc/ssh/ssh_host_ed25519_key"), key, "{shell:?}");
        assert!(!system.at(waiting).exists(), "{shell:?}");
    }
}

#[test]
fn files_stay_on_the_esp_until_their_copies_are_on_the_medium() {
    let system = System::new("http://127.0.0.1:9");
    let waiting = "boot/efi/EFI/flashmob/after";
    system.put(&format!("{waiting}/0000.bin"), "x\n");
    system.put(&format!("{waiting}/files.txt"), &format!("0000.bin {} 0600 etc/x\n", sha256("x\n")));
    let early = |does: &str| {
        system.tool("sync", does);
        system.run(&["sh"], "early")
    };
    assert_eq!(early("exit 1").status.code(), Some(1));
    assert!(system.at(waiting).join("0000.bin").exists(), "the medium may not have the copy");
    succeeds(&early(&format!("cat \"$FLASHMOB_ROOT/{waiting}/0000.bin\" \"$FLASHMOB_ROOT/etc/x\"")));
    assert!(!system.at(waiting).exists());
}
