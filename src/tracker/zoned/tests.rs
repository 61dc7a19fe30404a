//! The policy behind a tracker: answers and rules for random labs.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::super::announce::tests::regular;
use super::super::topology::{Pin, Zone};
use super::super::{Announce, Answer, Seeder, Settings, Tracker};
use super::*;

const SWARM: InfoHash = InfoHash([7; 20]);

fn zone(number: u8, from: Option<&[&str]>, links: usize) -> Zone {
    let networks = vec![format!("10.{number}.0.0/16").parse().expect("a network")];
    Zone {
        from: from.map(|names| names.iter().map(ToString::to_string).collect()),
        links,
        limit_mbit: Some(100),
        ..Zone::new(format!("z{number}"), networks)
    }
}

fn id(zone: u8, n: u8) -> PeerId {
    let mut id = *b"-FM0100-............";
    (id[18], id[19]) = (zone, n);
    PeerId(id)
}

struct Lab {
    topology: Topology,
    tracker: Tracker,
    state: u64,
    /// The capacity that the next announcing peer reports.
    capacity: Option<u64>,
}

impl Lab {
    fn new(zones: Vec<Zone>, pins: Vec<Pin>) -> Self {
        let topology = Topology { zones, pins, ..Topology::default() };
        topology.check().expect("a topology");
        let mut tracker = Tracker::new(Settings::default(), Box::new(Zoned::new(topology.clone())));
        tracker.admit(SWARM, true);
        Lab { topology, tracker, state: 1, capacity: None }
    }

    fn say(&mut self, seconds: u64, zone: u8, n: u8, left: u64) -> Answer {
        let announce = regular(SWARM, id(zone, n), left);
        let announce = Announce { numwant: Some(200), capacity: self.capacity, ..announce };
        let home = Seeder { peer_id: id(0, 250), address: SocketAddr::from(([192, 168, 0, 1], 6881)) };
        let mut state = self.state;
        let mut chance = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        let (now, ip) = (Duration::from_secs(seconds), IpAddr::from([10, zone, 0, n]));
        let answer = self.tracker.announce(now, ip, &announce, Some(home), &mut chance).expect("known");
        self.state = state;
        answer
    }

    /// The peers of other zones in an answer.
    fn beyond(&self, zone: u8, answer: &Answer) -> Vec<IpAddr> {
        let here = self.topology.zone_of([10, zone, 0, 1].into());
        let ips = answer.peers.iter().map(|peer| peer.address.ip());
        ips.filter(|ip| self.topology.zone_of(*ip) != here).collect()
    }
}

#[test]
fn only_gateways_meet_others_and_there_are_as_many_as_links() {
    let mut lab = Lab::new(vec![zone(1, None, 2), zone(2, None, 1)], Vec::new());
    for round in 0..2 {
        for (zone, n) in (1..=6).flat_map(|n| [(1, n), (2, n)]) {
            let answer = lab.say(round, zone, n, 5);
            let policy = answer.policy.clone().expect("rules");
            let gateway = n <= if zone == 1 { 2 } else { 1 };
            if gateway {
                assert_eq!(answer.interval, HEARTBEAT / if round == 0 { 2 } else { 1 });
            }
            assert_eq!(!lab.beyond(zone, &answer).is_empty(), gateway, "{zone} {n}: {answer:?}");
            assert_eq!(!policy.fetch.is_empty() || !policy.serve.is_empty(), gateway);
            assert_eq!((policy.zone, policy.rate.is_some()), (format!("z{zone}"), true));
        }
    }
    let last = lab.say(2, 1, 1, 5);
    let sorted = |mut list: Vec<IpAddr>| {
        list.sort();
        list
    };
    let (other, seeder) = (IpAddr::from([10, 2, 0, 1]), IpAddr::from([192, 168, 0, 1]));
    let policy = last.policy.expect("rules");
    assert_eq!((policy.share, policy.rate), (None, Some(100 * 125_000)), "the only one that fetches");
    assert_eq!((sorted(policy.fetch), policy.serve), (vec![other, seeder], vec![]));
    let second = lab.say(2, 1, 2, 5).policy.expect("rules");
    assert_eq!((second.fetch, sorted(second.serve)), (vec![], vec![other, seeder]));
    let alone = lab.say(2, 2, 1, 5).policy.expect("rules");
    let both = [1, 2].map(|n| IpAddr::from([10, 1, 0, n]));
    assert_eq!((sorted(alone.fetch), sorted(alone.serve)), (vec![both[1], seeder], vec![both[0], seeder]));
    assert_eq!(last.interval, HEARTBEAT);
}

#[test]
fn of_four_gateways_two_fetch_a_half_each() {
    let mut lab = Lab::new(vec![zone(1, None, 4)], Vec::new());
    let mut shares = Vec::new();
    for round in 0..2 {
        shares = (1..=5).map(|n| lab.say(round, 1, n, 5).policy.expect("rules")).collect();
    }
    let share = |part| Some(Share { part, of: 2 });
    let expected = [share(0), None, share(1), None, None];
    assert_eq!(shares.iter().map(|policy| policy.share).collect::<Vec<_>>(), expected);
    let fetches: Vec<bool> = shares.iter().map(|policy| !policy.fetch.is_empty()).collect();
    assert_eq!(fetches, [true, false, true, false, false]);
    assert_eq!(shares[0].rate, Some(100 * 125_000 / 2));
}

#[test]
fn a_silent_gateway_is_replaced_by_the_next_that_asks() {
    let mut lab = Lab::new(vec![zone(1, None, 1)], Vec::new());
    for n in 1..=3 {
        lab.say(0, 1, n, 5);
    }
    assert!(lab.say(8, 1, 2, 5).policy.expect("rules").fetch.is_empty());
    assert_eq!(lab.say(9, 1, 2, 5).policy.expect("rules").fetch, [IpAddr::from([192, 168, 0, 1])]);
    assert!(
        lab.say(9, 1, 1, 5).policy.expect("rules").fetch.is_empty(),
        "one that comes back waits its turn"
    );
}

#[test]
fn a_gateway_gives_way_to_one_that_carries_more_than_twice_as_much() {
    let mut lab = Lab::new(vec![zone(1, None, 2)], Vec::new());
    let mut say = |seconds, n, capacity| {
        lab.capacity = capacity;
        let policy = lab.say(seconds, 1, n, 5).policy.expect("rules");
        (!policy.fetch.is_empty(), !policy.serve.is_empty())
    };
    let (fetches, serves, neither) = ((true, false), (false, true), (false, false));
    assert_eq!([say(0, 1, None), say(0, 2, None), say(0, 3, None)], [(true, true), serves, neither]);
    // Unknown capacities and small differences do not matter.
    assert_eq!([say(1, 3, Some(9)), say(1, 1, Some(10)), say(1, 2, Some(100))], [neither, fetches, serves]);
    assert_eq!(say(2, 3, Some(20)), neither);
    assert_eq!(say(2, 4, Some(21)), fetches);
    assert_eq!([say(3, 1, Some(10)), say(3, 2, Some(100))], [neither, serves]);
    assert_eq!(say(4, 5, Some(300)), fetches, "the slowest goes first");
    assert_eq!([say(5, 4, Some(21)), say(5, 6, Some(500))], [neither, serves]);
}

#[test]
fn what_from_forbids_is_neither_named_nor_allowed() {
    let zones = vec![zone(1, Some(&["rest"]), 1), zone(2, Some(&["z1"]), 1), zone(3, Some(&[]), 1)];
    let mut lab = Lab::new(zones, Vec::new());
    for round in 0..2 {
        for zone in 1..=3 {
            lab.say(round, zone, 1, 5);
        }
    }
    let mut policy = |zone| lab.say(3, zone, 1, 5).policy.expect("rules");
    let (seeder, one, two) =
        (IpAddr::from([192, 168, 0, 1]), IpAddr::from([10, 1, 0, 1]), IpAddr::from([10, 2, 0, 1]));
    assert_eq!((policy(1).fetch, policy(1).serve), (vec![seeder], vec![seeder, two]));
    assert_eq!((policy(2).fetch, policy(2).serve), (vec![one], vec![seeder]));
    assert_eq!((policy(3).fetch, policy(3).serve), (vec![], vec![seeder]), "the rest may fetch anywhere");
}

#[test]
fn a_pinned_terminal_fetches_from_those_named_wherever_they_are() {
    let (a, b) = (IpAddr::from([10, 1, 0, 9]), IpAddr::from([10, 2, 0, 9]));
    let pins = vec![Pin { terminal: b, from: vec![a] }];
    let mut lab = Lab::new(vec![zone(1, None, 1), zone(2, None, 1)], pins);
    for (zone, n) in [(1, 1), (1, 9), (2, 9), (2, 1)] {
        lab.say(0, zone, n, 5);
    }
    let of_b = lab.say(1, 2, 9, 5);
    let policy = of_b.policy.clone().expect("rules");
    assert_eq!((policy.pinned, policy.fetch.clone()), (true, vec![a]));
    assert_eq!(lab.beyond(2, &of_b), [a]);
    let of_a = lab.say(1, 1, 9, 5);
    assert_eq!(of_a.policy.as_ref().expect("rules").serve, [b]);
    assert_eq!(lab.beyond(1, &of_a), [b]);
}

#[test]
fn nothing_passes_between_zones_that_must_stay_apart_not_even_by_a_pin() {
    let (a, b) = (IpAddr::from([10, 1, 0, 9]), IpAddr::from([10, 2, 0, 9]));
    let zones = vec![Zone { never: vec!["z2".into()], ..zone(1, None, 1) }, zone(2, None, 1)];
    let mut lab = Lab::new(zones, vec![Pin { terminal: b, from: vec![a] }]);
    for round in 0..2 {
        for (zone, n) in [(1, 9), (2, 9), (2, 1)] {
            let answer = lab.say(round, zone, n, 5);
            let there = format!("10.{}.", 3 - zone);
            let policy = answer.policy.clone().expect("rules");
            let allowed = [policy.fetch, policy.serve, lab.beyond(zone, &answer)].concat();
            assert!(!allowed.iter().any(|ip| ip.to_string().starts_with(&there)), "{allowed:?}");
        }
    }
}

#[test]
fn who_is_learned_to_be_elsewhere_moves_and_gateways_of_other_zones_stay() {
    let mut lab = Lab::new(vec![zone(1, None, 1), zone(2, None, 1)], Vec::new());
    for (zone, n) in [(1, 1), (1, 2), (2, 1)] {
        lab.say(0, zone, n, 5);
    }
    let (one, two) = (IpAddr::from([10, 1, 0, 1]), IpAddr::from([10, 1, 0, 2]));
    let mut topology = lab.topology.clone();
    let upstairs = Zone { links: 1, ..Zone::new("upstairs", Vec::new()) };
    topology.zones.insert(0, upstairs);
    topology.learned = [one, two].map(|ip| (ip, "upstairs".to_owned())).into();
    lab.tracker.arrange(&topology);
    let policy = lab.say(1, 1, 2, 5).policy.expect("rules");
    assert_eq!((policy.zone.as_str(), policy.rate), ("upstairs", None));
    let networks: Vec<IpAddr> = policy.networks.iter().map(ipnet::IpNet::addr).collect();
    assert_eq!(networks, [one, two]);
    assert!(policy.fetch.contains(&[10, 2, 0, 1].into()), "the gateway of zone 2 is still that: {policy:?}");
    assert!(
        lab.say(1, 1, 1, 5).policy.expect("rules").fetch.is_empty(),
        "its place in zone 1 went with the move"
    );
    let gateways: Vec<_> = lab.tracker.gateways().map(|(_, ip)| ip).collect();
    assert!(gateways.contains(&two) && gateways.contains(&[10, 2, 0, 1].into()) && gateways.len() == 2);
}

#[test]
fn the_servers_seeder_hears_what_lies_behind_which_uplink() {
    let open = Zone { limit_mbit: None, ..zone(2, None, 1) };
    let mut lab = Lab::new(vec![zone(1, None, 1), open], Vec::new());
    let mut topology = lab.topology.clone();
    topology.learned = [([10, 9, 0, 9].into(), "z2".to_owned())].into();
    lab.tracker.arrange(&topology);
    let policy = lab.tracker.seeder_policy().expect("rules");
    let networks =
        |of: usize| policy.remote_zones[of].networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((networks(0), policy.remote_zones[0].rate), (vec!["10.1.0.0/16".into()], Some(12_500_000)));
    let learned = vec!["10.2.0.0/16".to_owned(), "10.9.0.9/32".into()];
    assert_eq!((networks(1), policy.remote_zones[1].rate), (learned, None));
    lab.tracker.arrange(&Topology::default());
    let free = lab.tracker.seeder_policy().expect("rules that end the old ones");
    assert!(free.remote_zones.is_empty() && !free.networks.is_empty());
    assert_eq!(Lab::new(Vec::new(), Vec::new()).tracker.seeder_policy(), None);
}

#[test]
fn a_flat_lab_has_no_rules() {
    let mut lab = Lab::new(Vec::new(), Vec::new());
    assert_eq!(lab.say(0, 1, 1, 5).policy, None);
    assert_eq!(lab.say(0, 2, 1, 5).peers.len(), 2);
}

proptest! {
    #[test]
    fn nobody_is_told_or_allowed_what_the_topology_forbids(
        steps in prop::collection::vec((1u8..=4, 1u8..=9, 0u64..12, prop::bool::weighted(0.2)), 1..120),
        from in prop::collection::vec(prop::option::of(prop::collection::vec(0usize..5, 0..4)), 3),
        links in 1usize..4,
    ) {
        let names = ["z1", "z2", "z3", "rest", "rest"];
        let zones = from.iter().zip(1..).map(|(from, number)| {
            let from: Option<Vec<&str>> = from.as_ref().map(|list| list.iter().map(|i| names[*i]).collect());
            zone(number, from.as_deref(), links)
        });
        // Zone 4 is in none.
        let mut lab = Lab::new(zones.collect(), Vec::new());
        let mut now = 0;
        let mut crossing: HashMap<u8, HashMap<u8, u64>> = HashMap::new();
        for (zone, n, pause, complete) in steps {
            now += pause;
            let answer = lab.say(now, zone, n, u64::from(!complete));
            let here = lab.topology.zone_of([10, zone, 0, n].into());
            let policy = answer.policy.clone().expect("rules");
            for peer in &answer.peers {
                let there = lab.topology.zone_of(peer.address.ip());
                prop_assert!(lab.topology.may_fetch(here, there) || lab.topology.may_fetch(there, here));
                prop_assert!(!complete || !peer.complete);
                if here != ZoneId::Rest && here != there {
                    prop_assert!([&policy.fetch[..],
                        &policy.serve[..]].concat().contains(&peer.address.ip()));
                }
            }
            if here != ZoneId::Rest {
                for ip in &policy.fetch {
                    prop_assert!(lab.topology.may_fetch(here, lab.topology.zone_of(*ip)));
                }
                for ip in &policy.serve {
                    prop_assert!(lab.topology.may_fetch(lab.topology.zone_of(*ip), here));
                }
                let of = crossing.entry(zone).or_default();
                of.remove(&n);
                of.retain(|_, heard| now - *heard <= 8);
                if !policy.fetch.is_empty() || !policy.serve.is_empty() {
                    of.insert(n, now);
                }
                prop_assert!(of.len() <= links, "{of:?}");
            }
        }
    }
}
