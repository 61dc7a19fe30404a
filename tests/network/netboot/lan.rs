//! A switch with three machines: a DHCP server, flashmob's server, and a terminal.
//!
//! Invariant: dropping the `Lan` deletes everything that the test made.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flashmob_testkit::child::{Guarded, command, of_package, wait_until};
use flashmob_testkit::net::{Namespaces, enter, ip};

/// flashmob's address.
pub(super) const SERVER: &str = "10.77.0.2";
const TERMINAL: &str = "10.77.0.9";
const DEADLINE: Duration = Duration::from_secs(60);

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(super) struct Lan {
    dhcp: String,
    server: String,
    terminal: String,
    files: tempfile::TempDir,
    _namespaces: Namespaces,
}

impl Lan {
    pub(super) fn new() -> Self {
        let name = format!("fm{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let switch = format!("{name}w");
        let machines = ["d", "s", "t"].map(|one| format!("{name}{one}"));
        let mut namespaces = Namespaces::default();
        namespaces.add(&switch);
        ip(&format!("-n {switch} link add lan type bridge"));
        ip(&format!("-n {switch} link set lan up"));
        for (machine, address) in machines.iter().zip(["10.77.0.1", SERVER, TERMINAL]) {
            namespaces.add(machine);
            let port = format!("port-{}", &machine[machine.len() - 1..]);
            ip(&format!("-n {machine} link set lo up"));
            ip(&format!("-n {machine} link add eth0 type veth peer name {port} netns {switch}"));
            ip(&format!("-n {switch} link set {port} master lan up"));
            ip(&format!("-n {machine} addr add {address}/24 dev eth0"));
            ip(&format!("-n {machine} link set eth0 up"));
        }
        let [dhcp, server, terminal] = machines;
        let files = tempfile::tempdir().unwrap();
        for folder in ["images", "boot", "state"] {
            std::fs::create_dir(files.path().join(folder)).unwrap();
        }
        let lan = Lan { dhcp, server, terminal, files, _namespaces: namespaces };
        for file in ["undionly.kpxe", "snponly.efi"] {
            lan.add_boot_file(file);
        }
        lan
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(super) fn add_boot_file(&self, name: &str) {
        std::fs::write(self.path("boot").join(name), vec![7; 100_000]).unwrap();
    }

    pub(super) fn remove_boot_file(&self, name: &str) {
        std::fs::remove_file(self.path("boot").join(name)).unwrap();
    }

    /// What dnsmasq was told.
    pub(super) fn configuration(&self) -> String {
        read(&self.path("state/pxe/dnsmasq.conf"))
    }

    /// Starts the DHCP server that knows nothing of flashmob.
    pub(super) fn existing_dhcp(&self, more: &[&str]) -> Guarded {
        let mut dnsmasq = command(Some(&self.dhcp), of_package("dnsmasq", "dnsmasq-base"));
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--port=0",
                "--leasefile-ro",
                "--pid-file=",
            ])
            .args([
                "--user=root",
                "--interface=eth0",
                "--dhcp-authoritative",
                "--no-ping",
                "--log-facility=-",
            ])
            .args([
                "--dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,2m",
                "--dhcp-host=52:54:00:00:00:09,10.77.0.50",
            ])
            .args(more);
        let log = self.path("dhcp.log");
        let mut started = Guarded::logged(&mut dnsmasq, &log).unwrap();
        wait_until("the DHCP server serves", DEADLINE, || {
            started.check()?;
            Ok(read(&log).contains("started, version"))
        })
        .unwrap();
        started
    }

    fn serve_command(&self, more: &[&str]) -> std::process::Command {
        let mut serve = command(Some(&self.server), env!("CARGO_BIN_EXE_flashmob"));
        serve.args(["serve", "--no-mdns"]).args(more);
        for folder in ["images", "boot", "state"] {
            serve.arg(format!("--{folder}")).arg(self.path(folder));
        }
        serve
    }

    /// Gives the terminal's machine addresses in another network, which the server reaches through it.
    pub(super) fn add_network_behind_terminal(&self, net: &str, addresses: &[&str]) {
        let terminal = &self.terminal;
        ip(&format!("-n {terminal} link add far type bridge"));
        ip(&format!("-n {terminal} link set far up"));
        for address in addresses {
            ip(&format!("-n {terminal} addr add {address}/24 dev far"));
        }
        ip(&format!("-n {} route add {net} via {TERMINAL}", self.server));
    }

    /// Starts `flashmob serve`; when this returns it answers.
    pub(super) fn serve(&self, more: &[&str]) -> Guarded {
        let log = self.path("serve.log");
        let mut started = Guarded::logged(&mut self.serve_command(more), &log).unwrap();
        wait_until("the server serves", DEADLINE, || {
            started.check()?;
            Ok(read(&log).contains("flashmob serves on"))
        })
        .unwrap();
        started
    }

    /// What `flashmob serve` says when it does not start.
    pub(super) fn serve_refused(&self, more: &[&str]) -> String {
        let mut serve = self.serve_command(more);
        let output =
            Guarded::start(serve.stdout(Stdio::null()).stderr(Stdio::piped())).finish(DEADLINE).unwrap();
        assert_eq!(output.status.code(), Some(3), "refused");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The server's log.
    pub(super) fn log(&self) -> String {
        read(&self.path("serve.log"))
    }

    /// The process of the dnsmasq that the server runs, as it wrote it down.
    pub(super) fn dnsmasq_of_serve(&self) -> i32 {
        read(&self.path("state/pxe/dnsmasq.pid")).trim().parse().unwrap_or(0)
    }

    /// Another program that has a port of the server.
    pub(super) fn take_port(&self, port: u16) -> Guarded {
        let mut python = command(Some(&self.server), "python3");
        let take = "import socket, sys, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
            s.bind(('0.0.0.0', int(sys.argv[1]))); print('taken', flush=True); time.sleep(1000)";
        let log = self.path("port.log");
        let started = Guarded::logged(python.args(["-c", take, &port.to_string()]), &log).unwrap();
        wait_until("the port is taken", DEADLINE, || Ok(read(&log).contains("taken"))).unwrap();
        started
    }

    /// Runs `work` at the terminal, on a thread of its own.
    pub(super) fn at_terminal<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.terminal).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Whether a process runs; one that ended and was not waited for does not.
pub(super) fn runs(process: i32) -> bool {
    let stat = read(Path::new(&format!("/proc/{process}/stat")));
    process > 0 && stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
