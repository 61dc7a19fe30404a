//! Wake-on-LAN: sends magic packets on this machine's own networks, and to networks behind routers.
//!
//! A switched-off card hears an Ethernet frame, not an address: any broadcast that carries the packet will
//! do.
//!
//! Invariant: a packet for one MAC leaves once for each port and broadcast address of an interface; an
//! interface that cannot send keeps no other from sending. `server` and `agent` decide whom to wake.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Protocol, Socket, Type};

use crate::units::Mac;

/// Discard and echo: the ports that cards and routers know for magic packets.
const PORTS: [u16; 2] = [9, 7];
/// Every node on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const PACKET: usize = 6 + 16 * 6;

/// The result of sending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sent {
    /// Names of the interfaces through which packets left.
    pub interfaces: Vec<String>,
    /// For people: why others could not send.
    pub problems: Vec<String>,
}

/// The magic packet for one card: six bytes of ones, and sixteen times its address ("Magic Packet
/// Technology", AMD publication 20213).
pub fn packet(mac: Mac) -> [u8; PACKET] {
    let mut packet = [0xff; PACKET];
    for copy in packet[6..].chunks_exact_mut(6) {
        copy.copy_from_slice(&mac.0);
    }
    packet
}

/// Sends a magic packet for each of `macs` on every interface that is up.
pub fn send(macs: &[Mac]) -> io::Result<Sent> {
    let packets = packets(macs);
    let mut sent = Sent::default();
    for (name, interface) in interfaces()? {
        match interface.send(&name, &packets) {
            Ok(()) => sent.interfaces.push(name),
            Err(e) => sent.problems.push(format!("{name}: {e}")),
        }
    }
    Ok(sent)
}

/// Sends them to the broadcast address of a network behind routers, which may or may not let them through.
pub fn send_to(network: Ipv4Net, macs: &[Mac]) -> io::Result<()> {
    all(&open(Ipv4Addr::UNSPECIFIED.into(), None)?, &broadcasts([network.broadcast()]), &packets(macs))
}

fn packets(macs: &[Mac]) -> Vec<[u8; PACKET]> {
    macs.iter().map(|mac| packet(*mac)).collect()
}

/// The networks of this machine's interfaces.
pub fn own_networks() -> io::Result<Vec<IpNet>> {
    let all = interfaces()?.into_values().flat_map(|interface| {
        let six = interface.six.into_iter().map(IpNet::V6);
        interface.four.into_iter().map(IpNet::V4).chain(six)
    });
    Ok(all.collect())
}

/// An interface that is up, with its addresses and their networks.
#[derive(Debug, Default)]
struct Interface {
    four: Vec<Ipv4Net>,
    six: Vec<Ipv6Net>,
}

impl Interface {
    fn send(&self, name: &str, packets: &[[u8; PACKET]]) -> io::Result<()> {
        for net in &self.four {
            let from = open(net.addr().into(), Some(name))?;
            // A network of one or two addresses has no broadcast address.
            let directed = (net.prefix_len() < 31).then(|| net.broadcast());
            all(&from, &broadcasts([Ipv4Addr::BROADCAST].into_iter().chain(directed)), packets)?;
        }
        if self.four.is_empty() {
            let from = open(Ipv6Addr::UNSPECIFIED.into(), Some(name))?;
            let to =
                PORTS.map(|port| SocketAddrV6::new(ALL_NODES, port, 0, if_nametoindex(name).unwrap_or(0)));
            all(&from, &to.map(SocketAddr::from), packets)?;
        }
        Ok(())
    }
}

fn broadcasts(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<SocketAddr> {
    let with_ports = |ip| PORTS.map(|port| SocketAddrV4::new(ip, port).into());
    addresses.into_iter().flat_map(with_ports).collect()
}

/// Interfaces with an address that are up, by name; no loopback, and none that reaches one peer only.
fn interfaces() -> io::Result<BTreeMap<String, Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for one in getifaddrs()? {
        let (up, loopback) = (InterfaceFlags::IFF_UP, InterfaceFlags::IFF_LOOPBACK);
        if !one.flags.contains(up | InterfaceFlags::IFF_BROADCAST) || one.flags.contains(loopback) {
            continue;
        }
        let Some(net) = network(&one) else { continue };
        let interface = found.entry(one.interface_name).or_default();
        match net {
            IpNet::V4(net) => interface.four.push(net),
            IpNet::V6(net) => interface.six.push(net),
        }
    }
    Ok(found)
}

/// The address of an interface, with its prefix length.
fn network(one: &InterfaceAddress) -> Option<IpNet> {
    let mask = ip(one.netmask.as_ref()?)?;
    IpNet::with_netmask(ip(one.address.as_ref()?)?, mask).ok()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
    four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
}

/// A socket that sends from `address`, and through `interface` alone if one is named.
fn open(address: IpAddr, interface: Option<&str>) -> io::Result<Socket> {
    let address = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        socket.set_broadcast(true)?;
    }
    socket.bind_device(interface.map(str::as_bytes))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn all(from: &Socket, to: &[SocketAddr], packets: &[[u8; PACKET]]) -> io::Result<()> {
    for packet in packets {
        for address in to {
            from.send_to(packet, &(*address).into())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_packet_is_six_ones_and_sixteen_times_the_address() {
        let packet = packet(Mac([0x52, 0x54, 0, 1, 2, 3]));
        assert_eq!(packet.len(), 102);
        assert_eq!(packet[..6], [0xff; 6]);
        assert!(packet[6..].chunks(6).all(|copy| copy == [0x52, 0x54, 0, 1, 2, 3]));
    }
}
