//! One task for each tracker of a torrent: announces when it is time, hands peers to the owner.
//!
//! Invariant: a tracker is asked no more often than it allows. A failing one is asked again after growing
//! waits of up to a minute. No answer of a tracker ends the torrent. No message has the query of a tracker's
//! URL, because a ticket or a passkey may be in it, and everybody may read a terminal's problems.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::handle::{Ends, Found, Phase};
use super::shared::Shared;
use crate::io::net::tracker_client::{AnnounceError, Asked, Event, Reply, announce};
use crate::swarm::SwarmStats;
use crate::units::InfoHash;

/// With fewer peers than this, and missing pieces, a tracker is asked again soon.
const FEW_PEERS: usize = 4;
/// "Soon", where the tracker says nothing else.
const SOON: Duration = Duration::from_secs(5);
/// Without an interval in the answer.
const USUAL: Duration = Duration::from_secs(120);
/// Longest wait after failures.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How long saying good-bye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The input of a tracker task.
struct Announcer {
    shared: Arc<Shared>,
    url: String,
    info_hash: InfoHash,
    stats: watch::Receiver<SwarmStats>,
    phase: watch::Receiver<Phase>,
    stop: watch::Receiver<bool>,
    found: mpsc::Sender<Found>,
    trouble: watch::Sender<Option<String>>,
}

/// Starts a task for each tracker. Each ends after `stop`, when it has said `stopped`.
pub(super) fn start(
    shared: &Arc<Shared>,
    info_hash: InfoHash,
    trackers: Vec<String>,
    ends: &Ends,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for url in trackers {
        let announcer = Announcer {
            shared: Arc::clone(shared),
            url,
            info_hash,
            stats: ends.stats.subscribe(),
            phase: ends.phase.subscribe(),
            stop: ends.stop.clone(),
            found: ends.found.clone(),
            trouble: ends.trouble.clone(),
        };
        tasks.spawn(announcer.run());
    }
    tasks
}

impl Announcer {
    async fn run(mut self) {
        let mut event = Event::Started;
        let mut was_complete = *self.phase.borrow() == Phase::Complete;
        let mut told = false;
        let mut failures = 0u32;
        let mut stop = self.stop.clone();
        loop {
            let answer = tokio::select! {
                answer = self.ask(event) => answer,
                _ = stop.wait_for(|stop| *stop) => {
                    told = true;
                    break;
                }
            };
            let (earliest, usual) = match answer {
                Ok(reply) => {
                    event = Event::Regular;
                    told = true;
                    failures = 0;
                    (reply.min_interval.unwrap_or(SOON), reply.interval.unwrap_or(USUAL))
                }
                Err(why) => {
                    let message = format!("tracker {}: {why}", self.shown());
                    log::warn!("{message}; it will be asked again");
                    self.trouble.send_replace(Some(message));
                    failures = (failures + 1).min(10);
                    let wait = Duration::from_secs(1 << failures).min(LONGEST_RETRY);
                    (wait, wait)
                }
            };
            match self.wait(earliest, usual.max(earliest), &mut was_complete).await {
                Next::Again => {}
                // A tracker that never heard of the start learns of the completion by `left=0`.
                Next::Completed if event == Event::Started => {}
                Next::Completed => event = Event::Completed,
                Next::Stop => break,
            }
        }
        if told && timeout(GOODBYE, self.ask(Event::Stopped)).await.is_err() {
            log::debug!("tracker {}: no answer to good-bye within {} s", self.shown(), GOODBYE.as_secs());
        }
    }

    /// The tracker's address without its query, for people.
    fn shown(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }

    /// One announce; peers go to the owner.
    async fn ask(&self, event: Event) -> Result<Reply, AnnounceError> {
        let stats = *self.stats.borrow();
        let asked = Asked {
            info_hash: self.info_hash,
            peer_id: self.shared.peer_id,
            port: self.shared.local_addr.port(),
            uploaded: stats.bytes_out,
            downloaded: stats.bytes_in,
            left: stats.bytes_total.saturating_sub(stats.bytes_done),
            event,
            capacity: stats.capacity,
            local: self.shared.local_ipv4(),
        };
        let reply = announce(&self.shared.http, &self.url, &asked).await?;
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
        log::debug!("tracker {}: {} peers", self.shown(), reply.peers.len());
        if event != Event::Stopped && (!reply.peers.is_empty() || reply.policy.is_some()) {
            let found = Found { peers: reply.peers.clone(), policy: reply.policy.clone() };
            // Fails only when the owner has ended.
            let _ = self.found.send(found).await;
        }
        Ok(reply)
    }

    /// Waits until it is time to ask again: `usual`, or `earliest` while peers are few and pieces missing.
    async fn wait(&mut self, earliest: Duration, usual: Duration, was_complete: &mut bool) -> Next {
        let asked = Instant::now();
        loop {
            let stats = *self.stats.borrow_and_update();
            let needs_peers = !stats.complete && stats.peers < FEW_PEERS;
            let due = asked + if needs_peers { earliest.max(SOON).min(usual) } else { usual };
            tokio::select! {
                () = sleep_until(due) => return Next::Again,
                result = self.stop.wait_for(|stop| *stop) => { let _ = result; return Next::Stop; }
                changed = self.phase.changed() => {
                    let phase = self.phase.borrow_and_update().clone();
                    match phase {
                        Phase::Failed(_) | Phase::Stopped => return Next::Stop,
                        Phase::Complete if !*was_complete => {
                            *was_complete = true;
                            return Next::Completed;
                        }
                        _ if changed.is_err() => return Next::Stop,
                        _ => {}
                    }
                }
                changed = self.stats.changed() => if changed.is_err() { return Next::Stop },
            }
        }
    }
}

enum Next {
    Again,
    Completed,
    Stop,
}
