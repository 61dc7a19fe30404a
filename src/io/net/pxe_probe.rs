//! Asks at one interface as a DHCP client, and collects the answers.
//!
//! Invariant: the socket is bound to the interface and closed after the wait. `lan::pxe` has the messages.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket,
    sockopt::{BindToDevice, Broadcast, ReuseAddr},
};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::lan::pxe::{self, Answer};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// How long answers are waited for: dnsmasq offers an address only after a ping to it got no answer for 3 s.
pub(crate) const WAIT: Duration = Duration::from_secs(5);
/// Most answers that are kept: a LAN has a handful of servers, and a flood is not a list.
const MOST: usize = 64;

/// The answers to a PXE firmware with this MAC at `interface`. Needs root.
pub(crate) async fn answers(interface: &str, mac: [u8; 6], wait: Duration) -> io::Result<Vec<Answer>> {
    let xid = getrandom::u32().map_err(|e| io::Error::other(e.to_string()))?;
    let datagrams = ask(interface, &pxe::discover(mac, xid), wait).await?;
    Ok(datagrams.iter().filter_map(|bytes| pxe::answer(bytes, mac, xid)).collect())
}

/// Broadcasts `question` at `interface` and returns the datagrams that come within `wait`. Needs root.
async fn ask(interface: &str, question: &[u8], wait: Duration) -> io::Result<Vec<Vec<u8>>> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    setsockopt(&fd, Broadcast, &true)?;
    setsockopt(&fd, BindToDevice, &interface.into())?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, CLIENT))?;
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(fd))?;
    socket.send_to(question, SocketAddrV4::new([255; 4].into(), SERVER)).await?;
    let (end, mut heard, mut buffer) = (Instant::now() + wait, Vec::new(), [0u8; 2048]);
    while heard.len() < MOST {
        match timeout_at(end, socket.recv_from(&mut buffer)).await {
            Ok(received) => heard.push(buffer[..received?.0].to_vec()),
            Err(_) => break,
        }
    }
    Ok(heard)
}
