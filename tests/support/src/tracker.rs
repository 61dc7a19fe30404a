//! A tracker in this process: the library's own registry behind the smallest HTTP that serves it.
//!
//! One thread answers announces one after another and owns the sockets; the tracker's state is shared.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flashmob::rng::Rng;
use flashmob::tracker::{Announce, Event, FlatPolicy, Settings, Tracker, reply};
use flashmob::units::InfoHash;
use nix::sys::socket;
use tokio::sync::watch;

use crate::net::enter;

/// A client that sends nothing delays the others no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often terminals announce themselves to the tracker of a bench.
const OFTEN: Duration = Duration::from_secs(5);

/// A running tracker; it ends with the value.
#[derive(Debug)]
pub struct TestTracker {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    /// Events, each with the bytes left to fetch.
    heard: watch::Receiver<Vec<(Event, u64)>>,
    thread: Option<JoinHandle<()>>,
}

/// What the tracker's thread owns.
struct Desk {
    listener: Arc<TcpListener>,
    tracker: Arc<Mutex<Tracker>>,
    /// Takes swarms that nobody has admitted.
    open: bool,
    note: watch::Sender<Vec<(Event, u64)>>,
    begun: Instant,
    rng: Rng,
}

impl TestTracker {
    /// Begins to answer announces for one swarm on a free port of the loopback interface.
    pub fn start(info_hash: InfoHash) -> Self {
        let mut tracker = Tracker::new(Settings::default(), Box::new(FlatPolicy));
        tracker.admit(info_hash, false);
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), Arc::new(Mutex::new(tracker)))
    }

    /// Lets `tracker` answer at this address of the thread's namespace.
    pub fn listen(address: SocketAddr, tracker: Arc<Mutex<Tracker>>) -> Self {
        Self::at(address, tracker, false)
    }

    /// Takes every swarm, on a free port of this address, which must be of the namespace.
    pub fn open(namespace: Option<&str>, address: IpAddr) -> Self {
        let settings = Settings { interval: OFTEN, young_interval: OFTEN, ..Settings::default() };
        let tracker = Arc::new(Mutex::new(Tracker::new(settings, Box::new(FlatPolicy))));
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                if let Some(name) = namespace {
                    enter(name).expect("a namespace");
                }
                // A thread stays in the namespace of the thread that started it.
                Self::at((address, 0).into(), tracker, true)
            });
            inside.join().expect("a tracker")
        })
    }

    fn at(address: SocketAddr, tracker: Arc<Mutex<Tracker>>, open: bool) -> Self {
        let listener = Arc::new(TcpListener::bind(address).expect("an address to listen at"));
        let address = listener.local_addr().expect("its address");
        let (note, heard) = watch::channel(Vec::new());
        let (begun, rng) = (Instant::now(), Rng::new(1));
        let mut desk = Desk { listener: Arc::clone(&listener), tracker, open, note, begun, rng };
        let thread = std::thread::spawn(move || desk.serve());
        TestTracker { address, listener, heard, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// Waits until `event` was heard `times` times.
    pub async fn wait_for(&mut self, event: Event, times: usize) {
        let count = |heard: &[(Event, _)]| heard.iter().filter(|one| one.0 == event).count();
        self.heard.wait_for(|heard| count(heard) >= times).await.expect("the tracker runs");
    }

    /// How often `event` was heard.
    pub fn count(&self, event: Event) -> usize {
        self.left(event).len()
    }

    /// The bytes left to fetch at each announce of `event`.
    pub fn left(&self, event: Event) -> Vec<u64> {
        self.heard.borrow().iter().filter(|one| one.0 == event).map(|one| one.1).collect()
    }
}

impl Desk {
    /// Ends when the listener is shut down.
    fn serve(&mut self) {
        while let Ok((stream, from)) = self.listener.accept() {
            // A client that goes away early is no fault of the tracker.
            let _ = self.answer(&stream, from.ip());
        }
    }

    fn answer(&mut self, mut stream: &TcpStream, from: IpAddr) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let query = first.split(['?', ' ']).nth(2).unwrap_or_default();
        let body = match Announce::parse(query) {
            Ok(announce) => self.reply(from, &announce),
            Err(malformed) => reply::failure(&malformed.to_string()),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat())
    }

    fn reply(&mut self, from: IpAddr, announce: &Announce) -> Vec<u8> {
        let mut tracker = self.tracker.lock().expect("no thread panicked with the tracker");
        if self.open {
            tracker.admit(announce.info_hash, false);
        }
        let (now, mut chance) = (self.begun.elapsed(), || self.rng.next_u64());
        let answer = tracker.announce(now, from, announce, None, &mut chance);
        drop(tracker);
        self.note.send_modify(|heard| heard.push((announce.event, announce.left)));
        answer.map_or_else(
            |unknown| reply::failure(&unknown.to_string()),
            |answer| reply::announce(&answer, announce),
        )
    }
}

impl Drop for TestTracker {
    fn drop(&mut self) {
        // Linux then lets a waiting accept fail.
        let _ = socket::shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
