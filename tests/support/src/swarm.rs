//! Shared by the tests: payloads, torrents, sessions, children that never outlive their test, deadlines.

use std::future::Future;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use flashmob::io::hash::sha1;
use flashmob::io::torrent::{Have, Session, SessionConfig, Swarm, TorrentSpec};
use flashmob::metainfo::{FileEntry, Metainfo, MetainfoBuilder, Pieces};
use flashmob::storage::Storage;

/// Ends a test that hangs.
pub async fn within<T>(seconds: u64, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), what).await.expect("it ends before the deadline")
}

/// Bytes that look random and are the same each time.
pub fn payload(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A torrent of `bytes`, cut into `files` (empty: a single file called `name`).
pub fn torrent(name: &str, bytes: &[u8], piece_length: usize, files: Vec<FileEntry>) -> Arc<Metainfo> {
    let whole = FileEntry::data(Vec::new(), bytes.len() as u64);
    let builder = MetainfoBuilder {
        name: name.into(),
        piece_length: piece_length as u32,
        files: if files.is_empty() { vec![whole] } else { files },
        pieces: Pieces::Hashed(bytes.chunks(piece_length).map(sha1).collect()),
        private: true,
    };
    Arc::new(builder.build().expect("a torrent"))
}

/// Writes a torrent with one tracker to a file.
pub fn write_torrent(path: &Path, meta: &Metainfo, tracker: &str) {
    std::fs::write(path, meta.clone().with_trackers(vec![tracker.into()]).to_bytes())
        .expect("a torrent file");
}

/// A session on a free port of the loopback interface.
pub async fn session() -> Session {
    Session::start(SessionConfig::new("127.0.0.1:0".parse().unwrap())).await.expect("a free port")
}

/// Adds a torrent to a session.
pub fn add(
    session: &Session,
    meta: &Arc<Metainfo>,
    storage: Arc<dyn Storage>,
    have: Have,
    tracker: Option<String>,
) -> Swarm {
    let mut spec = TorrentSpec::new(Arc::clone(meta), storage, have, 4 << 20);
    spec.trackers.extend(tracker);
    session.add(spec).expect("it fits")
}

/// A child process that is ended with the test, even if it panics.
pub struct Guarded(pub Child);

impl Guarded {
    /// Starts a program of a Debian package; without it the test fails and says which package is missing.
    pub fn start(command: &mut Command, package: &str) -> Self {
        match command.spawn() {
            Ok(child) => Guarded(child),
            Err(error) => panic!(
                "{} cannot be started ({error}): install the Debian package {package}",
                command.get_program().to_string_lossy()
            ),
        }
    }

    /// Waits for the child to end by itself, within a deadline.
    pub async fn exit_code(&mut self, seconds: u64) -> i32 {
        within(seconds, async {
            loop {
                if let Some(status) = self.0.try_wait().expect("a child of ours") {
                    return status.code().unwrap_or(-1);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// Asks it to end, as a service manager would.
    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A loop device over a new file; detached with the value.
pub struct LoopDevice {
    pub path: std::path::PathBuf,
}

impl LoopDevice {
    /// Needs root.
    pub fn new(file: &Path, length: u64) -> Self {
        std::fs::File::create(file).and_then(|file| file.set_len(length)).expect("a file");
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().expect("losetup");
        assert!(output.status.success(), "losetup (needs root): {}", String::from_utf8_lossy(&output.stderr));
        LoopDevice { path: String::from_utf8(output.stdout).unwrap().trim().into() }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}
