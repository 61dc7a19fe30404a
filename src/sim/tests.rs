//! What must hold in a whole lab, over many seeds.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Character, Lab, LabSpec, NodeSpec, yardstick};
use crate::bitfield::Bitfield;
use crate::swarm::wire::Message;
use crate::swarm::{Block, CloseReason, PieceShape, SwarmStats};
use crate::units::PieceIndex;

const KIB: u32 = 1024;
const MINUTE: Duration = Duration::from_secs(60);

fn stats(lab: &Lab, node: usize) -> SwarmStats {
    lab.nodes[node].engine().map(crate::swarm::Engine::stats).unwrap_or_default()
}

/// Runs a lab to its end and checks what must hold in any lab.
fn run(spec: LabSpec, limit: Duration) -> Lab {
    let seed = spec.seed;
    let mut lab = Lab::new(spec);
    assert!(lab.run(limit), "seed {seed}: not everybody had everything after {limit:?}");
    for (number, node) in lab.nodes.iter().enumerate() {
        if node.finished.is_some() && node.engine().is_some() {
            let stats = stats(&lab, number);
            assert!(stats.complete && stats.pieces_done == stats.pieces, "seed {seed} node {number}");
            assert_eq!(stats.bytes_done, stats.bytes_total, "seed {seed} node {number}");
        }
    }
    lab
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn equal_terminals_finish_near_the_yardstick_and_the_seeder_repeats_little() {
    let labs: Vec<Lab> = (0..6).map(|seed| run(LabSpec::new(8, 64, 1024 * KIB, seed), MINUTE)).collect();
    let ratios: Vec<f64> = labs.iter().map(Lab::ratio).collect();
    let shares: Vec<f64> = labs.iter().map(Lab::seeder_share).collect();
    assert!(mean(&ratios) < 1.15, "{ratios:?}");
    assert!(mean(&shares) < 1.15, "{shares:?}");
    // Nobody can beat it: a smaller ratio means that the simulation gives something for nothing.
    assert!(ratios.iter().all(|ratio| *ratio >= 1.0), "{ratios:?}");
}

#[test]
fn equal_seeds_give_equal_runs() {
    let times = |seed| -> Vec<_> {
        run(LabSpec::new(5, 20, 64 * KIB, seed), MINUTE).nodes.iter().map(|node| node.finished).collect()
    };
    assert_eq!(times(7), times(7));
    assert_ne!(times(7), times(8));
}

/// A quarter of each piece travels, in awkward ranges; every seventh piece not at all.
struct Holes;

impl PieceShape for Holes {
    fn data_ranges(&self, piece: PieceIndex, len: u32) -> Vec<Range<u32>> {
        if piece.0 % 7 == 3 {
            return Vec::new();
        }
        (0..len)
            .step_by(32 * KIB as usize)
            .map(|start| start + 4 * KIB..(start + 12 * KIB).min(len))
            .collect()
    }
}

#[test]
fn only_data_travels_and_the_rest_is_zero() {
    for seed in 0..5 {
        let spec = LabSpec { shape: Arc::new(Holes), short: 5000, ..LabSpec::new(4, 30, 128 * KIB, seed) };
        let data: u64 = (0..30u32)
            .flat_map(|piece| {
                let len = if piece == 29 { 128 * KIB - 5000 } else { 128 * KIB };
                Holes.data_ranges(PieceIndex(piece), len)
            })
            .map(|range| u64::from(range.end - range.start))
            .sum();
        let lab = run(spec, MINUTE);
        for node in 1..=4 {
            assert_eq!(stats(&lab, node).bytes_in, data, "seed {seed}");
        }
    }
}

#[test]
fn peers_that_leave_are_no_loss() {
    for seed in 0..10 {
        let mut spec = LabSpec::new(8, 64, 64 * KIB, seed);
        spec.nodes[2].leaves = Some(Duration::from_millis(120));
        spec.nodes[3].leaves = Some(Duration::from_millis(200));
        // A second seeder goes while it is busy.
        spec.nodes[4] = NodeSpec { leaves: Some(Duration::from_millis(150)), ..NodeSpec::seeder() };
        run(spec, MINUTE);
    }
}

#[test]
fn a_peer_that_sends_nothing_holds_up_nobody_for_long() {
    for seed in 0..5 {
        let mut spec = LabSpec::new(4, 32, 64 * KIB, seed);
        spec.nodes.push(NodeSpec { character: Character::Stalling, ..NodeSpec::seeder() });
        run(spec, Duration::from_secs(15));
    }
}

#[test]
fn a_liar_is_banned_and_everybody_has_the_right_bytes() {
    for seed in 0..10 {
        let mut spec = LabSpec::new(6, 48, 64 * KIB, seed);
        spec.nodes.push(NodeSpec { character: Character::Liar, ..NodeSpec::seeder() });
        let lab = run(spec, MINUTE);
        let banned = |node: &super::lab::Node| {
            node.closes.iter().any(|why| matches!(why, CloseReason::BadPiece(_) | CloseReason::Banned))
        };
        assert!(lab.nodes[1..=6].iter().filter(|node| banned(node)).count() >= 3, "seed {seed}");
        assert!((1..=6).any(|node| stats(&lab, node).pieces_bad > 0), "seed {seed}");
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_closed_and_disturbs_nobody() {
    let block = |piece, offset, len| Block { piece: PieceIndex(piece), offset, len };
    let scripts: Vec<Vec<Message>> = vec![
        vec![Message::Bitfield(Bytes::from_static(&[0xff]))],
        vec![Message::HaveAll, Message::Bitfield(Bytes::from_static(&[0; 5]))],
        vec![Message::Have(PieceIndex(32))],
        vec![Message::Suggest(PieceIndex(u32::MAX))],
        vec![Message::Request(block(0, 0, 0))],
        vec![Message::Request(block(0, 60_000, 16_384))],
        vec![Message::Request(block(u32::MAX, u32::MAX, u32::MAX))],
        vec![Message::Piece { piece: PieceIndex(0), offset: 0, data: Bytes::from_static(&[1; 16_384]) }],
        vec![Message::Reject(block(0, 0, 16_384))],
        vec![Message::Extended { id: 0, payload: Bytes::from_static(b"d1:m") }],
        vec![Message::Request(block(0, 0, 16_384)); 10_000],
    ];
    for (number, script) in scripts.into_iter().enumerate() {
        let mut spec = LabSpec::new(3, 32, 64 * KIB, 1);
        spec.nodes.push(NodeSpec { character: Character::Script(script), ..NodeSpec::terminal() });
        let lab = run(spec, MINUTE);
        let faults = lab.nodes[..4]
            .iter()
            .filter(|node| node.closes.iter().any(|why| matches!(why, CloseReason::Fault(_))));
        assert!(faults.count() >= 1, "script {number}");
    }
}

/// Bytes and pieces that a node has; nothing else ever came to it.
fn holds_exactly(lab: &Lab, node: usize, pieces: Range<u32>) -> bool {
    let engine = lab.nodes[node].engine().expect("it is there");
    let bytes = u64::from(pieces.end - pieces.start) * u64::from(64 * KIB);
    let stats = engine.stats();
    *engine.have() == Bitfield::of_range(64, pieces) && stats.bytes_in == bytes && stats.bytes_total == bytes
}

#[test]
fn each_terminal_gets_the_part_it_wants_and_no_other_byte() {
    for seed in 0..10 {
        let parts = [0..32, 32..64, 0..32, 32..64, 20..40];
        let mut spec = LabSpec::new(parts.len(), 64, 64 * KIB, seed);
        for (node, part) in spec.nodes[1..].iter_mut().zip(&parts) {
            node.wanted = Some(part.clone());
        }
        let lab = run(spec, MINUTE);
        for (node, part) in (1..).zip(parts) {
            assert!(holds_exactly(&lab, node, part), "seed {seed} node {node}: {:?}", stats(&lab, node));
        }
    }
}

#[test]
fn those_who_have_parts_serve_the_whole_together() {
    for seed in 0..10 {
        let mut spec = LabSpec::new(5, 64, 64 * KIB, seed);
        spec.nodes[0].wanted = Some(0..40);
        spec.nodes[1] = NodeSpec { wanted: Some(30..64), ..NodeSpec::seeder() };
        spec.nodes[2].wanted = Some(25..50);
        // When this one comes, the seeders are gone: what others fetched is all there is.
        spec.nodes[3].wanted = Some(50..64);
        spec.nodes[4].wanted = Some(0..25);
        spec.nodes[0].leaves = Some(MINUTE);
        spec.nodes[1].leaves = Some(MINUTE);
        spec.nodes[5].arrives = MINUTE + Duration::from_secs(1);
        let lab = run(spec, 2 * MINUTE);
        for (node, part) in [(2, 25..50), (3, 50..64), (4, 0..25), (5, 0..64)] {
            assert!(holds_exactly(&lab, node, part), "seed {seed} node {node}: {:?}", stats(&lab, node));
        }
    }
}

#[test]
fn one_buffer_is_enough() {
    for seed in 0..5 {
        for buffers in [1, 2] {
            let mut spec = LabSpec::new(5, 40, 64 * KIB, seed);
            spec.nodes.iter_mut().for_each(|node| node.buffers = buffers);
            run(spec, MINUTE);
        }
    }
}

#[test]
fn terminals_that_come_late_are_served() {
    for seed in 0..5 {
        let mut spec = LabSpec::new(10, 64, 64 * KIB, seed);
        for (number, node) in spec.nodes.iter_mut().enumerate() {
            node.arrives = Duration::from_millis(100 * number as u64);
        }
        // Long after everybody else is done and seeders have parted.
        spec.nodes[10].arrives = MINUTE;
        let lab = run(spec, 2 * MINUTE);
        let alone = lab.nodes[10].finished.expect("finished").0 - MINUTE;
        assert!(alone.as_secs_f64() < 2.0 * yardstick(1, 64, 64 * KIB, 12_500_000), "seed {seed}: {alone:?}");
    }
}

#[test]
fn a_slow_terminal_does_not_hold_up_the_others() {
    let last_fast =
        |lab: &Lab| lab.nodes[1..8].iter().filter_map(|node| node.finished).max().expect("finished");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for seed in 0..10 {
        let mut spec = LabSpec::new(8, 64, 64 * KIB, seed);
        without.push(last_fast(&run(spec.clone(), MINUTE)).0.as_secs_f64());
        spec.nodes[8].rate /= 10;
        with.push(last_fast(&run(spec, MINUTE)).0.as_secs_f64());
    }
    assert!(mean(&with) < 1.5 * mean(&without), "{with:?} {without:?}");
}

#[test]
fn few_upload_slots_are_handed_round() {
    // Each holder keeps its slot for ten seconds, so this takes a while of virtual time.
    let mut spec = LabSpec::new(6, 48, 64 * KIB, 3);
    spec.tune = |config| config.upload_slots = 2;
    run(spec, 3 * MINUTE);
}

/// Prints what one tunes by: `cargo test --release -- --ignored --nocapture figures`.
#[test]
#[ignore = "a table for people"]
fn figures() {
    for (terminals, pieces, piece_length) in [
        (8, 64, 256 * KIB),
        (8, 64, 1024 * KIB),
        (16, 64, 256 * KIB),
        (32, 64, 256 * KIB),
        (8, 256, 1024 * KIB),
        (8, 64, 4096 * KIB),
        (16, 256, 1024 * KIB),
    ] {
        let labs: Vec<Lab> = (0..3)
            .map(|seed| run(LabSpec::new(terminals, pieces, piece_length, seed), 10 * MINUTE))
            .collect();
        let ratios: Vec<f64> = labs.iter().map(Lab::ratio).collect();
        let shares: Vec<f64> = labs.iter().map(Lab::seeder_share).collect();
        println!(
            "N={terminals:<3} K={pieces:<4} {:>5} KiB  makespan {:.3} (worst {:.3})  seeder {:.3}",
            piece_length / KIB,
            mean(&ratios),
            ratios.iter().copied().fold(0.0, f64::max),
            mean(&shares)
        );
    }
}

/// The last `vanish` of `terminals` have their cables pulled at 0.3 of the best time; gives the ratio of the
/// run.
fn with_pulled_cables(terminals: usize, vanish: usize, seed: u64) -> f64 {
    let mut spec = LabSpec::new(terminals, 128, 1024 * KIB, seed).scaled_down();
    let best = yardstick(terminals, 128, 1024 * KIB, spec.nodes[0].rate);
    for node in &mut spec.nodes[terminals + 1 - vanish..] {
        node.vanishes = Some(Duration::from_secs_f64(0.3 * best));
    }
    run(spec, Duration::from_secs(600)).ratio()
}

#[test]
fn terminals_whose_cables_are_pulled_do_not_stall_the_others() {
    for (terminals, vanish) in [(8, 1), (8, 3), (16, 3)] {
        let ratios =
            |vanish| (1..4).map(|seed| with_pulled_cables(terminals, vanish, seed)).collect::<Vec<_>>();
        let (without, with) = (ratios(0), ratios(vanish));
        // Of 128 pieces, those that were on their way to the dead are a larger part than in a real image.
        let worst = with.iter().fold(0f64, |worst, one| worst.max(*one));
        assert!(mean(&with) < 1.12 * mean(&without), "{vanish} of {terminals}: {with:?} and {without:?}");
        assert!(worst < 1.2 * mean(&without), "{vanish} of {terminals}: {with:?}");
    }
}

#[test]
fn peers_that_take_what_they_are_offered_and_never_ask_do_not_slow_the_others() {
    let ratios = |takers: usize| -> Vec<f64> {
        let with = |seed| {
            let mut spec = LabSpec::new(12, 128, 1024 * KIB, seed).scaled_down();
            let taker = NodeSpec { character: Character::Taker, ..NodeSpec::terminal() };
            spec.nodes.extend(std::iter::repeat_n(taker, takers));
            run(spec, Duration::from_secs(600)).ratio()
        };
        (1..3).map(with).collect()
    };
    let (without, with) = (ratios(0), ratios(4));
    let worst = with.iter().fold(0f64, |worst, one| worst.max(*one));
    assert!(worst < 1.1 * mean(&without), "{with:?} and {without:?}");
}
