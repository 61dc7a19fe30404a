//! Zones behind uplinks as narrow as one terminal's link, with the tracker's own policy.

use std::time::Duration;

use super::{Lab, LabSpec, Zones, yardstick};
use crate::tracker::{Topology, Zone};

const MIB: u32 = 1024 * 1024;
const RATE: u64 = 12_500_000;

/// `zones` zones of `each` terminals; the server is in none.
fn lab(zones: u8, each: usize, pieces: u32, seed: u64) -> LabSpec {
    let mut spec = LabSpec::new(usize::from(zones) * each, pieces, MIB, seed);
    for (number, node) in spec.nodes.iter_mut().enumerate().skip(1) {
        node.zone = u8::try_from((number - 1) / each + 1).expect("few zones");
    }
    let zone = |number: u8| {
        let network = format!("10.{number}.0.0/16").parse().expect("a network");
        Zone::new(format!("zone-{number}"), vec![network])
    };
    let topology = Topology { zones: (1..=zones).map(zone).collect(), ..Topology::default() };
    spec.zones = Some(Zones { uplink: RATE, topology, time_scale: 1 });
    spec.blank = true;
    spec
}

fn run(spec: LabSpec) -> Lab {
    let seed = spec.seed;
    let mut lab = Lab::new(spec);
    assert!(lab.run(Duration::from_secs(3600)), "seed {seed}: not everybody had everything");
    lab
}

/// The most that came into a zone, relative to the payload.
fn crossed(lab: &Lab) -> f64 {
    let payload = f64::from(lab.spec().pieces) * f64::from(lab.spec().piece_length);
    lab.uplinks().values().map(|uplink| uplink.received as f64 / payload).fold(0.0, f64::max)
}

fn last(lab: &Lab) -> f64 {
    lab.nodes.iter().filter_map(|node| node.finished).max().unwrap_or_default().0.as_secs_f64()
}

#[test]
fn each_uplink_carries_the_payload_about_once() {
    for seed in 0..3 {
        let lab = run(lab(3, 4, 64, seed));
        assert!(crossed(&lab) < 1.2, "seed {seed}: {}", crossed(&lab));
        let time = last(&lab) / yardstick(12, 64, MIB, RATE);
        // Gateways meet within half a heartbeat, which is long beside the 5.4 s that this takes at best.
        assert!(time < 1.45, "seed {seed}: {time}");
    }
}

#[test]
fn when_a_gateway_dies_another_takes_over() {
    for seed in 0..3 {
        let mut spec = lab(2, 4, 96, seed);
        // The first of a zone that asks is its gateway: terminals 1 and 5, alone in their zones.
        if let Some(zones) = &mut spec.zones {
            zones.topology.zones.iter_mut().for_each(|zone| zone.links = 1);
        }
        let undisturbed = last(&run(spec.clone()));
        spec.nodes[1].leaves = Some(Duration::from_secs(3));
        let disturbed = last(&run(spec));
        // 8 s of patience, 2 s until the next announce, and what had not been passed on crosses again.
        assert!(disturbed < undisturbed + 15.0, "seed {seed}: {disturbed} {undisturbed}");
    }
}

#[test]
fn a_slow_terminal_does_not_hold_up_its_zone_as_gateway() {
    type Change = fn(&mut LabSpec);
    // The first two of a zone that ask are its gateways: here terminals 1 and 2, which fetch and serve.
    let slow: [(&str, Change); 3] = [
        ("fetches on a slow link", |lab| lab.nodes[1].rate /= 10),
        ("serves on a slow link", |lab| lab.nodes[2].rate /= 10),
        ("fetches to a slow disk", |lab| lab.nodes[1].disk = RATE / 10),
    ];
    for (what, change) in slow {
        for seed in 0..2 {
            let spec = lab(2, 5, 192, seed).scaled_down();
            let fast = |lab: &Lab| {
                let fast = lab.nodes[3..].iter().filter_map(|node| node.finished);
                fast.max().unwrap_or_default().0.as_secs_f64()
            };
            let undisturbed = fast(&run(spec.clone()));
            let mut changed = spec;
            change(&mut changed);
            // 192 pieces through a tenth of a link would take 161 s instead of 20.
            let disturbed = fast(&run(changed));
            assert!(disturbed < undisturbed + 8.0, "{what}, seed {seed}: {disturbed} {undisturbed}");
        }
    }
}

#[test]
fn a_limit_on_an_uplink_holds() {
    let mut spec = lab(2, 3, 48, 1);
    if let Some(zones) = &mut spec.zones {
        zones.topology.zones.iter_mut().for_each(|zone| zone.limit_mbit = Some(25));
    }
    let lab = run(spec);
    // 48 MiB at 25 Mbit/s take 16.1 s; the first pieces of a new connection are not held back.
    assert!(last(&lab) > 14.0, "{}", last(&lab));
    assert!(last(&lab) < 24.0, "{}", last(&lab));
}

#[test]
fn the_seeder_keeps_the_limit_of_a_zone_also_for_clients_that_know_no_rules() {
    for seed in 0..3 {
        let mut spec = lab(2, 3, 48, seed);
        spec.nodes[1..=3].iter_mut().for_each(|node| node.standard = true);
        if let Some(zones) = &mut spec.zones {
            zones.topology.zones[0].limit_mbit = Some(25);
            zones.topology.zones[0].from = Some(vec!["rest".into()]);
        }
        let lab = run(spec);
        let done = lab.nodes[1..=3].iter().filter_map(|node| node.finished).max().expect("finished");
        let brought = lab.uplinks()[&1].received as f64;
        assert!(brought >= 48.0 * f64::from(MIB), "seed {seed}");
        let rate = brought / done.0.as_secs_f64();
        assert!(rate < 1.2 * 25.0 * 125_000.0, "seed {seed}: {rate} bytes a second");
        let others = lab.nodes[4..=6].iter().filter_map(|node| node.finished).max().expect("finished");
        assert!(others.0 < done.0 / 2, "seed {seed}: the other zone has no limit: {others:?} {done:?}");
    }
}
