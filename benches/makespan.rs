//! How long a lab takes on shaped links: one seeder and N leechers in separate network namespaces on one
//! bridge, every link limited in both directions.
//!
//! Prints, for each client in turn, the makespan as a ratio to the yardstick (K − 1 + ⌈log₂(N+1)⌉)·τ
//! (Mundinger, Weber, Weiss 2008), with τ from the rate of one TCP connection in the same run, and the bytes
//! that the seeder sent. It warns above 70 % processor use, because it then measures the machine and not the
//! clients.
//!
//!     cargo bench --bench makespan -- --nodes 8 --piece 1MiB --client flashmob --client aria2
//!     cargo bench --bench makespan -- --nodes 8 --rate-mbit 100 --piece 1MiB --cut 3

#![expect(clippy::panic, clippy::unwrap_used, reason = "a bench that cannot run ends")]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use common::{Client, Place, payload, spread};
use flashmob::io::host::init::keep_pace_after_idle;
use flashmob::units::parse_bytes;
use flashmob_testkit::command::run_line;
use flashmob_testkit::net::{Namespaces, enter, ip};
use flashmob_testkit::tracker::TestTracker;

#[derive(Debug, Parser)]
struct Args {
    /// Number of leechers
    #[arg(long, default_value_t = 8)]
    nodes: u8,
    /// Each link, each way, in Mbit/s.
    #[arg(long, default_value_t = 100)]
    rate_mbit: u32,
    /// Bytes of the payload.
    #[arg(long, default_value = "256MiB", value_parser = parse_bytes)]
    size: u64,
    /// File whose first bytes are the payload
    #[arg(long, default_value = "/dev/urandom")]
    payload: PathBuf,
    /// Bytes of a piece.
    #[arg(long, default_value = "1MiB", value_parser = parse_bytes)]
    piece: u64,
    /// Which clients, one after another.
    #[arg(long = "client", default_value = "flashmob")]
    clients: Vec<Client>,
    /// Runs of each client
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Seconds after which a run has failed.
    #[arg(long, default_value_t = 900)]
    deadline: u64,
    /// Number of leechers, from the last, whose cables are pulled during each run; their connections stay
    /// open
    #[arg(long, default_value_t = 0)]
    cut: u8,
    /// When that happens, as a part of the yardstick's time.
    #[arg(long, default_value_t = 0.3)]
    cut_at: f64,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let lan = Lan::new(args.nodes, args.rate_mbit);
    let goodput = lan.goodput();
    println!(
        "{} nodes at {} Mbit/s (one connection carries {:.1}), {} MiB in pieces of {} KiB",
        args.nodes,
        args.rate_mbit,
        goodput * 8.0 / 1e6,
        args.size >> 20,
        args.piece >> 10
    );
    for _ in 0..args.runs {
        for client in &args.clients {
            run(&args, &lan, *client, goodput);
        }
    }
}

fn run(args: &Args, lan: &Lan, client: Client, goodput: f64) {
    let files = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let tracker = TestTracker::open(Some(&lan.namespace(0)), lan.address(0));
    let place = |node: u8| {
        let folder = files.path().join(format!("n{node}"));
        std::fs::create_dir(&folder).unwrap();
        Place {
            namespace: Some(lan.namespace(node)),
            listen: SocketAddr::new(lan.address(node), 6881),
            folder,
            torrent: files.path().join("n0/payload.torrent"),
            device: None,
        }
    };
    let home = place(0);
    payload(&home.folder.join("payload"), &args.payload, args.size, args.piece, &tracker.url());
    let seeder = client.start(&home, true);
    // Until it has looked at its payload and announced itself.
    seeder.settle();
    let (before, begun, busy) = (lan.sent_by_seeder(), Instant::now(), processors());
    let mut leechers: Vec<_> = (1..=args.nodes).map(|node| client.start(&place(node), false)).collect();
    let pieces = args.size.div_ceil(args.piece) as f64;
    let best = (pieces - 1.0 + (f64::from(args.nodes) + 1.0).log2().ceil()) * args.piece as f64 / goodput;
    let mut cut = Vec::new();
    loop {
        if args.cut > 0 && cut.is_empty() && begun.elapsed().as_secs_f64() > args.cut_at * best {
            lan.plug(args.cut, "down");
            // These are no longer waited for.
            cut = leechers.split_off(leechers.len().saturating_sub(args.cut.into()));
        }
        if leechers.iter().all(|leecher| leecher.finished().is_some()) {
            break;
        }
        let ended = leechers.iter_mut().any(|leecher| !leecher.lives());
        if ended || begun.elapsed() > Duration::from_secs(args.deadline) {
            println!("{client:?}: not all finished");
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = lan.sent_by_seeder() - before;
    let load = (processors() - busy) / begun.elapsed().as_secs_f64() / parallelism();
    let mut times: Vec<f64> = leechers
        .iter()
        .filter_map(|leecher| leecher.finished())
        .map(|at| at.duration_since(begun).as_secs_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    drop(cut);
    lan.plug(args.cut, "up");
    let last = times.last().copied().unwrap_or_default();
    let (_, median) = spread(&times);
    let memory: Vec<f64> = leechers.iter().map(|leecher| leecher.used().memory).collect();
    println!(
        "{client:?}: makespan {:.3} of the yardstick ({last:.1} s), last {:.3} of the median, seeder {:.3} \
         of the payload, processor seconds {:.2} (seeder {:.2}), peak memory {:.0} MiB (seeder {:.0} MiB), \
         processors {:.0} % busy{}",
        last / best,
        last / median,
        sent / args.size as f64,
        leechers.iter().map(|leecher| leecher.used().cpu).sum::<f64>() / leechers.len() as f64,
        seeder.used().cpu,
        memory.iter().copied().fold(0.0, f64::max),
        seeder.used().memory,
        load * 100.0,
        if load > 0.7 { ": too busy, this measures the machine" } else { "" }
    );
}

/// Seconds that all processors together were busy since the machine started.
fn processors() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    (fields.iter().take(8).sum::<f64>() - idle) / 100.0
}

fn parallelism() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
}

/// A switch and its cables, in namespaces.
struct Lan {
    prefix: String,
    nodes: u8,
    namespaces: Namespaces,
}

impl Lan {
    fn new(nodes: u8, rate_mbit: u32) -> Self {
        allow_cubic();
        let prefix = format!("fmb{}", std::process::id());
        let mut lan = Lan { prefix, nodes, namespaces: Namespaces::default() };
        let switch = lan.switch();
        lan.namespaces.add(&switch);
        ip(&format!("-n {switch} link add br0 type bridge stp_state 0 mcast_snooping 0"));
        ip(&format!("-n {switch} link set br0 up"));
        for node in 0..=nodes {
            let name = lan.namespace(node);
            lan.namespaces.add(&name);
            ip(&format!("-n {name} link add eth0 type veth peer name p{node} netns {switch}"));
            ip(&format!("-n {switch} link set p{node} master br0 up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} addr add {}/24 dev eth0", lan.address(node)));
            ip(&format!("-n {name} link set eth0 up"));
            as_on_terminals(&name);
            for (namespace, device) in
                [(name.as_str(), "eth0".to_owned()), (switch.as_str(), format!("p{node}"))]
            {
                let shape = format!("tbf rate {rate_mbit}mbit burst 128kb latency 30ms");
                run_line("tc", &format!("-n {namespace} qdisc add dev {device} root {shape}"));
            }
        }
        lan
    }

    fn switch(&self) -> String {
        format!("{}s", self.prefix)
    }

    fn namespace(&self, node: u8) -> String {
        format!("{}n{node}", self.prefix)
    }

    fn address(&self, node: u8) -> IpAddr {
        IpAddr::from([10, 79, 0, node + 1])
    }

    /// Pulls the cables of the last `count` nodes at the switch, or plugs them in: `state` is `down` or `up`.
    fn plug(&self, count: u8, state: &str) {
        for node in self.nodes + 1 - count..=self.nodes {
            ip(&format!("-n {} link set p{node} {state}", self.switch()));
        }
    }

    /// Bytes that passed the seeder's cable, to the switch.
    fn sent_by_seeder(&self) -> f64 {
        let said = ip(&format!("-n {} -j -s link show eth0", self.namespace(0)));
        let value: serde_json::Value = serde_json::from_str(&said).unwrap();
        value[0]["stats64"]["tx"]["bytes"].as_f64().unwrap_or_default()
    }

    /// Bytes a second of one TCP connection.
    fn goodput(&self) -> f64 {
        let at = SocketAddr::new(self.address(1), 7000);
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                enter(&self.namespace(1)).unwrap();
                let (mut stream, _) = TcpListener::bind(at).unwrap().accept().unwrap();
                let mut buffer = vec![0; 1 << 18];
                let (mut counted, mut begun) = (0, None);
                loop {
                    let read = stream.read(&mut buffer).unwrap_or(0);
                    if read == 0 {
                        break;
                    }
                    match begun {
                        None => begun = Some(Instant::now()),
                        // The first second does not count.
                        Some(at) if at.elapsed() > Duration::from_secs(1) => counted += read,
                        Some(_) => {}
                    }
                }
                let seconds = begun.map_or(0.0, |at| at.elapsed().as_secs_f64() - 1.0);
                counted as f64 / seconds
            });
            scope.spawn(|| {
                enter(&self.namespace(0)).unwrap();
                let until = Instant::now() + Duration::from_secs(5);
                let mut stream = loop {
                    match TcpStream::connect(at) {
                        Ok(stream) => break stream,
                        Err(e) if Instant::now() > until => panic!("connecting to {at}: {e}"),
                        Err(_) => std::thread::sleep(Duration::from_millis(20)),
                    }
                };
                let (zeros, begun) = (vec![0; 1 << 18], Instant::now());
                while begun.elapsed() < Duration::from_secs(4) && stream.write_all(&zeros).is_ok() {}
            });
            receiver.join().unwrap()
        })
    }
}

/// Sets the kernel's default congestion control, as on terminals, and keeps idle connections at their speed,
/// as the agent does; for all clients.
fn as_on_terminals(namespace: &str) {
    let set = || {
        enter(namespace).expect("a namespace");
        let path = "/proc/sys/net/ipv4/tcp_congestion_control";
        std::fs::write(path, "cubic").unwrap_or_else(|e| panic!("{path}: {e}"));
        keep_pace_after_idle().expect("connections that rested go on");
    };
    std::thread::scope(|scope| scope.spawn(set).join()).expect("settings of a namespace");
}

/// A namespace may only choose a congestion control that the machine allows to everyone.
fn allow_cubic() {
    let path = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let allowed = std::fs::read_to_string(path).unwrap_or_default();
    if !allowed.split_whitespace().any(|name| name == "cubic") {
        let _ = std::fs::write(path, format!("{} cubic", allowed.trim()));
    }
}
