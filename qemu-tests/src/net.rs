//! A lab's private network: namespace, bridge, taps, and dnsmasq for DHCP and TFTP.
//!
//! Invariant: nothing here is visible outside the namespace (unless a door is opened), and the namespace is
//! deleted on drop. The name carries this process's id, so that a later run finds and removes the leftovers
//! of a killed one.

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};
use flashmob_testkit::child::{Guarded, command};
use flashmob_testkit::command::{try_command, try_run};
use flashmob_testkit::net::enter;

/// The lab's server: bridge, DHCP, TFTP, and `flashmob serve`.
pub const SERVER: &str = "10.77.0.1";
const PREFIX: &str = "flashmob-";
/// What UEFI starts first: the first that there is.
const UEFI: [&str; 3] = ["flashmob.efi", "shimx64.efi", "snponly.efi"];

/// What DHCP tells iPXE and terminals: the file to run, the server's address.
#[derive(Debug, Clone, Default)]
pub struct Dhcp {
    /// Value of option 224, the flashmob server's address for terminals, if it is to be sent.
    pub option_224: Option<String>,
}

/// A network namespace with a bridge.
#[derive(Debug)]
pub struct Network {
    namespace: String,
    taps: AtomicU32,
}

impl Network {
    /// Makes one; removes those of runs that are no more.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_stale()?;
        let namespace = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        try_run("ip", ["netns", "add", &namespace]).context("making a network namespace needs root")?;
        let network = Network { namespace, taps: AtomicU32::new(0) };
        network.ip("link set lo up")?;
        network.ip("link add lab type bridge forward_delay 0 stp_state 0")?;
        network.ip(&format!("addr add {SERVER}/24 dev lab"))?;
        // Without a router advertisement iPXE waits 13 s for one.
        network.ip("-6 addr add fd77::1/64 dev lab nodad")?;
        network.ip("link set lab up")?;
        Ok(network)
    }

    /// Its name, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn ip(&self, words: &str) -> Result<()> {
        let args = ["-n", &self.namespace].into_iter().chain(words.split(' '));
        try_run("ip", args).map(drop)
    }

    /// A new tap on the bridge, for one machine.
    pub fn tap(&self) -> Result<String> {
        let name = format!("tap{}", self.taps.fetch_add(1, Ordering::Relaxed));
        self.ip(&format!("tuntap add {name} mode tap"))?;
        self.ip(&format!("link set {name} master lab up"))?;
        Ok(name)
    }

    /// A new tap for one machine, behind a link that carries this much from the machine towards the lab.
    pub fn slow_tap(&self, megabits: u32) -> Result<String> {
        let tap = self.tap()?;
        let (switch, inner, outer) = (format!("{tap}s"), format!("{tap}i"), format!("{tap}o"));
        self.ip(&format!("link add {switch} type bridge forward_delay 0 stp_state 0"))?;
        self.ip(&format!("link add {inner} type veth peer name {outer}"))?;
        for (port, bridge) in [(&tap, switch.as_str()), (&inner, &switch), (&outer, "lab")] {
            self.ip(&format!("link set {port} master {bridge} up"))?;
        }
        // The kernel would answer for the server's address at this switch too, and the link be passed by.
        let ignore = format!("/proc/sys/net/ipv4/conf/{switch}/arp_ignore");
        self.inside(|| fs::write(&ignore, "1").with_context(|| format!("writing {ignore}")))?;
        self.ip(&format!("link set {switch} up"))?;
        let shape = format!("qdisc add dev {inner} root tbf rate {megabits}mbit burst 128kb latency 50ms");
        try_run("tc", ["-n", &self.namespace].into_iter().chain(shape.split(' ')))?;
        Ok(tap)
    }

    /// Ends all TCP connections of the server's machine as if a middlebox had forgotten them, but for those
    /// to or from these ports. The answer is how many it ended.
    pub fn cut_connections(&self, but: &[u16]) -> Result<usize> {
        let mut filter = "-K -H -t -n state established".to_string();
        for port in but {
            filter += &format!(" not sport = :{port} and not dport = :{port}");
        }
        let mut ss = command(Some(&self.namespace), "ss");
        Ok(try_command(ss.args(filter.split(' ')))?.lines().count())
    }

    /// Makes the server's `port` reachable from this host, on another port of 127.0.0.1, so that a person can
    /// open the page. Only TCP to this one port passes: no multicast leaves the lab.
    pub fn open_door(&self, port: u16) -> Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("opening a port for the page")?;
        let address = listener.local_addr()?;
        let namespace = self.namespace.clone();
        // Lives as long as the process: a visitor's connection ends with the server.
        thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                let namespace = namespace.clone();
                thread::spawn(move || {
                    if let Ok(server) = connect_inside(&namespace, port) {
                        relay(&visitor, &server);
                    }
                });
            }
        });
        Ok(address)
    }

    /// DHCP for the lab and TFTP from `tftp`, logging to `log`.
    pub fn serve_dhcp(&self, tftp: &Path, dhcp: &Dhcp, log: &Path) -> Result<Guarded> {
        let mut dnsmasq = command(Some(&self.namespace), "dnsmasq");
        Guarded::logged(dnsmasq.args(dnsmasq_arguments(tftp, dhcp, log)), log)
    }

    /// A DHCP server on a machine of its own, as a school has it: it gives out addresses and knows nothing of
    /// flashmob.
    pub fn existing_dhcp(&self, log: &Path) -> Result<Guarded> {
        let neighbour = self.neighbour();
        try_run("ip", ["netns", "add", &neighbour])?;
        self.ip(&format!("link add school type veth peer name lab netns {neighbour}"))?;
        self.ip("link set school master lab up")?;
        for words in
            ["addr add 10.77.0.254/24 dev lab", "-6 addr add fd77::2/64 dev lab nodad", "link set lab up"]
        {
            try_run("ip", ["-n", &neighbour].into_iter().chain(words.split(' ')))?;
        }
        let mut dnsmasq = command(Some(&neighbour), "dnsmasq");
        dnsmasq.args(leases_arguments(log)).arg("--dhcp-authoritative");
        Guarded::logged(&mut dnsmasq, log)
    }

    /// The namespace of the machine with the school's DHCP server.
    fn neighbour(&self) -> String {
        format!("{}-school", self.namespace)
    }

    /// Runs `work` on a thread that lives in the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.namespace)?;
                work()
            });
            thread.join().map_err(|_| anyhow!("the work inside the namespace panicked"))?
        })
    }
}

/// A connection to the lab's server, made by this thread, which stays in the namespace.
fn connect_inside(namespace: &str, port: u16) -> Result<TcpStream> {
    enter(namespace)?;
    TcpStream::connect((SERVER, port)).context("connecting to the lab's server")
}

/// Copies both ways until both ends have closed.
fn relay(visitor: &TcpStream, server: &TcpStream) {
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        // A visitor may leave in the middle.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(visitor, server));
        copy(server, visitor);
    });
}

impl Drop for Network {
    fn drop(&mut self) {
        // The next run deletes the namespaces if this one cannot; most labs have one only.
        let _ = try_run("ip", ["netns", "del", &self.neighbour()]);
        let _ = try_run("ip", ["netns", "del", &self.namespace]);
    }
}

/// Deletes namespaces whose process is gone.
fn remove_stale() -> Result<()> {
    let listed = try_run("ip", ["netns", "list"])?;
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new(&format!("/proc/{pid}")).exists() {
            // Another run may have been faster.
            let _ = try_run("ip", ["netns", "del", name]);
        }
    }
    Ok(())
}

/// dnsmasq's arguments for a server that gives out addresses and nothing else. Its file with a process id
/// lies beside the log: the usual one would be shared by all labs.
fn leases_arguments(log: &Path) -> Vec<String> {
    let mut args: Vec<String> = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--log-facility=-",
        "--log-dhcp",
        "--user=root",
        "--port=0",
        "--interface=lab",
        "--bind-interfaces",
        "--dhcp-range=10.77.0.50,10.77.0.200,255.255.255.0,10m",
        "--dhcp-leasefile=/dev/null",
        "--enable-ra",
        "--dhcp-range=fd77::,ra-only",
    ]
    .map(str::to_string)
    .to_vec();
    args.push(format!("--pid-file={}", log.with_extension("pid").display()));
    args
}

/// The same for a server that boots terminals too: iPXE for UEFI machines, and the script for every iPXE.
fn dnsmasq_arguments(tftp: &Path, dhcp: &Dhcp, log: &Path) -> Vec<String> {
    let boot = [
        "--enable-tftp",
        "--dhcp-match=set:efi,option:client-arch,7",
        "--dhcp-match=set:efi,option:client-arch,9",
        "--dhcp-userclass=set:ipxe,iPXE",
        "--dhcp-boot=tag:!ipxe,tag:!efi,undionly.kpxe",
        "--dhcp-boot=tag:ipxe,boot.ipxe",
    ];
    let mut args = leases_arguments(log);
    args.extend(boot.map(str::to_string));
    args.push(format!("--tftp-root={}", tftp.display()));
    // The others are there when the netboot files were made for Secure Boot.
    let uefi = UEFI.iter().find(|name| tftp.join(name).is_file()).unwrap_or(&UEFI[2]);
    args.push(format!("--dhcp-boot=tag:!ipxe,tag:efi,{uefi}"));
    if let Some(server) = &dhcp.option_224 {
        args.push(format!("--dhcp-option=224,{server}"));
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_224_is_sent_only_when_asked_for() {
        let with =
            |option_224| dnsmasq_arguments(Path::new("/boot"), &Dhcp { option_224 }, Path::new("/lab/log"));
        assert!(with(None).iter().all(|a| !a.contains("224")));
        let args = with(Some("http://10.77.0.1:6969".into()));
        assert!(args.contains(&"--dhcp-option=224,http://10.77.0.1:6969".to_string()));
    }
}
