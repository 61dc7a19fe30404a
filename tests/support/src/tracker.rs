//! A tracker for tests: the library's own registry behind the smallest HTTP that serves it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use flashmob::tracker::{Announce, Event, FlatPolicy, Settings, Tracker, reply};
use flashmob::units::InfoHash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A running tracker; it ends with the value.
pub struct TestTracker {
    address: SocketAddr,
    /// Events, each with the bytes left to fetch.
    heard: watch::Receiver<Vec<(Event, u64)>>,
    task: tokio::task::JoinHandle<()>,
}

impl TestTracker {
    /// Begins to answer announces for one swarm on a free port of the loopback interface.
    pub async fn start(info_hash: InfoHash) -> Self {
        let mut tracker = Tracker::new(Settings::default(), Box::new(FlatPolicy));
        tracker.admit(info_hash, false);
        Self::listen("127.0.0.1:0", Arc::new(Mutex::new(tracker))).await
    }

    /// Lets `tracker` answer at this address.
    pub async fn listen(address: &str, tracker: Arc<Mutex<Tracker>>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (note, heard) = watch::channel(Vec::new());
        let start = Instant::now();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, from)) = listener.accept().await {
                let (tracker, note) = (Arc::clone(&tracker), note.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let query = head.split(['?', ' ']).nth(2).unwrap_or_default();
                    let body = match Announce::parse(query) {
                        Ok(asked) => {
                            let mut chance = 0u64;
                            let answer = tracker.lock().unwrap().announce(
                                start.elapsed(),
                                from.ip(),
                                &asked,
                                None,
                                &mut || {
                                    chance += 1;
                                    chance
                                },
                            );
                            note.send_modify(|heard| heard.push((asked.event, asked.left)));
                            answer.map_or_else(
                                |unknown| reply::failure(&unknown.to_string()),
                                |answer| reply::announce(&answer, &asked),
                            )
                        }
                        Err(malformed) => reply::failure(&malformed.to_string()),
                    };
                    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                });
            }
        });
        TestTracker { address, heard, task }
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

impl Drop for TestTracker {
    fn drop(&mut self) {
        self.task.abort();
    }
}
