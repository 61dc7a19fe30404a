//! Two network namespaces and a cable: in one dnsmasq or another server, in the other the code under test.
//!
//! Invariant: dropping the `Lab` deletes everything that the test made.

use std::future::Future;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flashmob_testkit::child::{Guarded, command, of_package, wait_until};
use flashmob_testkit::command::run;
use flashmob_testkit::net::{Namespaces, enter, ip};
use tokio::sync::watch;

/// A search for the server that finds it in its first round.
pub(crate) fn one_round() -> watch::Receiver<usize> {
    watch::channel(0).1
}

/// No test takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The server's address on the cable.
pub(crate) const SERVER: &str = "10.77.0.1";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One side of the cable each: `eth0` in both.
pub(crate) struct Lab {
    server: String,
    terminal: String,
    dnsmasq: Mutex<Option<Guarded>>,
    files: tempfile::TempDir,
    namespaces: Namespaces,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let name = format!("fm{}n{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let (server, terminal) = (format!("{name}s"), format!("{name}t"));
        let files = tempfile::tempdir().unwrap();
        let mut lab =
            Lab { server, terminal, dnsmasq: Mutex::new(None), files, namespaces: Namespaces::default() };
        lab.namespaces.add(&lab.server);
        lab.namespaces.add(&lab.terminal);
        ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", lab.server, lab.terminal));
        ip(&format!("-n {} addr add {SERVER}/24 dev eth0", lab.server));
        ip(&format!("-n {} link set lo up", lab.server));
        lab.cable(true);
        lab
    }

    /// Puts the cable in or pulls it, at the server's end.
    pub(crate) fn cable(&self, there: bool) {
        ip(&format!("-n {} link set eth0 {}", self.server, if there { "up" } else { "down" }));
    }

    /// A second card of the terminal, `eth1`, at a cable to the server's `eth1` with this address.
    pub(crate) fn second_card(&self, address: &str) {
        ip(&format!("-n {} link add eth1 type veth peer name eth1 netns {}", self.server, self.terminal));
        ip(&format!("-n {} addr add {address}/24 dev eth1", self.server));
        ip(&format!("-n {} link set eth1 up", self.server));
    }

    /// Pulls the cable of one of the terminal's cards, at the server's end.
    pub(crate) fn pull(&self, card: &str) {
        ip(&format!("-n {} link set {card} down", self.server));
    }

    /// Starts dnsmasq at the server's end with `more` options.
    pub(crate) fn dnsmasq(&self, more: &[&str]) {
        self.dnsmasq_in("10.77.0", more);
    }

    /// Gives the server's end another network, as if the cable were in another switch.
    pub(crate) fn dnsmasq_elsewhere(&self) {
        *self.dnsmasq.lock().unwrap() = None;
        ip(&format!("-n {} addr flush dev eth0", self.server));
        ip(&format!("-n {} addr add 10.78.0.1/24 dev eth0", self.server));
        self.dnsmasq_in("10.78.0", &["--dhcp-authoritative"]);
    }

    /// Returns when it serves.
    fn dnsmasq_in(&self, network: &str, more: &[&str]) {
        let mut held = self.dnsmasq.lock().unwrap();
        // The one before holds the ports until it is gone.
        *held = None;
        let range = format!("--dhcp-range={network}.50,{network}.60,255.255.255.0,2m");
        let mut dnsmasq = command(Some(&self.server), of_package("dnsmasq", "dnsmasq-base"));
        dnsmasq
            .args(["--keep-in-foreground", "--conf-file=/dev/null"])
            .args([
                "--no-resolv",
                "--no-hosts",
                "--no-ping",
                "--leasefile-ro",
                "--pid-file=",
                "--user=root",
                "--interface=eth0",
            ])
            .args([&range, "--domain=lab.test", "--log-facility=-"])
            .args(more);
        let log = self.files.path().join("dnsmasq.log");
        let mut started = Guarded::logged(&mut dnsmasq, &log).unwrap();
        wait_until("the DHCP server serves", DEADLINE, || {
            started.check()?;
            Ok(std::fs::read_to_string(&log)?.contains("started, version"))
        })
        .unwrap();
        *held = Some(started);
    }

    /// Sends an LLDP frame with this payload from the server's end, as a switch would.
    pub(crate) fn switch_says(&self, payload: &[u8]) {
        let send = "import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); \
            s.bind(('eth0', 0)); \
            s.send(bytes.fromhex('0180c200000e' '525400000001' '88cc' + sys.argv[1]))";
        let payload: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        run("ip", &[&"netns", &"exec", &self.server, &"python3", &"-c", &send, &payload]);
    }

    /// Where the terminal's `resolv.conf` is.
    pub(crate) fn resolvers(&self) -> std::path::PathBuf {
        self.files.path().join("resolv.conf")
    }

    /// The output of `ip` at the terminal's end.
    pub(crate) fn terminal_ip(&self, line: &str) -> String {
        ip(&format!("-n {} {line}", self.terminal))
    }

    /// A program at the terminal's end.
    pub(crate) fn command_at_terminal(&self, program: &str) -> Command {
        command(Some(&self.terminal), program)
    }

    /// Runs `work` at the terminal's end.
    pub(crate) fn at_terminal<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce() -> F + Send) -> T {
        inside(&self.terminal, work)
    }

    /// Runs `work` at the server's end.
    pub(crate) fn at_server<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce() -> F + Send) -> T {
        inside(&self.server, work)
    }
}

/// Runs a tokio runtime inside the namespace, on a separate thread and within the deadline.
pub(crate) fn inside<T: Send, F: Future<Output = T>>(name: &str, work: impl FnOnce() -> F + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(name).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(DEADLINE, work()).await.expect("deadline") })
        });
        thread.join().unwrap()
    })
}
