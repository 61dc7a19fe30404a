//! Wake-up packets as a card hears them: Ethernet frames at the other end of the cable.

use std::io::Read;
use std::time::{Duration, Instant};

use flashmob::agent::attempt::{self, Held, Imager, Pace};
use flashmob::agent::imaging::{Checked, Next};
use flashmob::agent::status::Status;
use flashmob::api::Assignment;
use flashmob::event::{Failure, Installed};
use flashmob::io::net::api_client::Api;
use flashmob::io::net::wake::{self, packet};
use flashmob::units::Mac;
use flashmob_testkit::child::wait_until;
use flashmob_testkit::net::{Namespaces, enter, ip};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::inside;

const SLEEPER: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

/// A machine with three cables: `eth0` has IPv4, `eth1` only IPv6, `eth2` is switched off. The other ends are
/// those of `far`.
struct Cables {
    near: String,
    far: String,
    _namespaces: Namespaces,
}

impl Cables {
    fn new(name: &str) -> Self {
        let (near, far) =
            (format!("fmw{}{name}n", std::process::id()), format!("fmw{}{name}f", std::process::id()));
        let mut namespaces = Namespaces::default();
        namespaces.add(&near);
        namespaces.add(&far);
        for n in 0..3 {
            ip(&format!("-n {near} link add eth{n} type veth peer name eth{n} netns {far}"));
            ip(&format!("-n {far} link set eth{n} up"));
        }
        ip(&format!("-n {near} link set lo up"));
        ip(&format!("-n {near} addr add 10.77.0.2/24 brd + dev eth0"));
        ip(&format!("-n {near} link set eth0 up"));
        ip(&format!("-n {near} link set eth1 up"));
        // The kernel gives it a link-local address, which it may use once it is known to be no duplicate.
        wait_until("IPv6 on eth1", Duration::from_secs(20), || {
            let addresses = ip(&format!("-n {near} -6 addr show dev eth1"));
            Ok(addresses.contains("fe80::") && !addresses.contains("tentative"))
        })
        .unwrap();
        Cables { near, far, _namespaces: namespaces }
    }

    /// Begins to hear the frames at the far ends.
    fn listen(&self) -> Frames {
        std::thread::scope(|scope| {
            let socket = scope.spawn(|| {
                enter(&self.far).unwrap();
                let every = Protocol::from(i32::from(0x0003_u16.to_be()));
                Socket::new(Domain::PACKET, Type::RAW, Some(every)).unwrap()
            });
            let socket = socket.join().unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            Frames(socket)
        })
    }
}

/// Whole Ethernet frames.
struct Frames(Socket);

impl Frames {
    /// Destination MAC and UDP port of each magic packet for `mac` until `count` have come, or 20 s are over.
    fn magic(&mut self, mac: Mac, count: usize) -> Vec<([u8; 6], u16)> {
        let (mut found, mut buffer) = (Vec::new(), [0; 2048]);
        let end = Instant::now() + Duration::from_secs(20);
        while found.len() < count && Instant::now() < end {
            let Ok(length) = self.0.read(&mut buffer) else { continue };
            let frame = &buffer[..length];
            // Ethernet, then IPv4 without options or IPv6 without extensions, then UDP.
            let udp = if frame[12..14] == [0x08, 0x00] { 14 + 20 } else { 14 + 40 };
            if frame.ends_with(&packet(mac)) && frame.len() == udp + 8 + 102 {
                let port = u16::from_be_bytes([frame[udp + 2], frame[udp + 3]]);
                found.push((frame[..6].try_into().unwrap(), port));
            }
        }
        found.sort();
        found
    }
}

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

#[test]
fn every_interface_that_is_up_sends_magic_packets() {
    let cables = Cables::new("a");
    let mut frames = cables.listen();
    let sent = inside(&cables.near, async || wake::send(&[SLEEPER]).unwrap());
    assert_eq!((sent.interfaces, sent.problems), (vec!["eth0".to_string(), "eth1".into()], vec![]));
    let expected =
        [(ALL_NODES, 7), (ALL_NODES, 9), (BROADCAST, 7), (BROADCAST, 7), (BROADCAST, 9), (BROADCAST, 9)];
    assert_eq!(frames.magic(SLEEPER, expected.len()), expected);
    let networks = inside(&cables.near, async || wake::own_networks().unwrap());
    assert!(networks.contains(&"10.77.0.2/24".parse().unwrap()), "{networks:?}");
}

#[test]
fn a_network_behind_a_router_is_sent_to_by_its_broadcast_address() {
    let cables = Cables::new("b");
    ip(&format!("-n {} route add default via 10.77.0.1", cables.near));
    ip(&format!("-n {} neigh add 10.77.0.1 lladdr 52:54:00:00:00:01 dev eth0", cables.near));
    let mut frames = cables.listen();
    let network = "10.99.0.0/24".parse().unwrap();
    inside(&cables.near, async || wake::send_to(network, &[SLEEPER]).unwrap());
    let router = [0x52, 0x54, 0, 0, 0, 1];
    assert_eq!(frames.magic(SLEEPER, 2), [(router, 7), (router, 9)]);
}

struct Endless;

impl Imager for Endless {
    type Held = Nothing;

    async fn run(&self, _: &str, _: &Assignment) -> Result<Nothing, (Failure, bool)> {
        std::future::pending().await
    }

    async fn check(&self, _: &str, _: &Assignment) -> Result<Checked, Failure> {
        std::future::pending().await
    }
}

struct Nothing;

impl Held for Nothing {
    fn installed(&self) -> Vec<Installed> {
        Vec::new()
    }

    fn next(&self) -> Next {
        Next::Firmware
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn traffic(&self) -> (u64, u64) {
        (0, 0)
    }

    async fn stop(self) {}
}

const ORDERS: &str = r#"{"release":false,"cancel":false,"wake":["52:54:00:00:00:09","no MAC"]}"#;

#[test]
fn a_terminal_at_work_wakes_the_machines_that_the_server_names() {
    let cables = Cables::new("c");
    let mut frames = cables.listen();
    let assignment = r#"{"job":"night","attempt":1,"token":"t","name":"golden","version":"1","image":"golden",
        "folder":"/images/golden/1/","disk":"internal","layout":"whole-disk","after":"reboot","verify":true,
        "longest_stay":60}"#;
    let assignment: Assignment = serde_json::from_str(assignment).unwrap();
    let woken = inside(&cables.near, async || {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(|| std::future::ready(ORDERS));
        tokio::spawn(async { axum::serve(listener, router).await });
        let (api, status) = (Api::new(reqwest::Client::new(), url), Status::new());
        let working =
            attempt::run(&api, &assignment, &Endless, &status, Pace::default(), std::future::pending());
        tokio::select! {
            _ = working => panic!("it ends"),
            woken = tokio::task::spawn_blocking(move || frames.magic(SLEEPER, 6)) => woken.unwrap(),
        }
    });
    assert!(woken.contains(&(BROADCAST, 9)), "{woken:?}");
}
