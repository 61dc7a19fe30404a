//! Waking: when, how many at once, and from where.

use proptest::prelude::*;

use super::*;
use crate::testkit::lab::at;

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn location(address: &str) -> Location {
    Location { address: Some(net(address)), zone: None }
}

fn wanted(terminal: &str, n: u8, location: Location) -> Wanted {
    Wanted { terminal: terminal.into(), macs: vec![mac(n)], location, until: at(10_000) }
}

fn relay(terminal: &str, address: &str) -> Relay {
    Relay { terminal: terminal.into(), location: location(address) }
}

fn ways(waking: &mut Waking, now: Duration, relays: &[Relay]) -> Vec<Way> {
    waking.due(now, &own(), relays).packets.into_iter().map(|packet| packet.way).collect()
}

/// The server's network.
fn own() -> [IpNet; 1] {
    [net("10.0.0.1/24")]
}

/// The seconds of the first hour in which packets for the only terminal leave.
fn seconds(waking: &mut Waking, from: u64) -> Vec<u64> {
    (from..from + 400).filter(|second| !waking.due(at(*second), &own(), &[]).packets.is_empty()).collect()
}

#[test]
fn packets_are_repeated_until_the_terminal_speaks_or_its_time_ends() {
    let mut waking = Waking::default();
    waking.want(wanted("a", 1, location("10.0.0.9/24")), at(100));
    assert_eq!(seconds(&mut waking, 100), [100, 110, 130, 160, 280, 400]);
    waking.heard("a");
    assert_eq!(seconds(&mut waking, 500), [] as [u64; 0]);

    waking.want(Wanted { until: at(1130), ..wanted("a", 1, location("10.0.0.9/24")) }, at(1100));
    assert_eq!(seconds(&mut waking, 1100), [1100, 1110]);
    assert!(waking.is_idle(at(1131)) && waking.targets.is_empty(), "its time is over");
}

#[test]
fn wanting_a_terminal_again_does_not_begin_again_but_a_person_does() {
    let mut waking = Waking::default();
    for second in 100..140 {
        waking.want(wanted("a", 1, location("10.0.0.9/24")), at(second));
        let sent = !waking.due(at(second), &own(), &[]).packets.is_empty();
        assert_eq!(sent, [100, 110, 130].contains(&second), "{second}");
    }
    waking.urge(Wanted { until: at(150), ..wanted("a", 1, location("10.0.0.9/24")) }, at(140));
    assert_eq!(seconds(&mut waking, 140), [140, 150, 170, 200, 320, 440], "as long as the job wants it");
}

#[test]
fn a_late_server_skips_what_it_missed() {
    let mut waking = Waking::default();
    waking.want(wanted("a", 1, location("10.0.0.9/24")), at(0));
    let sent: Vec<u64> = [0, 45, 46, 60, 900, 901, 1020]
        .into_iter()
        .filter(|s| !waking.due(at(*s), &own(), &[]).packets.is_empty())
        .collect();
    assert_eq!(sent, [0, 45, 60, 900, 1020]);
}

#[test]
fn a_terminal_elsewhere_is_woken_by_a_neighbour_that_is_not_itself() {
    let mut waking = Waking::default();
    waking.want(wanted("far", 1, location("10.9.0.5/24")), at(0));
    let relays = [relay("far", "10.9.0.5/24"), relay("near", "10.0.0.7/24"), relay("beside", "10.9.0.6/24")];
    let router = Way::Router("10.9.0.0/24".parse().expect("a network"));
    assert_eq!(ways(&mut waking, at(0), &relays), [Way::Relay("beside".into()), router.clone()]);
    assert_eq!(waking.orders("beside", at(1)), [mac(1)]);
    assert_eq!(waking.orders("beside", at(1)), [], "each order once");
    assert_eq!(waking.orders("near", at(1)), []);

    // The next try goes through another one, because the first may not have done it.
    let more = [relays[2].clone(), relay("other", "10.9.0.7/24")];
    assert_eq!(ways(&mut waking, at(10), &more), [Way::Relay("other".into()), router.clone()]);
    assert_eq!(ways(&mut waking, at(30), &[]), [router], "nobody is there");
    assert_eq!(waking.orders("other", at(60)), [], "an order for later would wake nobody in time");
}

#[test]
fn a_zone_counts_where_nobody_of_the_network_is_there() {
    let mut waking = Waking::default();
    let far = Location { address: Some(net("10.9.0.5/32")), zone: Some("room".into()) };
    waking.want(wanted("far", 1, far), at(0));
    let zone = Location { address: Some(net("10.8.0.5/24")), zone: Some("room".into()) };
    let relays = [Relay { terminal: "zone".into(), location: zone }, relay("alone", "10.7.0.1/24")];
    assert_eq!(ways(&mut waking, at(0), &relays), [Way::Relay("zone".into())]);
    assert_eq!(waking.due(at(10), &own(), &relays[1..]).unreachable, ["far"], "one elsewhere is of no use");
    let network = [relays[0].clone(), relay("beside", "10.9.0.6/24")];
    assert_eq!(ways(&mut waking, at(30), &network), [Way::Relay("beside".into())]);
}

#[test]
fn a_terminal_that_was_never_heard_is_looked_for_in_every_network() {
    let mut waking = Waking::default();
    waking.want(wanted("new", 1, Location::default()), at(0));
    let relays = [
        relay("near", "10.0.0.7/24"),
        relay("a", "10.8.0.1/24"),
        relay("b", "10.9.0.1/24"),
        relay("c", "10.9.0.2/24"),
    ];
    let through = |name: &str| Way::Relay(name.into());
    assert_eq!(ways(&mut waking, at(0), &relays), [Way::Server, through("a"), through("b")]);
    assert_eq!(ways(&mut waking, at(10), &relays), [Way::Server, through("a"), through("c")]);
    let many: Vec<Relay> = (0..99).map(|n| relay(&format!("r{n}"), &format!("10.{n}.9.1/24"))).collect();
    assert_eq!(ways(&mut waking, at(30), &many).len(), 1 + MAX_RELAYS);
}

#[test]
fn a_terminal_without_a_card_is_not_woken() {
    let mut waking = Waking::default();
    waking.want(Wanted { macs: Vec::new(), ..wanted("a", 1, Location::default()) }, at(0));
    assert!(waking.is_idle(at(0)) && waking.due(at(0), &own(), &[]).packets.is_empty());
}

#[test]
fn a_whole_lab_is_woken_a_few_at_a_time_and_nobody_is_left_out() {
    let mut waking = Waking::default();
    for n in 0..120 {
        waking.want(wanted(&format!("t{n:03}"), n, location("10.0.0.9/24")), at(0));
    }
    let first: Vec<usize> = (0..4).map(|second| waking.due(at(second), &own(), &[]).packets.len()).collect();
    assert_eq!(first, [50, 50, 20, 0]);
}

proptest! {
    /// Whatever is wanted, and however often the server looks: no second has too many packets, nobody is left
    /// out, and nobody gets packets after its end or after it spoke.
    #[test]
    fn no_second_has_more_packets_than_allowed_and_everybody_gets_one(
        terminals in prop::collection::vec((1usize..7, 0u64..3, 0u64..200, any::<bool>()), 1..80),
        step in 50u64..1500,
    ) {
        let mut waking = Waking::default();
        let relays = [relay("r1", "10.8.0.1/24"), relay("r2", "10.9.0.1/24")];
        for (n, (macs, kind, until, _)) in terminals.iter().enumerate() {
            let location = match kind {
                0 => location("10.0.0.9/24"),
                1 => location("10.9.0.9/24"),
                _ => Location::default(),
            };
            let macs = (0..*macs).map(|m| mac(u8::try_from(m).expect("few"))).collect();
            waking.want(Wanted { terminal: n.to_string(), macs, location, until: at(*until) }, at(0));
        }
        let mut sent: Vec<(Duration, usize)> = Vec::new();
        let mut got = vec![false; terminals.len()];
        let mut now = Duration::ZERO;
        while now < at(100) {
            for packet in waking.due(now, &own(), &relays).packets {
                let n: usize = packet.terminal.parse().expect("a number");
                let (_, _, until, speaks) = terminals[n];
                prop_assert!(now < at(until));
                prop_assert!(!(got[n] && speaks) || sent.last().is_some_and(|(at, _)| *at == now));
                sent.push((now, packet.macs.len()));
                got[n] = true;
            }
            for (n, (_, _, _, speaks)) in terminals.iter().enumerate() {
                if *speaks && got[n] {
                    waking.heard(&n.to_string());
                }
            }
            now += Duration::from_millis(step);
        }
        for (from, _) in &sent {
            let within = |(at, _): &&(Duration, usize)| *at >= *from && *at < *from + Duration::from_secs(1);
            prop_assert!(sent.iter().filter(within).map(|(_, count)| count).sum::<usize>() <= A_SECOND);
        }
        for (n, (_, _, until, _)) in terminals.iter().enumerate() {
            prop_assert!(got[n] || *until < 60, "{n} got nothing until {until} s");
        }
    }
}
