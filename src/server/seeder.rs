//! The server's own peer: seeds every image of the repository from where it lies.
//!
//! Invariant: follows what a scan found; until the session exists, web seeds are the only source.

use std::net::SocketAddr;
use std::time::Duration;

use super::app::{App, Seeder};
use super::catalog::Problem;
use super::repository::Scan;
use crate::event::Failure;
use crate::units::InfoHash;

/// All seeders.
pub struct Seeders {}

impl Seeders {
    /// Begins to listen for peers.
    pub async fn start(_listen: Option<SocketAddr>) -> Result<Self, Failure> {
        Ok(Seeders {})
    }

    /// Who we are to peers.
    pub fn who(&self) -> Option<Seeder> {
        None
    }

    /// Is this swarm seeded?
    pub fn has(&self, _swarm: &InfoHash) -> bool {
        false
    }

    /// Seeds what is new, stops what is gone.
    pub async fn follow(&mut self, _scan: &Scan) -> Vec<Problem> {
        Vec::new()
    }

    /// Keeps `app.seeding` fresh for so long.
    pub async fn refresh(&mut self, _app: &App, how_long: Duration) {
        tokio::time::sleep(how_long).await;
    }

    /// Leaves all swarms.
    pub async fn stop(self) {}
}
