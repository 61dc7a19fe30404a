//! The server's own peer: seeds every image of the repository in place.
//!
//! Invariant: seeds exactly the images of the latest scan. An image whose folder was replaced is opened anew.
//! An image that can no longer be read is shown as a problem, and the tracker stops naming us for it. Limits
//! of zones hold for us as for any peer, through the tracker's rules inside the server. The session chooses
//! pieces and peers.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::api::Compress;
use crate::event::Failure;
use crate::io::image::folder::ImageFolder;
use crate::io::storage::ImageShape;
use crate::io::torrent::{Have, Phase, Session, SessionConfig, Swarm, TorrentSpec};
use crate::peer_policy::PeerPolicy;
use crate::server::DEFAULT_PEER_PORT;
use crate::server::app::{App, Seeder};
use crate::server::domain::catalog::Problem;
use crate::server::ports::cannot_listen;
use crate::server::repository::Scan;
use crate::sync;
use crate::units::InfoHash;

/// Memory for pieces that are being sent, of each image.
const MEMORY: u64 = 128 << 20;
/// The remedy for a piece that cannot be sent.
const TROUBLE: &str = "Terminals that lack it wait. Check the image with 'flashmob-mkimage verify', put the \
    file back from a copy or capture the image again; a piece that is in order again is served without a \
    restart.";
/// How old the numbers on the page may be.
const FRESH: Duration = Duration::from_secs(1);

pub(crate) struct Seeders {
    session: Session,
    swarms: HashMap<InfoHash, Seeding>,
}

struct Seeding {
    folder: Arc<ImageFolder>,
    swarm: Result<Swarm, Failure>,
    /// The rules that it was given last.
    told: Option<PeerPolicy>,
}

impl Seeding {
    fn failure(&self) -> Option<Failure> {
        match &self.swarm {
            Err(failure) => Some(failure.clone()),
            Ok(swarm) => match swarm.phase() {
                Phase::Failed(failure) => Some(failure),
                _ => None,
            },
        }
    }
}

impl Seeding {
    /// The pieces that it cannot send, while it serves the others.
    fn trouble(&self) -> Option<String> {
        self.swarm.as_ref().ok()?.trouble()
    }
}

impl Seeders {
    /// Begins to listen for peers: at `listen`, or at every address, of IPv4 alone where the machine has no
    /// IPv6.
    pub(super) async fn start(listen: Option<SocketAddr>, compress: Compress) -> Result<Self, Failure> {
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PEER_PORT));
        let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PEER_PORT));
        let first = listen.unwrap_or(both);
        let at = |listen| SessionConfig { compress, ..SessionConfig::new(listen) };
        let session = match Session::start(at(first)).await {
            Err(e) if listen.is_none() && e.kind() != std::io::ErrorKind::AddrInUse => {
                Session::start(at(four)).await.map_err(|e| (four, e))
            }
            started => started.map_err(|e| (first, e)),
        };
        let session = session.map_err(cannot_listen("--peer-listen"))?;
        Ok(Seeders { session, swarms: HashMap::new() })
    }

    /// Our name and port, as peers know them.
    pub(super) fn who(&self) -> Seeder {
        Seeder { peer_id: self.session.peer_id(), port: self.session.local_addr().port() }
    }

    /// Is this swarm seeded?
    pub(super) fn has(&self, swarm: &InfoHash) -> bool {
        self.swarms.get(swarm).is_some_and(|seeding| seeding.failure().is_none())
    }

    /// Seeds new images and stops removed ones; returns those that cannot be seeded.
    pub(super) async fn follow(&mut self, scan: &Scan) -> Vec<Problem> {
        let gone = |hash: &InfoHash, seeding: &Seeding| {
            let still = |folder: &&Arc<ImageFolder>| {
                folder.metainfo().info_hash == *hash && Arc::ptr_eq(folder, &seeding.folder)
            };
            !scan.folders.iter().any(|folder| still(&folder))
        };
        let leaving: Vec<InfoHash> =
            self.swarms.iter().filter(|(hash, seeding)| gone(hash, seeding)).map(|(hash, _)| *hash).collect();
        for hash in leaving {
            if let Some(Seeding { swarm: Ok(swarm), .. }) = self.swarms.remove(&hash) {
                swarm.stop().await;
            }
        }
        for folder in &scan.folders {
            let hash = folder.metainfo().info_hash;
            let before = self.swarms.get(&hash).map(|seeding| seeding.swarm.as_ref().err().cloned());
            // A source that could not be opened may be free by now.
            if !matches!(before, Some(None)) {
                let swarm = self.seed(folder);
                if let Err(failure) = &swarm
                    && before.flatten().as_ref() != Some(failure)
                {
                    log::error!("image {} is not seeded: {failure}", folder.manifest().id());
                }
                self.swarms.insert(hash, Seeding { folder: Arc::clone(folder), swarm, told: None });
            }
        }
        let problem = |seeding: &Seeding| {
            let (error, advice) = match seeding.failure() {
                Some(failure) => (failure.message, failure.advice),
                None => (seeding.trouble()?, TROUBLE.into()),
            };
            Some(Problem { what: format!("seeding {}", seeding.folder.manifest().id()), error, advice })
        };
        let mut problems: Vec<Problem> = self.swarms.values().filter_map(problem).collect();
        problems.sort_by(|a, b| a.what.cmp(&b.what));
        problems
    }

    fn seed(&self, folder: &ImageFolder) -> Result<Swarm, Failure> {
        self.session.add(TorrentSpec {
            shape: Arc::new(ImageShape(Arc::clone(folder.grid()))),
            hashes: folder.shared_piece_hashes(),
            ..TorrentSpec::new(
                Arc::clone(folder.metainfo()),
                folder.payload_to_serve()?,
                Have::Everything,
                MEMORY,
            )
        })
    }

    /// Passes the rules of the lab's zones to every swarm, if they changed.
    async fn guide(&mut self, app: &App) {
        let Some(rules) = sync::lock(&app.tracker).seeder_policy() else { return };
        for seeding in self.swarms.values_mut().filter(|seeding| seeding.told.as_ref() != Some(&rules)) {
            if let Ok(swarm) = &seeding.swarm {
                swarm.guide(rules.clone()).await;
            }
            seeding.told = Some(rules.clone());
        }
    }

    /// Keeps `app.seeding`, and the seeders' rules, fresh for this time.
    pub(crate) async fn refresh(&mut self, app: &App, how_long: Duration) {
        let end = tokio::time::Instant::now() + how_long;
        while tokio::time::Instant::now() < end {
            self.guide(app).await;
            let stats = self
                .swarms
                .iter()
                .filter(|(hash, _)| self.has(hash))
                .filter_map(|(hash, seeding)| Some((*hash, seeding.swarm.as_ref().ok()?.stats())))
                .collect();
            *sync::write(&app.seeding) = stats;
            tokio::time::sleep(FRESH).await;
        }
    }

    pub(super) async fn stop(self) {
        self.session.shutdown().await;
    }
}
