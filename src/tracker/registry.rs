//! Swarms and their peers, with expiry.
//!
//! Invariant: a swarm exists only between [`Tracker::admit`] and [`Tracker::dismiss`]; a peer that was not heard for
//! its time is not told to anybody; a swarm has at most `Settings::peers_per_swarm` peers, and a peer beyond that
//! is answered but not kept. `now` is any steady clock, the same in every call. Whom a peer is told is left to
//! `policy`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::announce::{Announce, Event};
use super::policy::{Ask, Candidate, Choice, Policy};
use super::topology::Topology;
use crate::rules::{MAX_NETWORKS, Rules};
use crate::units::{InfoHash, PeerId};

/// Standard clients keep to their own shortest interval (libtorrent: 5 minutes) whatever a tracker asks, so they
/// are remembered for at least twice that.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(11 * 60);

/// The tracker's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often peers announce.
    pub interval: Duration,
    /// How often they do while young: when a lab starts, the first seconds decide who knows whom.
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
pub struct Home {
    /// Its peer id.
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
    /// Peers that fetch.
    pub incomplete: usize,
    /// Whom to dial.
    pub peers: Vec<Candidate>,
    /// What a flashmob peer must keep to.
    pub rules: Option<Rules>,
}

/// Numbers of a swarm (BEP 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwarmCounts {
    /// Peers that lack nothing.
    pub complete: usize,
    /// How often a peer became complete since the swarm was admitted.
    pub downloaded: u64,
    /// Peers that fetch.
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

    /// A terminal that was switched off and on again has a new peer id at its old address. Behind a translated address
    /// several terminals may have the same one.
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

/// All swarms.
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

    /// From now on this swarm exists. `seeded_here`: the server's own seeder is in it.
    pub fn admit(&mut self, info_hash: InfoHash, seeded_here: bool) {
        self.swarms.entry(info_hash).or_default().seeded_here = seeded_here;
    }

    /// The lab's shape is another one from now on.
    pub fn arrange(&mut self, topology: &Topology) {
        self.policy.arrange(topology);
    }

    /// What the server's own seeder must keep to, in every swarm; `None` where the lab has no zones and never had.
    pub fn home_rules(&self) -> Option<Rules> {
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
    pub fn dismiss(&mut self, info_hash: &InfoHash) {
        self.policy.forget(info_hash);
        self.swarms.remove(info_hash);
    }

    /// Takes an announce that came from `ip` and says whom to dial.
    pub fn announce(
        &mut self,
        now: Duration,
        ip: IpAddr,
        announce: &Announce,
        home: Option<Home>,
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
            carries: announce.carries,
        };
        let local = announce.local.map(IpAddr::V4);
        let first_heard = note(swarm, now, asker, local, announce.event, settings.peers_per_swarm);
        let young = now.saturating_sub(first_heard) < settings.young_for;
        let usual = if young { settings.young_interval } else { settings.interval };
        let choice = if announce.event == Event::Stopped {
            Choice::default()
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
                    carries: None,
                });
            }
            let want = announce.numwant.unwrap_or(settings.usual_answer).min(settings.longest_answer);
            let ask = Ask { swarm: announce.info_hash, asker, want };
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
            rules: choice.rules,
        })
    }

    /// Forgets peers that were not heard for their time. Announces do this for their own swarm.
    pub fn expire(&mut self, now: Duration) {
        let interval = self.settings.interval;
        self.swarms.values_mut().for_each(|swarm| expire(swarm, now, interval));
    }

    /// Numbers of the swarms asked for, or of all when none is named. Unknown ones are left out.
    pub fn scrape(&self, hashes: &[InfoHash]) -> Vec<(InfoHash, SwarmCounts)> {
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

/// Behind one translated address, `ip`, peers meet by their local ones (BEP 7 `ipv4`), and their rules allow these. They are
/// chosen before by the address that all of them have here, so that they are of one zone.
fn meet_locally(swarm: &Swarm, ip: IpAddr, choice: &mut Choice) {
    let there = |peer: &&Peer| peer.candidate.address.ip() == ip;
    for told in choice.peers.iter_mut().filter(|told| told.address.ip() == ip) {
        let peer = swarm.peers.get(&(told.peer_id, told.address.is_ipv6()));
        if let Some(local) = peer.and_then(|peer| peer.local) {
            told.address.set_ip(local);
        }
    }
    if let Some(rules) = &mut choice.rules {
        let local = swarm.peers.values().filter(there).filter_map(|peer| peer.local);
        rules.networks.extend(local.filter(|local| *local != ip).map(IpNet::from));
        rules.networks.truncate(MAX_NETWORKS);
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
mod tests {
    use super::super::policy::Everyone;
    use super::super::topology::Zone;
    use super::super::zoned::Zoned;
    use super::*;

    const HASH: InfoHash = InfoHash([7; 20]);

    fn tracker() -> Tracker {
        let mut tracker = Tracker::new(Settings::default(), Box::new(Everyone));
        tracker.admit(HASH, true);
        tracker
    }

    fn id(prefix: &[u8], n: u8) -> PeerId {
        let mut id = [n; 20];
        id[..prefix.len()].copy_from_slice(prefix);
        PeerId(id)
    }

    fn hello(n: u8, left: u64) -> Announce {
        Announce {
            info_hash: HASH,
            peer_id: id(b"-FM0100-", n),
            port: 6881,
            uploaded: 0,
            downloaded: 0,
            left,
            event: Event::Regular,
            compact: true,
            no_peer_id: false,
            numwant: None,
            carries: None,
            local: None,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn say(tracker: &mut Tracker, seconds: u64, n: u8, announce: &Announce) -> Answer {
        let ip = IpAddr::from([10, 0, 0, n]);
        tracker.announce(at(seconds), ip, announce, None, &mut || 4).expect("known swarm")
    }

    #[test]
    fn an_unknown_swarm_is_refused() {
        let mut stranger = hello(1, 5);
        stranger.info_hash = InfoHash([9; 20]);
        let answer = tracker().announce(at(0), [10, 0, 0, 1].into(), &stranger, None, &mut || 0);
        assert_eq!(answer, Err(Unknown(stranger.info_hash)));
        let mut gone = tracker();
        gone.dismiss(&HASH);
        assert!(gone.announce(at(0), [10, 0, 0, 1].into(), &hello(1, 5), None, &mut || 0).is_err());
    }

    #[test]
    fn two_peers_learn_of_each_other() {
        let mut tracker = tracker();
        assert_eq!(say(&mut tracker, 0, 1, &hello(1, 5)).peers, []);
        let answer = say(&mut tracker, 1, 2, &hello(2, 5));
        assert_eq!(answer.peers[0].address, ([10, 0, 0, 1], 6881).into());
        assert_eq!((answer.complete, answer.incomplete), (1, 2));
        assert_eq!(say(&mut tracker, 2, 1, &hello(1, 5)).peers.len(), 1);
    }

    #[test]
    fn terminals_behind_one_translated_address_meet_by_their_local_ones() {
        let network = "10.0.0.0/24".parse().expect("a network");
        let zone = Zone { links: 1, ..Zone::new("room", vec![network]) };
        for zones in [Vec::new(), vec![zone]] {
            let topology = Topology { zones, ..Topology::default() };
            let mut tracker = Tracker::new(Settings::default(), Box::new(Zoned::new(topology.clone())));
            tracker.admit(HASH, false);
            let local = |n: u8| std::net::Ipv4Addr::new(192, 168, 0, n);
            let inside = |n| Announce { local: Some(local(n)), ..hello(n, 5) };
            let nat = IpAddr::from([10, 0, 0, 1]);
            let mut say = |ip, announce: &Announce| {
                tracker.announce(at(0), ip, announce, None, &mut || 4).expect("known swarm")
            };
            say(nat, &inside(1));
            say(nat, &inside(2));
            let answer = say(nat, &inside(3));
            let mut told: Vec<SocketAddr> = answer.peers.iter().map(|peer| peer.address).collect();
            told.sort();
            assert_eq!(told, [1, 2].map(|n| SocketAddr::from((local(n), 6881))));
            if let Some(rules) = answer.rules {
                let allowed = |n: u8| rules.networks.iter().any(|net| net.contains(&IpAddr::V4(local(n))));
                assert!(allowed(1) && allowed(2) && !allowed(9), "{rules:?}");
            }
            let outside = say([10, 0, 0, 7].into(), &hello(7, 5));
            assert!(
                outside.peers.iter().all(|peer| peer.address.ip() == nat),
                "others see the translated one"
            );
            assert_eq!(outside.incomplete, 4);
            let again = Announce { peer_id: id(b"-FM0100-", 99), ..inside(2) };
            assert_eq!(say(nat, &again).incomplete, 4, "one that restarts replaces itself");
        }
    }

    #[test]
    fn the_servers_seeder_is_told_with_the_address_that_was_reached() {
        let mut tracker = tracker();
        let address: SocketAddr = "[::ffff:10.0.0.254]:6881".parse().expect("address");
        let home = Some(Home { peer_id: id(b"-FM0100-", 99), address });
        let fetching = tracker.announce(at(0), [10, 0, 0, 1].into(), &hello(1, 5), home, &mut || 0);
        assert_eq!(fetching.expect("known").peers[0].address, ([10, 0, 0, 254], 6881).into());
        let complete = tracker.announce(at(0), [10, 0, 0, 1].into(), &hello(1, 0), home, &mut || 0);
        assert_eq!(complete.expect("known").peers, []);
        tracker.admit(HASH, false);
        let unseeded = tracker.announce(at(0), [10, 0, 0, 1].into(), &hello(1, 5), home, &mut || 0);
        assert_eq!(unseeded.expect("known").peers, []);
    }

    #[test]
    fn a_silent_peer_is_forgotten_and_a_speaking_one_is_not() {
        let mut tracker = tracker();
        say(&mut tracker, 0, 1, &hello(1, 5));
        say(&mut tracker, 0, 2, &hello(2, 5));
        say(&mut tracker, 60, 2, &hello(2, 5));
        tracker.expire(at(75));
        assert_eq!(tracker.scrape(&[])[0].1.incomplete, 2);
        tracker.expire(at(76));
        assert_eq!(tracker.scrape(&[])[0].1.incomplete, 1);
        assert_eq!(say(&mut tracker, 136, 3, &hello(3, 5)).peers, []);
    }

    #[test]
    fn a_standard_client_is_remembered_for_its_own_longer_interval() {
        let mut tracker = tracker();
        let foreign = Announce { peer_id: id(b"-LT2080-", 1), ..hello(1, 5) };
        say(&mut tracker, 0, 1, &foreign);
        tracker.expire(at(660));
        assert_eq!(tracker.scrape(&[HASH])[0].1.incomplete, 1);
        tracker.expire(at(661));
        assert_eq!(tracker.scrape(&[HASH])[0].1.incomplete, 0);
    }

    #[test]
    fn a_peer_comes_often_while_it_is_young() {
        let mut tracker = tracker();
        assert_eq!(say(&mut tracker, 0, 1, &hello(1, 5)).interval, at(10));
        for second in (10..120).step_by(10) {
            assert_eq!(say(&mut tracker, second, 1, &hello(1, 5)).interval, at(10));
        }
        assert_eq!(say(&mut tracker, 120, 1, &hello(1, 5)).interval, at(30));
    }

    #[test]
    fn one_that_stops_is_gone_at_once_and_one_that_completes_is_counted() {
        let mut tracker = tracker();
        say(&mut tracker, 0, 1, &hello(1, 5));
        say(&mut tracker, 1, 1, &Announce { event: Event::Completed, ..hello(1, 0) });
        let counts = SwarmCounts { complete: 2, downloaded: 1, incomplete: 0 };
        assert_eq!(tracker.scrape(&[HASH]), [(HASH, counts)]);
        say(&mut tracker, 2, 1, &Announce { event: Event::Stopped, ..hello(1, 0) });
        assert_eq!(tracker.scrape(&[])[0].1.complete, 1);
        assert_eq!(tracker.scrape(&[InfoHash([1; 20])]), []);
    }

    #[test]
    fn a_restarted_terminal_replaces_itself() {
        let mut tracker = tracker();
        say(&mut tracker, 0, 1, &hello(1, 5));
        say(&mut tracker, 5, 1, &hello(77, 5));
        assert_eq!(tracker.scrape(&[])[0].1.incomplete, 1);
    }

    #[test]
    fn a_full_swarm_keeps_no_more_but_answers() {
        let settings = Settings { peers_per_swarm: 2, ..Settings::default() };
        let mut tracker = Tracker::new(settings, Box::new(Everyone));
        tracker.admit(HASH, false);
        for n in 1..=5 {
            say(&mut tracker, 0, n, &hello(n, 5));
        }
        assert_eq!(say(&mut tracker, 0, 9, &hello(9, 5)).peers.len(), 2);
        assert_eq!(tracker.scrape(&[])[0].1.incomplete, 2);
    }

    #[test]
    fn nobody_gets_more_peers_than_asked_for_or_than_is_sensible() {
        let mut tracker = tracker();
        for n in 1..=250 {
            let other = Announce { peer_id: id(b"-FM0100-", n), ..hello(n, 5) };
            say(&mut tracker, 0, n, &other);
        }
        let ask = |n| Announce { numwant: Some(n), ..hello(251, 5) };
        assert_eq!(say(&mut tracker, 0, 251, &ask(3)).peers.len(), 3);
        assert_eq!(say(&mut tracker, 0, 251, &ask(1_000_000)).peers.len(), 200);
        assert_eq!(say(&mut tracker, 0, 251, &hello(251, 5)).peers.len(), 50);
    }
}
