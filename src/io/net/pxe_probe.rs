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
use tokio::time::{Instant, interval, timeout_at};

use crate::lan::pxe::{self, Answer};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// How long answers are waited for: dnsmasq offers an address only after a ping to it got no answer for 3 s.
pub(crate) const WAIT: Duration = Duration::from_secs(5);
/// The pause between two questions while nobody has answered: a datagram may be lost, and a server may start.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Most answers that are kept: a LAN has a handful of servers, and a flood is not a list.
const MOST: usize = 64;

/// The answers to a PXE firmware with this MAC at `interface`, each once. Needs root.
pub(crate) async fn answers(interface: &str, mac: [u8; 6], wait: Duration) -> io::Result<Vec<Answer>> {
    let xid = getrandom::u32().map_err(|e| io::Error::other(e.to_string()))?;
    ask(interface, &pxe::discover(mac, xid), wait, |bytes| pxe::answer(bytes, mac, xid)).await
}

/// Broadcasts `question` at `interface`, again until the first answer, and returns what `read` makes of the
/// datagrams that come within `wait`. Needs root.
async fn ask(
    interface: &str,
    question: &[u8],
    wait: Duration,
    read: impl Fn(&[u8]) -> Option<Answer>,
) -> io::Result<Vec<Answer>> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    setsockopt(&fd, Broadcast, &true)?;
    setsockopt(&fd, BindToDevice, &interface.into())?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, CLIENT))?;
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(fd))?;
    let (mut heard, mut buffer) = (Vec::new(), [0u8; 2048]);
    // Its first tick comes at once.
    let (end, mut again, mut asked) = (Instant::now() + wait, interval(ASK_AGAIN), false);
    while heard.len() < MOST {
        tokio::select! {
            _ = again.tick(), if heard.is_empty() => {
                let sent = socket.send_to(question, SocketAddrV4::new([255; 4].into(), SERVER)).await;
                // A link that flaps takes a repeat, not the whole question.
                if !asked {
                    sent?;
                }
                asked = true;
            }
            received = timeout_at(end, socket.recv_from(&mut buffer)) => {
                let Ok(received) = received else { break };
                // A server that was slow answers each question.
                let new = read(&buffer[..received?.0]).filter(|answer| !heard.contains(answer));
                heard.extend(new);
            }
        }
    }
    Ok(heard)
}
