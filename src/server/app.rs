//! State shared by all handlers.
//!
//! Invariant: locks are held for moments and never across an await; where two are needed, `board` is
//! taken first, then `topology` or `people`, and `lab` last, with only `limits` or `waking` after it. `watch`
//! changes the configuration, `repository` the catalog, handlers change the lab and the tracker.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use jiff::Zoned;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::Refusal;
use crate::image_id::ImageId;
use crate::manifest::after::After;
use crate::metainfo::Metainfo;
use crate::server::clock::Clock;
use crate::server::domain::board::Board;
use crate::server::domain::catalog::{Catalog, Problem};
use crate::server::domain::config::Config;
use crate::server::domain::doubts;
use crate::server::domain::jobs::Moment;
use crate::server::domain::lab::Lab;
use crate::server::domain::limits::Limits;
use crate::server::domain::people::People;
use crate::server::domain::pxe;
use crate::server::domain::tickets;
use crate::server::domain::ties::Ties;
use crate::server::domain::wake::Waking;
use crate::server::domain::zones;
use crate::server::meters::Meters;
use crate::server::store::Store;
use crate::swarm::SwarmStats;
use crate::sync;
use crate::tracker::{Topology, Tracker};
use crate::units::{InfoHash, PeerId};

/// A repository on a network filesystem may hang.
const LOOK_AT_IMAGES: Duration = Duration::from_secs(5);

/// The configuration in force, and the problem with the present file.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    pub config: Arc<Config>,
    /// With the present file.
    pub problem: Option<Problem>,
}

/// The images and their torrents.
#[derive(Debug, Clone, Default)]
pub struct Repository {
    /// The images and problems that people and terminals see.
    pub catalog: Catalog,
    pub torrents: HashMap<ImageId, Torrent>,
    /// The administrator's files for terminals, of images that have some.
    pub after: HashMap<ImageId, Arc<After>>,
}

/// A torrent that is handed out.
#[derive(Debug, Clone)]
pub struct Torrent {
    pub stored: Arc<Metainfo>,
    /// Its files are there to be had by HTTP as well.
    pub web_seed: bool,
}

/// The server's own seeder: its peer id, and where peers dial it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeder {
    /// Its name in every swarm.
    pub peer_id: PeerId,
    pub port: u16,
}

pub struct App {
    pub clock: Clock,
    /// The folder of the repository.
    pub images: PathBuf,
    /// Where netboot files lie.
    pub boot: Option<PathBuf>,
    /// Refreshed with the repository.
    pub(crate) has_netboot_files: AtomicBool,
    pub configured: RwLock<Configured>,
    /// The images and their torrents.
    pub repository: RwLock<Arc<Repository>>,
    /// Tells `watch` to look at the repository now, and to answer when it has.
    pub(crate) look: mpsc::Sender<oneshot::Sender<()>>,
    /// Which peers are in which swarm.
    pub tracker: Mutex<Tracker>,
    /// The lab's shape in force; `zones` keeps it.
    pub topology: RwLock<Arc<Topology>>,
    /// Terminals and their attempts.
    pub lab: Mutex<Lab>,
    /// People with tokens.
    pub people: RwLock<People>,
    /// Signs tickets.
    pub ticket_key: tickets::Key,
    /// Counts the calls of each address.
    pub limits: Mutex<Limits>,
    /// Netboot, and terminals that it did not bring here.
    pub(crate) pxe: Arc<Mutex<pxe::Watch>>,
    /// What the server measures of itself.
    pub meters: Meters,
    /// Terminals that should be woken.
    pub waking: Mutex<Waking>,
    /// What viewers follow.
    pub(crate) board: Mutex<Board>,
    /// True once the server is to stop: answers that wait for news end.
    pub stopping: watch::Receiver<bool>,
    /// State that survives a restart.
    pub store: Store,
    pub seeder: Seeder,
    /// Counters of our own peer, by swarm; refreshed with the repository.
    pub seeding: RwLock<HashMap<InfoHash, SwarmStats>>,
}

impl App {
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// This moment by both clocks.
    pub(crate) fn moment(&self) -> Moment {
        Moment { now: self.now(), date: Zoned::now() }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&sync::read(&self.configured).config)
    }

    pub fn repository(&self) -> Arc<Repository> {
        Arc::clone(&sync::read(&self.repository))
    }

    /// Looks at the repository at once, so that `repository` has what was published a moment ago. `false`: it
    /// has not answered in time, and `repository` is as old as its last answer.
    pub(crate) async fn look_at_images(&self) -> bool {
        let looked = async {
            let (done, wait) = oneshot::channel();
            self.look.send(done).await.is_ok() && wait.await.is_ok()
        };
        tokio::time::timeout(LOOK_AT_IMAGES, looked).await.unwrap_or(false)
    }

    /// Counters of our own peer in a swarm.
    pub fn seeding(&self, swarm: &InfoHash) -> Option<SwarmStats> {
        sync::read(&self.seeding).get(swarm).copied()
    }

    /// All that a person should look at.
    pub fn problems(&self) -> Vec<Problem> {
        let configured = sync::read(&self.configured).clone();
        let repository = self.repository();
        let mut problems = self.store.health().problems();
        problems.extend(configured.problem);
        problems.extend(sync::lock(&self.pxe).problems(self.now()));
        let work = {
            let people = sync::read(&self.people);
            let lab = sync::lock(&self.lab);
            problems.extend(doubts::doubts(&configured.config, &lab));
            problems.extend(doubts::of_jobs(&lab, &people));
            let unfinished = || lab.jobs().iter().filter(|job| !job.is_over());
            for job in unfinished() {
                if let Err(Refusal { error, advice }) = repository.catalog.has(job.terms.ids()) {
                    problems.push(Problem { what: format!("job {}", job.number), error, advice });
                }
            }
            unfinished().next().is_some()
        };
        if work && !self.can_netboot() {
            problems.push(Problem {
                what: "netboot".into(),
                error: "there are no netboot files (vmlinuz, initramfs.img) to send to terminals".into(),
                advice: "Make them with flashmob-initramfs and name their folder with --boot.".into(),
            });
        }
        problems.extend(repository.catalog.problems.iter().cloned());
        problems
    }

    /// Were there a kernel and an initramfs to be sent when they were last looked for?
    pub(crate) fn can_netboot(&self) -> bool {
        self.has_netboot_files.load(Ordering::Relaxed)
    }

    /// Looks for them. The folder may be on a filesystem that hangs.
    pub(crate) fn find_netboot_files(&self) {
        let there = |name: &str| self.boot.as_ref().is_some_and(|boot| boot.join(name).is_file());
        self.has_netboot_files.store(there("vmlinuz") && there("initramfs.img"), Ordering::Relaxed);
    }

    /// Makes the lab's shape known to the tracker if it changed. Takes the locks of the lab and of the
    /// tracker.
    pub(crate) fn arrange(&self) {
        let mut known = sync::write(&self.topology);
        let topology = zones::topology(&self.config(), &sync::lock(&self.lab));
        if **known != topology {
            sync::lock(&self.tracker).arrange(&topology);
            *known = Arc::new(topology);
        }
    }

    /// Which terminals need pieces of which, as of now. Takes the tracker's lock.
    pub(crate) fn ties(&self) -> Ties {
        let topology = Arc::clone(&sync::read(&self.topology));
        let gateways = match topology.is_flat() {
            true => BTreeSet::new(),
            false => sync::lock(&self.tracker).gateways().map(|(_, ip)| ip).collect(),
        };
        Ties { topology, gateways }
    }
}
