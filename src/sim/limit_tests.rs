//! A limit on the terminals' traffic: nobody exceeds it, and the lab is as fast as on links of that rate.

use std::time::Duration;

use super::{Lab, LabSpec, NodeSpec, yardstick};

const MIB: u32 = 1024 * 1024;
/// A quarter of a terminal's link.
const LIMIT: u64 = 3_125_000;
const WINDOW: Duration = Duration::from_secs(10);

/// A lab whose terminals have a limit. The server has none.
fn lab(terminals: usize, pieces: u32, seed: u64) -> LabSpec {
    let mut spec = LabSpec::new(terminals, pieces, MIB, seed);
    spec.nodes[1..].iter_mut().for_each(|node| node.limit = Some(LIMIT));
    spec.blank = true;
    spec
}

/// Bytes that each terminal received and sent until now.
fn traffic(lab: &Lab) -> Vec<[u64; 2]> {
    let stats = lab.nodes[1..].iter().map(|node| node.engine().map(crate::swarm::Engine::stats));
    stats.map(|stats| stats.unwrap_or_default()).map(|stats| [stats.bytes_in, stats.bytes_out]).collect()
}

/// Runs a lab to its end. Returns it with the highest rate of any limited terminal in any window, each way,
/// relative to the limit.
fn run(spec: LabSpec) -> (Lab, f64) {
    let seed = spec.seed;
    let mut lab = Lab::new(spec);
    let (mut highest, mut before) = (0.0f64, traffic(&lab));
    for window in 1..360 {
        let over = lab.run(WINDOW * window);
        let now = traffic(&lab);
        for (number, (now, before)) in now.iter().zip(&before).enumerate() {
            for way in [0, 1].into_iter().filter(|_| lab.nodes[number + 1].spec().limit.is_some()) {
                let rate = (now[way] - before[way]) as f64 / WINDOW.as_secs_f64();
                highest = highest.max(rate / LIMIT as f64);
            }
        }
        before = now;
        if over {
            return (lab, highest);
        }
    }
    panic!("seed {seed}: not everybody had everything");
}

fn last(lab: &Lab) -> f64 {
    lab.nodes.iter().filter_map(|node| node.finished).max().unwrap_or_default().0.as_secs_f64()
}

#[test]
fn no_terminal_exceeds_its_limit_and_the_lab_is_as_fast_as_the_limit_allows() {
    for seed in 0..4 {
        let (lab, highest) = run(lab(8, 96, seed));
        assert!(highest < 1.05, "seed {seed}: {highest} of the limit");
        let ratio = last(&lab) / yardstick(8, 96, MIB, LIMIT);
        assert!(ratio < 1.15, "seed {seed}: {ratio} times the time at the limit");
    }
}

#[test]
fn the_limit_holds_when_the_server_is_the_only_source() {
    for seed in 0..2 {
        let (lab, highest) = run(lab(1, 96, seed));
        assert!(highest < 1.05, "seed {seed}: {highest} of the limit");
        let ratio = last(&lab) / yardstick(1, 96, MIB, LIMIT);
        assert!((0.95..1.05).contains(&ratio), "seed {seed}: {ratio} times the time at the limit");
    }
}

#[test]
fn the_limit_holds_with_standard_clients_as_sources_and_as_receivers() {
    for seed in 0..2 {
        let mut spec = lab(6, 96, seed);
        spec.nodes[0] = NodeSpec { standard: true, ..NodeSpec::seeder() };
        spec.nodes[6] = NodeSpec { standard: true, ..NodeSpec::terminal() };
        let (_, highest) = run(spec);
        assert!(highest < 1.05, "seed {seed}: {highest} of the limit");
    }
}

#[test]
fn a_limit_above_the_links_changes_next_to_nothing() {
    for seed in 0..3 {
        let free = LabSpec { blank: true, ..LabSpec::new(8, 96, MIB, seed) };
        let mut wide = free.clone();
        wide.nodes[1..].iter_mut().for_each(|node| node.limit = Some(100_000_000));
        let (free, wide) = (last(&run(free).0), last(&run(wide).0));
        assert!(wide < 1.03 * free, "seed {seed}: {wide} {free}");
    }
}

#[test]
fn a_very_low_limit_holds_and_the_lab_finishes() {
    let mut spec = lab(4, 12, 1);
    spec.nodes[1..].iter_mut().for_each(|node| node.limit = Some(125_000));
    let (lab, highest) = run(spec);
    assert!(highest * (LIMIT / 125_000) as f64 <= 1.9, "one piece is 0.84 of a window");
    let ratio = last(&lab) / yardstick(4, 12, MIB, 125_000);
    assert!(ratio < 1.3, "{ratio} times the time at the limit");
}
