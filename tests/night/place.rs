//! A server and its network: two namespaces with a cable between them, the server's state, its restarts.
//!
//! Invariant: dropping a `Place` ends the server and removes the namespaces.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flashmob_testkit::child::{Guarded, command, tail, wait_until};
use flashmob_testkit::net::{Namespaces, enter, ip};

/// The server's address on the cable.
pub(crate) const SERVER: &str = "10.79.0.1";
/// A router on the way to the terminals.
const ROUTER: &str = "10.79.255.254";
/// Where terminals reach it.
pub(crate) const URL: &str = "http://10.79.0.1:6969";

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Place {
    /// The server's namespace, and the terminals'.
    near: String,
    pub(crate) far: String,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) program: PathBuf,
    server: Option<Guarded>,
    starts: u32,
    _namespaces: Namespaces,
}

impl Place {
    /// A server that is not started yet, with one image, and the terminals' addresses 10.79.1.1 and so on.
    pub(crate) fn new(terminals: usize, config: &str) -> Place {
        let name = format!("fmo{}n{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let (near, far) = (format!("{name}s"), format!("{name}t"));
        let mut namespaces = Namespaces::default();
        namespaces.add(&near);
        namespaces.add(&far);
        ip(&format!("-n {near} link add eth0 type veth peer name eth0 netns {far}"));
        ip(&format!("-n {near} addr add {SERVER}/16 brd + dev eth0"));
        for n in 0..terminals {
            ip(&format!("-n {far} addr add {}/16 brd + dev eth0", address(n)));
        }
        for side in [&near, &far] {
            ip(&format!("-n {side} link set lo up"));
            ip(&format!("-n {side} link set eth0 up"));
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("boot")).unwrap();
        for name in ["vmlinuz", "initramfs.img"] {
            std::fs::write(at("boot").join(name), name).unwrap();
        }
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("mkimage/tests/golden/format-1");
        copy(&golden, &at("images/golden/format-1"));
        std::fs::write(at("config.toml"), config).unwrap();
        let program = env!("CARGO_BIN_EXE_flashmob").into();
        Place { near, far, folder, program, server: None, starts: 0, _namespaces: namespaces }
    }

    /// Puts the terminals behind a router, as the server sees it. The kernel remembers the MACs of at most
    /// 1024 neighbours unless the machine is set up for more (`net.ipv4.neigh.default.gc_thresh3`), and a
    /// test must not change that.
    pub(crate) fn behind_a_router(&self, terminals: usize) {
        let (near, far) = (&self.near, &self.far);
        ip(&format!("-n {far} addr add {ROUTER}/16 brd + dev eth0"));
        for first in (0..=terminals).step_by(256) {
            let [a, b, c, _] = address(first).octets();
            ip(&format!("-n {near} route add {a}.{b}.{c}.0/24 via {ROUTER}"));
        }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the server, on the state that is there.
    pub(crate) fn start(&mut self) {
        self.starts += 1;
        let log = self.at(&format!("log-{}", self.starts));
        let mut serve = command(Some(&self.near), &self.program);
        serve.args(["serve", "--no-mdns"]);
        for (option, name) in
            [("--images", "images"), ("--boot", "boot"), ("--state", "state"), ("--config", "config.toml")]
        {
            serve.arg(option).arg(self.at(name));
        }
        let mut server = Guarded::logged(&mut serve, &log).unwrap();
        wait_until("the server starts", Duration::from_secs(60), || {
            server.check()?;
            Ok(std::fs::read_to_string(&log).unwrap_or_default().contains("flashmob serves on"))
        })
        .unwrap();
        self.server = Some(server);
    }

    /// Ends the server as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// The output of a command line on the server's machine.
    pub(crate) fn run(&self, line: &str) -> String {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("flashmob"));
        let mut program = command(Some(&self.near), &self.program);
        program.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = Guarded::start(&mut program).finish(Duration::from_secs(60)).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let log = tail(&self.at(&format!("log-{}", self.starts)));
        assert!(output.status.success(), "{line}: {text}{error}{log}");
        text
    }

    /// Imports a room with all terminals.
    pub(crate) fn import(&self, terminals: usize) {
        let rows = (0..terminals).map(|n| format!("{},pc-{n:04},1,{n}\n", mac(n)));
        let csv: String = std::iter::once("mac,label,room,seat\n".to_string()).chain(rows).collect();
        std::fs::write(self.at("room.csv"), csv).unwrap();
        self.run(&format!("flashmob terminal import {}", self.at("room.csv").display()));
    }

    /// Runs `work` where the terminals are.
    pub(crate) fn among_terminals<T: Send, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.far).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The address of a terminal.
pub(crate) fn address(n: usize) -> std::net::Ipv4Addr {
    let [.., high, low] = u32::try_from(n + 1).unwrap().to_be_bytes();
    std::net::Ipv4Addr::new(10, 79, high + 1, low)
}

/// The MAC of a terminal.
pub(crate) fn mac(n: usize) -> String {
    let [.., high, low] = u32::try_from(n).unwrap().to_be_bytes();
    format!("52:54:00:79:{high:02x}:{low:02x}")
}
