//! A plan as dnsmasq's configuration (dnsmasq(8)).
//!
//! Invariant: each network's lines have its own tag, so that terminals get an address of this server that
//! they reach. iPXE gets the script's address, and never a first program, or it would load itself for ever.

use std::fmt::Write;

use super::Range;
use super::plan::{Network, Plan};

/// PXE clients by dnsmasq's names of their architectures: BIOS is 0; UEFI for x86-64 is 7, and 9 in the RFC's
/// first version, which some firmware still says.
const BIOS: &str = "x86PC";
const UEFI: [&str; 2] = ["BC_EFI", "X86-64_EFI"];
/// How long a terminal keeps an address that this server gave it.
const LEASE: &str = "2h";
/// The same for firmware, which needs it until GRUB has loaded the kernel.
const FIRMWARE_LEASE: &str = "10m";
/// A lab of hundreds fetches the first program at once; dnsmasq's own limit is 50.
const TFTP_TRANSFERS: u32 = 1000;
/// dnsmasq's own limit of leases.
const LEASES: u64 = 1000;

impl Plan {
    /// The configuration file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.general(&mut text);
        for (number, network) in self.networks.iter().enumerate() {
            let tag = format!("net{number}");
            let place =
                network.interface.as_deref().map_or("behind a relay".into(), |name| format!("at {name}"));
            let net = network.net.trunc();
            match network.range {
                None => {
                    line(
                        &mut text,
                        format_args!("\n# {net} {place}: addresses come from another DHCP server."),
                    );
                    self.proxy(&mut text, &tag, network);
                }
                Some(_) => {
                    line(&mut text, format_args!("\n# {net} {place}: this server gives out the addresses."));
                    self.whole(&mut text, &tag, network);
                }
            }
        }
        text
    }

    fn general(&self, text: &mut String) {
        let Plan { folder, state, .. } = self;
        let interfaces = self.interfaces.join(",");
        text.push_str(
            "# Written by 'flashmob serve --pxe', and again at each change. No DNS, no other interface.\n",
        );
        text.push_str("port=0\nbind-interfaces\nexcept-interface=lo\n");
        for interface in &self.interfaces {
            line(text, format_args!("interface={interface}"));
        }
        line(text, format_args!("pid-file={state}/dnsmasq.pid"));
        let firmware = self.networks.iter().filter_map(|one| Some(self.firmware(one)?.0));
        let given = self.networks.iter().filter_map(|one| one.range).chain(firmware.clone());
        let given: Vec<u64> = given.map(|range| range.size()).collect();
        match given.is_empty() {
            true => text.push_str("leasefile-ro\n"),
            false => {
                line(text, format_args!("dhcp-leasefile={state}/dnsmasq.leases"));
                line(text, format_args!("dhcp-lease-max={}", given.iter().sum::<u64>().max(LEASES)));
            }
        }
        // An authoritative server would refuse leases of the other DHCP server.
        if !given.is_empty() && firmware.count() == 0 {
            text.push_str("dhcp-authoritative\n");
        }
        text.push_str("\n# The first program, by TFTP.\n");
        line(text, format_args!("enable-tftp={interfaces}\ntftp-root={folder}\ntftp-max={TFTP_TRANSFERS}"));
        text.push_str(
            "\n# Kinds of firmware: iPXE by its user class, UEFI for x86-64 by TFTP, UEFI HTTP boot.\n\
             dhcp-userclass=set:ipxe,iPXE\n\
             dhcp-match=set:efi,option:client-arch,7\n\
             dhcp-match=set:efi,option:client-arch,9\n\
             dhcp-match=set:http,option:client-arch,16\n\
             dhcp-pxe-vendor=PXEClient,HTTPClient\n",
        );
        if self.networks.iter().any(|one| self.firmware(one).is_some()) {
            text.push_str(
                "tag-if=set:firmware,tag:efi,tag:!ipxe\n\
                 dhcp-vendorclass=set:pxe,PXEClient\n\
                 dhcp-vendorclass=set:pxe,HTTPClient\n",
            );
        }
    }

    /// Beside another DHCP server, which tells a client its address and nothing to boot. iPXE in a BIOS takes
    /// a `pxe-service` and ignores `dhcp-boot`; UEFI HTTP boot is the other way round.
    fn proxy(&self, text: &mut String, tag: &str, network: &Network) {
        let (net, script) = (network.net, self.script(network));
        let mut others = "";
        if let Some((range, shim)) = self.firmware(network) {
            // dnsmasq looks at the first range to see whether it is a proxy only.
            others = "tag:!firmware,";
            let (own, server, mask) = (format!("{tag}f"), network.server, net.netmask());
            let Range { first, last, .. } = range;
            line(
                text,
                format_args!("dhcp-range=set:{own},tag:firmware,{first},{last},{mask},{FIRMWARE_LEASE}"),
            );
            router(text, &own, &range);
            line(text, format_args!("dhcp-boot=tag:{own},{shim},,{server}"));
            if let Some(interface) = &network.interface {
                // dnsmasq sets the interface's name as a tag.
                line(text, format_args!("dhcp-ignore=tag:!pxe,tag:{interface}"));
            }
        }
        line(text, format_args!("dhcp-range=set:{tag},{others}{},proxy,{}", net.network(), net.netmask()));
        let first = [(BIOS, self.stages.bios), (UEFI[0], self.stages.uefi), (UEFI[1], self.stages.uefi)];
        for (client, file) in first {
            if let Some(file) = file {
                line(text, format_args!("pxe-service=tag:{tag},tag:!ipxe,{client},\"flashmob\",{file}"));
            }
            line(text, format_args!("pxe-service=tag:{tag},tag:ipxe,{client},\"flashmob\",{script}"));
        }
        self.http_boot(text, tag, network);
    }

    /// As the network's DHCP server. Option 224 tells the agent where the server is.
    fn whole(&self, text: &mut String, tag: &str, network: &Network) {
        let (Some(range), server, script) = (network.range, network.server, self.script(network)) else {
            return;
        };
        let mask = network.net.netmask();
        line(text, format_args!("dhcp-range=set:{tag},{},{},{mask},{LEASE}", range.first, range.last));
        router(text, tag, &range);
        line(text, format_args!("dhcp-option=tag:{tag},224,\"{}\"", self.url(network)));
        line(text, format_args!("dhcp-boot=tag:{tag},tag:ipxe,{script}"));
        if let Some(file) = self.stages.bios {
            let tags = format!("tag:{tag},tag:!ipxe,tag:!efi,tag:!http");
            line(text, format_args!("dhcp-boot={tags},{file},,{server}"));
        }
        if let Some(file) = self.stages.shim.or(self.stages.uefi) {
            line(text, format_args!("dhcp-boot=tag:{tag},tag:!ipxe,tag:efi,{file},,{server}"));
        }
        line(text, format_args!("dhcp-option-force=tag:{tag},tag:http,60,HTTPClient"));
        self.http_boot(text, tag, network);
    }

    fn http_boot(&self, text: &mut String, tag: &str, network: &Network) {
        if let Some(file) = self.stages.http {
            let url = self.url(network);
            line(text, format_args!("dhcp-boot=tag:{tag},tag:!ipxe,tag:http,{url}boot/{file}"));
        }
    }

    fn url(&self, network: &Network) -> String {
        format!("http://{}:{}/", network.server, self.port)
    }

    fn script(&self, network: &Network) -> String {
        format!("{}boot/ipxe", self.url(network))
    }
}

fn router(text: &mut String, tag: &str, range: &Range) {
    match range.gateway {
        Some(gateway) => line(text, format_args!("dhcp-option=tag:{tag},option:router,{gateway}")),
        // Without a value nothing is sent; without the line dnsmasq names itself.
        None => line(text, format_args!("dhcp-option=tag:{tag},option:router")),
    }
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = writeln!(text, "{words}");
}
