//! Which terminals are woken now, and from where.
//!
//! Each one gets its packets at once, after 10, 30 and 60 s, and every two minutes from then on, until it
//! speaks or its time ends. A terminal in one of the server's networks gets them from the server. One
//! elsewhere gets them from a terminal at work in its own network or zone (its relay), and from the server by
//! the broadcast address of its network, which some routers let through. If it was never heard, it may be
//! anywhere: then the server and a relay in each other network send.
//!
//! Invariant: pure, with the clock as an argument. In no second are there more than [`A_SECOND`] packets, and
//! the terminal that waits longest comes first. A terminal is never its own relay.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::units::Mac;

/// Most packets in a second; a packet for one MAC that leaves through several interfaces counts once.
const A_SECOND: usize = 50;
/// Seconds after the first packet; then one every [`LATER`].
const FIRST: [u64; 4] = [0, 10, 30, 60];
const LATER: u64 = 120;
/// Most MACs of one terminal.
const MAX_MACS: usize = 5;
/// Most relays for a terminal that may be anywhere.
const MAX_RELAYS: usize = 8;
// Otherwise such a terminal would never fit into a second, and keep all others waiting.
const _: () = assert!(MAX_MACS * (1 + MAX_RELAYS) <= A_SECOND);
/// Most MACs in one answer to a relay.
const MAX_IN_ANSWER: usize = 64;
/// A relay that has not asked for this long no longer sends.
const RELAY_WITHIN: Duration = Duration::from_secs(30);

/// Where a terminal is, or was when it spoke last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// Its address with the length of its network's prefix, or with all bits where that is not known.
    pub address: Option<IpNet>,
    pub zone: Option<String>,
}

/// A terminal that should be woken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in calls.
    pub terminal: String,
    /// Its cards.
    pub macs: Vec<Mac>,
    pub location: Location,
    /// No packet leaves from then on.
    pub until: Duration,
}

/// A terminal that asks the server for orders, and can wake its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Its name in calls.
    pub terminal: String,
    pub location: Location,
}

/// What is to be sent now for one terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The terminal to be woken.
    pub terminal: String,
    pub macs: Vec<Mac>,
    pub way: Way,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// From the server, on all of its own networks.
    Server,
    /// From the server, to the broadcast address of a network behind a router.
    Router(Ipv4Net),
    /// By this terminal. The order is in [`Waking::orders`] already.
    Relay(String),
}

/// The result of one look at all terminals that should be woken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    pub packets: Vec<Packet>,
    /// Terminals in other networks that get packets as soon as a terminal there is at work.
    pub unreachable: Vec<String>,
}

#[derive(Debug)]
struct Target {
    wanted: Wanted,
    since: Duration,
    /// When it gets packets next.
    next: Duration,
    tries: usize,
}

/// An order for a relay: when it was given, and for which card.
type Order = (Duration, Mac);

/// The terminals that should be woken.
#[derive(Debug, Default)]
pub struct Waking {
    targets: BTreeMap<String, Target>,
    orders: HashMap<String, VecDeque<Order>>,
    /// The packets of the last second: when, and how many.
    sent: VecDeque<(Duration, usize)>,
}

impl Waking {
    /// `wanted` should be woken. If this is known, the packets go on as before, with what is new in `wanted`.
    pub fn want(&mut self, mut wanted: Wanted, now: Duration) {
        wanted.macs.truncate(MAX_MACS);
        if wanted.macs.is_empty() {
            return;
        }
        match self.targets.get_mut(&wanted.terminal) {
            Some(target) => target.wanted = wanted,
            None => {
                let target = Target { wanted, since: now, next: now, tries: 0 };
                self.targets.insert(target.wanted.terminal.clone(), target);
            }
        }
    }

    /// [`Waking::want`], from the first packet on, because a person asks.
    pub fn urge(&mut self, mut wanted: Wanted, now: Duration) {
        if let Some(before) = self.targets.remove(&wanted.terminal) {
            wanted.until = wanted.until.max(before.wanted.until);
        }
        self.want(wanted, now);
    }

    /// A terminal speaks, or no longer needs to be woken.
    pub fn heard(&mut self, terminal: &str) {
        self.targets.remove(terminal);
    }

    /// Is nothing to be sent now? Forgets the terminals whose time is over.
    pub fn is_idle(&mut self, now: Duration) -> bool {
        self.targets.retain(|_, target| now < target.wanted.until);
        self.orders.retain(|_, orders| {
            orders.retain(|(given, _)| now.saturating_sub(*given) < RELAY_WITHIN);
            !orders.is_empty()
        });
        self.targets.values().all(|target| target.next > now)
    }

    /// The packets that are due. `own` are the server's networks, `relays` the terminals at work.
    pub fn due(&mut self, now: Duration, own: &[IpNet], relays: &[Relay]) -> Due {
        let mut found = Due::default();
        if self.is_idle(now) {
            return found;
        }
        let mut due: Vec<(Duration, String)> = self
            .targets
            .iter()
            .filter(|(_, target)| target.next <= now)
            .map(|(id, target)| (target.next, id.clone()))
            .collect();
        due.sort();
        self.sent.retain(|(at, _)| now.saturating_sub(*at) < Duration::from_secs(1));
        let mut room = A_SECOND.saturating_sub(self.sent.iter().map(|(_, count)| count).sum());
        for (_, id) in due {
            let Some(target) = self.targets.get_mut(&id) else { continue };
            let ways = ways(target, own, relays);
            if ways.is_empty() {
                found.unreachable.push(id);
                continue;
            }
            let Some(left) = room.checked_sub(ways.len() * target.wanted.macs.len()) else { break };
            self.sent.push_back((now, room - left));
            room = left;
            target.next = next_try(target.since, now);
            target.tries += 1;
            for way in ways {
                if let Way::Relay(relay) = &way {
                    let orders = self.orders.entry(relay.clone()).or_default();
                    orders.extend(target.wanted.macs.iter().map(|mac| (now, *mac)));
                }
                found.packets.push(Packet { terminal: id.clone(), macs: target.wanted.macs.clone(), way });
            }
        }
        found
    }

    /// The cards that `relay`, which asks now, is to wake. Each order is given once.
    pub fn orders(&mut self, relay: &str, now: Duration) -> Vec<Mac> {
        let Some(orders) = self.orders.get_mut(relay) else { return Vec::new() };
        orders.retain(|(given, _)| now.saturating_sub(*given) < RELAY_WITHIN);
        let macs = orders.drain(..orders.len().min(MAX_IN_ANSWER)).map(|(_, mac)| mac).collect();
        if orders.is_empty() {
            self.orders.remove(relay);
        }
        macs
    }
}

/// The first planned moment after `now` for a terminal that got its first packet at `since`.
fn next_try(since: Duration, now: Duration) -> Duration {
    let passed = now.saturating_sub(since);
    let first = FIRST.iter().map(|seconds| Duration::from_secs(*seconds)).find(|planned| *planned > passed);
    let last = FIRST[FIRST.len() - 1];
    since
        + first.unwrap_or_else(|| {
            let rounds = (passed.as_secs().saturating_sub(last)) / LATER + 1;
            Duration::from_secs(last + rounds * LATER)
        })
}

/// How packets reach a terminal. The relay changes from try to try, because one may not do its work.
fn ways(target: &Target, own: &[IpNet], relays: &[Relay]) -> Vec<Way> {
    let location = &target.wanted.location;
    let others = || relays.iter().filter(|relay| relay.terminal != target.wanted.terminal);
    let choose = |among: Vec<&Relay>| {
        let chosen = (!among.is_empty()).then(|| among[target.tries % among.len()])?;
        Some(Way::Relay(chosen.terminal.clone()))
    };
    let Some(address) = location.address else {
        // One relay for each network that is not the server's.
        let mut networks: BTreeMap<IpNet, Vec<&Relay>> = BTreeMap::new();
        for relay in others() {
            if let Some(net) = relay.location.address.filter(|net| !contains(own, net.addr())) {
                networks.entry(net.trunc()).or_default().push(relay);
            }
        }
        return [Way::Server]
            .into_iter()
            .chain(networks.into_values().filter_map(choose).take(MAX_RELAYS))
            .collect();
    };
    if contains(own, address.addr()) {
        return vec![Way::Server];
    }
    let beside = |relay: &&Relay| relay.location.address.is_some_and(|net| same_network(net, address));
    let in_zone = |relay: &&Relay| location.zone.is_some() && relay.location.zone == location.zone;
    let relay =
        choose(others().filter(beside).collect()).or_else(|| choose(others().filter(in_zone).collect()));
    let router = match address {
        IpNet::V4(net) if net.prefix_len() < 31 => Some(Way::Router(net.trunc())),
        _ => None,
    };
    relay.into_iter().chain(router).collect()
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|net| net.contains(&address))
}

fn same_network(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.addr()) || b.contains(&a.addr())
}

#[cfg(test)]
mod tests;
