//! Swarms and their peers, with expiry.
//!
//! Invariant: a swarm exists only between [`Tracker::admit`] and [`Tracker::dismiss`]; a peer that has not
//! announced in time is in no answer. A swarm has at most `Settings::peers_per_swarm` peers; one more is
//! answered but not kept. `now` is any steady clock, the same in every call. `policy` chooses the peers for
//! an answer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::announce::{Announce, Event};
use super::policy::{Candidate, Policy, Request, Selection};
use super::topology::Topology;
use crate::peer_policy::{MAX_NETWORKS, PeerPolicy};
use crate::units::{InfoHash, PeerId};

/// Standard clients keep to their own shortest interval (libtorrent: 5 minutes) even if a tracker asks for a
/// shorter one, so they are remembered for at least twice that time.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(11 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often peers announce.
    pub interval: Duration,
    /// How often they do while young: when a lab starts, the first seconds decide which peers know each
    /// other.
    pub young_interval: Duration,
    /// How long a peer is young.
    pub young_for: Duration,
    /// No more peers of a swarm are kept.
    pub peers_per_swarm: usize,
    /// Peers told when the asker does not say how many.
    pub usual_answer: usize,
    /// Most peers told at once.
    pub longest_answer: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            interval: Duration::from_secs(30),
            young_interval: Duration::from_secs(10),
            young_for: Duration::from_secs(120),
            peers_per_swarm: 5000,
            usual_answer: 50,
            longest_answer: 200,
        }
    }
}

/// The server's own seeder as the asking peer can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeder {
    pub peer_id: PeerId,
    /// The address at which the asking peer reached the server, with the port that peers dial.
    pub address: SocketAddr,
}

/// The swarm is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no image with info-hash {0} is published here")]
pub struct Unknown(pub InfoHash);

/// Answer to an announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When to come again.
    pub interval: Duration,
    /// Not before.
    pub min_interval: Duration,
    /// Peers that lack nothing, the server's seeder included.
    pub complete: usize,
    pub incomplete: usize,
    /// Addresses to dial.
    pub peers: Vec<Candidate>,
    /// The rules of a flashmob peer.
    pub policy: Option<PeerPolicy>,
}

/// Numbers of a swarm (BEP 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwarmCounts {
    /// Peers that lack nothing.
    pub complete: usize,
    /// How often a peer became complete since the swarm was admitted.
    pub downloaded: u64,
    pub incomplete: usize,
}

#[derive(Debug)]
struct Peer {
    candidate: Candidate,
    /// Its address in its own network, as it said.
    local: Option<IpAddr>,
    first_heard: Duration,
    last_heard: Duration,
}

impl Peer {
    fn seen(&self, now: Duration) -> Candidate {
        Candidate { silent: now.saturating_sub(self.last_heard), ..self.candidate }
    }

    /// A terminal that was switched off and on again has a new peer id at its old address. Behind a
    /// translated address several terminals may have the same one.
    fn is_replaced_by(&self, other: &Candidate, local: Option<IpAddr>) -> bool {
        let differ = self.local.is_some() && local.is_some() && self.local != local;
        self.candidate.address == other.address && !differ
    }
}

/// A peer may be in a swarm with one address of each family (BEP 7).
type PeerKey = (PeerId, bool);

#[derive(Debug, Default)]
struct Swarm {
    peers: HashMap<PeerKey, Peer>,
    downloaded: u64,
    seeded_here: bool,
}

impl Swarm {
    fn counts(&self) -> SwarmCounts {
        let complete = self.peers.values().filter(|p| p.candidate.complete).count();
        SwarmCounts {
            complete: complete + usize::from(self.seeded_here),
            downloaded: self.downloaded,
            incomplete: self.peers.len() - complete,
        }
    }
}

pub struct Tracker {
    settings: Settings,
    policy: Box<dyn Policy>,
    swarms: HashMap<InfoHash, Swarm>,
}

impl Tracker {
    /// A tracker without swarms.
    pub fn new(settings: Settings, policy: Box<dyn Policy>) -> Self {
        Tracker { settings, policy, swarms: HashMap::new() }
    }

    /// Creates a swarm. `seeded_here`: the server's own seeder is in it.
    pub fn admit(&mut self, info_hash: InfoHash, seeded_here: bool) {
        self.swarms.entry(info_hash).or_default().seeded_here = seeded_here;
    }

    /// The lab's shape is another one from now on.
    pub(crate) fn arrange(&mut self, topology: &Topology) {
        self.policy.arrange(topology);
    }

    /// The rules of the server's own seeder, in every swarm; `None` if the lab has no zones and never had.
    pub(crate) fn seeder_policy(&self) -> Option<PeerPolicy> {
        self.policy.home()
    }

    /// Where the peers are that exchange pieces beyond their zones, in each swarm.
    pub fn gateways(&self) -> impl Iterator<Item = (InfoHash, IpAddr)> {
        let address = |(swarm, id): (InfoHash, PeerId)| {
            let peers = &self.swarms.get(&swarm)?.peers;
            let peer = peers.get(&(id, false)).or_else(|| peers.get(&(id, true)))?;
            Some((swarm, peer.candidate.address.ip()))
        };
        self.policy.gateways().into_iter().filter_map(address)
    }

    /// The swarm's image is gone.
    pub(crate) fn dismiss(&mut self, info_hash: &InfoHash) {
        self.policy.forget(info_hash);
        self.swarms.remove(info_hash);
    }

    /// Takes an announce that came from `ip` and returns the addresses to dial.
    pub fn announce(
        &mut self,
        now: Duration,
        ip: IpAddr,
        announce: &Announce,
        home: Option<Seeder>,
        chance: &mut dyn FnMut() -> u64,
    ) -> Result<Answer, Unknown> {
        let settings = self.settings;
        let swarm = self.swarms.get_mut(&announce.info_hash).ok_or(Unknown(announce.info_hash))?;
        expire(swarm, now, settings.interval);
        let ip = ip.to_canonical();
        let asker = Candidate {
            peer_id: announce.peer_id,
            address: SocketAddr::new(ip, announce.port),
            complete: announce.is_complete(),
            silent: Duration::ZERO,
            home: false,
            capacity: announce.capacity,
        };
        let local = announce.local.map(IpAddr::V4);
        let first_heard = note(swarm, now, asker, local, announce.event, settings.peers_per_swarm);
        let young = now.saturating_sub(first_heard) < settings.young_for;
        let usual = if young { settings.young_interval } else { settings.interval };
        let choice = if announce.event == Event::Stopped {
            Selection::default()
        } else {
            let mut candidates: Vec<Candidate> = swarm.peers.values().map(|peer| peer.seen(now)).collect();
            if let Some(home) = home.filter(|_| swarm.seeded_here) {
                let address = SocketAddr::new(home.address.ip().to_canonical(), home.address.port());
                let (complete, silent) = (true, Duration::ZERO);
                candidates.push(Candidate {
                    peer_id: home.peer_id,
                    address,
                    complete,
                    silent,
                    home: true,
                    capacity: None,
                });
            }
            let want = announce.numwant.unwrap_or(settings.usual_answer).min(settings.longest_answer);
            let ask = Request { swarm: announce.info_hash, asker, want };
            let mut choice = self.policy.choose(&ask, candidates, chance);
            if local.is_some() {
                meet_locally(swarm, ip, &mut choice);
            }
            choice
        };
        let interval = choice.interval.map_or(usual, |often| often.min(usual));
        let counts = swarm.counts();
        Ok(Answer {
            interval,
            min_interval: interval / 2,
            complete: counts.complete,
            incomplete: counts.incomplete,
            peers: choice.peers,
            policy: choice.policy,
        })
    }

    /// Forgets peers that were not heard for their time. Announces do this for their own swarm.
    pub(crate) fn expire(&mut self, now: Duration) {
        let interval = self.settings.interval;
        self.swarms.values_mut().for_each(|swarm| expire(swarm, now, interval));
    }

    /// Numbers of the swarms asked for, or of all when none is named. Unknown ones are left out.
    pub(crate) fn scrape(&self, hashes: &[InfoHash]) -> Vec<(InfoHash, SwarmCounts)> {
        let mut found: Vec<_> = self
            .swarms
            .iter()
            .filter(|(hash, _)| hashes.is_empty() || hashes.contains(hash))
            .map(|(hash, swarm)| (*hash, swarm.counts()))
            .collect();
        found.sort_by_key(|(hash, _)| *hash);
        found
    }
}

/// Behind one translated address, `ip`, peers meet by their local addresses (BEP 7 `ipv4`), and their rules
/// allow these. The peers are chosen earlier, by the address that they share here, so that they are of one
/// zone.
fn meet_locally(swarm: &Swarm, ip: IpAddr, choice: &mut Selection) {
    let there = |peer: &&Peer| peer.candidate.address.ip() == ip;
    for told in choice.peers.iter_mut().filter(|told| told.address.ip() == ip) {
        let peer = swarm.peers.get(&(told.peer_id, told.address.is_ipv6()));
        if let Some(local) = peer.and_then(|peer| peer.local) {
            told.address.set_ip(local);
        }
    }
    if let Some(policy) = &mut choice.policy {
        let local = swarm.peers.values().filter(there).filter_map(|peer| peer.local);
        policy.networks.extend(local.filter(|local| *local != ip).map(IpNet::from));
        policy.networks.truncate(MAX_NETWORKS);
    }
}

/// Keeps or forgets the peer that speaks; returns when it was first heard.
fn note(
    swarm: &mut Swarm,
    now: Duration,
    asker: Candidate,
    local: Option<IpAddr>,
    event: Event,
    cap: usize,
) -> Duration {
    let key = (asker.peer_id, asker.address.is_ipv6());
    if event == Event::Stopped {
        swarm.peers.remove(&key);
        return now;
    }
    if event == Event::Completed {
        swarm.downloaded += 1;
    }
    if let Some(peer) = swarm.peers.get_mut(&key) {
        peer.candidate = asker;
        peer.local = local;
        peer.last_heard = now;
        return peer.first_heard;
    }
    swarm.peers.retain(|_, peer| !peer.is_replaced_by(&asker, local));
    if swarm.peers.len() < cap {
        swarm.peers.insert(key, Peer { candidate: asker, local, first_heard: now, last_heard: now });
    }
    now
}

fn expire(swarm: &mut Swarm, now: Duration, interval: Duration) {
    let ours = interval * 5 / 2;
    swarm.peers.retain(|_, peer| {
        let patience = if peer.candidate.is_ours() { ours } else { ours.max(PATIENCE_WITH_OTHERS) };
        now.saturating_sub(peer.last_heard) <= patience
    });
}

#[cfg(test)]
mod tests;
