//! The helper in the image: what it does at the first start, and that it does it once.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/packaging/helper/linux/first-start");

/// A server that answers each call with the next of these statuses, and the last one again.
fn server(statuses: &'static [u16]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&heard);
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            let text = loop {
                let n = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if n == 0 || body.len() >= length.unwrap_or(0) {
                    break text;
                }
            };
            calls.lock().unwrap().push(text);
            let status = statuses.get(n).or(statuses.last()).unwrap();
            let _ = stream.write_all(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").as_bytes());
        }
    });
    (url, heard)
}

/// A system that was just imaged. Its root is on the second partition of `/dev/sda`, its ESP the first.
struct System {
    root: tempfile::TempDir,
    /// Programs that say so, instead of this machine's.
    tools: tempfile::TempDir,
}

/// The filesystem that holds a file.
const FINDMNT: &str = r#"for path; do :; done
case ${path#"$FLASHMOB_ROOT"} in
/boot/efi*) echo "${ESP:-/dev/sda1}" ;;
/boot*) echo "${OF_BOOT:-/dev/sda2}" ;;
*) echo "${OF_ROOT:-/dev/sda2}" ;;
esac"#;
/// The disks below a device, and the partitions of a disk. `/dev/sdb` is a stick.
const LSBLK: &str = r#"case $* in
'-srnpo NAME,TYPE,RM,TRAN /dev/sda'*) printf '%s part 0 \n/dev/sda disk 0 sata\n' "$3" ;;
'-srnpo NAME,TYPE,RM,TRAN /dev/sdb'*) printf '%s part 1 \n/dev/sdb disk 1 usb\n' "$3" ;;
'-srnpo NAME,TYPE,RM,TRAN /dev/mapper/'*)
    printf '%s lvm 0 \n/dev/sda3 part 0 \n/dev/sda disk 0 sata\n' "$3"
    printf '/dev/sdb2 part 1 \n/dev/sdb disk 1 usb\n' ;;
'-rnpo NAME,PARTTYPE '*)
    for disk in ${3:-/dev/sdb /dev/sda}; do
        printf '%s \n%s1 C12A7328-f81f-11d2-ba4b-00a0c93ec93b\n%s2 x\n' "$disk" "$disk" "$disk"
    done ;;
esac"#;

impl System {
    fn new(url: &str) -> Self {
        let [root, tools] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let system = System { root, tools };
        system.tool("findmnt", FINDMNT);
        system.tool("lsblk", LSBLK);
        let file = format!(
            "{{\n  \"format\": 1,\n  \"hostname\": \"lab-01.school\",\n  \"label\": \"lab \\\"one\\\"\",\n  \
             \"room\": \"101\",\n  \"seat\": \"1\",\n  \"job\": \"3\",\n  \"attempt\": 7,\n  \
             \"image\": \"debian@1\",\n  \"server\": \"{url}\",\n  \"ticket\": \"7-abc\"\n}}\n"
        );
        system.put("boot/efi/EFI/flashmob/terminal.json", &file);
        system.put("etc/hostname", "golden\n");
        system.put("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tgolden\n::1 localhost\n");
        system.put("etc/machine-id", "0123\n");
        system.put("var/lib/flashmob/captured-machine-id", "0123\n");
        system.put("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
        system.put("etc/ssh/ssh_host_ed25519_key", "golden");
        system
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// A program that the helper finds before this machine's.
    fn tool(&self, name: &str, does: &str) {
        let path = self.tools.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn script(&self, name: &str, text: &str) {
        self.put(&format!("etc/flashmob/first-start.d/{name}"), &format!("#!/bin/sh\n{text}\n"));
        let path = self.at("etc/flashmob/first-start.d").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    fn run(&self, shell: &[&str], part: &str) -> Output {
        self.command(shell, part).output().unwrap()
    }

    fn command(&self, shell: &[&str], part: &str) -> Command {
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg(SCRIPT).arg(part);
        let path = format!("{}:{}", self.tools.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("FLASHMOB_ROOT", self.root.path()).env("FLASHMOB_PAUSE", "0");
        command
    }
}

fn succeeds(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn the_first_start_gives_name_id_and_keys_runs_the_scripts_and_calls_once() {
    for shell in [&["dash"][..], &["busybox", "sh"], &["bash"]] {
        if Command::new(shell[0]).arg("-c").arg("true").output().is_err() {
            eprintln!("SKIPPED: there is no {}", shell[0]);
            continue;
        }
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

fn sha256(text: &str) -> String {
    flashmob::digest::sha256(text.as_bytes()).0.iter().map(|byte| format!("{byte:02x}")).collect()
}

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
    for shell in [&["dash"][..], &["busybox", "sh"], &["bash"]] {
        if Command::new(shell[0]).arg("-c").arg("true").output().is_err() {
            eprintln!("SKIPPED: there is no {}", shell[0]);
            continue;
        }
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
    for shell in [&["dash"][..], &["busybox", "sh"], &["bash"]] {
        if Command::new(shell[0]).arg("-c").arg("true").output().is_err() {
            eprintln!("SKIPPED: there is no {}", shell[0]);
            continue;
        }
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

/// The mounts of a system whose partitions are the folders of `on`.
fn with_partitions(system: &System, on: &Path) {
    let mount = format!(
        "for at; do device=$source source=$at; done\necho \"$device\" >>{0}/mounted\n\
         cp -r \"{0}/$device/.\" \"$at\"",
        on.display()
    );
    system.tool("mount", &mount);
    system.tool("umount", "for at; do :; done\nrm -rf \"$at\"/*");
}

#[test]
fn a_file_on_a_stick_that_somebody_plugged_in_is_never_obeyed() {
    let system = System::new("http://127.0.0.1:9");
    let on_esp = "EFI/flashmob/terminal.json";
    let own = system.text(&format!("boot/efi/{on_esp}"));
    let foreign = own.replace("lab-01.school", "foreign").replace("7-abc", "9-f");
    let disks = tempfile::tempdir().unwrap();
    with_partitions(&system, disks.path());
    let put = |device: &str, text: &str| {
        let path = disks.path().join(device).join(on_esp);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("dev/sdb1", &foreign);
    fs::create_dir_all(disks.path().join("dev/sda1")).unwrap();
    let early = |variables: &[(&str, &str)]| {
        let mut command = system.command(&["dash"], "early");
        command.envs(variables.iter().copied());
        succeeds(&command.output().unwrap());
        system.text("etc/hostname")
    };
    // The stick is mounted where the ESP should be, because it has the same name.
    system.put(&format!("boot/efi/{on_esp}"), &foreign);
    assert_eq!(early(&[("ESP", "/dev/sdb1")]), "golden\n", "the stick is where the ESP should be");
    fs::remove_dir_all(system.at("boot")).unwrap();
    assert_eq!(early(&[]), "golden\n");
    assert_eq!(early(&[("OF_ROOT", "overlay")]), "golden\n", "nothing is known of the root's disk");
    assert_eq!(
        early(&[("OF_ROOT", "/dev/mapper/vg-root")]),
        "golden\n",
        "a part of the root is on the stick"
    );
    let mounted = fs::read_to_string(disks.path().join("mounted")).unwrap();
    assert!(!mounted.contains("sdb"), "{mounted}");
    put("dev/sda1", &own);
    assert_eq!(early(&[]), "lab-01.school\n", "the ESP of the root's own disk is found");
}

#[test]
fn of_two_files_that_of_the_later_attempt_counts() {
    for shell in [&["dash"][..], &["busybox", "sh"], &["bash"]] {
        if Command::new(shell[0]).arg("-c").arg("true").output().is_err() {
            eprintln!("SKIPPED: there is no {}", shell[0]);
            continue;
        }
        let system = System::new("http://127.0.0.1:9");
        let on_esp = system.text("boot/efi/EFI/flashmob/terminal.json");
        let of = |attempt: u32| {
            on_esp
                .replace("lab-01.school", "root")
                .replace("7,", &format!("{attempt},"))
                .replace("7-abc", "r")
        };
        for (attempt, name) in [(6, "lab-01.school\n"), (10, "root\n")] {
            system.put("etc/flashmob/terminal.json", &of(attempt));
            succeeds(&system.run(shell, "early"));
            assert_eq!(system.text("etc/hostname"), name, "{shell:?}");
        }
        // One without a number is a file all the same.
        fs::remove_dir_all(system.at("boot")).unwrap();
        let without = of(6).replace("  \"attempt\": 6,\n", "").replace("\"r\"", "\"s\"");
        system.put("etc/flashmob/terminal.json", &without.replace("\"root\"", "\"other\""));
        succeeds(&system.run(shell, "early"));
        assert_eq!(system.text("etc/hostname"), "other\n", "{shell:?}");
    }
}

#[test]
fn the_file_and_the_files_on_the_boot_filesystem_of_a_bios_machine_are_taken() {
    let system = System::new("http://127.0.0.1:9");
    system.put("boot/flashmob/terminal.json", &system.text("boot/efi/EFI/flashmob/terminal.json"));
    fs::remove_dir_all(system.at("boot/efi")).unwrap();
    system.put("boot/flashmob/after/linux-0000.bin", "x\n");
    let list = format!("linux-0000.bin {} 0600 etc/x\n", sha256("x\n"));
    system.put("boot/flashmob/after/files.txt", &list);
    let early = |of_boot: &str| {
        let mut command = system.command(&["dash"], "early");
        succeeds(&command.env("OF_BOOT", of_boot).output().unwrap());
        [system.text("etc/hostname"), system.text("etc/x")]
    };
    assert_eq!(early("/dev/sdb1"), ["golden\n", ""], "that is a stick");
    assert_eq!(early("/dev/sda3"), ["lab-01.school\n", "x\n"]);
    assert!(!system.at("boot/flashmob/after").exists());
}

#[test]
fn a_system_that_lies_on_a_stick_has_its_file_there() {
    let system = System::new("http://127.0.0.1:9");
    let mut command = system.command(&["dash"], "early");
    succeeds(&command.env("OF_ROOT", "/dev/sdb2").env("ESP", "/dev/sdb1").output().unwrap());
    assert_eq!(system.text("etc/hostname"), "lab-01.school\n");
}

#[test]
fn a_script_that_fails_runs_again_at_the_next_start_and_the_others_do_not() {
    let (url, heard) = server(&[204]);
    let system = System::new(&url);
    system.script("10-once", "echo once >>\"$FLASHMOB_ROOT/said\"");
    system.script("20-join", "[ -e \"$FLASHMOB_ROOT/ready\" ]");
    system.script("30-after", "echo after >>\"$FLASHMOB_ROOT/said\"");
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
    succeeds(&system.command(&["/bin/sh"], "late").env("PATH", system.tools.path()).output().unwrap());
    let heard = heard.lock().unwrap();
    assert!(heard.len() == 2 && heard[1].contains("\"ticket\":\"7-abc\""), "{heard:?}");
}

#[test]
fn a_name_that_is_none_is_left_out() {
    let system = System::new("http://127.0.0.1:9");
    let file = system.text("boot/efi/EFI/flashmob/terminal.json").replace("lab-01.school", "a$(reboot)");
    system.put("boot/efi/EFI/flashmob/terminal.json", &file);
    assert_eq!(system.run(&["sh"], "early").status.code(), Some(1));
    assert_eq!(system.text("etc/hostname"), "golden\n");
}

#[test]
fn the_program_writes_a_package_that_debian_takes_and_files_for_windows() {
    let folder = tempfile::tempdir().unwrap();
    let helper = |folder: &Path| {
        Command::new(env!("CARGO_BIN_EXE_flashmob")).arg("helper").arg(folder).output().unwrap()
    };
    let said = succeeds(&helper(folder.path()));
    assert_eq!(helper(folder.path()).status.code(), Some(3), "nothing is written over");
    if said.contains("no dpkg-deb") {
        eprintln!("SKIPPED: there is no dpkg-deb");
        return;
    }
    let package = folder.path().join("flashmob-helper.deb");
    let list = Command::new("dpkg-deb").arg("--contents").arg(&package).output().unwrap();
    let list = succeeds(&list);
    for line in [
        "-rwxr-xr-x root/root",
        "./usr/lib/flashmob/first-start",
        "flashmob-booted.service",
        "first-start.d/",
    ] {
        assert!(list.contains(line), "{list}");
    }
    let field = Command::new("dpkg-deb").arg("--field").arg(&package).arg("Version").output().unwrap();
    assert_eq!(succeeds(&field).trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn windows_finds_its_helper_where_it_looks_and_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let written = Command::new(env!("CARGO_BIN_EXE_flashmob")).arg("helper").arg(folder.path()).output();
    succeeds(&written.unwrap());
    let windows = folder.path().join("windows");
    let text = |file: &str| fs::read_to_string(windows.join(file)).unwrap();
    let script = text("flashmob-first-start.ps1");
    assert!(script.contains("Get-Partition -DiskNumber $windows.DiskNumber"), "only the ESP of its own disk");
    assert!(!script.contains("mountvol"), "mountvol /S takes the disk that the loader came from");
    for file in ["flashmob-first-start.ps1", "SetupComplete.cmd", "unattend-snippet.xml"] {
        assert!(text(file).is_ascii(), "Windows PowerShell reads {file} in the machine's own code page");
        assert_eq!(text(file).matches('\n').count(), text(file).matches("\r\n").count(), "{file}");
    }
    // Windows runs %WINDIR%\Setup\Scripts\SetupComplete.cmd; docs/identity.md puts the script beside it.
    let script = r"\Setup\Scripts\flashmob-first-start.ps1";
    assert!(text("SetupComplete.cmd").contains(&format!("\"%WINDIR%{script}\" -Register")));
    // The snippet in an answer file, as an XML parser reads it.
    let answers = "<unattend xmlns=\"urn:schemas-microsoft-com:unattend\">SNIPPET</unattend>";
    let answers = answers.replace("SNIPPET", &text("unattend-snippet.xml"));
    let look = "import sys, xml.etree.ElementTree as tree\n\
                of = tree.fromstring(sys.argv[1])\n\
                name = '{urn:schemas-microsoft-com:unattend}'\n\
                settings = of.find(name + 'settings')\n\
                component = settings.find(name + 'component')\n\
                command = component.find(name + 'RunSynchronous/' + name + 'RunSynchronousCommand')\n\
                action = '{http://schemas.microsoft.com/WMIConfig/2002/State}action'\n\
                print(settings.get('pass'), component.get('name'), component.get('processorArchitecture'))\n\
                print(command.get(action), command.find(name + 'Order').text)\n\
                print(command.find(name + 'Path').text)";
    let said = succeeds(&Command::new("/usr/bin/python3").args(["-c", look, &answers]).output().unwrap());
    let [settings, command, path] = &said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert_eq!([*settings, *command], ["specialize Microsoft-Windows-Deployment amd64", "add 1"]);
    assert!(path.ends_with(&format!("-File C:\\Windows{script} -Register")), "{path}");
    assert!(path.len() <= 259, "Windows cuts longer commands");
}

#[test]
fn windows_has_its_name_before_that_is_remembered_and_before_any_script_runs() {
    let script = SCRIPT.replace("linux/first-start", "windows/flashmob-first-start.ps1");
    let script = fs::read_to_string(script).unwrap();
    let one = |text: &str| {
        assert_eq!(script.matches(text).count(), 1, "{text}");
        script.find(text).unwrap()
    };
    let rename = one("Rename-Computer");
    assert!(one("-notin $env:COMPUTERNAME") < rename && one("(Add-RenameTry $own.ticket) -gt 3") < rename);
    assert!(rename < one("Set-Done 'named'") && one("Set-Done 'named'") < one("& powershell.exe"));
    // A function's value is all that its commands say.
    let functions = script.split("\nfunction ").skip(1).map(|rest| rest.split("\n}\n").next().unwrap());
    for line in functions.flat_map(str::lines).filter(|line| line.contains("& ") && line.contains(".exe")) {
        assert!(line.contains("| Out-Null") || line.contains("| Out-Host"), "{line}");
    }
    assert!(script.contains("if (-not $own.ticket -or"), "something that is no file is not obeyed");
}

#[test]
fn the_shell_scripts_have_no_fault_that_shellcheck_knows() {
    let folder = Path::new(SCRIPT).parent().unwrap();
    let files = ["first-start", "DEBIAN/postinst", "DEBIAN/prerm"].map(|file| folder.join(file));
    match Command::new("shellcheck").args(files).output() {
        Err(_) => eprintln!("SKIPPED: there is no shellcheck"),
        Ok(output) => drop(succeeds(&output)),
    }
}
