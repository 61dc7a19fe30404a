//! `--pxe`, `--pxe-range`, `--pxe-subnet`: options that several commands have.
//!
//! Invariant: only words; `domain::pxe` checks them.

use clap::Args;
use ipnet::Ipv4Net;

use crate::server::domain::pxe::{PxeConfig, Range};

/// Where netbooting machines are answered.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Netboot")]
pub(crate) struct PxeOptions {
    /// Tell machines at these interfaces what to boot, beside the network's DHCP server (dnsmasq does it).
    #[arg(long, value_name = "IFACE,…", value_delimiter = ',')]
    pxe: Vec<String>,
    /// Be the DHCP server of one of these networks, with these addresses; refused beside another one.
    #[arg(long, value_name = "FIRST,LAST[,NETMASK][,GATEWAY]", requires = "pxe")]
    pxe_range: Vec<Range>,
    /// Addresses for UEFI firmware alone, for Secure Boot beside another DHCP server that does not give them
    /// out.
    #[arg(long, value_name = "FIRST,LAST[,NETMASK][,GATEWAY]", requires = "pxe")]
    pxe_firmware: Vec<Range>,
    /// A network whose DHCP relay forwards to this server.
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',', requires = "pxe")]
    pxe_subnet: Vec<Ipv4Net>,
}

impl PxeOptions {
    /// The settings of the command line, if it has any: they replace those of the configuration. Words that
    /// are there twice count once: the service may have some from 'flashmob pxe enable' and from its
    /// settings.
    pub(super) fn config(self) -> Option<PxeConfig> {
        let PxeOptions { pxe, pxe_range, pxe_firmware, pxe_subnet } = self;
        let (interfaces, ranges) = (once(pxe), once(pxe_range));
        let (firmware, subnets) = (once(pxe_firmware), once(pxe_subnet));
        (!interfaces.is_empty()).then_some(PxeConfig { interfaces, ranges, firmware, subnets })
    }
}

fn once<T: PartialEq>(words: Vec<T>) -> Vec<T> {
    let mut once: Vec<T> = Vec::new();
    for word in words {
        if !once.contains(&word) {
            once.push(word);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_is_there_twice_counts_once() {
        let eth = |name: &str| name.to_string();
        let options =
            PxeOptions { pxe: vec![eth("eth0"), eth("eth1"), eth("eth0")], ..PxeOptions::default() };
        assert_eq!(options.config().expect("on").interfaces, ["eth0", "eth1"]);
    }
}
