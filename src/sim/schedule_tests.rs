//! What the scheduling of a lab must hold: who is slow, late or gone costs the others next to nothing.

use std::time::Duration;

use super::{Lab, LabSpec, NodeSpec, yardstick};

const MIB: u32 = 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3600);
const RATE: u64 = 12_500_000;

fn run(spec: LabSpec) -> Lab {
    let seed = spec.seed;
    let mut lab = Lab::new(spec);
    assert!(lab.run(HOUR), "seed {seed}: not everybody had everything after {HOUR:?}");
    lab
}

/// Seconds until the last of `nodes` had everything.
fn last(lab: &Lab, nodes: std::ops::RangeInclusive<usize>) -> f64 {
    lab.nodes[nodes].iter().filter_map(|node| node.finished).max().unwrap_or_default().0.as_secs_f64()
}

/// How much longer the first `terminals` of a lab take when `change` was made to it.
fn cost(terminals: usize, pieces: u32, seed: u64, change: impl FnOnce(&mut LabSpec)) -> f64 {
    let plain = LabSpec::new(terminals + 1, pieces, MIB, seed);
    let mut changed = plain.clone();
    change(&mut changed);
    last(&run(changed), 1..=terminals) / last(&run(plain), 1..=terminals)
}

#[test]
fn all_finish_together() {
    let lab = run(LabSpec::new(12, 96, MIB, 1));
    let mut times: Vec<f64> =
        lab.nodes[1..].iter().filter_map(|node| node.finished).map(|at| at.0.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    assert!(times[11] <= 1.05 * times[6], "{times:?}");
}

#[test]
fn a_terminal_on_a_slow_link_holds_up_nobody() {
    // How the last pieces fall differs from seed to seed.
    let costs: Vec<f64> = (0..5).map(|seed| cost(11, 96, seed, |lab| lab.nodes[12].rate /= 10)).collect();
    assert!(costs.iter().sum::<f64>() / 5.0 < 1.15, "{costs:?}");
}

#[test]
fn a_terminal_with_a_slow_disk_holds_up_nobody() {
    let cost = cost(11, 96, 3, |lab| {
        lab.nodes[12].disk = RATE / 10;
        lab.nodes[12].buffers = 8;
    });
    assert!(cost < 1.12, "{cost}");
}

#[test]
fn a_terminal_that_is_switched_off_in_the_middle_is_not_missed() {
    let cost = cost(11, 96, 4, |lab| lab.nodes[12].leaves = Some(Duration::from_secs(4)));
    assert!(cost < 1.1, "{cost}");
}

#[test]
fn without_the_seeder_the_terminals_finish_among_themselves() {
    let mut spec = LabSpec::new(8, 64, MIB, 5);
    let one = yardstick(1, 64, MIB, RATE);
    spec.nodes[0].leaves = Some(Duration::from_secs_f64(1.1 * one));
    run(spec);
}

#[test]
fn terminals_that_come_one_by_one_are_served_at_their_links_rate() {
    let mut spec = LabSpec::new(8, 128, MIB, 6);
    for (number, node) in spec.nodes.iter_mut().enumerate().skip(1) {
        node.arrives = Duration::from_secs(5 * (number as u64 - 1));
    }
    let lab = run(spec);
    let done = last(&lab, 8..=8);
    assert!(done <= 1.15 * (35.0 + yardstick(1, 128, MIB, RATE)), "{done}");
}

#[test]
fn standard_clients_and_flashmob_serve_each_other() {
    for seed in 0..3 {
        let mut spec = LabSpec::new(8, 64, MIB, seed);
        spec.nodes[2].standard = true;
        spec.nodes[5].standard = true;
        let lab = run(spec);
        assert!(lab.ratio() < 2.0, "seed {seed}: {}", lab.ratio());
        for node in [2, 5] {
            assert!(lab.nodes[node].payload_out > 0, "seed {seed}: {node} sent nothing");
        }
    }
}

#[test]
fn a_standard_seeder_feeds_a_flashmob_lab() {
    let mut spec = LabSpec::new(6, 64, MIB, 7);
    spec.nodes[0] = NodeSpec { standard: true, ..NodeSpec::seeder() };
    let lab = run(spec);
    assert!(lab.ratio() < 2.0, "{}", lab.ratio());
}
