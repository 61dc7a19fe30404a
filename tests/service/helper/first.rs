//! What the helper does at the first start, and that it does it once.

use std::fs;
use std::path::Path;

use super::{System, server, shells, succeeds};

#[test]
fn the_first_start_gives_name_id_and_keys_runs_the_scripts_and_calls_once() {
    for shell in shells() {
        let (url, heard) = server(&[500, 204]);
        let system = System::new(&url);
        system.script(
            "50-write",
            "echo $FLASHMOB_HOSTNAME $FLASHMOB_ROOM/$FLASHMOB_SEAT >>\"$FLASHMOB_ROOT/said\"",
        );
        system.script("60-ignored.dpkg-old", "exit 1");
        succeeds(&system.run(shell, "early"));
        assert_eq!(system.text("etc/hostname"), "lab-01.school\n");
        assert_eq!(
            system.text("etc/hosts"),
            "127.0.0.1\tlocalhost\n127.0.1.1\tlab-01.school lab-01\n::1 localhost\n"
        );
        assert_eq!(system.text("etc/machine-id"), "", "it was the captured machine's");
        assert!(system.text("etc/ssh/ssh_host_ed25519_key").contains("PRIVATE KEY"), "{shell:?}");
        let key = system.text("etc/ssh/ssh_host_ed25519_key");
        system.put("etc/machine-id", "4567\n");
        succeeds(&system.run(shell, "late"));
        assert_eq!(system.text("said"), "lab-01.school 101/1\n");
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 2, "a server that fails is called again");
        assert!(heard[1].starts_with("POST /api/v1/booted HTTP/1.1\r\n"), "{}", heard[1]);
        let body: serde_json::Value =
            serde_json::from_str(heard[1].split_once("\r\n\r\n").unwrap().1).expect("JSON");
        assert_eq!(body["ticket"], "7-abc");
        assert_eq!(body["hostname"], "lab-01.school");
        assert_eq!(body["system"], "Debian GNU/Linux 12 (bookworm)");
        assert!(!body["kernel"].as_str().unwrap().is_empty());
        drop(heard);
        // The next starts do nothing.
        for part in ["early", "late"] {
            assert_eq!(succeeds(&system.run(shell, part)), "");
        }
        assert_eq!(
            (system.text("etc/ssh/ssh_host_ed25519_key"), system.text("etc/machine-id")),
            (key, "4567\n".into())
        );
        assert_eq!(system.text("said"), "lab-01.school 101/1\n");
        assert_eq!(
            system.text("var/lib/flashmob/captured-machine-id"),
            "4567\n",
            "whoever captures it has this"
        );
    }
}

#[test]
fn a_script_that_fails_runs_again_at_the_next_start_and_the_others_do_not() {
    let (url, heard) = server(&[204]);
    let system = System::new(&url);
    system.script("10-once", "echo once >>\"$FLASHMOB_ROOT/said\"");
    system.script("20-join", "[ -e \"$FLASHMOB_ROOT/ready\" ]");
    system.script("30-after", "echo after >>\"$FLASHMOB_ROOT/said\"");
    succeeds(&system.run(&["sh"], "early"));
    let output = system.run(&["sh"], "late");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("20-join failed"));
    assert!(heard.lock().unwrap().is_empty(), "it is not said to have started");
    system.put("ready", "");
    succeeds(&system.run(&["sh"], "late"));
    assert_eq!((system.text("said").as_str(), heard.lock().unwrap().len()), ("once\nafter\n", 1));
}

#[test]
fn a_refused_ticket_ends_the_calls_and_without_the_file_nothing_happens() {
    let (url, heard) = server(&[403]);
    let system = System::new(&url);
    succeeds(&system.run(&["sh"], "early"));
    assert!(succeeds(&system.run(&["sh"], "late")).contains("before"));
    succeeds(&system.run(&["sh"], "late"));
    assert_eq!(heard.lock().unwrap().len(), 1);
    fs::remove_file(system.at("boot/efi/EFI/flashmob/terminal.json")).unwrap();
    let before = system.text("etc/hostname");
    assert_eq!(succeeds(&system.run(&["sh"], "early")), "");
    assert_eq!(system.text("etc/hostname"), before, "a golden machine stays as it is");
}

#[test]
fn without_curl_it_calls_by_wget() {
    let (url, heard) = server(&[500, 204]);
    let system = System::new(&url);
    let needed = "sed head awk cat tr uname sleep mkdir cp wget sort wc cut grep tail";
    for tool in needed.split(' ') {
        let path = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
        let path = path.into_iter().find(|path| path.exists()).expect(tool);
        std::os::unix::fs::symlink(path, system.tools.path().join(tool)).unwrap();
    }
    succeeds(&system.run(&["sh"], "early"));
    succeeds(&system.command(&["/bin/sh"], "late").env("PATH", system.tools.path()).output().unwrap());
    let heard = heard.lock().unwrap();
    assert!(heard.len() == 2 && heard[1].contains("\"ticket\":\"7-abc\""), "{heard:?}");
}

#[test]
fn a_name_that_is_none_is_left_out_and_no_script_runs_and_nobody_is_called_without_the_name() {
    let (url, heard) = server(&[204]);
    let system = System::new(&url);
    system.script("10-join", "echo joined >\"$FLASHMOB_ROOT/said\"");
    let file = system.text("boot/efi/EFI/flashmob/terminal.json").replace("lab-01.school", "a$(reboot)");
    system.put("boot/efi/EFI/flashmob/terminal.json", &file);
    assert_eq!(system.run(&["sh"], "early").status.code(), Some(1));
    assert_eq!(system.text("etc/hostname"), "golden\n");
    let late = system.run(&["sh"], "late");
    assert_eq!(late.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&late.stdout).contains("has not given this machine its name and files"));
    assert!(!system.at("said").exists() && heard.lock().unwrap().is_empty());
}
