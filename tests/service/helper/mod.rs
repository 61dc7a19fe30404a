//! The helper in the image: what it does at the first start, and that it does it once.

mod files;
mod first;
mod grow;
mod package;
mod place;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use flashmob_testkit::command::write_program;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/packaging/helper/linux/first-start");

/// The shells that may be `/bin/sh` of an imaged system, as far as this machine has them.
fn shells() -> impl Iterator<Item = &'static [&'static str]> {
    let all: [&[&str]; 3] = [&["dash"], &["busybox", "sh"], &["bash"]];
    all.into_iter().filter(|shell| {
        let there = Command::new(shell[0]).arg("-c").arg("true").output().is_ok();
        if !there {
            eprintln!("SKIPPED: there is no {}", shell[0]);
        }
        there
    })
}

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
        write_program(&self.tools.path().join(name), &format!("#!/bin/sh\n{does}\n"));
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn script(&self, name: &str, text: &str) {
        let folder = self.at("etc/flashmob/first-start.d");
        fs::create_dir_all(&folder).unwrap();
        write_program(&folder.join(name), &format!("#!/bin/sh\n{text}\n"));
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

fn sha256(text: &str) -> String {
    flashmob::digest::sha256(text.as_bytes()).0.iter().map(|byte| format!("{byte:02x}")).collect()
}
