//! Brings up the network of a terminal: every interface with a link gets an address and keeps it.
//!
//! Each round of the search that finds no server prefers another card's router, because the server may be
//! behind only one of several networks.
//!
//! Invariant: one task owns the interfaces' state and is the only one that changes the kernel's; a task for
//! each interface only speaks DHCP. Nothing here gives up: cables, switches and DHCP servers come when they
//! come.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::agent::status::Status;
use crate::api::{Neighbour, NicInfo};
use crate::io::net::dhcp::{Change, Runner};
use crate::io::net::discovery;
use crate::io::net::lldp;
use crate::io::net::netlink::{Link, Netlink};
use crate::lan::dhcp::Offer;
use crate::lan::discovery::LeaseFacts;
use crate::lan::lldp::Heard;

/// How often interfaces and cables are checked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time between two tries to open an interface's socket for DHCP.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// The kernel's switch to leave out routes through interfaces without a link.
const IGNORE_DEAD_ROUTES: &str = "/proc/sys/net/ipv4/conf/all/ignore_routes_with_linkdown";
/// Changes waiting for the owner; more interfaces than that wait themselves.
const CHANGES: usize = 16;
/// Metric of the default route through the card that the search prefers.
const PREFERRED_METRIC: u32 = 10;
/// Metric of the default route through the interface that PXE used; the others come after it.
const FIRST_METRIC: u32 = 50;
const OTHER_METRIC: u32 = 100;

/// An interface and its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, address and carrier.
    pub link: Link,
    /// Its lease, once there is one.
    pub lease: Option<Offer>,
    /// The switch at the other end of the cable, once it was heard.
    pub neighbour: Option<Neighbour>,
}

/// All interfaces, the one that PXE used first.
pub type Interfaces = Vec<Interface>;

pub fn nics(interfaces: &Interfaces) -> Vec<NicInfo> {
    interfaces
        .iter()
        .map(|i| NicInfo {
            name: i.link.name.clone(),
            mac: i.link.mac_text(),
            link: i.link.carrier,
            address: i.lease.as_ref().map(|lease| format!("{}/{}", lease.address, lease.prefix)),
            neighbour: i.neighbour.clone(),
            ..NicInfo::default()
        })
        .collect()
}

/// For the search for the server.
pub(crate) fn lease_facts(interfaces: &Interfaces) -> Vec<LeaseFacts> {
    let leases = interfaces.iter().filter_map(|i| i.lease.as_ref());
    leases
        .map(|lease| LeaseFacts {
            flashmob: lease.flashmob.clone(),
            next_server: lease.next_server,
            dns: lease.dns.clone(),
            domain: lease.domain.clone(),
        })
        .collect()
}

/// Starts to bring up the network and keeps it up as long as the runtime lives. `resolvers` is where the C
/// library reads its name servers, `/etc/resolv.conf`. `round` counts the rounds of the search for the server
/// that found none.
pub fn start(
    boot_mac: Option<String>,
    status: Status,
    resolvers: PathBuf,
    round: watch::Receiver<usize>,
) -> std::io::Result<watch::Receiver<Interfaces>> {
    let (published, receiver) = watch::channel(Interfaces::new());
    let (changes, incoming) = mpsc::channel(CHANGES);
    let listener = lldp::Listener::open();
    if let Err(e) = &listener {
        status.note(format!("cannot hear which switch this is ({e}); the address has to tell the zone"));
    }
    let owner = Owner {
        netlink: Netlink::open()?,
        listener: listener.ok(),
        boot_mac,
        status,
        resolvers,
        published,
        changes,
        cards: BTreeMap::new(),
    };
    tokio::spawn(owner.run(incoming, round));
    Ok(receiver)
}

struct Owner {
    netlink: Netlink,
    listener: Option<lldp::Listener>,
    boot_mac: Option<String>,
    status: Status,
    resolvers: PathBuf,
    published: watch::Sender<Interfaces>,
    changes: mpsc::Sender<(u32, Change)>,
    cards: BTreeMap<u32, Card>,
}

struct Card {
    interface: Interface,
    carrier: watch::Sender<bool>,
    /// Since when it waits for an address.
    asking: Instant,
}

impl Owner {
    async fn run(mut self, mut incoming: mpsc::Receiver<(u32, Change)>, mut round: watch::Receiver<usize>) {
        // Else a pulled cable's network hides the same network at the next card.
        if let Err(e) = std::fs::write(IGNORE_DEAD_ROUTES, "1") {
            self.status.note(format!("routes through pulled cables are used: {IGNORE_DEAD_ROUTES}: {e}"));
        }
        if let Err(e) = self.netlink.set_loopback_up().await {
            self.status.note(format!("cannot switch on the loopback interface: {e}"));
        }
        loop {
            self.look().await;
            self.publish();
            let heard = async {
                match &self.listener {
                    Some(listener) => listener.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((index, change)) = incoming.recv() => self.change(index, change).await,
                heard = heard => match heard {
                    Ok((index, heard)) => self.heard(index, heard),
                    Err(e) => {
                        self.status.note(format!("no longer hears switches: {e}"));
                        self.listener = None;
                    }
                },
                Ok(()) = round.changed() => {
                    let round = *round.borrow_and_update();
                    self.prefer(round).await;
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Sends what has no better route through another card's router than in the round before.
    async fn prefer(&self, round: usize) {
        let routers: Vec<(&Link, Ipv4Addr)> = self
            .sorted()
            .into_iter()
            .filter(|card| card.link.carrier)
            .filter_map(|card| Some((&card.link, router(card.lease.as_ref()?)?)))
            .collect();
        if routers.len() < 2 {
            return;
        }
        let (link, router) = routers[round % routers.len()];
        match self.netlink.set_default_route(link.index, router, PREFERRED_METRIC).await {
            Ok(()) => self.status.note(format!("looking through {} and its router {router}", link.name)),
            Err(e) => self.status.note(format!("{}: cannot prefer its router {router}: {e}", link.name)),
        }
    }

    /// All interfaces, the one that PXE used first.
    fn sorted(&self) -> Vec<&Interface> {
        let mut all: Vec<&Interface> = self.cards.values().map(|card| &card.interface).collect();
        all.sort_by_key(|i| self.boot_mac.as_deref() != Some(&i.link.mac_text()));
        all
    }

    /// Finds new interfaces, and cables that were put in or pulled.
    async fn look(&mut self) {
        let links = match self.netlink.links().await {
            Ok(links) => links,
            Err(e) => return self.status.note(format!("cannot list the network interfaces: {e}")),
        };
        self.cards.retain(|index, _| links.iter().any(|link| link.index == *index));
        for link in links {
            if !link.up
                && let Err(e) = self.netlink.set_up(link.index).await
            {
                self.status.note(format!("cannot switch on {}: {e}", link.name));
            }
            match self.cards.get_mut(&link.index) {
                Some(card) => {
                    if card.interface.link.carrier != link.carrier {
                        card.asking = Instant::now();
                        // The cable may be in another switch now.
                        card.interface.neighbour = None;
                    }
                    card.carrier.send_if_modified(|was| std::mem::replace(was, link.carrier) != link.carrier);
                    card.interface.link = link;
                }
                None => {
                    let (carrier, seen) = watch::channel(link.carrier);
                    tokio::spawn(ask(link.clone(), seen, self.changes.clone(), self.status.clone()));
                    // A card that takes no such frames only hears of no switch.
                    if let Some(Err(e)) = self.listener.as_ref().map(|listener| listener.join(link.index)) {
                        log::debug!("{}: cannot hear switches: {e}", link.name);
                    }
                    let interface = Interface { link, lease: None, neighbour: None };
                    self.cards
                        .insert(interface.link.index, Card { interface, carrier, asking: Instant::now() });
                }
            }
        }
    }

    /// The switch at the other end of a cable said something.
    fn heard(&mut self, index: u32, heard: Heard) {
        let Some(card) = self.cards.get_mut(&index) else { return };
        card.interface.neighbour = match heard {
            Heard::Neighbour(neighbour) => Some(neighbour),
            Heard::Gone => None,
        };
    }

    async fn change(&mut self, index: u32, change: Change) {
        let Some(card) = self.cards.get_mut(&index) else { return };
        let name = card.interface.link.name.clone();
        match change {
            Change::Bound(offer) => {
                let metric = if self.boot_mac.as_deref() == Some(&card.interface.link.mac_text()) {
                    FIRST_METRIC
                } else {
                    OTHER_METRIC + index
                };
                match apply(&self.netlink, index, &offer, metric).await {
                    Ok(problem) => {
                        card.interface.lease = Some(*offer);
                        if let Some(problem) = problem {
                            self.status.note(format!("{name}: {problem}"));
                        }
                    }
                    Err(e) => {
                        self.status.note(format!("{name}: cannot set the address {}: {e}", offer.address))
                    }
                }
            }
            Change::Lost(address) => {
                card.interface.lease = None;
                card.asking = Instant::now();
                self.status.note(format!("{name}: lost the address {address}"));
                if let Err(e) = self.netlink.remove_address(index, address).await {
                    self.status.note(format!("{name}: cannot remove the address {address}: {e}"));
                }
            }
        }
        self.write_resolvers();
    }

    /// Names are resolved with the name servers of all leases.
    fn write_resolvers(&self) {
        let leases = || self.cards.values().filter_map(|card| card.interface.lease.as_ref());
        let mut text = String::new();
        for domain in leases().filter_map(|lease| lease.domain.as_ref()).take(1) {
            text.push_str(&format!("search {domain}\n"));
        }
        for server in leases().flat_map(|lease| &lease.dns).take(3) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if let Err(e) = std::fs::write(&self.resolvers, text) {
            let path = self.resolvers.display();
            self.status.note(format!("cannot write {path}: {e}; servers are found by address only"));
        }
    }

    fn publish(&self) {
        let all: Interfaces = self.sorted().into_iter().cloned().collect();
        self.published.send_if_modified(|old| {
            let changed = *old != all;
            *old = all;
            changed
        });
        let texts: Vec<String> = self.cards.values().map(Card::text).collect();
        let text = if texts.is_empty() { "no network card found".into() } else { texts.join(", ") };
        if self.status.view().address != text {
            self.status.change(|view| view.address = text);
        }
    }
}

impl Card {
    /// The interface's address, or the step that it waits for.
    fn text(&self) -> String {
        let name = &self.interface.link.name;
        match &self.interface.lease {
            _ if !self.interface.link.carrier => format!("{name}: no cable or no link yet"),
            Some(lease) => format!("{}/{} on {name}", lease.address, lease.prefix),
            None => {
                // In steps, so that a log is not filled with seconds.
                let seconds = self.asking.elapsed().as_secs() / 10 * 10;
                match seconds {
                    0 => format!("{name}: asking for an address"),
                    _ => format!("{name}: asking for an address for {seconds} s (switches may need 40 s)"),
                }
            }
        }
    }
}

/// The router of a lease that is not the terminal itself.
fn router(offer: &Offer) -> Option<Ipv4Addr> {
    offer.routers.first().copied().filter(|router| *router != offer.address)
}

/// Gives the lease to the kernel. Failures of inessential parts are returned as a problem.
async fn apply(
    netlink: &Netlink,
    index: u32,
    offer: &Offer,
    metric: u32,
) -> Result<Option<String>, rtnetlink::Error> {
    netlink.add_address(index, offer.address, offer.prefix).await?;
    let mut problem = None;
    if let Some(mtu) = offer.mtu
        && let Err(e) = netlink.set_mtu(index, mtu).await
    {
        problem = Some(format!("cannot set the MTU {mtu}: {e}"));
    }
    if let Some(router) = router(offer)
        && let Err(e) = netlink.set_default_route(index, router, metric).await
    {
        problem = Some(format!("cannot set the route through {router}: {e}"));
    }
    Ok(problem)
}

/// Speaks DHCP on one interface while it exists.
async fn ask(
    link: Link,
    mut carrier: watch::Receiver<bool>,
    changes: mpsc::Sender<(u32, Change)>,
    status: Status,
) {
    let mut runner: Option<Runner> = None;
    loop {
        let there = *carrier.borrow_and_update();
        if there && runner.is_none() {
            match Runner::start(&link.name, link.mac) {
                Ok(started) => runner = Some(started),
                Err(e) => {
                    status.note(format!("{}: cannot ask for an address: {e}", link.name));
                    tokio::select! {
                        () = tokio::time::sleep(TRY_AGAIN) => {}
                        changed = carrier.changed() => if changed.is_err() { return },
                    }
                    continue;
                }
            }
        }
        let next = async {
            match &mut runner {
                Some(runner) if there => runner.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            change = next => {
                if changes.send((link.index, change)).await.is_err() {
                    return;
                }
            }
            changed = carrier.changed() => {
                if changed.is_err() {
                    return;
                }
                let back = *carrier.borrow_and_update();
                if let (true, Some(runner)) = (back, &mut runner) {
                    runner.link_back();
                }
            }
        }
    }
}

/// The interfaces of this machine for the inventory. The one through which the server at `server` is reached
/// has its address. A machine where they cannot be listed is known by its UUID alone.
pub(crate) async fn towards(server: &str) -> Vec<NicInfo> {
    let Ok(netlink) = Netlink::open() else { return Vec::new() };
    let links = netlink.links().await.unwrap_or_default();
    let addresses = netlink.addresses().await.unwrap_or_default();
    let from = discovery::address_towards(server).await;
    let nic = |link: Link| NicInfo {
        mac: link.mac_text(),
        link: link.carrier,
        address: addresses
            .iter()
            .find(|(index, ip, _)| *index == link.index && Some(*ip) == from)
            .map(|(_, ip, prefix)| format!("{ip}/{prefix}")),
        name: link.name,
        ..NicInfo::default()
    };
    links.into_iter().map(nic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_asks_any_longer_on_an_interface_that_cannot_be_opened_and_was_pulled() {
        let link = Link {
            index: u32::MAX,
            name: "none-such0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            carrier: true,
        };
        let (carrier, seen) = watch::channel(true);
        let (changes, _incoming) = mpsc::channel(1);
        let status = Status::new();
        let asking = tokio::spawn(ask(link, seen, changes, status.clone()));
        let failed = async {
            while status.view().notes.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TRY_AGAIN, failed).await.expect("it cannot be opened");
        drop(carrier);
        tokio::time::timeout(2 * TRY_AGAIN, asking).await.expect("it ends").expect("without a panic");
    }
}
