//! The facts about this machine on which netboot depends, and what keeps dnsmasq from running here.
//!
//! Invariant: only looks.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::api::Refusal;
use crate::io::net::interfaces::{interfaces, source_towards, try_udp};
use crate::io::net::sockets::{Protocol, taken};
use crate::server::domain::pxe::{Facts, Interface, Plan, PxeConfig};

const DHCP: u16 = 67;
const TFTP: u16 = 69;
const PROXY_DHCP: u16 = 4011;
/// An earlier dnsmasq of ours that is about to end frees its ports within this time.
const SETTLE: Duration = Duration::from_secs(2);
/// Folders of system programs, which are not on every user's path.
const SYSTEM: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// What a run of dnsmasq depends on.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub config: PxeConfig,
    /// Where the server listens.
    pub listens: SocketAddr,
    /// The netboot files.
    pub boot: PathBuf,
    /// The server's state.
    pub state: PathBuf,
}

impl Setup {
    /// Looks at this machine, and plans.
    pub(crate) fn plan(&self) -> Result<Plan, Refusal> {
        Plan::new(&self.config, &self.facts()?)
    }

    /// Where dnsmasq's files are.
    pub(crate) fn folder(&self) -> PathBuf {
        absolute(&self.state).join("pxe")
    }

    fn facts(&self) -> Result<Facts, Refusal> {
        let failed = |e: std::io::Error| Refusal {
            error: format!("this machine's interfaces: {e}"),
            advice: "Look at this machine's limits.".into(),
        };
        let names = std::fs::read_dir(&self.boot).into_iter().flatten().flatten().filter_map(|entry| {
            let there = entry.path().metadata().is_ok_and(|file| file.is_file());
            there.then(|| entry.file_name().to_string_lossy().into_owned())
        });
        let towards = self.config.subnets.iter().map(ipnet::Ipv4Net::trunc);
        let towards = towards.filter_map(|subnet| Some((subnet, source_towards(first_of(subnet))?)));
        let interfaces = interfaces().map_err(failed)?;
        Ok(Facts {
            interfaces: interfaces
                .into_iter()
                .map(|(name, one)| Interface { name, addresses: one.addresses })
                .collect(),
            towards: towards.collect::<HashMap<_, _>>(),
            folder: absolute(&self.boot),
            files: names.collect::<BTreeSet<_>>(),
            listens: self.listens,
            state: self.folder(),
        })
    }
}

/// A machine in the network.
fn first_of(subnet: ipnet::Ipv4Net) -> Ipv4Addr {
    subnet.hosts().next().unwrap_or(subnet.network())
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

/// Where the program is.
pub(crate) fn dnsmasq() -> Result<PathBuf, Refusal> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from));
    let found = folders.map(|folder| folder.join("dnsmasq")).find(|program| program.is_file());
    found.ok_or_else(|| Refusal {
        error: "dnsmasq is missing, which answers netbooting machines for this server".into(),
        advice: "Install it: 'apt install dnsmasq-base' (the package dnsmasq would start a second one)."
            .into(),
    })
}

/// Are the ports free that dnsmasq will take? Must not be called while ours runs.
pub(crate) fn ports(plan: &Plan) -> Result<(), Refusal> {
    // dnsmasq binds to an interface if it serves one, else to all.
    let only = match plan.interfaces() {
        [one] => Some(one.as_str()),
        _ => None,
    };
    let proxy = plan.has_proxy().then_some((PROXY_DHCP, Ipv4Addr::UNSPECIFIED));
    let tftp = plan.addresses().map(|address| (TFTP, address));
    let wanted = [(DHCP, Ipv4Addr::UNSPECIFIED)].into_iter().chain(proxy).chain(tftp);
    let end = Instant::now() + SETTLE;
    for (port, address) in wanted {
        loop {
            match try_udp(SocketAddrV4::new(address, port), only) {
                Ok(()) => break,
                Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(e) => return Err(no_port(port, &e)),
            }
        }
    }
    Ok(())
}

fn no_port(port: u16, e: &std::io::Error) -> Refusal {
    let what = match port {
        DHCP => "DHCP",
        TFTP => "TFTP",
        _ => "proxyDHCP",
    };
    match e.kind() {
        ErrorKind::AddrInUse => {
            let holders: BTreeSet<String> = taken()
                .into_iter()
                .filter(|taken| (taken.protocol, taken.port) == (Protocol::Udp, port))
                .filter_map(|taken| taken.program)
                .collect();
            let holders: Vec<String> = holders.into_iter().collect();
            let by = match holders.is_empty() {
                true => "a program that this user cannot see".to_string(),
                false => holders.join(", "),
            };
            Refusal {
                error: format!("port {port}/udp ({what}) is taken by {by}"),
                advice:
                    "Stop that program. If it is this network's DHCP server, leave --pxe out and give it the \
                         lines of docs/netboot.md."
                        .into(),
            }
        }
        ErrorKind::PermissionDenied => Refusal {
            error: format!("this user may not listen at port {port}/udp ({what})"),
            advice: "Run it as root; the service gets what it needs by 'flashmob pxe enable'.".into(),
        },
        _ => Refusal {
            error: format!("listening at port {port}/udp ({what}): {e}"),
            advice: "Look at this machine's network.".into(),
        },
    }
}
