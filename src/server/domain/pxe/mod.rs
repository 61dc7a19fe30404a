//! Netboot beside an existing DHCP server: what dnsmasq is told, and what its log says of terminals.
//!
//! ```text
//!  settings (--pxe, [pxe]) ─┐
//!  interfaces, boot files ──┴─► plan::Plan ──► text: dnsmasq.conf ──► dnsmasq (server::pxe runs it)
//!  dnsmasq's log lines ─────────► watch::Watch ──► terminals whose firmware refused the first program
//! ```
//!
//! Invariant: pure. A plan names for each network one address of this server, and every file that it sends a
//! terminal to was in the boot folder.

pub(crate) mod others;
mod plan;
mod range;
#[cfg(test)]
mod tests;
mod text;
mod watch;

use ipnet::Ipv4Net;
use serde::Deserialize;

pub(crate) use plan::{Facts, Interface, Plan};
pub use range::Range;
pub(crate) use watch::{Watch, Way, sent};

/// Names of Linux interfaces have at most 15 bytes.
const LONGEST_NAME: usize = 15;

/// The networks in which this server answers netbooting machines: `--pxe…`, or `[pxe]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PxeConfig {
    /// The interfaces at which it answers; without any it does not answer at all.
    pub interfaces: Vec<String>,
    /// Addresses that it gives out, where no other DHCP server does.
    pub ranges: Vec<Range>,
    /// Addresses for UEFI firmware alone, beside another DHCP server, where Secure Boot's chain is used.
    pub firmware: Vec<Range>,
    /// Networks that reach the interfaces through DHCP relays.
    pub subnets: Vec<Ipv4Net>,
}

impl PxeConfig {
    /// Whether it is used at all.
    pub fn is_on(&self) -> bool {
        !self.interfaces.is_empty()
    }

    /// Checks what needs no look at this machine.
    pub fn check(&self) -> Result<(), String> {
        let more = !self.ranges.is_empty() || !self.firmware.is_empty() || !self.subnets.is_empty();
        if more && !self.is_on() {
            return Err("ranges and subnets need an interface (--pxe, or 'interfaces' in [pxe])".into());
        }
        for (i, name) in self.interfaces.iter().enumerate() {
            let plain = |c: char| c.is_ascii_graphic() && !"/,:*\"#".contains(c);
            if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) {
                return Err(format!("'{name}' is not the name of an interface; 'ip link' lists them"));
            }
            if self.interfaces[..i].contains(name) {
                return Err(format!("interface {name} is named twice"));
            }
        }
        for (i, subnet) in self.subnets.iter().enumerate() {
            if subnet.prefix_len() == 0 || subnet.prefix_len() > 30 {
                return Err(format!("{subnet} is no network with terminals: write it as in 10.0.102.0/24"));
            }
            if let Some(other) = self.subnets[..i].iter().find(|other| overlap(other, subnet)) {
                return Err(format!("the networks {other} and {subnet} overlap"));
            }
        }
        Ok(())
    }
}

/// Whether an address can be in both.
fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod settings_tests {
    use super::*;

    #[test]
    fn settings_with_a_mistake_say_which() {
        let read = |text: &str| toml::from_str::<PxeConfig>(text).expect("TOML").check();
        assert_eq!(read(""), Ok(()));
        let good = "interfaces=['eth0','vlan.12']\nranges=['10.0.0.5,10.0.0.9']\nsubnets=['10.1.0.0/24']";
        assert_eq!(read(good), Ok(()));
        for (text, says) in [
            ("ranges=['10.0.0.5,10.0.0.9']", "need an interface"),
            ("interfaces=['eth0','eth0']", "twice"),
            ("interfaces=['eth 0']", "not the name of an interface"),
            ("interfaces=['an-interface-name']", "not the name of an interface"),
            ("interfaces=['e']\nsubnets=['10.0.0.1/32']", "no network with terminals"),
            ("interfaces=['e']\nsubnets=['10.0.0.0/8','10.1.0.0/16']", "overlap"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
