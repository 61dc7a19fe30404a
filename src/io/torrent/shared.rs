//! The world that all torrents of a session share: addresses, limits, the HTTP client, the table of torrents.
//!
//! Invariant: nothing panics while the table is locked, and no lock is held across an await.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::handle::Swarm;
use super::handshake::Accepted;
use super::limits::Limits;
use super::spec::SessionConfig;
use crate::sync;
use crate::units::{InfoHash, PeerId};

/// How often the numbers of a swarm are made known.
pub(super) const PUBLISH: Duration = Duration::from_millis(500);

pub(super) struct Shared {
    pub(super) config: SessionConfig,
    /// From here all engines count time.
    pub(super) started: Instant,
    pub(super) local_addr: SocketAddr,
    pub(super) peer_id: PeerId,
    pub(super) http: reqwest::Client,
    pub(super) limits: Arc<Limits>,
    pub(super) swarms: Mutex<HashMap<InfoHash, Entry>>,
}

pub(super) struct Entry {
    pub(super) incoming: mpsc::Sender<Accepted>,
    pub(super) swarm: Swarm,
}

impl Shared {
    pub(super) fn swarms(&self) -> MutexGuard<'_, HashMap<InfoHash, Entry>> {
        sync::lock(&self.swarms)
    }

    /// Our private address, if there is just one way to say it.
    pub(super) fn local_ipv4(&self) -> Option<Ipv4Addr> {
        let chosen = self.outgoing_address();
        let private = |ip: IpAddr| match ip {
            IpAddr::V4(ip) if ip.is_private() => Some(ip),
            _ => None,
        };
        let mut ours = own_addresses().into_iter().filter_map(private);
        chosen.map_or_else(|| ours.next().filter(|_| ours.next().is_none()), private)
    }

    /// The address that dials and announces go out from, when one was chosen.
    pub(super) fn outgoing_address(&self) -> Option<IpAddr> {
        let ip = self.config.listen.ip();
        (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
    }
}

/// The addresses of this machine, so that it does not dial itself.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}
