//! The choice of peers in a lab with zones: every peer of the same zone, and other zones through gateways
//! only.
//!
//! In each swarm a zone has a few gateways (`Zone::links`): the flashmob peers that exchange pieces with the
//! server's seeder, with the gateways of other zones and with peers in no zone. So each zone's uplink carries
//! each piece about once, and only chosen connections cross it. The first peer that announces while a place
//! is free becomes a gateway and announces every few seconds. If it is silent for longer than 8 s, the next
//! peer of its zone that announces replaces it. A slow one gives its place to the first peer of its zone that
//! reports more than twice its capacity, which peers measure within seconds on their neighbours.
//!
//! Of two or more gateways, one half fetches for the zone and the other half serves other zones, so that
//! fetching and serving do not share a link. Two that fetch at the same time would wait for each other at the
//! uplink. A single gateway does both.
//!
//! Invariant: a peer learns of, and may meet, a peer of another zone only if it is a gateway or a pin says
//! so, and never against `from`. Standard clients have no rules: they get a filtered list, and meet other
//! zones only where no flashmob peer can. The policy keeps only the names of gateways.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::policy::{Candidate, FlatPolicy, Policy, Request, Selection, shuffle};
use super::topology::{REST, Topology, Zone, ZoneId};
use crate::peer_policy::{MAX_ADDRESSES, MAX_NETWORKS, PeerPolicy, RemoteZone, Share};
use crate::units::{InfoHash, PeerId};

/// How often a gateway announces.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);
/// Heartbeats after which a silent gateway is replaced.
const PATIENCE: u32 = 4;
/// A terminal of the same zone replaces a gateway if its capacity is more than this many times as large.
const MUCH_FASTER: u64 = 2;
/// Members of a zone that announce in each heartbeat at least, so that one notices a gateway's silence.
const MEMBERS_A_HEARTBEAT: u32 = 12;

/// A peer's part in the traffic between zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Duty {
    fetches: bool,
    serves: bool,
}

#[derive(Debug)]
pub struct Zoned {
    topology: Topology,
    gateways: HashMap<(InfoHash, ZoneId), Vec<PeerId>>,
    heartbeat: Duration,
    /// There were zones once, so peers with rules must learn that there are no zones now.
    had_zones: bool,
}

impl Zoned {
    /// By a topology that passed its check.
    pub fn new(topology: Topology) -> Self {
        Zoned { had_zones: !topology.is_flat(), topology, gateways: HashMap::new(), heartbeat: HEARTBEAT }
    }

    /// The same with gateways that announce so often: for a lab in which time is scaled.
    pub(crate) fn with_heartbeat(self, heartbeat: Duration) -> Self {
        Zoned { heartbeat, ..self }
    }

    fn is_gateway(&self, swarm: InfoHash, of: ZoneId, peer: PeerId) -> bool {
        self.gateways.get(&(swarm, of)).is_some_and(|list| list.contains(&peer))
    }

    /// Forgets gateways that are silent or gone, and takes the one that asks if there is room. True if it
    /// did.
    fn elect(&mut self, zone: ZoneId, ask: &Request, candidates: &[Candidate]) -> bool {
        let moved = |(swarm, of): &(InfoHash, ZoneId)| *swarm == ask.swarm && *of != zone;
        for (_, list) in self.gateways.iter_mut().filter(|(of, _)| moved(of)) {
            list.retain(|id| *id != ask.asker.peer_id);
        }
        let ZoneId::Zone(i) = zone else { return false };
        let links = self.topology.zones.get(i).map_or(0, |zone| zone.links);
        let patience = self.heartbeat * PATIENCE;
        let list = self.gateways.entry((ask.swarm, zone)).or_default();
        let lives = |id: &PeerId| {
            let heard = |c: &Candidate| {
                c.peer_id == *id && c.silent <= patience && self.topology.zone_of(c.address.ip()) == zone
            };
            *id == ask.asker.peer_id || candidates.iter().any(heard)
        };
        list.retain(lives);
        list.truncate(links);
        let pinned = self.topology.pinned(ask.asker.address.ip()).is_some();
        let elected =
            ask.asker.is_ours() && !pinned && list.len() < links && !list.contains(&ask.asker.peer_id);
        if elected {
            list.push(ask.asker.peer_id);
            return true;
        }
        let eligible = ask.asker.is_ours() && !pinned && !list.contains(&ask.asker.peer_id);
        let slower = slowest(list, candidates).filter(|(_, capacity)| {
            eligible && ask.asker.capacity.is_some_and(|mine| mine > capacity.saturating_mul(MUCH_FASTER))
        });
        if let Some((place, _)) = slower {
            list[place] = ask.asker.peer_id;
        }
        slower.is_some()
    }

    /// The duty of `peer` of `zone`. Peers in no zone are free, and so are standard clients of a zone without
    /// other peers, which would starve otherwise.
    fn duty(&self, swarm: InfoHash, zone: ZoneId, peer: &Candidate) -> Duty {
        let gateways = self.gateways.get(&(swarm, zone)).map_or(&[][..], Vec::as_slice);
        let (fetches, serves) = match gateways.iter().position(|id| *id == peer.peer_id) {
            _ if zone == ZoneId::Rest => (true, true),
            Some(_) if gateways.len() == 1 => (true, true),
            Some(place) => (place % 2 == 0, place % 2 == 1),
            None => (gateways.is_empty() && !peer.is_ours(), gateways.is_empty() && !peer.is_ours()),
        };
        Duty { fetches, serves: serves || peer.home }
    }

    /// Whether the peer of `zone` that asks may fetch from `other`, which is beyond it, and serve it.
    fn across(&self, ask: &Request, zone: ZoneId, other: &Candidate) -> Duty {
        let there = self.topology.zone_of(other.address.ip());
        let mine = self.duty(ask.swarm, zone, &ask.asker);
        let theirs = self.duty(ask.swarm, there, other);
        Duty {
            fetches: mine.fetches && theirs.serves && self.topology.may_fetch(zone, there),
            serves: mine.serves && theirs.fetches && self.topology.may_fetch(there, zone),
        }
    }

    /// The peers that a peer of `zone` may meet beyond it: those that may cross from where they are, and the
    /// server's seeder.
    fn may_cross(&self, ask: &Request, zone: ZoneId, other: &Candidate) -> bool {
        let beyond = self.topology.zone_of(other.address.ip()) != zone;
        let Duty { fetches, serves } = self.across(ask, zone, other);
        beyond && (fetches || serves)
    }

    /// Peers of other zones for `asker` of `zone`, in random order.
    fn beyond(
        &self,
        ask: &Request,
        zone: ZoneId,
        candidates: &[Candidate],
        chance: &mut dyn FnMut() -> u64,
    ) -> Vec<Candidate> {
        let mut beyond: Vec<Candidate> =
            candidates.iter().filter(|other| self.may_cross(ask, zone, other)).copied().collect();
        shuffle(&mut beyond, chance);
        // The seeder first: its pieces are the scarcest.
        beyond.sort_by_key(|other| !other.home);
        beyond.truncate(MAX_ADDRESSES / 2);
        beyond
    }

    fn policy(&self, ask: &Request, zone: ZoneId, beyond: &[Candidate]) -> PeerPolicy {
        let ip = ask.asker.address.ip();
        let address = |other: &Candidate| other.address.ip();
        let fetch = beyond.iter().filter(|o| self.across(ask, zone, o).fetches).map(address);
        let serve = beyond.iter().filter(|o| self.across(ask, zone, o).serves).map(address);
        let pinned = self.topology.pinned(ip);
        let may_meet = |other: &IpAddr| !self.topology.apart(zone, self.topology.zone_of(*other));
        let pinned_to_us = self.topology.pins.iter().filter(|pin| pin.from.contains(&ip));
        let pinned_to_us = pinned_to_us.map(|pin| pin.terminal).filter(may_meet);
        let mut policy = PeerPolicy {
            zone: self.topology.name(zone).to_owned(),
            networks: Vec::new(),
            fetch: match pinned {
                Some(from) => from.iter().copied().filter(may_meet).collect(),
                None => fetch.collect(),
            },
            serve: pinned_to_us.chain(serve).collect(),
            pinned: pinned.is_some(),
            share: None,
            rate: None,
            remote_zones: Vec::new(),
        };
        policy.fetch.truncate(MAX_ADDRESSES);
        policy.serve.truncate(MAX_ADDRESSES);
        match zone {
            ZoneId::Rest => policy.networks = everywhere(),
            ZoneId::Zone(i) => {
                let Some(here) = self.topology.zones.get(i) else { return policy };
                let limit = here.limit_mbit;
                policy.networks.clone_from(&here.networks);
                policy.networks.extend(self.topology.learned_in(zone).map(IpNet::from));
                policy.networks.truncate(MAX_NETWORKS);
                let gateways = self.gateways.get(&(ask.swarm, zone)).map_or(&[][..], Vec::as_slice);
                // Every second one fetches, beginning with the first.
                let place = gateways.iter().position(|id| *id == ask.asker.peer_id);
                let others = place.map_or(1, |place| match place % 2 {
                    0 => gateways.len().div_ceil(2),
                    _ => gateways.len() / 2,
                });
                let of = u32::try_from(others).unwrap_or(u32::MAX);
                let part =
                    place.filter(|place| place % 2 == 0).and_then(|place| u32::try_from(place / 2).ok());
                policy.share = part.filter(|_| of > 1).map(|part| Share { part, of });
                policy.rate = limit.map(|mbit| mbit * 125_000 / u64::from(of));
            }
        }
        policy
    }
}

/// The gateway that carries least of those of which it is known, and how much that is.
fn slowest(gateways: &[PeerId], candidates: &[Candidate]) -> Option<(usize, u64)> {
    let capacity = |id: &PeerId| candidates.iter().find(|c| c.peer_id == *id)?.capacity;
    let known = gateways.iter().enumerate().filter_map(|(place, id)| Some((place, capacity(id)?)));
    known.min_by_key(|(_, capacity)| *capacity)
}

/// Peers in no zone are not restricted; the others check which peers they accept.
fn everywhere() -> Vec<ipnet::IpNet> {
    vec![ipnet::Ipv4Net::default().into(), ipnet::Ipv6Net::default().into()]
}

impl Policy for Zoned {
    fn choose(
        &mut self,
        ask: &Request,
        candidates: Vec<Candidate>,
        chance: &mut dyn FnMut() -> u64,
    ) -> Selection {
        if self.topology.is_flat() {
            let free = PeerPolicy { zone: REST.to_owned(), networks: everywhere(), ..PeerPolicy::default() };
            let policy = (self.had_zones && ask.asker.is_ours()).then_some(free);
            return Selection { policy, ..FlatPolicy.choose(ask, candidates, chance) };
        }
        let zone = self.topology.zone_of(ask.asker.address.ip());
        let elected = self.elect(zone, ask, &candidates);
        let useful = |other: &Candidate| !(ask.asker.complete && other.complete);
        let mut beyond = match zone {
            ZoneId::Rest => Vec::new(),
            ZoneId::Zone(_) => self.beyond(ask, zone, &candidates, chance),
        };
        let policy = self.policy(ask, zone, &beyond);
        let pins = [&policy.fetch[..], &policy.serve[..]].concat();
        let pinned = |other: &Candidate| {
            let named = pins.contains(&other.address.ip());
            let to_them = self.topology.pinned(other.address.ip());
            named && (policy.pinned || to_them.is_some())
        };
        // A pinned terminal is served by its sources alone, and may be fetched from by any peer of its zone.
        beyond.retain(|other| useful(other) && (!policy.pinned || pinned(other)));
        beyond.truncate(ask.want.div_ceil(2));
        let near = candidates.iter().filter(|other| {
            let there = self.topology.zone_of(other.address.ip());
            let open = zone == ZoneId::Rest && (other.home || self.may_cross(ask, zone, other));
            let known = beyond.iter().any(|b| b.peer_id == other.peer_id);
            !known && (there == zone || open || pinned(other))
        });
        let near: Vec<Candidate> = near.copied().collect();
        let members = u32::try_from(near.len()).unwrap_or(u32::MAX);
        let rest = Request { want: ask.want.saturating_sub(beyond.len()), ..*ask };
        beyond.extend(FlatPolicy.choose(&rest, near, chance).peers);
        let gateway = self.is_gateway(ask.swarm, zone, ask.asker.peer_id);
        let often = match zone {
            ZoneId::Rest => None,
            // When a lab starts, the gateways of all zones begin at once, and should meet soon.
            ZoneId::Zone(_) if elected => Some(self.heartbeat / 2),
            ZoneId::Zone(_) if gateway => Some(self.heartbeat),
            ZoneId::Zone(_) => Some(self.heartbeat * (members / MEMBERS_A_HEARTBEAT).max(1)),
        };
        Selection {
            peers: beyond,
            policy: ask.asker.is_ours().then_some(policy),
            interval: often.filter(|_| ask.asker.is_ours()),
        }
    }

    fn forget(&mut self, swarm: &InfoHash) {
        self.gateways.retain(|(of, _), _| of != swarm);
    }

    fn arrange(&mut self, topology: &Topology) {
        let old = std::mem::replace(&mut self.topology, topology.clone());
        self.had_zones |= !topology.is_flat();
        // Zones are known by their names: their numbers may have changed.
        let moved = self.gateways.drain().filter_map(|((swarm, zone), list)| {
            let name = &old.zone(zone)?.name;
            let now = topology.zones.iter().position(|zone| zone.name == *name)?;
            Some(((swarm, ZoneId::Zone(now)), list))
        });
        self.gateways = moved.collect();
    }

    fn home(&self) -> Option<PeerPolicy> {
        let remote_zones = |(number, zone): (usize, &Zone)| {
            let learned = self.topology.learned_in(ZoneId::Zone(number)).map(IpNet::from);
            let rate = zone.limit_mbit.map(|mbit| mbit * 125_000);
            RemoteZone { networks: zone.networks.iter().copied().chain(learned).collect(), rate }
        };
        let remote_zones = self.topology.zones.iter().enumerate().map(remote_zones).collect();
        let policy = PeerPolicy {
            zone: REST.to_owned(),
            networks: everywhere(),
            remote_zones,
            ..PeerPolicy::default()
        };
        self.had_zones.then_some(policy)
    }

    fn gateways(&self) -> Vec<(InfoHash, PeerId)> {
        let all = self.gateways.iter().flat_map(|((swarm, _), list)| list.iter().map(|id| (*swarm, *id)));
        all.collect()
    }
}

#[cfg(test)]
mod tests;
