//! What must hold where pieces travel as frames: everybody ends with the right bytes, whoever lies, leaves or
//! forgets.

use std::time::Duration;

use super::{Character, Lab, LabSpec, NodeSpec};
use crate::swarm::{CloseReason, Engine, SwarmStats};

const KIB: u32 = 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// A lab in which everybody takes frames and keeps twenty.
fn framed(terminals: usize, pieces: u32, piece_length: u32, seed: u64) -> LabSpec {
    let mut spec = LabSpec::new(terminals, pieces, piece_length, seed);
    spec.nodes.iter_mut().for_each(|node| node.frames = 20);
    spec
}

fn run(spec: LabSpec) -> Lab {
    let seed = spec.seed;
    let mut lab = Lab::new(spec);
    assert!(lab.run(MINUTE), "seed {seed}: not everybody had everything after {MINUTE:?}");
    lab
}

fn stats(lab: &Lab, node: usize) -> SwarmStats {
    lab.nodes[node].engine().map(Engine::stats).unwrap_or_default()
}

fn last(lab: &Lab) -> f64 {
    lab.nodes.iter().filter_map(|node| node.finished).max().unwrap_or_default().0.as_secs_f64()
}

#[test]
fn with_frames_less_travels_and_all_are_done_sooner() {
    for seed in 0..2 {
        let plain = run(LabSpec::new(8, 64, 512 * KIB, seed));
        let lab = run(framed(8, 64, 512 * KIB, seed));
        // Four of five pieces shrink to two fifths: 0.52 of the bytes, if all that can travels so.
        assert!(lab.seeder_share() < 0.7 * plain.seeder_share(), "seed {seed}: {}", lab.seeder_share());
        assert!(last(&lab) < 0.7 * last(&plain), "seed {seed}: {} {}", last(&lab), last(&plain));
        for node in 1..=8 {
            let stats = stats(&lab, node);
            assert!(stats.bytes_in * 10 < stats.bytes_total * 6, "seed {seed} node {node}: {stats:?}");
        }
    }
}

#[test]
fn who_knows_no_frames_or_no_flashmob_takes_part_all_the_same() {
    for seed in 0..8 {
        let mut spec = framed(9, 48, 128 * KIB, seed);
        for node in [2, 5] {
            spec.nodes[node].frames = 0;
        }
        for node in [3, 7] {
            spec.nodes[node].standard = true;
        }
        let lab = run(spec);
        for node in [2, 5, 3, 7] {
            let stats = stats(&lab, node);
            assert!(stats.bytes_in >= stats.bytes_total, "seed {seed} node {node}: {stats:?}");
        }
        assert_eq!(
            lab.nodes.iter().flat_map(|node| &node.closes).filter(|why| is_blame(why)).count(),
            0,
            "seed {seed}"
        );
    }
}

fn is_blame(why: &CloseReason) -> bool {
    matches!(why, CloseReason::BadPiece(_) | CloseReason::Banned | CloseReason::Fault(_))
}

#[test]
fn who_sends_what_is_no_frame_is_banned_and_nobody_else() {
    for seed in 0..10 {
        let mut spec = framed(6, 48, 64 * KIB, seed);
        spec.nodes.push(NodeSpec { character: Character::Garbler, frames: 20, ..NodeSpec::seeder() });
        let lab = run(spec);
        let bad = |why: &&CloseReason| matches!(why, CloseReason::BadPiece(_));
        let blamed: Vec<usize> =
            lab.nodes[1..=6].iter().map(|node| node.closes.iter().filter(bad).count()).collect();
        assert!(blamed.contains(&1), "seed {seed}");
        assert!(blamed.iter().all(|count| *count <= 1), "seed {seed}: an honest peer was blamed: {blamed:?}");
    }
}

#[test]
fn a_frame_whose_sender_is_lost_is_begun_anew_with_another() {
    let mut dropped = 0;
    for seed in 0..10 {
        let mut spec = framed(8, 64, 128 * KIB, seed);
        // Frames of these two are on their way when they go; all others' are as long, or not.
        for (node, at) in [(2, 75), (3, 100), (4, 135)] {
            spec.nodes[node].leaves = Some(Duration::from_millis(at + seed));
        }
        spec.nodes.push(NodeSpec {
            frames: 20,
            leaves: Some(Duration::from_millis(115)),
            ..NodeSpec::seeder()
        });
        spec.nodes.push(NodeSpec { character: Character::Stalling, frames: 20, ..NodeSpec::seeder() });
        let lab = run(spec);
        assert!((1..=8).all(|node| stats(&lab, node).pieces_bad == 0), "seed {seed}: frames were mixed");
        dropped += (1..=8).map(|node| stats(&lab, node).bytes_wasted).sum::<u64>();
    }
    assert!(dropped > 0, "nothing was lost in the middle: this tests nothing");
}

#[test]
fn a_frame_that_is_forgotten_while_it_is_asked_for_costs_nobody_a_peer() {
    for seed in 0..10 {
        let mut spec = framed(6, 64, 128 * KIB, seed);
        spec.nodes.iter_mut().for_each(|node| node.frames = 1);
        let lab = run(spec);
        assert!((1..=6).all(|node| stats(&lab, node).pieces_bad == 0), "seed {seed}: frames were mixed");
        assert!(!lab.nodes.iter().flat_map(|node| &node.closes).any(is_blame), "seed {seed}");
    }
}

#[test]
fn one_buffer_is_enough_with_frames_too() {
    for seed in 0..5 {
        let mut spec = framed(5, 40, 64 * KIB, seed);
        spec.nodes.iter_mut().for_each(|node| node.buffers = 1);
        run(spec);
    }
}

/// Prints what frames change: `cargo test --lib -- --ignored --nocapture frame_figures`.
#[test]
#[ignore = "a table for people"]
fn frame_figures() {
    for (terminals, pieces, length) in [(8, 64, 512 * KIB), (8, 256, 512 * KIB), (16, 128, 256 * KIB)] {
        for spec in [LabSpec::new(terminals, pieces, length, 1), framed(terminals, pieces, length, 1)] {
            let (frames, lab) = (spec.nodes[0].frames > 0, run(spec));
            let all =
                |of: fn(&SwarmStats) -> u64| (1..=terminals).map(|node| of(&stats(&lab, node))).sum::<u64>();
            println!(
                "N={terminals} K={pieces} frames {frames}: {:.2} s, seeder {:.3}, received {:.3}, in vain \
                 {:.3}",
                last(&lab),
                lab.seeder_share(),
                all(|stats| stats.bytes_in) as f64 / all(|stats| stats.bytes_total) as f64,
                all(|stats| stats.bytes_wasted) as f64 / all(|stats| stats.bytes_total) as f64,
            );
        }
    }
}
