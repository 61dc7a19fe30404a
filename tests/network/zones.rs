//! A swarm across a router: only a zone's gateway fetches through it, and when it dies another one does.
//!
//! ```text
//!  core: tracker, seeder ── router ──(40 Mbit/s)── bridge ── terminals 0 to 3
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flashmob::io::storage::{FileStorage, Resize};
use flashmob::io::torrent::{Have, Session, SessionConfig};
use flashmob::metainfo::Metainfo;
use flashmob::tracker::{Settings, Topology, Tracker, Zone, Zoned};
use flashmob_testkit::child::wait_until;
use flashmob_testkit::command::run_line;
use flashmob_testkit::net::{Namespaces, ip};
use flashmob_testkit::swarm::{add, payload, torrent};
use flashmob_testkit::tracker::TestTracker;

use crate::lab::{DEADLINE, inside};

const TERMINALS: u8 = 4;
const PIECE: usize = 1 << 20;
const PAYLOAD: usize = 24 * PIECE;
const TRACKER: &str = "10.88.0.1:6969";

/// The namespaces; they go with the value.
struct Routed {
    name: String,
    namespaces: Namespaces,
}

impl Routed {
    fn new() -> Self {
        let name = format!("fmz{}", std::process::id());
        let mut routed = Routed { name, namespaces: Namespaces::default() };
        let (core, router) = (routed.core(), routed.router());
        routed.namespaces.add(&core);
        routed.namespaces.add(&router);
        ip(&format!("-n {core} link add eth0 type veth peer name core netns {router}"));
        ip(&format!("-n {core} addr add 10.88.0.1/24 dev eth0"));
        ip(&format!("-n {core} link set eth0 up"));
        ip(&format!("-n {core} link set lo up"));
        ip(&format!("-n {core} route add default via 10.88.0.254"));
        ip(&format!("-n {router} addr add 10.88.0.254/24 dev core"));
        ip(&format!("-n {router} link set core up"));
        ip(&format!("-n {router} link add room type bridge"));
        ip(&format!("-n {router} addr add 10.88.1.254/24 dev room"));
        ip(&format!("-n {router} link set room up"));
        ip(&format!("netns exec {router} sh -c echo${{IFS}}1>/proc/sys/net/ipv4/ip_forward"));
        for n in 0..TERMINALS {
            let terminal = routed.terminal(n);
            routed.namespaces.add(&terminal);
            ip(&format!("-n {terminal} link add eth0 type veth peer name port{n} netns {router}"));
            ip(&format!("-n {terminal} addr add {}/24 dev eth0", address(n)));
            ip(&format!("-n {terminal} link set eth0 up"));
            ip(&format!("-n {terminal} route add default via 10.88.1.254"));
            ip(&format!("-n {router} link set port{n} master room"));
            ip(&format!("-n {router} link set port{n} up"));
        }
        let shape = "qdisc add dev room root tbf rate 40mbit burst 128kb latency 100ms";
        run_line("tc", &format!("-n {router} {shape}"));
        routed
    }

    fn core(&self) -> String {
        format!("{}c", self.name)
    }

    fn router(&self) -> String {
        format!("{}r", self.name)
    }

    fn terminal(&self, n: u8) -> String {
        format!("{}t{n}", self.name)
    }

    /// Bytes that went from the core into the zone, headers included.
    fn crossed(&self) -> usize {
        let counter = "cat /sys/class/net/room/statistics/tx_bytes";
        ip(&format!("netns exec {} {counter}", self.router())).trim().parse().unwrap()
    }

    /// A power cut: no more messages.
    fn cut(&self, n: u8) {
        ip(&format!("-n {} link set eth0 down", self.terminal(n)));
    }
}

fn address(n: u8) -> IpAddr {
    [10, 88, 1, 10 + n].into()
}

/// State shared by the threads.
#[derive(Default)]
struct Course {
    cut: [AtomicBool; TERMINALS as usize],
    done: AtomicUsize,
    /// Most peers that the seeder had before the cut.
    peers: AtomicUsize,
    over: AtomicBool,
    gateways: Mutex<Vec<IpAddr>>,
}

/// The tracker and the seeder, until all is over.
async fn core(meta: &Arc<Metainfo>, source: &Path, course: &Course) {
    let zone = Zone { links: 1, ..Zone::new("room", vec!["10.88.1.0/24".parse().unwrap()]) };
    let policy = Zoned::new(Topology { zones: vec![zone], ..Topology::default() });
    let mut tracker = Tracker::new(Settings::default(), Box::new(policy));
    tracker.admit(meta.info_hash, false);
    let state = Arc::new(Mutex::new(tracker));
    let tracker = TestTracker::listen(TRACKER.parse().unwrap(), Arc::clone(&state));
    let session = Session::start(SessionConfig::new("10.88.0.1:6881".parse().unwrap())).await.unwrap();
    let storage = Arc::new(FileStorage::open(source).unwrap());
    let swarm = add(&session, meta, storage, Have::Everything, Some(tracker.url()));
    while !course.over.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !course.cut.iter().any(|cut| cut.load(SeqCst)) {
            course.peers.fetch_max(swarm.stats().peers, SeqCst);
        }
        let gateways = state.lock().unwrap().gateways().map(|(_, ip)| ip).collect();
        *course.gateways.lock().unwrap() = gateways;
    }
}

/// A terminal, until it is complete and all is over, or cut off.
async fn terminal(n: u8, meta: &Arc<Metainfo>, target: &Path, course: &Course) {
    let listen = (address(n), 6881).into();
    let session = Session::start(SessionConfig::new(listen)).await.unwrap();
    let storage = FileStorage::create(target, PAYLOAD as u64, Resize::Refuse).unwrap().storage;
    let url = format!("http://{TRACKER}/announce");
    let swarm = add(&session, meta, Arc::new(storage), Have::Nothing, Some(url));
    let cut = &course.cut[usize::from(n)];
    let mut told = false;
    while !course.over.load(SeqCst) && !cut.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if swarm.stats().complete && !told {
            told = true;
            course.done.fetch_add(1, SeqCst);
        }
    }
}

fn until(what: &str, test: impl Fn() -> bool) {
    wait_until(what, DEADLINE, || Ok(test())).unwrap();
}

#[test]
fn one_terminal_fetches_through_the_router_and_when_it_dies_another_does() {
    let (routed, folder) = (Routed::new(), tempfile::tempdir().unwrap());
    let bytes = payload(PAYLOAD, 7);
    let meta = torrent("image", &bytes, PIECE, Vec::new());
    let source = folder.path().join("source");
    std::fs::write(&source, &bytes).unwrap();
    let course = Course::default();
    let target = |n: u8| folder.path().join(format!("target{n}"));
    let first = std::thread::scope(|scope| {
        let (routed, meta, course) = (&routed, &meta, &course);
        let source = &source;
        scope.spawn(move || inside(&routed.core(), async || core(meta, source, course).await));
        for n in 0..TERMINALS {
            let target = target(n);
            scope.spawn(move || {
                inside(&routed.terminal(n), async || terminal(n, meta, &target, course).await)
            });
        }
        until("a third has crossed", || routed.crossed() > PAYLOAD / 3);
        let gateway = course.gateways.lock().unwrap()[0];
        let first = (0..TERMINALS).find(|n| address(*n) == gateway).unwrap();
        course.cut[usize::from(first)].store(true, SeqCst);
        routed.cut(first);
        until("the others are complete", || course.done.load(SeqCst) == usize::from(TERMINALS) - 1);
        course.over.store(true, SeqCst);
        first
    });
    assert_eq!(course.peers.load(SeqCst), 1, "the seeder met the gateway alone");
    assert_ne!(course.gateways.lock().unwrap()[..], [address(first)]);
    // The pieces that the first gateway had but had not passed on cross twice.
    assert!(routed.crossed() < PAYLOAD + PAYLOAD / 3, "{} of {PAYLOAD} crossed", routed.crossed());
    for n in (0..TERMINALS).filter(|n| *n != first) {
        assert!(std::fs::read(target(n)).unwrap() == bytes, "terminal {n}, byte for byte");
    }
}
