//! Receives the announcements of switches (`lan::lldp`) on all interfaces.
//!
//! Invariant: it only listens; an unreadable frame is ignored. `agent::network` chooses the interfaces. Needs
//! the right to open packet sockets, which an initramfs has.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::io::sys;
use crate::lan::lldp::{Heard, MAX_FRAME, read};

/// The Ethernet type of LLDP (IEEE 802.1AB-2016, 7.4).
const LLDP: u16 = 0x88cc;
/// Where switches send it: the nearest bridge.
const NEAREST_BRIDGE: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];

#[derive(Debug)]
pub(crate) struct Listener {
    /// A packet socket; the runtime has no type for these, and waits for any datagrams alike.
    socket: UdpSocket,
}

impl Listener {
    /// Begins to listen. Must be called inside a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(LLDP.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
        let socket = UdpSocket::from_std(std::net::UdpSocket::from(OwnedFd::from(socket)))?;
        Ok(Listener { socket })
    }

    /// Has the interface with this number take frames that are sent to switches' neighbours.
    pub(crate) fn join(&self, interface: u32) -> io::Result<()> {
        sys::join_packet_group(&self.socket, interface, NEAREST_BRIDGE)
    }

    /// The next announcement, with the number of the interface. May be dropped at any await.
    pub(crate) async fn next(&self) -> io::Result<(u32, Heard)> {
        let mut buffer = [0; MAX_FRAME];
        loop {
            let receive = || Ok(recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer)?);
            let (length, from) = self.socket.async_io(Interest::READABLE, receive).await?;
            let interface = from.and_then(|from| u32::try_from(from.ifindex()).ok());
            if let (Some(interface), Some(heard)) = (interface, read(&buffer[..length])) {
                return Ok((interface, heard));
            }
        }
    }
}
