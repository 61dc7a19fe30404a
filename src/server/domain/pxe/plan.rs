//! From settings and facts about this machine to the networks in which dnsmasq answers, and with what.
//!
//! Invariant: every refusal happens here, before anything is started. Each network has one address of this
//! server, at which terminals of that network reach it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

use super::{PxeConfig, Range};
use crate::api::Refusal;

/// The first program of each kind of firmware, by its name in the boot folder.
const BIOS: &str = "undionly.kpxe";
const UEFI: &str = "snponly.efi";
/// Kernel and agent in one program, signed with the organisation's key. Firmware without Secure Boot starts
/// it too.
pub(super) const UNIFIED: &str = "flashmob.efi";
/// The first program under Secure Boot, signed with a key that firmware knows. It starts GRUB.
pub(super) const SHIM: &str = "shimx64.efi";
/// Where shim looks for GRUB.
const GRUB: &str = "grubx64.efi";

/// An interface of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub name: String,
    /// Its IPv4 addresses, each with the prefix length of its network.
    pub addresses: Vec<Ipv4Net>,
}

/// What the plan depends on, besides the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub interfaces: Vec<Interface>,
    /// The address from which packets to a relayed network leave.
    pub towards: HashMap<Ipv4Net, Ipv4Addr>,
    /// The boot folder, and the names in it.
    pub folder: PathBuf,
    pub files: BTreeSet<String>,
    /// Where the server listens.
    pub listens: SocketAddr,
    /// The folder for dnsmasq's own files.
    pub state: PathBuf,
}

/// The first programs that are there to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stages {
    pub bios: Option<&'static str>,
    /// For UEFI by TFTP.
    pub uefi: Option<&'static str>,
    /// For UEFI by TFTP, with Secure Boot on or off. Debian's GRUB, which it starts, asks the server that the
    /// DHCP server names, and nobody else: beside another DHCP server it would end at a prompt.
    pub shim: Option<&'static str>,
    /// For UEFI HTTP boot.
    pub http: Option<&'static str>,
}

/// A network, and who gives out its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    /// The interface that is in it; `None` where a relay is between.
    pub interface: Option<String>,
    pub net: Ipv4Net,
    /// This server's address for terminals there.
    pub server: Ipv4Addr,
    /// The addresses that this server gives out; `None` beside another DHCP server.
    pub range: Option<Range>,
    /// The addresses for UEFI firmware until shim has started GRUB.
    pub firmware: Option<Range>,
}

/// Where dnsmasq answers, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) interfaces: Vec<String>,
    pub(super) networks: Vec<Network>,
    pub(super) stages: Stages,
    pub(super) folder: String,
    pub(super) state: String,
    pub(super) port: u16,
}

fn refuse<T>(error: impl Into<String>, advice: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { error: error.into(), advice: advice.into() })
}

impl Plan {
    pub(crate) fn new(config: &PxeConfig, facts: &Facts) -> Result<Plan, Refusal> {
        if let Err(error) = config.check() {
            return refuse(
                error,
                "Correct --pxe, --pxe-range or --pxe-subnet, or [pxe] in the configuration.",
            );
        }
        let stages = stages(facts)?;
        let mut networks = own_networks(config, facts)?;
        relayed(config, facts, &mut networks)?;
        for range in &config.ranges {
            let network = home(range, &mut networks)?;
            once(network.net, network.range.replace(*range), range)?;
        }
        for range in &config.firmware {
            let network = home(range, &mut networks)?;
            if network.range.is_some() {
                return refuse(
                    format!("{} needs no addresses for firmware: all are this server's", network.net.trunc()),
                    "Leave --pxe-firmware out for that network.",
                );
            }
            once(network.net, network.firmware.replace(*range), range)?;
        }
        Ok(Plan {
            interfaces: config.interfaces.clone(),
            networks,
            stages,
            folder: in_dnsmasq(&facts.folder)?,
            state: in_dnsmasq(&facts.state)?,
            port: facts.listens.port(),
        })
    }

    /// The first programs that are missing, with what to do; terminals that need them cannot start.
    pub(crate) fn lacks(&self) -> Option<Refusal> {
        let lack = match (self.stages.bios, self.stages.uefi) {
            (None, _) => format!("no {BIOS}, so terminals with BIOS cannot boot from the network"),
            (_, None) => format!("no {UEFI}, so terminals with UEFI cannot boot from the network"),
            _ => return None,
        };
        Some(Refusal { error: format!("{} has {lack}", self.folder), advice: make(&self.folder) })
    }

    /// Whether dnsmasq gives out addresses at this interface.
    pub(crate) fn gives_out(&self, interface: &str) -> bool {
        self.networks.iter().any(|one| one.interface.as_deref() == Some(interface) && one.range.is_some())
    }

    /// The addresses that firmware gets in a network, and its first program.
    pub(super) fn firmware(&self, network: &Network) -> Option<(Range, &'static str)> {
        Some((network.firmware?, self.stages.shim?))
    }

    /// Whether a network's addresses come from another DHCP server.
    pub(crate) fn has_proxy(&self) -> bool {
        self.networks.iter().any(|one| one.range.is_none())
    }

    pub(crate) fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// This machine's addresses at the interfaces, where dnsmasq sends files.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.networks.iter().filter(|one| one.interface.is_some()).map(|one| one.net.addr())
    }
}

fn make(folder: &str) -> String {
    format!(
        "Make the netboot files again with the package ipxe installed: \
         'flashmob-initramfs build --out {folder} --keys lab.pub'."
    )
}

fn stages(facts: &Facts) -> Result<Stages, Refusal> {
    let there = |name: &'static str| facts.files.contains(name).then_some(name);
    // Shim without the GRUB that it starts is no way to boot.
    let shim = there(SHIM).filter(|_| facts.files.contains(GRUB));
    // Firmware that trusts shim need not know the organisation's key, so shim stays first where its GRUB
    // finds this server. Elsewhere, and by HTTP, shim would not do.
    let uefi = there(UNIFIED).or(there(UEFI));
    let stages = Stages { bios: there(BIOS), uefi, shim, http: uefi };
    if stages == Stages::default() {
        let folder = facts.folder.display().to_string();
        let error =
            format!("{folder} has neither {BIOS} nor {UEFI}, so no terminal can boot from the network");
        return refuse(error, make(&folder));
    }
    Ok(stages)
}

/// The address at which terminals reach the server: the one that it listens at, or the network's own.
fn server_at(own: Ipv4Addr, facts: &Facts) -> Result<Ipv4Addr, Refusal> {
    match facts.listens.ip() {
        ip if ip.is_unspecified() => Ok(own),
        IpAddr::V4(ip) if !ip.is_loopback() => Ok(ip),
        ip => refuse(
            format!("the server listens at {ip} only, where no terminal reaches it"),
            "Leave --listen out, or name an IPv4 address of the lab's network with it.",
        ),
    }
}

fn own_networks(config: &PxeConfig, facts: &Facts) -> Result<Vec<Network>, Refusal> {
    let mut networks = Vec::new();
    for name in &config.interfaces {
        let Some(interface) = facts.interfaces.iter().find(|one| one.name == *name) else {
            let all: Vec<&str> = facts.interfaces.iter().map(|one| one.name.as_str()).collect();
            let error = format!("this machine has no interface {name} that is up");
            let advice = match all.is_empty() {
                true => format!("No interface is up: 'ip link set {name} up', and look at the cable."),
                false => format!("Name one of: {}. 'ip link' lists them.", all.join(", ")),
            };
            return refuse(error, advice);
        };
        let Some(net) = interface.addresses.iter().find(|net| net.prefix_len() <= 30) else {
            return refuse(
                format!("interface {name} has no IPv4 address of a network"),
                format!("Give it one (ip addr add 10.0.0.2/24 dev {name}); PXE works by IPv4 only."),
            );
        };
        let server = server_at(net.addr(), facts)?;
        networks.push(Network {
            interface: Some(name.clone()),
            net: *net,
            server,
            range: None,
            firmware: None,
        });
    }
    Ok(networks)
}

fn relayed(config: &PxeConfig, facts: &Facts, networks: &mut Vec<Network>) -> Result<(), Refusal> {
    for subnet in &config.subnets {
        let subnet = subnet.trunc();
        if let Some(own) = networks.iter().find(|one| super::overlap(&one.net, &subnet)) {
            let what =
                own.interface.as_deref().map_or("another subnet".into(), |name| format!("{name}'s own"));
            return refuse(
                format!("{subnet} is {what} network"),
                "Leave it out: --pxe-subnet is for networks behind DHCP relays.",
            );
        }
        let Some(own) = facts.towards.get(&subnet) else {
            return refuse(
                format!("this machine has no route to {subnet}"),
                "Set one (or a default gateway): answers to a relay there need it.",
            );
        };
        networks.push(Network {
            interface: None,
            net: subnet,
            server: server_at(*own, facts)?,
            range: None,
            firmware: None,
        });
    }
    Ok(())
}

/// The network that a range is in.
fn home<'a>(range: &Range, networks: &'a mut [Network]) -> Result<&'a mut Network, Refusal> {
    let nets: Vec<String> = networks.iter().map(|one| one.net.trunc().to_string()).collect();
    let Some(network) = networks.iter_mut().find(|one| one.net.contains(&range.first)) else {
        return refuse(
            format!("the range {range} is in none of the networks {}", nets.join(", ")),
            "Choose addresses of the first IPv4 network of an interface that --pxe names (its other networks \
             are not served), or name the network behind a relay with --pxe-subnet.",
        );
    };
    if let Err(why) = range.fits(&network.net) {
        let advice = "Correct it: FIRST,LAST[,NETMASK][,GATEWAY], all in one network.";
        return refuse(format!("the range {range}: {why}"), advice);
    }
    Ok(network)
}

/// Refuses a second range for one use in a network.
fn once(net: Ipv4Net, earlier: Option<Range>, range: &Range) -> Result<(), Refusal> {
    match earlier {
        None => Ok(()),
        Some(earlier) => refuse(
            format!("{} has two ranges, {earlier} and {range}", net.trunc()),
            "Name one range for each network.",
        ),
    }
}

/// A path as dnsmasq's configuration can have it.
fn in_dnsmasq(path: &std::path::Path) -> Result<String, Refusal> {
    let text = path.to_str().filter(|text| !text.chars().any(|c| c.is_control() || "\"\\,#".contains(c)));
    let Some(text) = text.filter(|text| text.starts_with('/')) else {
        return refuse(
            format!("dnsmasq cannot be told the folder {}", path.display()),
            "Name a folder whose path has no comma, quote, backslash or '#'.",
        );
    };
    Ok(text.to_string())
}
