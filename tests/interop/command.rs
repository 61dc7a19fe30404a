//! The program as its users call it: `make`, `seed`, `get`, their events and their exit codes.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use flashmob::event::{Class, Event};
use flashmob::tracker::Event as Announced;
use flashmob_testkit::child::{self, Guarded};
use flashmob_testkit::swarm::{payload, torrent, within, write_torrent};
use flashmob_testkit::tracker::TestTracker;

const PIECE: usize = 64 * 1024;

fn flashmob() -> Command {
    let mut command = child::command(None, env!("CARGO_BIN_EXE_flashmob"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, which must come by itself.
pub(crate) async fn run(command: &mut Command) -> (i32, Vec<Event>, String) {
    let mut child = Guarded::start(command);
    let mut events = Vec::new();
    let code = child.exit_code(60).await;
    let Output { stdout, stderr, .. } = child.finish(Duration::from_secs(10)).unwrap();
    for line in String::from_utf8(stdout).unwrap().lines() {
        events.push(serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")));
    }
    (code, events, String::from_utf8_lossy(&stderr).into_owned())
}

/// `flashmob seed` with a free port and discarded output.
pub(crate) fn seed_command(torrent: &Path, source: &Path) -> Command {
    let mut command = flashmob();
    command.arg("seed").arg(torrent).arg(source).args(["--listen", "127.0.0.1:0", "--json"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The same, and it is listened to.
pub(crate) fn seed_loud(torrent: &Path, source: &Path) -> Command {
    let mut command = seed_command(torrent, source);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it until the value is dropped.
pub(crate) fn seed(torrent: &Path, source: &Path) -> Guarded {
    Guarded::start(&mut seed_command(torrent, source))
}

/// `flashmob get` with a free port.
pub(crate) fn get(torrent: &Path, target: &Path) -> Command {
    let mut command = flashmob();
    command.arg("get").arg(torrent).arg(target).args(["--listen", "127.0.0.1:0", "--json"]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn make_seed_and_get_carry_a_file_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let bytes = payload(30 * PIECE + 5, 21);
    std::fs::write(at("source"), &bytes).unwrap();
    let expected = torrent("source", &bytes, PIECE, Vec::new());
    let mut command = flashmob();
    command.arg("make").arg(at("source")).arg(at("t.torrent")).args(["--piece-length", "64KiB", "--private"]);
    let (code, _, err) = run(&mut command).await;
    assert_eq!(code, 0, "{err}");
    let made = flashmob::metainfo::Metainfo::parse(&std::fs::read(at("t.torrent")).unwrap()).unwrap();
    assert_eq!(made.info_hash, expected.info_hash);
    let mut tracker = TestTracker::start(made.info_hash);
    write_torrent(&at("t.torrent"), &made, &tracker.url());
    let mut seeder = seed(&at("t.torrent"), &at("source"));
    within(20, tracker.wait_for(Announced::Started, 1)).await;
    let (code, events, err) = run(&mut get(&at("t.torrent"), &at("target"))).await;
    assert_eq!(code, 0, "{err}");
    assert!(std::fs::read(at("target")).unwrap() == bytes);
    assert!(matches!(events.first(), Some(Event::Progress(_))));
    let complete =
        |event: &Event| matches!(event, Event::Complete { bytes: all, .. } if *all == bytes.len() as u64);
    assert!(events.iter().any(complete), "{events:?}");
    seeder.terminate();
    assert_eq!(seeder.exit_code(10).await, 0);
    within(10, tracker.wait_for(Announced::Stopped, 2)).await;
    assert_eq!(tracker.count(Announced::Stopped), 2, "both said good-bye");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_with_its_class() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let bytes = payload(3 * PIECE, 22);
    let meta = torrent("source", &bytes, PIECE, Vec::new());
    write_torrent(&at("good"), &meta, "http://127.0.0.1:9/announce");
    let mut damaged = std::fs::read(at("good")).unwrap();
    damaged.truncate(100);
    std::fs::write(at("damaged"), damaged).unwrap();
    std::fs::write(at("small"), b"precious").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut port_taken = flashmob();
    port_taken.arg("get").arg(at("good")).arg(at("target")).arg("--json").arg("--listen");
    port_taken.arg(taken.local_addr().unwrap().to_string());
    let mut seed_missing = flashmob();
    seed_missing.arg("seed").arg(at("good")).arg(at("nowhere")).arg("--json");
    let cases = [
        (get(&at("missing"), &at("target")), Class::Usage, "missing"),
        (get(&at("damaged"), &at("target")), Class::Usage, "damaged"),
        (get(&at("good"), &at("small")), Class::Refused, "small"),
        (get(&at("good"), &at("no/such/target")), Class::Usage, "no/such/target"),
        (port_taken, Class::Usage, "listen"),
        (seed_missing, Class::Usage, "nowhere"),
    ];
    for (mut command, class, word) in cases {
        let (code, events, err) = run(&mut command).await;
        assert_eq!(code, i32::from(class.exit_code()), "{err}");
        assert!(err.contains(word), "{err}");
        assert!(matches!(events.last(), Some(Event::Error(failure)) if failure.class == class), "{events:?}");
    }
    assert_eq!(std::fs::read(at("small")).unwrap(), b"precious");
}

/// A small filesystem; unmounted with the value.
struct SmallDisk<'a>(&'a Path);

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_with_the_disks_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("small")).unwrap();
    let small = at("small");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "none"]).arg(&small).status();
    assert!(mounted.is_ok_and(|status| status.success()), "mounting a tmpfs needs root");
    let _disk = SmallDisk(&small);
    let bytes = payload(30 * PIECE, 23);
    std::fs::write(at("source"), &bytes).unwrap();
    let meta = torrent("source", &bytes, PIECE, Vec::new());
    let mut tracker = TestTracker::start(meta.info_hash);
    write_torrent(&at("t.torrent"), &meta, &tracker.url());
    let _seeder = seed(&at("t.torrent"), &at("source"));
    within(20, tracker.wait_for(Announced::Started, 1)).await;
    let (code, events, err) = run(&mut get(&at("t.torrent"), &small.join("target"))).await;
    assert_eq!(code, i32::from(Class::Disk.exit_code()), "{err}");
    assert!(err.contains("No space left"), "{err}");
    assert!(matches!(events.last(), Some(Event::Error(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_get_cleanly_and_it_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let bytes = payload(3 * PIECE, 24);
    let meta = torrent("source", &bytes, PIECE, Vec::new());
    let mut tracker = TestTracker::start(meta.info_hash);
    write_torrent(&at("t.torrent"), &meta, &tracker.url());
    let mut command = get(&at("t.torrent"), &at("target"));
    let mut waiting = Guarded::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    within(20, tracker.wait_for(Announced::Started, 1)).await;
    waiting.terminate();
    assert_eq!(waiting.exit_code(10).await, i32::from(Class::Retry.exit_code()));
    within(10, tracker.wait_for(Announced::Stopped, 1)).await;
    assert_eq!(tracker.count(Announced::Stopped), 1);
    std::fs::write(at("target"), &bytes).unwrap();
    let (code, events, err) = run(&mut get(&at("t.torrent"), &at("target"))).await;
    assert_eq!(code, 0, "nothing is missing, so no peer is needed: {err}");
    assert!(matches!(events.last(), Some(Event::Complete { .. })), "{events:?}");
}
