//! One seeder and one leecher without shaped links, over loopback: MB/s and processor time of both ends for
//! each GiB.
//!
//! Payload and target are in memory (/dev/shm), or the target is a loop device. Clients take turns, because a
//! machine swings within an hour: only figures of one run can be compared.
//!
//!     cargo bench --bench pair -- --client flashmob --client aria2 --client libtorrent --runs 5

#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use common::{Client, Place, payload, spread};
use flashmob::units::parse_bytes;
use flashmob_testkit::loops::LoopDevice;
use flashmob_testkit::tracker::TestTracker;

#[derive(Debug, Parser)]
struct Args {
    /// Bytes of the payload.
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    size: u64,
    /// Bytes of a piece.
    #[arg(long, default_value = "4MiB", value_parser = parse_bytes)]
    piece: u64,
    /// Clients to run
    #[arg(long = "client")]
    clients: Vec<Client>,
    /// Runs of each client
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Write to a loop device on a file in this folder (flashmob only).
    #[arg(long)]
    disk: Option<PathBuf>,
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Default)]
struct Figures {
    rate: Vec<f64>,
    seeder: Vec<f64>,
    leecher: Vec<f64>,
    memory: Vec<f64>,
    seeder_memory: Vec<f64>,
}

fn main() {
    let mut args = Args::parse();
    if args.clients.is_empty() {
        args.clients = vec![Client::Flashmob];
    }
    let files = tempfile::tempdir_in("/dev/shm").unwrap();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let tracker = TestTracker::open(None, loopback);
    let home = files.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let torrent =
        payload(&home.join("payload"), Path::new("/dev/urandom"), args.size, args.piece, &tracker.url());
    let device = args.disk.as_ref().map(|folder| {
        let backing = tempfile::NamedTempFile::new_in(folder).unwrap();
        backing.as_file().set_len(args.size).unwrap();
        (LoopDevice::over(backing.path(), &["--direct-io=on"]), backing)
    });
    let mut all: Vec<(Client, Figures)> =
        args.clients.iter().map(|client| (*client, Figures::default())).collect();
    for turn in 0..args.runs {
        for (number, (client, figures)) in all.iter_mut().enumerate() {
            let port = 21_000 + u16::try_from(turn * 100 + number * 2).unwrap();
            let place = |name: &str, port: u16| Place {
                namespace: None,
                listen: SocketAddr::new(loopback, port),
                folder: files.path().join(name),
                torrent: torrent.clone(),
                device: None,
            };
            let target = files.path().join("target");
            let _ = std::fs::remove_dir_all(&target);
            let _ = std::fs::remove_file(target.with_extension("done"));
            std::fs::create_dir(&target).unwrap();
            let seeder = client.start(&place("home", port), true);
            seeder.settle();
            let before = seeder.used();
            let begun = Instant::now();
            let goal = device.as_ref().map(|(device, _)| device.path().to_owned());
            let mut leecher = client.start(&Place { device: goal, ..place("target", port + 1) }, false);
            while leecher.finished().is_none() {
                assert!(
                    leecher.lives() && begun.elapsed() < Duration::from_secs(600),
                    "{client:?} did not finish"
                );
                std::thread::sleep(Duration::from_millis(5));
            }
            let seconds = leecher.finished().unwrap().duration_since(begun).as_secs_f64();
            let gib = args.size as f64 / f64::from(1 << 30);
            figures.rate.push(-(args.size as f64 / 1e6 / seconds));
            figures.seeder.push((seeder.used().cpu - before.cpu) / gib);
            figures.leecher.push(leecher.used().cpu / gib);
            figures.memory.push(leecher.used().memory);
            figures.seeder_memory.push(seeder.used().memory);
        }
    }
    println!(
        "{} MiB in pieces of {} KiB, {} turns: best (median)",
        args.size >> 20,
        args.piece >> 10,
        args.runs
    );
    for (client, figures) in all {
        let ((rate, usual), (seeder, seeders)) = (spread(&figures.rate), spread(&figures.seeder));
        let (leecher, leechers) = spread(&figures.leecher);
        println!(
            "{client:?}: {:.0} ({:.0}) MB/s, CPU seconds a GiB: seeder {seeder:.2} ({seeders:.2}), leecher \
             {leecher:.2} ({leechers:.2}); peak memory {:.0} MiB, seeder {:.0} MiB",
            -rate,
            -usual,
            spread(&figures.memory).1,
            spread(&figures.seeder_memory).1
        );
    }
}
