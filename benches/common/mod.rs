//! Shared by the benches: clients of several makes as child processes, and their cost.
//!
//! Invariant: dropping a value ends its processes and deletes its files, even after a panic.

#![expect(clippy::panic, reason = "a bench that cannot run ends")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flashmob::metainfo::Metainfo;
use flashmob_testkit::child::{self, Guarded, of_package};

/// The program that is measured.
pub(crate) const FLASHMOB: &str = env!("CARGO_BIN_EXE_flashmob");

/// A BitTorrent client, with the options that suit a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Client {
    Flashmob,
    /// The same without checking pieces.
    FlashmobUnchecked,
    /// The same, always with compressed pieces.
    FlashmobZstd,
    /// The same, always with uncompressed pieces.
    FlashmobPlain,
    /// From the package aria2.
    Aria2,
    /// From the package python3-libtorrent.
    Libtorrent,
    /// The same with super-seeding.
    LibtorrentSuper,
    /// From the package transmission-daemon.
    Transmission,
    /// `cargo install rqbit`: on the path, or where `RQBIT` says.
    Rqbit,
}

/// A client's address, folder and input.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Network namespace; `None`: this one.
    pub namespace: Option<String>,
    pub listen: SocketAddr,
    /// The client's folder; the payload is `payload` in it.
    pub folder: PathBuf,
    /// The torrent, which names the tracker.
    pub torrent: PathBuf,
    /// Another place for the payload: a block device.
    pub device: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct Running {
    child: Guarded,
    done: PathBuf,
    /// When it said that it has everything.
    said: Arc<Mutex<Option<Instant>>>,
}

/// Resources that a process used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// Seconds of processor time.
    pub cpu: f64,
    /// Peak of resident memory, MiB.
    pub memory: f64,
}

impl Client {
    /// Starts it as seeder or as leecher.
    pub(crate) fn start(self, place: &Place, seeds: bool) -> Running {
        let done = place.folder.with_extension("done");
        let said = Arc::new(Mutex::new(None));
        let mut command = self.command(place, seeds, &done);
        let word = match self {
            Client::Rqbit => Some("torrent finished downloading"),
            _ => self.is_ours().then_some("\"event\":\"complete\""),
        };
        let output = || if word.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = Guarded::start(command.stdout(output()).stderr(output()));
        let outputs = [
            child.take_stdout().map(|out| Box::new(out) as Box<dyn Read + Send>),
            child.take_stderr().map(|out| Box::new(out) as Box<dyn Read + Send>),
        ];
        for out in outputs.into_iter().flatten() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if word.is_some_and(|word| line.contains(word)) {
                        said.lock().expect("lock").get_or_insert_with(Instant::now);
                    }
                }
            });
        }
        Running { child, done, said }
    }

    fn is_ours(self) -> bool {
        use Client::{Flashmob, FlashmobPlain, FlashmobUnchecked, FlashmobZstd};
        matches!(self, Flashmob | FlashmobUnchecked | FlashmobZstd | FlashmobPlain)
    }

    fn command(self, place: &Place, seeds: bool, done: &Path) -> Command {
        let (folder, torrent) = (&place.folder, &place.torrent);
        let payload = place.device.clone().unwrap_or_else(|| folder.join("payload"));
        let port = place.listen.port();
        let in_place = |program: &str| child::command(place.namespace.as_deref(), program);
        match self {
            Client::Flashmob | Client::FlashmobUnchecked | Client::FlashmobZstd | Client::FlashmobPlain => {
                let mut command = in_place(FLASHMOB);
                command.arg(if seeds { "seed" } else { "get" }).arg(torrent).arg(payload);
                command.args(["--json", "--listen", &place.listen.to_string()]);
                if !seeds {
                    command.args(["--seed-for", "forever"]);
                }
                match self {
                    Client::FlashmobUnchecked if !seeds => command.arg("--no-verify"),
                    Client::FlashmobZstd => command.args(["--compress", "on"]),
                    Client::FlashmobPlain => command.args(["--compress", "off"]),
                    _ => &mut command,
                };
                command
            }
            Client::Aria2 => {
                let mut command = in_place(of_package("aria2c", "aria2"));
                let hook = hook(folder, done);
                command.args(["--no-conf", "--seed-ratio=0", "--enable-dht=false", "--enable-dht6=false"]);
                command.args(["--bt-enable-lpd=false", "--enable-peer-exchange=false", "--disable-ipv6"]);
                command.args(["--bt-max-peers=0", "--bt-request-peer-speed-limit=1000M", "--disk-cache=64M"]);
                command.args(["--file-allocation=none", "--bt-tracker-interval=5", "--summary-interval=0"]);
                command.arg(format!("--listen-port={port}")).arg(format!("--dir={}", folder.display()));
                command.arg(if seeds { "--check-integrity=true".into() } else { hook_option(&hook) });
                command.arg(torrent);
                command
            }
            Client::Libtorrent | Client::LibtorrentSuper => {
                let mut command = child::libtorrent(place.namespace.as_deref());
                command.arg("--fast").arg("--done").arg(done);
                let superseeds = seeds && self == Client::LibtorrentSuper;
                command.args([if superseeds {
                    "super"
                } else if seeds {
                    "seed"
                } else {
                    "leech"
                }]);
                command.arg(place.listen.to_string()).arg(torrent).arg(folder);
                command
            }
            Client::Transmission => {
                let settings = folder.with_extension("settings");
                fs::create_dir_all(&settings).expect("a folder");
                let text = transmission_settings(folder, port, &hook(folder, done));
                fs::write(settings.join("settings.json"), text).expect("a file");
                let mut command = in_place("sh");
                let add =
                    format!("transmission-remote 127.0.0.1:{} --add {}", port + 2000, torrent.display());
                // The daemon has no option to begin with a torrent.
                let wait = format!("until {add}; do sleep 0.1; done >/dev/null 2>&1 &");
                let daemon = of_package("transmission-daemon", "transmission-daemon");
                let daemon = format!("exec {daemon} -f -g {}", settings.display());
                command.args(["-c", &format!("{wait} {daemon}")]);
                command
            }
            Client::Rqbit => {
                let rqbit = std::env::var_os("RQBIT").unwrap_or("rqbit".into());
                let mut command = child::command(place.namespace.as_deref(), rqbit);
                command.env("NO_COLOR", "1").args([
                    "-v",
                    "info",
                    "-i",
                    "1s",
                    "--disable-dht",
                    "--disable-lsd",
                ]);
                command.args(["--disable-upnp-port-forward", "--ipv4-only", "--peer-limit", "500"]);
                let (ip, port) = (place.listen.ip().to_string(), port.to_string());
                command.args(["--listen-ip", &ip, "--listen-port", &port, "--announce-port", &port]);
                command
                    .args(["download", "--overwrite", "--disable-http-api", "-o"])
                    .arg(folder)
                    .arg(torrent);
                command
            }
        }
    }
}

/// A script that makes the file `done`.
fn hook(folder: &Path, done: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.with_extension("hook");
    fs::write(&path, format!("#!/bin/sh\n: > '{}'\n", done.display())).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    path
}

fn hook_option(hook: &Path) -> String {
    format!("--on-bt-download-complete={}", hook.display())
}

fn transmission_settings(folder: &Path, port: u16, hook: &Path) -> String {
    serde_json::json!({
        "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false,
        "port-forwarding-enabled": false, "encryption": 0, "peer-port": port, "rpc-port": port + 2000,
        "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false, "preallocation": 0,
        "peer-limit-global": 500, "peer-limit-per-torrent": 500, "upload-slots-per-torrent": 64,
        "rename-partial-files": false, "download-dir": folder, "script-torrent-done-enabled": true,
        "script-torrent-done-filename": hook, "start-added-torrents": true,
    })
    .to_string()
}

impl Running {
    /// When it had everything, if it has.
    pub(crate) fn finished(&self) -> Option<Instant> {
        let mut said = self.said.lock().expect("lock");
        if said.is_none() && self.done.exists() {
            *said = Some(Instant::now());
        }
        *said
    }

    /// The resources used so far.
    pub(crate) fn used(&self) -> Used {
        let of =
            |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default();
        let stat = of("stat");
        let fields: Vec<f64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse().ok())
            .collect();
        let peak = of("status").lines().find_map(|line| {
            line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()
        });
        Used { cpu: fields.iter().sum::<f64>() / 100.0, memory: peak.unwrap_or_default() / 1024.0 }
    }

    /// False if it has ended by itself.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.is_running()
    }

    /// Waits until it has used no processor for a while.
    pub(crate) fn settle(&self) {
        let mut before = -1.0;
        loop {
            std::thread::sleep(Duration::from_millis(700));
            let used = self.used().cpu;
            if used <= before + 0.02 {
                return;
            }
            before = used;
        }
    }
}

/// The first bytes of `source` in `path`, and a torrent of them beside it that names the tracker.
pub(crate) fn payload(path: &Path, source: &Path, bytes: u64, piece: u64, tracker: &str) -> PathBuf {
    let open = fs::File::open(source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
    let mut content = open.take(bytes);
    let mut file = fs::File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let copied = std::io::copy(&mut content, &mut file).expect("room for the payload");
    assert!(copied == bytes, "{} has only {copied} bytes", source.display());
    let torrent = path.with_extension("torrent");
    let made = Command::new(FLASHMOB)
        .arg("make")
        .args([path, &torrent])
        .args(["--piece-length", &piece.to_string(), "--tracker", tracker])
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "flashmob make");
    let read = Metainfo::parse(&fs::read(&torrent).expect("the torrent"));
    assert!(read.is_ok(), "the torrent can be read");
    torrent
}

/// Smallest and middle of some figures.
pub(crate) fn spread(figures: &[f64]) -> (f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted.first().copied().unwrap_or_default(), sorted.get(sorted.len() / 2).copied().unwrap_or_default())
}
