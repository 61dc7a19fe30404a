//! Simulated labs of any size: makespan, the seeder's share, and the time and memory of the simulation.
//!
//! Every seed is a separate run on its own thread. Results in virtual time are the same on every machine.

#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use flashmob::sim::{Lab, LabSpec, Zones, yardstick};
use flashmob::tracker::{Topology, Zone};

#[derive(Parser)]
struct Args {
    /// Terminals, on links of 100 Mbit/s.
    #[arg(long, default_value_t = 100)]
    terminals: usize,
    /// Number of pieces
    #[arg(long, default_value_t = 512)]
    pieces: u32,
    /// Bytes of a piece on the wire, in KiB.
    #[arg(long, default_value_t = 1024)]
    piece_kib: u32,
    /// A run for each of these.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// Runs at a time.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Number of zones, all of equal size, each behind its own uplink
    #[arg(long, default_value_t = 1)]
    zones: u8,
    /// A zone's uplink, in terminals' links.
    #[arg(long, default_value_t = 1.0)]
    uplink: f64,
    /// Gateways of each zone.
    #[arg(long, default_value_t = 2)]
    links: usize,
    /// Number of terminals, from the last, with a tenth of the link rate
    #[arg(long, default_value_t = 0)]
    slow_link: usize,
    /// Number of terminals, from the last, that write at a tenth of the link rate
    #[arg(long, default_value_t = 0)]
    slow_disk: usize,
    /// Switch the last terminal off after this many seconds
    #[arg(long)]
    killed_after: Option<f64>,
    /// Number of terminals, from the last, whose cables are pulled; their connections stay open
    #[arg(long, default_value_t = 0)]
    vanish: usize,
    /// When that happens, as a part of the best time that any scheme could need.
    #[arg(long, default_value_t = 0.3)]
    vanish_at: f64,
    /// Switch the seeder off after this multiple of the time that one terminal alone needs
    #[arg(long)]
    seeder_killed: Option<f64>,
    /// Terminals arrive one by one over this many seconds
    #[arg(long)]
    arrive_over: Option<f64>,
    /// With a payload of full length in memory: the same lab, for comparison.
    #[arg(long)]
    heavy: bool,
    /// Print figures without rounding, to compare two versions of the engine.
    #[arg(long)]
    exact: bool,
    /// `cargo bench` says this.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let seeds = Mutex::new(args.seeds.clone().into_iter());
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else { return };
                    run(&args, seed);
                }
            });
        }
    });
}

/// How many terminals are like all others.
fn ordinary(args: &Args) -> usize {
    let killed = usize::from(args.killed_after.is_some());
    args.terminals - args.slow_link.max(args.slow_disk).max(killed).max(args.vanish)
}

fn spec(args: &Args, seed: u64) -> LabSpec {
    let mut spec = LabSpec::new(args.terminals, args.pieces, args.piece_kib * 1024, seed);
    if !args.heavy {
        spec = spec.scaled_down();
    }
    if args.zones > 1 {
        divide(args, &mut spec);
    }
    let count = spec.nodes.len();
    let alone = yardstick(1, args.pieces, args.piece_kib * 1024, spec.nodes[0].rate);
    spec.nodes[0].leaves = args.seeder_killed.map(|times| Duration::from_secs_f64(times * alone));
    spec.nodes[count - 1].leaves = args.killed_after.map(Duration::from_secs_f64);
    let best = yardstick(args.terminals, args.pieces, args.piece_kib * 1024, spec.nodes[0].rate);
    for node in &mut spec.nodes[count - args.vanish..] {
        node.vanishes = Some(Duration::from_secs_f64(args.vanish_at * best));
    }
    for node in &mut spec.nodes[count - args.slow_disk..] {
        node.disk = node.rate / 10;
    }
    for node in &mut spec.nodes[count - args.slow_link..] {
        node.rate /= 10;
    }
    if let Some(over) = args.arrive_over {
        for (number, node) in spec.nodes.iter_mut().enumerate().skip(1) {
            let part = (number - 1) as f64 / (args.terminals - 1).max(1) as f64;
            node.arrives = Duration::from_secs_f64(over * part);
        }
    }
    spec
}

/// Puts the terminals into zones.
fn divide(args: &Args, spec: &mut LabSpec) {
    let each = args.terminals.div_ceil(args.zones.into());
    for (nodes, zone) in spec.nodes[1..].chunks_mut(each).zip(1..) {
        nodes.iter_mut().for_each(|node| node.zone = zone);
    }
    let zone = |number: u8| {
        let network = format!("10.{number}.0.0/16").parse().unwrap();
        Zone { links: args.links, ..Zone::new(format!("zone-{number}"), vec![network]) }
    };
    let topology = Topology { zones: (1..=args.zones).map(zone).collect(), ..Topology::default() };
    // Whole bytes a second.
    let uplink = Duration::from_secs_f64(spec.nodes[0].rate as f64 * args.uplink).as_secs();
    spec.zones = Some(Zones { uplink, topology, time_scale: 1 });
}

fn run(args: &Args, seed: u64) {
    let began = Instant::now();
    let mut lab = Lab::new(spec(args, seed));
    assert!(lab.run(Duration::from_secs(36_000)), "seed {seed}: not everybody had everything");
    if args.exact {
        return print_exact(&lab, seed);
    }
    let rate = lab.nodes[0].spec().rate;
    let mut times: Vec<f64> = lab.nodes[1..=ordinary(args)]
        .iter()
        .map(|node| node.finished.unwrap_or_default().0.as_secs_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    let last = times[times.len() - 1];
    // Late terminals are measured by the time that one terminal alone needs.
    let best = match args.arrive_over {
        Some(over) => over + yardstick(1, args.pieces, args.piece_kib * 1024, rate),
        None => yardstick(args.terminals, args.pieces, args.piece_kib * 1024, rate),
    };
    let payload = f64::from(args.pieces) * f64::from(args.piece_kib) * 1024.0;
    let crossed = lab.uplinks().values().map(|uplink| uplink.received as f64 / payload);
    let crossed = crossed.reduce(f64::max).map_or(String::new(), |most| format!(", uplinks {most:.3}"));
    println!(
        "N={} K={} {} KiB seed {seed}: makespan {:.4}, last/median {:.3}, seeder {:.3}{crossed}; took {:.1} \
         s",
        args.terminals,
        args.pieces,
        args.piece_kib,
        last / best,
        last / times[times.len() / 2],
        lab.seeder_share(),
        began.elapsed().as_secs_f64()
    );
}

/// Prints the time at which the last terminal finished, and a digest of every node's figures.
fn print_exact(lab: &Lab, seed: u64) {
    let last = lab.nodes.iter().filter_map(|node| node.finished).max().unwrap_or_default();
    let figures = lab.nodes.iter().flat_map(|node| {
        let stats = node.engine().map(|engine| engine.stats()).unwrap_or_default();
        let finished = node.finished.map_or(u128::MAX, |at| at.0.as_nanos());
        [finished, node.payload_out.into(), stats.bytes_in.into(), stats.bytes_wasted.into()]
    });
    // FNV-1a.
    let digest = figures.flat_map(u128::to_le_bytes).fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    println!("seed {seed}: last finished at {} ns, digest {digest:016x}", last.0.as_nanos());
}
