//! A torrent of a session as its user holds it, and the owner task's ends of the same channels.
//!
//! Invariant: all clones of a [`Swarm`] are one swarm; a second caller of `stop` waits for the same shutdown.
//! `owner` reacts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::bitfield::Bitfield;
use crate::event::Failure;
use crate::peer_policy::PeerPolicy;
use crate::swarm::{Geometry, SwarmStats};
use crate::sync;
use crate::units::Sha256;

/// The current activity of a swarm.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Hashing the storage's content.
    Checking {
        /// Bytes hashed.
        bytes: u64,
    },
    Fetching,
    /// Every wanted byte is written and synced; serving others.
    Complete,
    /// It ended because it was stopped.
    Stopped,
    /// It ended because it failed.
    Failed(Failure),
}

/// A torrent of a session; clones are handles to the same one.
#[derive(Clone)]
pub struct Swarm {
    inner: Arc<Inner>,
}

struct Inner {
    stats: watch::Receiver<SwarmStats>,
    phase: watch::Receiver<Phase>,
    trouble: watch::Receiver<Option<String>>,
    damage: watch::Receiver<Option<String>>,
    stop: watch::Sender<bool>,
    candidates: mpsc::Sender<Found>,
    hashes: watch::Sender<Option<Arc<Vec<Sha256>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// From a tracker or an administrator: peers to dial, and rules.
pub(super) struct Found {
    pub(super) peers: Vec<SocketAddr>,
    pub(super) policy: Option<PeerPolicy>,
}

/// The owner task's ends of a swarm's channels.
pub(super) struct Ends {
    pub(super) stats: watch::Sender<SwarmStats>,
    pub(super) phase: watch::Sender<Phase>,
    /// The trackers' problem, if any.
    pub(super) trouble: watch::Sender<Option<String>>,
    /// The payload's problem, if any. A separate channel, because a successful announce must not clear it.
    pub(super) damage: watch::Sender<Option<String>>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) found: mpsc::Sender<Found>,
    pub(super) candidates: mpsc::Receiver<Found>,
    pub(super) hashes: watch::Receiver<Option<Arc<Vec<Sha256>>>>,
}

impl Swarm {
    pub(super) fn new(geometry: Geometry, wanted: &Bitfield) -> (Swarm, Ends) {
        let nothing = SwarmStats {
            pieces: wanted.count(),
            bytes_total: geometry.bytes_of(wanted),
            ..SwarmStats::default()
        };
        let (stats_sender, stats) = watch::channel(nothing);
        let (phase_sender, phase) = watch::channel(Phase::Checking { bytes: 0 });
        let (trouble_sender, trouble) = watch::channel(None);
        let (damage_sender, damage) = watch::channel(None);
        let (stop, stop_receiver) = watch::channel(false);
        let (found, candidates) = mpsc::channel(16);
        let (hashes, hashes_receiver) = watch::channel(None);
        let ends = Ends {
            stats: stats_sender,
            phase: phase_sender,
            trouble: trouble_sender,
            damage: damage_sender,
            stop: stop_receiver,
            found: found.clone(),
            candidates,
            hashes: hashes_receiver,
        };
        let task = Mutex::default();
        let inner = Inner { stats, phase, trouble, damage, stop, candidates: found, hashes, task };
        (Swarm { inner: Arc::new(inner) }, ends)
    }

    /// The task that is waited for when it is stopped.
    pub(super) fn is_run_by(&self, task: JoinHandle<()>) {
        *self.task() = Some(task);
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        sync::lock(&self.inner.task)
    }

    /// The numbers of now (at most half a second old).
    pub fn stats(&self) -> SwarmStats {
        *self.inner.stats.borrow()
    }

    /// The current activity.
    pub fn phase(&self) -> Phase {
        self.inner.phase.borrow().clone()
    }

    /// The payload's problem, or else the trackers', if any.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.inner.damage.borrow().clone().or_else(|| self.inner.trouble.borrow().clone())
    }

    /// Says which peers we may meet, and at which pace, as a tracker would.
    pub(crate) async fn guide(&self, rules: PeerPolicy) {
        // Fails only when the swarm has ended.
        let _ = self.inner.candidates.send(Found { peers: Vec::new(), policy: Some(rules) }).await;
    }

    /// From now on, pieces are checked by these SHA-256s before they are written or served.
    pub(crate) fn check_by(&self, hashes: Arc<Vec<Sha256>>) {
        self.inner.hashes.send_replace(Some(hashes));
    }

    /// Names peers to dial, beside those that trackers name.
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) {
        // Fails only when the swarm has ended.
        let _ = self.inner.candidates.send(Found { peers, policy: None }).await;
    }

    /// Returns when every wanted byte is written and synced, or with the failure that ended the swarm.
    pub async fn complete(&self) -> Result<(), Failure> {
        let mut phase = self.inner.phase.clone();
        let over = |phase: &Phase| matches!(phase, Phase::Complete | Phase::Stopped | Phase::Failed(_));
        match phase.wait_for(over).await.map(|phase| phase.clone()) {
            Ok(Phase::Complete) => Ok(()),
            Ok(Phase::Failed(failure)) => Err(failure),
            _ => Err(Failure::retry("stopped before everything was there", "Start again: it resumes.")),
        }
    }

    /// Returns when the swarm has ended, with its failure if it has one.
    pub async fn ended(&self) -> Option<Failure> {
        let mut phase = self.inner.phase.clone();
        let over = |phase: &Phase| matches!(phase, Phase::Stopped | Phase::Failed(_));
        match phase.wait_for(over).await.map(|phase| phase.clone()) {
            Ok(Phase::Failed(failure)) => Some(failure),
            _ => None,
        }
    }

    /// Tells the owner to end, and waits for nothing.
    pub(super) fn ask_to_stop(&self) {
        self.inner.stop.send_replace(true);
    }

    /// Leaves the swarm: tells the trackers (for two seconds at most), closes the connections, lets go of the
    /// storage. Returns when that is done.
    pub async fn stop(&self) {
        self.ask_to_stop();
        let task = self.task().take();
        match task {
            Some(task) => {
                if task.await.is_err_and(|error| error.is_panic()) {
                    log::error!("the owner task of a swarm panicked");
                }
            }
            None => {
                self.ended().await;
            }
        }
    }

    /// Has it ended, in whatever way?
    pub(super) fn is_over(&self) -> bool {
        matches!(*self.inner.phase.borrow(), Phase::Stopped | Phase::Failed(_))
    }
}
