//! Network interfaces, addresses and routes, through rtnetlink.
//!
//! Invariant: only requested settings change, and a repeated request is no error. `lan::dhcp` and
//! `agent::network` decide the settings.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// The kernel's name for it.
    pub name: String,
    pub mac: [u8; 6],
    /// It is switched on.
    pub up: bool,
    /// It has a carrier.
    pub carrier: bool,
}

impl Link {
    /// The MAC address as text.
    pub(crate) fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// A connection to the kernel's network configuration (of this thread's namespace when it was opened).
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

type Result<T> = std::result::Result<T, rtnetlink::Error>;

impl Netlink {
    /// Connects. Must be called inside a tokio runtime.
    pub(crate) fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// All Ethernet interfaces except loopback, by their number.
    pub(crate) async fn links(&self) -> Result<Vec<Link>> {
        let mut found = Vec::new();
        let mut messages = self.handle.link().get().execute();
        while let Some(message) = messages.try_next().await? {
            if message.header.link_layer_type != LinkLayerType::Ether {
                continue;
            }
            let (mut name, mut mac) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(text) => name = Some(text),
                    LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes).ok(),
                    _ => {}
                }
            }
            if let (Some(name), Some(mac)) = (name, mac) {
                found.push(Link {
                    index: message.header.index,
                    name,
                    mac,
                    up: message.header.flags.contains(LinkFlags::Up),
                    carrier: message.header.flags.contains(LinkFlags::LowerUp),
                });
            }
        }
        found.sort_by_key(|link| link.index);
        Ok(found)
    }

    /// All addresses: the interface's number, the address, its prefix length.
    pub(crate) async fn addresses(&self) -> Result<Vec<(u32, IpAddr, u8)>> {
        let mut found = Vec::new();
        let mut messages = self.handle.address().get().execute();
        while let Some(message) = messages.try_next().await? {
            let (index, prefix) = (message.header.index, message.header.prefix_len);
            let own = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            };
            // IPv6 has no own address beside the prefix's.
            let prefixed = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            };
            let ip = message.attributes.iter().find_map(own);
            let ip = ip.or_else(|| message.attributes.iter().find_map(prefixed));
            found.extend(ip.map(|ip| (index, ip, prefix)));
        }
        Ok(found)
    }

    /// Switches an interface on.
    pub(crate) async fn set_up(&self, index: u32) -> Result<()> {
        self.handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
    }

    /// Switches the loopback interface on.
    pub(crate) async fn set_loopback_up(&self) -> Result<()> {
        self.handle.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await
    }

    /// Sets the largest packet an interface sends.
    pub(crate) async fn set_mtu(&self, index: u32, mtu: u16) -> Result<()> {
        self.handle.link().set(LinkUnspec::new_with_index(index).mtu(u32::from(mtu)).build()).execute().await
    }

    /// Gives an interface an address.
    pub(crate) async fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        self.handle.address().add(index, IpAddr::V4(address), prefix).replace().execute().await
    }

    /// Takes an address from an interface, and with it the routes through it.
    pub(crate) async fn remove_address(&self, index: u32, address: Ipv4Addr) -> Result<()> {
        let mut found = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .set_address_filter(IpAddr::V4(address))
            .execute();
        while let Some(message) = found.try_next().await? {
            self.handle.address().del(message).execute().await?;
        }
        Ok(())
    }

    /// Sends everything without a better route to `router`; among several the lowest `metric` is used.
    pub(crate) async fn set_default_route(&self, index: u32, router: Ipv4Addr, metric: u32) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(router)
            .output_interface(index)
            .priority(metric)
            .onlink()
            .build();
        self.handle.route().add(route).replace().execute().await
    }
}
