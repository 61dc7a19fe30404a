//! Peers that come, meet, fall silent and go.

use super::*;
use crate::tracker::announce::tests::regular;
use crate::tracker::policy::FlatPolicy;
use crate::tracker::topology::Zone;
use crate::tracker::zoned::Zoned;

const HASH: InfoHash = InfoHash([7; 20]);

fn tracker() -> Tracker {
    let mut tracker = Tracker::new(Settings::default(), Box::new(FlatPolicy));
    tracker.admit(HASH, true);
    tracker
}

fn id(prefix: &[u8], n: u8) -> PeerId {
    let mut id = [n; 20];
    id[..prefix.len()].copy_from_slice(prefix);
    PeerId(id)
}

fn hello(n: u8, left: u64) -> Announce {
    regular(HASH, id(b"-FM0100-", n), left)
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
        if let Some(policy) = answer.policy {
            let allowed = |n: u8| policy.networks.iter().any(|net| net.contains(&IpAddr::V4(local(n))));
            assert!(allowed(1) && allowed(2) && !allowed(9), "{policy:?}");
        }
        let outside = say([10, 0, 0, 7].into(), &hello(7, 5));
        assert!(outside.peers.iter().all(|peer| peer.address.ip() == nat), "others see the translated one");
        assert_eq!(outside.incomplete, 4);
        let again = Announce { peer_id: id(b"-FM0100-", 99), ..inside(2) };
        assert_eq!(say(nat, &again).incomplete, 4, "one that restarts replaces itself");
    }
}

#[test]
fn the_servers_seeder_is_told_with_the_address_that_was_reached() {
    let mut tracker = tracker();
    let address: SocketAddr = "[::ffff:10.0.0.254]:6881".parse().expect("address");
    let home = Some(Seeder { peer_id: id(b"-FM0100-", 99), address });
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
    let mut tracker = Tracker::new(settings, Box::new(FlatPolicy));
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
