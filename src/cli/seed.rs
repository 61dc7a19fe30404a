//! `flashmob seed`: serves a payload to any peer until it is stopped.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::peers::{Interrupts, PeerArgs, read_torrent};
use super::place;
use super::show::{Show, failed};
use crate::event::Failure;

/// Serve a torrent's payload from a file, a folder or a block device.
#[derive(Debug, Args)]
pub struct SeedArgs {
    /// The .torrent file.
    #[arg(value_name = "TORRENT")]
    torrent: PathBuf,
    /// Where the payload is: a file, the folder of a torrent of several files (or the folder above), a block
    /// device.
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    #[command(flatten)]
    peers: PeerArgs,
}

/// Runs until a signal or a failure.
pub async fn run(args: SeedArgs) -> Result<(), Failure> {
    let json = args.peers.json;
    serve(args).await.inspect_err(|failure| failed(json, failure))
}

async fn serve(args: SeedArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    let meta = read_torrent(&args.torrent)?;
    let placed = place::source(&args.source, &meta, &args.peers)?;
    let trackers = args.peers.all_trackers(&meta);
    let session = args.peers.start_session().await?;
    let name = meta.name.clone();
    let swarm = session.add(placed.torrent(meta, trackers, args.peers.memory()))?;
    let mut show = Show::new(args.peers.json, swarm.stats().bytes_total);
    show.say(&format!("seeding {name} on port {}", session.local_addr().port()));
    swarm.add_peers(args.peers.peers.clone()).await;
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let result = loop {
        tokio::select! {
            failure = swarm.ended() => break failure.map_or(Ok(()), Err),
            () = interrupts.wait() => break Ok(()),
            _ = seconds.tick() => show.swarm(&swarm),
        }
    };
    show.finish();
    session.shutdown().await;
    result
}
