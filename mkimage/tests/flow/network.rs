//! Disks that an NBD server lends: the same image as of the disk itself, also over a connection that is cut.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flashmob_testkit::child::{Guarded, command, of_package};
use flashmob_testkit::command::write_program;
use flashmob_testkit::net::free_port;

use super::{SMALL, capture_as, contents, disks, fail, mkimage, succeed};

/// A server that lends a disk under the name `golden disk`.
struct Lender {
    port: u16,
    process: Guarded,
}

impl Lender {
    fn qemu(disk: &Path) -> Self {
        let program = of_package("qemu-nbd", "qemu-utils");
        Self::start(program, |arguments, port| {
            arguments.args([
                "--read-only",
                "--persistent",
                "--format",
                "raw",
                "--export-name",
                "golden disk",
            ]);
            // One client at a time.
            arguments.args(["--shared", "1", "--bind", "127.0.0.1", "--port", port]).arg(disk);
        })
    }

    fn nbdkit(disk: &Path, more: &[&str]) -> Self {
        let program = of_package("nbdkit", "nbdkit");
        Self::start(program, |arguments, port| {
            arguments.args(["--foreground", "--readonly", "--exportname", "golden disk"]);
            arguments.args(["--ipaddr", "127.0.0.1", "--port", port]);
            // Parameters of filters come behind the plugin.
            let (parameters, options): (Vec<&str>, _) = more.iter().partition(|one| one.contains('='));
            arguments.args(options).arg("file").arg(disk).args(parameters);
        })
    }

    fn start(program: &str, arguments: impl Fn(&mut std::process::Command, &str)) -> Self {
        let port = free_port();
        let mut lender = command(None, program);
        arguments(&mut lender, &port.to_string());
        let process = Guarded::start(lender.stdout(Stdio::null()));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{program} does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Lender { port, process }
    }
}

fn url(port: u16) -> String {
    format!("nbd://127.0.0.1:{port}/golden%20disk")
}

/// Stands between a client and a lender, and cuts connections.
struct Cutter {
    port: u16,
    /// Bytes that came from the lender, over all connections.
    passed: Arc<AtomicU64>,
}

impl Cutter {
    /// Cuts each connection once as many bytes passed in all as `cuts` says, one after another.
    fn before(lender: u16, mut cuts: Vec<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let passed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&passed);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let until = if cuts.is_empty() { u64::MAX } else { cuts.remove(0) };
                let ends = (
                    client.expect("a client"),
                    TcpStream::connect(("127.0.0.1", lender)).expect("the lender"),
                );
                let _ = pass(ends, &count, until);
            }
        });
        Cutter { port, passed }
    }
}

fn pass((mut client, mut lender): (TcpStream, TcpStream), count: &AtomicU64, until: u64) -> io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, lender.try_clone()?);
    let requests = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let mut bytes = vec![0; 16 << 10];
    while count.load(Ordering::Relaxed) < until {
        let read = lender.read(&mut bytes)?;
        if read == 0 {
            break;
        }
        client.write_all(&bytes[..read])?;
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
    client.shutdown(Shutdown::Both)?;
    lender.shutdown(Shutdown::Both)?;
    requests.join().map_err(|_| io::Error::other("crashed"))?
}

/// An image as its files, and its manifest without the time.
pub(crate) fn image(folder: &Path) -> (std::collections::BTreeMap<String, Vec<u8>>, serde_json::Value) {
    let mut files = contents(folder);
    let manifest = files.remove("manifest.json").expect("a manifest");
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert!(manifest["created"].take().is_string());
    (files, manifest)
}

fn captured(folder: &Path, repository: &str, source: impl AsRef<std::ffi::OsStr>) -> (PathBuf, String) {
    let repository = folder.join(repository);
    let output = capture_as("lab@1", source, &repository, &SMALL);
    succeed(&output);
    (repository.join("lab/1"), String::from_utf8_lossy(&output.stderr).into())
}

#[test]
fn a_disk_that_any_server_lends_gives_the_image_of_the_disk_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    for disk in [disks::gpt(folder.path()), disks::mbr(folder.path()), disks::ext4(folder.path())] {
        let name = disk.file_name().expect("a name").to_string_lossy().into_owned();
        let local = captured(folder.path(), &format!("{name}-local"), &disk).0;
        let lenders = [
            Lender::qemu(&disk),
            Lender::nbdkit(&disk, &[]),
            // Knows neither GO nor sizes of blocks.
            Lender::nbdkit(&disk, &["--mask-handshake", "0"]),
            // Takes whole sectors only, and few at once.
            Lender::nbdkit(
                &disk,
                &[
                    "--filter",
                    "blocksize-policy",
                    "blocksize-minimum=4096",
                    "blocksize-maximum=12288",
                    "blocksize-error-policy=error",
                ],
            ),
        ];
        for (i, lender) in lenders.iter().enumerate() {
            let lent = captured(folder.path(), &format!("{name}-{i}"), url(lender.port)).0;
            assert!(image(&lent) == image(&local), "{name}, lender {i}");
        }
    }
}

#[test]
fn a_capture_goes_on_where_its_connection_was_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let local = captured(folder.path(), "local", &disk).0;
    let lender = Lender::qemu(&disk);
    let whole = Cutter::before(lender.port, vec![]);
    captured(folder.path(), "whole", url(whole.port));
    let bytes = whole.passed.load(Ordering::Relaxed);

    let cutter = Cutter::before(lender.port, vec![0, 90_000, bytes / 2, bytes / 2, bytes * 3 / 4]);
    // The first cut meets the handshake, which is not tried again: the address may be wrong.
    fail(&capture_as("lab@1", url(cutter.port), folder.path().join("never"), &SMALL), 1);
    let (cut, said) = captured(folder.path(), "cut", url(cutter.port));
    assert!(image(&cut) == image(&local));
    // One cut falls into the handshake of a new connection.
    assert_eq!(said.matches("is lost").count(), 3, "{said}");
    assert_eq!(said.matches("the capture goes on").count(), 3, "{said}");
}

#[test]
fn a_lender_that_is_gone_or_lends_another_disk_ends_the_capture_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let other = folder.path().join("other.img");
    fs::write(&other, disks::noise(3, 1 << 20)).expect("written");
    let (first, second) = (Lender::qemu(&disk), Lender::qemu(&other));
    // The first connection goes to one disk and the second to another.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (one, two) = (first.port, second.port);
    std::thread::spawn(move || {
        for (lender, until) in [(one, 300_000), (two, u64::MAX)] {
            let client = listener.accept().expect("a client").0;
            let lender = TcpStream::connect(("127.0.0.1", lender)).expect("the lender");
            let _ = pass((client, lender), &AtomicU64::new(0), until);
        }
    });
    let repository = folder.path().join("repository");
    // That is no bad sector.
    let said = fail(&capture_as("lab@1", url(port), &repository, &[&SMALL[..], &[&"--rescue"]].concat()), 1);
    assert!(said.contains("lends another disk now"), "{said}");
    let left = fs::read_dir(repository.join("lab")).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 0, "something of it is left");
}

#[test]
fn addresses_that_lead_nowhere_are_told_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::ext4(folder.path());
    let lender =
        Lender::nbdkit(&disk, &["--filter", "exportname", "exportname-strict=true", "exportname=real"]);
    let r = folder.path().join("r");
    let said = fail(&capture_as("lab", url(lender.port), &r, &[]), 3);
    assert!(said.contains("no export of this name") || said.contains("refuses"), "{said}");
    let said = fail(&capture_as("lab", "nbd://127.0.0.1:1/x", &r, &[]), 1);
    assert!(said.contains("Connection refused") && said.contains("firewall"), "{said}");
    let said = fail(&capture_as("lab", "nbds://127.0.0.1/x", &r, &[]), 2);
    assert!(said.contains("only nbd://"), "{said}");
    let said = fail(&capture_as("lab", url(lender.port), &r, &[&"--payload", &"reference"]), 2);
    assert!(said.contains("cannot stay on a disk on the network"), "{said}");
    let said = fail(&capture_as("lab", &disk, &r, &[&"--sector-size", &"100"]), 2);
    assert!(said.contains("512 or 4096"), "{said}");
    let said = fail(&capture_as("lab", url(lender.port), &r, &[&"--format", &"qcow2"]), 2);
    assert!(said.contains("Leave out --format"), "{said}");
}

#[test]
fn a_lent_disk_that_cannot_be_read_somewhere_is_refused_or_rescued() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk.img");
    fs::write(&disk, disks::noise(6, 1 << 20).repeat(4)).expect("a disk");
    // Requests from 2 MiB to 2 MiB + 4096 fail.
    let script = "case $1 in get_size) stat -Lc %s $DISK;; \
                  pread) if [ $4 -lt 2101248 ] && [ $(($4 + $3)) -gt 2097152 ]; \
                  then echo EIO bad >&2; exit 1; fi; \
                  dd if=$DISK skip=$4 count=$3 iflag=skip_bytes,count_bytes status=none;; *) exit 2;; esac";
    let file = folder.path().join("plugin");
    write_program(&file, &format!("#!/bin/sh\nDISK={}\n{script}\n", disk.display()));
    let lender = Lender::start(of_package("nbdkit", "nbdkit"), |arguments, port| {
        arguments.args([
            "--foreground",
            "--readonly",
            "--exportname",
            "golden disk",
            "--ipaddr",
            "127.0.0.1",
        ]);
        arguments.args(["--port", port, "sh"]).arg(&file);
    });
    let r = folder.path().join("r");
    let said = fail(&capture_as("lab@1", url(lender.port), &r, &SMALL), 5);
    assert!(said.contains("--rescue"), "{said}");
    let rescue = [&SMALL[..], &[&"--rescue"]].concat();
    let said = succeed(&capture_as("lab@1", url(lender.port), &r, &rescue));
    assert!(said.contains("LOST: 4096 bytes at byte 2097152"), "{said}");
}

#[test]
fn a_version_of_a_lent_disk_stores_only_what_changed_and_one_that_is_dirty_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(folder.path());
    let (local, lent) = (folder.path().join("local"), folder.path().join("lent"));
    let parent = [&SMALL[..], &[&"--parent", &"1"]].concat();
    let both = |image: &str, more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut lender = Lender::qemu(&disk);
        let said = [capture_as(image, &disk, &local, more), capture_as(image, url(lender.port), &lent, more)];
        assert!(lender.process.is_running());
        said
    };
    both("lab@1", &SMALL).iter().for_each(|output| drop(succeed(output)));
    let file = fs::File::options().write(true).open(&disk).expect("the disk");
    // In the swap area's partition, which has no filesystem here.
    std::os::unix::fs::FileExt::write_all_at(&file, &disks::noise(77, 5000), 45056 * 512 + 70_000)
        .expect("written");
    let said = both("lab@2", &parent).map(|output| succeed(&output));
    assert!(image(&local.join("lab/2")) == image(&lent.join("lab/2")));
    assert!(said[1].contains("came over the network"), "{}", said[1]);
    succeed(&mkimage(&[&"verify", &lent.join("lab/2")]));
    let bare = Lender::qemu(&disks::ext4(folder.path()));
    let sectors = [&SMALL[..], &[&"--sector-size", &"4096"]].concat();
    succeed(&capture_as("bare@1", url(bare.port), &lent, &sectors));
    assert_eq!(image(&lent.join("bare/1")).1["disk"]["sector_size"], 4096);
    // The ext4 in partition 3 says that it is damaged.
    std::os::unix::fs::FileExt::write_all_at(&file, &[3, 0], 12288 * 512 + 1024 + 58).expect("written");
    for said in both("lab@3", &SMALL) {
        let said = fail(&said, 3);
        assert!(said.contains("damaged"), "{said}");
    }
}
