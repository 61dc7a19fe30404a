//! `flashmob get`: fetches a torrent's payload onto a target, then seeds it for as long as wanted.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::peers::{Interrupts, PeerArgs, read_torrent};
use super::show::{self, Show};
use super::{place, show::failed};
use crate::event::Failure;
use crate::io::storage::Resize;
use crate::io::torrent::{Swarm, TorrentSpec};
use crate::units::parse_duration;

/// Fetch a torrent's payload into a file, a folder or a block device.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The .torrent file.
    #[arg(value_name = "TORRENT")]
    torrent: PathBuf,
    /// The target: a file, a folder (for torrents of several files) or a block device. Its present content is
    /// checked and kept.
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    /// Write pieces without checking their hashes.
    #[arg(long)]
    no_verify: bool,
    /// Then serve other peers for this time: 90s, 10min, 2h, or forever.
    #[arg(long, value_name = "TIME", value_parser = parse_stay, default_value = "0s")]
    seed_for: Stay,
    /// Give a target file of another size the payload's size instead of refusing it.
    #[arg(long)]
    resize: bool,
    #[command(flatten)]
    peers: PeerArgs,
}

/// How long to stay when everything is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    For(Duration),
    Forever,
}

fn parse_stay(text: &str) -> Result<Stay, String> {
    if text == "forever" {
        return Ok(Stay::Forever);
    }
    parse_duration(text).map(Stay::For).map_err(|error| format!("{error}, or forever"))
}

/// Runs until everything is there (and was seeded for as long as wanted), a failure, or a signal.
pub async fn run(args: GetArgs) -> Result<(), Failure> {
    let json = args.peers.json;
    let result = fetch(args).await;
    result.inspect_err(|failure| failed(json, failure))
}

async fn fetch(args: GetArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    let meta = read_torrent(&args.torrent)?;
    let trackers = args.peers.all_trackers(&meta);
    if trackers.is_empty() && args.peers.peers.is_empty() {
        log::warn!(
            "the torrent names no tracker: only peers that dial here can send anything (see --tracker)"
        );
    }
    for link in meta.links() {
        log::warn!(
            "{} is a symbolic link in this torrent and is not made, because its target may lie outside the \
             target folder",
            link.path.join("/")
        );
    }
    let session = args.peers.start_session().await?;
    let resize = if args.resize { Resize::Allow } else { Resize::Refuse };
    let (path, for_place, peers) = (args.target.clone(), meta.clone(), args.peers.clone());
    let placed = tokio::task::spawn_blocking(move || place::target(&path, &for_place, &peers, resize))
        .await
        .map_err(|error| Failure::retry(format!("opening the target: {error}"), "Try again."))??;
    let torrent = placed.torrent(meta, trackers, args.peers.memory());
    let swarm = session.add(TorrentSpec { verify: !args.no_verify, ..torrent })?;
    let total = swarm.stats().bytes_total;
    let mut show = Show::new(args.peers.json, total);
    swarm.add_peers(args.peers.peers.clone()).await;
    let result = watch(&swarm, &mut show, &mut interrupts, total, args.seed_for).await;
    show.finish();
    session.shutdown().await;
    // The last error, for example of a sync, may come while the swarm stops.
    result.and(swarm.ended().await.map_or(Ok(()), Err))
}

/// Shows progress until it is time to leave.
async fn watch(
    swarm: &Swarm,
    show: &mut show::Show,
    interrupts: &mut Interrupts,
    total: u64,
    stay: Stay,
) -> Result<(), Failure> {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut complete = std::pin::pin!(swarm.complete());
    let leave = loop {
        tokio::select! {
            result = &mut complete => {
                show.swarm(swarm);
                result?;
                show.complete(total);
                match stay {
                    Stay::For(time) if time.is_zero() => return Ok(()),
                    Stay::For(time) => break Instant::now().checked_add(time),
                    Stay::Forever => break None,
                }
            }
            () = interrupts.wait() => {
                let message = "stopped before everything was there";
                return Err(Failure::retry(message, "Start again: written pieces are kept."));
            }
            _ = seconds.tick() => show.swarm(swarm),
        }
    };
    let forever = Instant::now() + Duration::from_secs(100 * 365 * 24 * 3600);
    loop {
        tokio::select! {
            failure = swarm.ended() => return failure.map_or(Ok(()), Err),
            () = interrupts.wait() => return Ok(()),
            () = sleep_until(leave.map_or(forever, |leave| leave.min(forever))) => return Ok(()),
            _ = seconds.tick() => show.swarm(swarm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse_stay("90s"), Ok(Stay::For(Duration::from_secs(90))));
        assert_eq!(parse_stay("2h"), Ok(Stay::For(Duration::from_secs(7200))));
        assert_eq!(parse_stay("forever"), Ok(Stay::Forever));
        for bad in ["", "s", "90", "-1s", "1d", "99999999999999999999s"] {
            assert!(parse_stay(bad).is_err(), "{bad}");
        }
    }
}
