//! Runs the DHCP client of `lan::dhcp` on a real interface.
//!
//! Invariant: one socket for each interface, bound to it, so that several clients do not hear each other.
//! `agent::network` uses the lease.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket,
    sockopt::{BindToDevice, Broadcast, ReuseAddr},
};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::lan::dhcp::{Client, Offer, Output};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;

/// A client on an interface.
#[derive(Debug)]
pub(crate) struct Runner {
    socket: UdpSocket,
    client: Client,
    began: Instant,
}

/// A change of the interface's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is this from now on.
    Bound(Box<Offer>),
    /// This address must no longer be used.
    Lost(Ipv4Addr),
}

impl Runner {
    /// Begins to ask on `interface`, which must be up. Needs the right to use low ports and raw interfaces.
    pub(crate) fn start(interface: &str, mac: [u8; 6]) -> io::Result<Self> {
        let seed = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
        let client = Client::new(mac, seed, Duration::ZERO);
        Ok(Runner { socket: open(interface)?, client, began: Instant::now() })
    }

    /// The cable was out and is back.
    pub(crate) fn link_back(&mut self) {
        self.client.link_back(self.began.elapsed());
    }

    /// Sends, waits and answers until the address changes. May be dropped at any await and called again.
    pub(crate) async fn next(&mut self) -> Change {
        let mut buffer = [0u8; 2048];
        loop {
            while let Some(output) = self.client.poll() {
                match output {
                    Output::Broadcast(bytes) => self.send(Ipv4Addr::BROADCAST, &bytes),
                    Output::Unicast(server, bytes) => self.send(server, &bytes),
                    Output::Bound(offer) => return Change::Bound(offer),
                    Output::Lost(address) => return Change::Lost(address),
                }
            }
            let deadline = self.client.deadline().map(|deadline| self.began + deadline);
            let wait = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, _)) => self.client.receive(self.began.elapsed(), &buffer[..length]),
                    Err(e) => {
                        // The interface may be down for a moment; the client's clock continues.
                        log::debug!("dhcp: cannot receive: {e}");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        self.client.tick(self.began.elapsed());
                    }
                },
                () = wait => self.client.tick(self.began.elapsed()),
            }
        }
    }

    /// A datagram that cannot be sent is as good as a lost one: the client sends again.
    fn send(&self, to: Ipv4Addr, bytes: &[u8]) {
        if let Err(e) = self.socket.try_send_to(bytes, SocketAddrV4::new(to, SERVER).into()) {
            log::debug!("dhcp: cannot send to {to}: {e}");
        }
    }
}

fn open(interface: &str) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    setsockopt(&fd, Broadcast, &true)?;
    setsockopt(&fd, BindToDevice, &interface.into())?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::new(0, 0, 0, 0, CLIENT))?;
    UdpSocket::from_std(std::net::UdpSocket::from(fd))
}
