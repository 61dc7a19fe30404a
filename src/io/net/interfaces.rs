//! This machine's interfaces with their IPv4 addresses, and which of its ports are free.
//!
//! Invariant: only looks; a socket that tries a port is closed at once.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::units::Mac;

/// An interface that is up, no loopback.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Interface {
    pub mac: Option<Mac>,
    /// Its IPv4 addresses with the prefix length of their networks.
    pub addresses: Vec<Ipv4Net>,
}

/// All interfaces that are up, by name.
pub(crate) fn interfaces() -> io::Result<BTreeMap<String, Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for one in getifaddrs()? {
        if !one.flags.contains(InterfaceFlags::IFF_UP) || one.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let interface = found.entry(one.interface_name).or_default();
        let Some(address) = one.address else { continue };
        if let Some(mac) = address.as_link_addr().and_then(|link| link.addr()) {
            interface.mac = Some(Mac(mac));
        }
        let mask = one.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()).map(|mask| mask.ip());
        if let (Some(four), Some(mask)) = (address.as_sockaddr_in(), mask)
            && let Ok(IpNet::V4(net)) = IpNet::with_netmask(four.ip().into(), mask.into())
        {
            interface.addresses.push(net);
        }
    }
    Ok(found)
}

/// The address of this machine from which packets to `destination` leave; nothing is sent.
pub(crate) fn source_towards(destination: Ipv4Addr) -> Option<Ipv4Addr> {
    const DISCARD: u16 = 9;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((destination, DISCARD)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(ip) => Some(ip),
        std::net::IpAddr::V6(_) => None,
    }
}

/// Whether a program could listen at this UDP port; `interface` if it would listen there only.
pub(crate) fn try_udp(address: SocketAddrV4, interface: Option<&str>) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(interface.map(str::as_bytes))?;
    socket.bind(&address.into())
}

/// The MAC address that the kernel knows of a neighbour.
pub(crate) fn neighbour(address: Ipv4Addr) -> Option<Mac> {
    mac_in(&std::fs::read_to_string(Path::new("/proc/net/arp")).ok()?, address)
}

/// In the table of `/proc/net/arp` (proc(5)): address, type, flags, MAC, mask, interface.
fn mac_in(table: &str, address: Ipv4Addr) -> Option<Mac> {
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row.first().and_then(|ip| ip.parse().ok()) == Some(address))?;
    row.get(3)?.parse().ok().filter(|mac| *mac != Mac([0; 6]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_found_taken() {
        let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        let std::net::SocketAddr::V4(address) = address else { panic!("IPv4") };
        assert_eq!(try_udp(address, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        try_udp(address, None).expect("free");
    }

    #[test]
    fn a_neighbour_has_the_mac_of_its_row() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            10.0.0.5         0x1         0x2         52:54:00:00:00:05     *        eth0\n\
            10.0.0.50        0x1         0x2         52:54:00:00:00:50     *        eth0\n\
            10.0.0.6         0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        let mac = |last| mac_in(table, Ipv4Addr::new(10, 0, 0, last)).map(|mac| mac.to_string());
        assert_eq!(mac(50).as_deref(), Some("52:54:00:00:00:50"));
        assert_eq!((mac(6), mac(7)), (None, None), "an unanswered question is no neighbour");
    }
}
