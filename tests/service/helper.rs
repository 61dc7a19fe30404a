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

/// A system that was just imaged.
struct System(tempfile::TempDir);

impl System {
    fn new(url: &str) -> Self {
        let system = System(tempfile::tempdir().unwrap());
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
        self.0.path().join(path)
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
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg(SCRIPT).arg(part);
        command.env("FLASHMOB_ROOT", self.0.path()).env("FLASHMOB_PAUSE", "0").output().unwrap()
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
    let tools = tempfile::tempdir().unwrap();
    let sync = tools.path().join("sync");
    let early = |does: &str| {
        fs::write(&sync, format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(&sync, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("sh");
        command.args([SCRIPT, "early"]).env("FLASHMOB_ROOT", system.0.path());
        let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).output().unwrap()
    };
    assert_eq!(early("exit 1").status.code(), Some(1));
    assert!(system.at(waiting).join("0000.bin").exists(), "the medium may not have the copy");
    succeeds(&early(&format!("cat \"$FLASHMOB_ROOT/{waiting}/0000.bin\" \"$FLASHMOB_ROOT/etc/x\"")));
    assert!(!system.at(waiting).exists());
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
    let tools = tempfile::tempdir().unwrap();
    let needed = ["sed", "head", "awk", "cat", "tr", "uname", "sleep", "mkdir", "cp", "wget"];
    for tool in needed {
        let path = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
        let path = path.into_iter().find(|path| path.exists()).expect(tool);
        std::os::unix::fs::symlink(path, tools.path().join(tool)).unwrap();
    }
    let mut command = Command::new("/bin/sh");
    command.args([SCRIPT, "late"]).env("PATH", tools.path());
    command.env("FLASHMOB_ROOT", system.0.path()).env("FLASHMOB_PAUSE", "0");
    succeeds(&command.output().unwrap());
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
fn the_shell_scripts_have_no_fault_that_shellcheck_knows() {
    let folder = Path::new(SCRIPT).parent().unwrap();
    let files = ["first-start", "DEBIAN/postinst", "DEBIAN/prerm"].map(|file| folder.join(file));
    match Command::new("shellcheck").args(files).output() {
        Err(_) => eprintln!("SKIPPED: there is no shellcheck"),
        Ok(output) => drop(succeeds(&output)),
    }
}
