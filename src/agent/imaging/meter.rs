//! An attempt's progress: counters of swarm, zero writer and read-back as one percentage.
//!
//! Invariant: it only reads counters; the percentage never shrinks and reaches 100 only after the commit.
//! Receiving and writing a byte counts two, reading it back one; a byte of zeros half as much each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::agent::status::Status;
use crate::event::{Failure, Progress};
use crate::io::disk::readback::Readback;
use crate::io::torrent::Swarm;
use crate::swarm::SwarmStats;
use crate::sync;
use crate::units::show_bytes;

/// How often the numbers are renewed.
const TICK: Duration = Duration::from_millis(500);
/// Percent reserved for the commit.
const COMMIT_SHARE: f64 = 1.0;
/// An attempt without any peer for this time says so.
const ALONE: Duration = Duration::from_secs(30);

/// Which part of an attempt an image is, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    from: f64,
    to: f64,
}

impl Default for Share {
    fn default() -> Self {
        Share { from: 0.0, to: 1.0 }
    }
}

impl Share {
    /// The shares of images of these sizes in bytes, in the order in which they are written.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    pub(super) fn of_each(bytes: &[u64]) -> Vec<Share> {
        let all = bytes.iter().map(|bytes| *bytes as f64).sum::<f64>().max(1.0);
        let mut from = 0.0;
        let mut share = |bytes: &u64| {
            let to = from + *bytes as f64 / all;
            Share { from: std::mem::replace(&mut from, to), to }
        };
        bytes.iter().map(&mut share).collect()
    }

    fn at(self, done: f64) -> f64 {
        self.from + (self.to - self.from) * done
    }
}

/// Reads the counters of one image of an attempt.
pub(super) struct Meter<'a> {
    pub(super) status: &'a Status,
    pub(super) swarm: &'a Swarm,
    /// Under way as soon as there are hashes.
    pub(super) readback: Mutex<Option<Readback>>,
    pub(super) zeros_written: Arc<AtomicU64>,
    pub(super) zeros_total: u64,
    pub(super) started: Instant,
    pub(super) part: Share,
    pub(super) waiting: Mutex<Waiting>,
    /// How long no piece may come.
    pub(super) bound: Duration,
}

/// Since when no piece has come, and since when there has been no peer to fetch from.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Bytes that were there when some came last, and when that was.
    last: Option<(u64, Duration)>,
    alone_since: Option<Duration>,
    said: bool,
}

/// The consequence of waiting.
#[derive(Debug, PartialEq, Eq)]
enum Patience {
    Left,
    /// True once for each time without a peer that is longer than [`ALONE`].
    Alone,
    /// No piece has come for longer than the bound.
    Over,
}

impl Waiting {
    /// Looks at the numbers of `now`.
    fn look(&mut self, now: Duration, stats: &SwarmStats, bound: Duration) -> Patience {
        if stats.complete {
            *self = Waiting::default();
            return Patience::Left;
        }
        match self.last {
            Some((bytes, since)) if bytes == stats.bytes_done => {
                if now.saturating_sub(since) >= bound {
                    return Patience::Over;
                }
            }
            _ => self.last = Some((stats.bytes_done, now)),
        }
        if stats.peers > 0 {
            (self.alone_since, self.said) = (None, false);
            return Patience::Left;
        }
        let since = *self.alone_since.get_or_insert(now);
        let is_news = now.saturating_sub(since) >= ALONE && !std::mem::replace(&mut self.said, true);
        if is_news { Patience::Alone } else { Patience::Left }
    }
}

impl Meter<'_> {
    /// Waits for `work` while updating the progress; ends early if the read-back finds wrong pieces.
    pub(super) async fn during<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                result = &mut work => {
                    self.tick();
                    return result;
                }
                _ = ticks.tick() => {
                    if self.tick() == Patience::Over {
                        return Err(self.nothing_comes());
                    }
                    if let Some(failure) = self.with(Readback::failure).flatten() {
                        return Err(failure);
                    }
                }
            }
        }
    }

    fn with<T>(&self, ask: impl FnOnce(&Readback) -> T) -> Option<T> {
        sync::lock(&self.readback).as_ref().map(ask)
    }

    /// Is there anything to compare with what is read?
    pub(super) fn reads_back(&self) -> bool {
        self.with(|_| ()).is_some()
    }

    /// The read-back begins now.
    pub(super) fn begin(&self, readback: Readback) {
        *sync::lock(&self.readback) = Some(readback);
    }

    pub(super) fn all_written(&self) {
        self.with(Readback::all_written);
    }

    /// Nothing is left to read.
    pub(super) fn is_through(&self) -> bool {
        self.with(Readback::is_through).unwrap_or(true)
    }

    /// Gives the read-back away; the numbers end.
    pub(super) fn finish(self) -> Option<Readback> {
        sync::into_inner(self.readback)
    }

    /// The requests that the disk has completed, once all pieces have come and only the disk is waited for.
    pub(super) fn disk_alone(&self) -> Option<u64> {
        let stats = self.swarm.stats();
        let (pieces, zeros) = self.with(Readback::verified).unwrap_or_default();
        let done = pieces + zeros + self.zeros_written.load(Ordering::Relaxed);
        (stats.bytes_done >= stats.bytes_total).then_some(done)
    }

    /// Gives up a hanging disk; waiting for the read-back's thread would hang too.
    pub(super) fn abandon(&self) {
        if let Some(readback) = sync::lock(&self.readback).take() {
            readback.abandon();
        }
    }

    fn tick(&self) -> Patience {
        let stats = self.swarm.stats();
        let verified = self.with(Readback::verified).unwrap_or_default();
        let share = share(&stats, verified, self.zeros_written.load(Ordering::Relaxed), self.zeros_total);
        let elapsed = self.started.elapsed();
        if let Some(trouble) = self.swarm.trouble() {
            self.status.note(trouble);
        }
        let mut waiting = sync::lock(&self.waiting);
        let patience = waiting.look(elapsed, &stats, self.bound);
        if patience == Patience::Alone {
            self.status.note(format!(
                "nobody to fetch from for {} s; waiting (does the server seed this image, is its peer port \
                 open?)",
                ALONE.as_secs()
            ));
        }
        self.status.progress(|progress| {
            traffic(progress, &stats);
            progress.bytes_verified = verified.0;
            let percent = percent(self.part.at(share));
            progress.percent = progress.percent.max(percent);
            progress.seconds_left = seconds_left(elapsed, share);
        });
        patience
    }

    /// No piece has come for as long as one may wait.
    fn nothing_comes(&self) -> Failure {
        let stats = self.swarm.stats();
        let minutes = self.bound.as_secs().div_ceil(60);
        let missing = stats.bytes_total.saturating_sub(stats.bytes_done);
        let trouble = self.swarm.trouble().unwrap_or_else(|| match stats.peers {
            0 => "there is nobody to fetch from".into(),
            peers => format!("none of {peers} peers gives any of them"),
        });
        Failure::retry(
            format!(
                "{} are missing, and no piece has come for {minutes} minutes: {trouble}",
                show_bytes(missing)
            ),
            "Look at the server's page for problems with the image, and check that its peer port is open.",
        )
    }
}

/// The numbers of two swarms together.
pub(super) fn sum(one: SwarmStats, other: SwarmStats) -> SwarmStats {
    SwarmStats {
        bytes_done: one.bytes_done + other.bytes_done,
        bytes_total: one.bytes_total + other.bytes_total,
        rate_in: one.rate_in + other.rate_in,
        rate_out: one.rate_out + other.rate_out,
        bytes_out: one.bytes_out + other.bytes_out,
        peers: one.peers + other.peers,
        ..one
    }
}

/// Copies the swarm's numbers.
pub(super) fn traffic(progress: &mut Progress, stats: &SwarmStats) {
    progress.bytes_done = stats.bytes_done;
    progress.bytes_total = stats.bytes_total;
    progress.rate_in = stats.rate_in;
    progress.rate_out = stats.rate_out;
    progress.bytes_out = stats.bytes_out;
    progress.peers = u32::try_from(stats.peers).unwrap_or(u32::MAX);
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
fn share(stats: &SwarmStats, verified: (u64, u64), zeros_written: u64, zeros_total: u64) -> f64 {
    let done = 2.0 * stats.bytes_done as f64 + verified.0 as f64 + (zeros_written + verified.1) as f64 / 2.0;
    let all = 3.0 * stats.bytes_total as f64 + zeros_total as f64;
    if all > 0.0 { (done / all).clamp(0.0, 1.0) } else { 0.0 }
}

#[expect(clippy::cast_possible_truncation, reason = "a percentage needs no more digits")]
fn percent(share: f64) -> f32 {
    (share * (100.0 - COMMIT_SHARE)) as f32
}

/// Told once a fiftieth is done: before that it is a guess.
fn seconds_left(elapsed: Duration, share: f64) -> Option<u64> {
    let left = elapsed.as_secs_f64() * (1.0 - share) / share;
    (share > 0.02).then(|| Duration::try_from_secs_f64(left).map_or(u64::MAX, |left| left.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_without_peers_says_so_once_each_time() {
        let mut alone = Waiting::default();
        let mut at = |seconds, waiting: bool, peers| {
            let stats = SwarmStats { peers, complete: !waiting, ..SwarmStats::default() };
            alone.look(Duration::from_secs(seconds), &stats, Duration::MAX) == Patience::Alone
        };
        assert!(!at(0, true, 0) && !at(29, true, 0));
        assert!(at(30, true, 0) && !at(31, true, 0), "once");
        assert!(!at(40, true, 1) && !at(69, true, 0) && !at(98, true, 0));
        assert!(at(99, true, 0), "once more after a peer was there");
        assert!(!at(200, false, 0) && !at(400, false, 0), "nothing is missing");
    }

    #[test]
    fn a_terminal_waits_for_the_next_piece_no_longer_than_its_bound() {
        let mut waiting = Waiting::default();
        let mut at = |seconds, bytes_done, complete| {
            let stats = SwarmStats { peers: 3, bytes_done, complete, ..SwarmStats::default() };
            waiting.look(Duration::from_secs(seconds), &stats, Duration::from_secs(60)) == Patience::Over
        };
        assert!(!at(0, 0, false) && !at(59, 0, false) && !at(59, 1, false) && !at(118, 1, false));
        assert!(at(119, 1, false));
        assert!(!at(500, 2, true) && !at(5000, 2, true), "nothing is missing");
    }

    #[test]
    fn images_of_one_attempt_are_one_percentage() {
        let shares = Share::of_each(&[300, 100]);
        assert_eq!([shares[0].at(0.0), shares[0].at(1.0), shares[1].at(0.0)], [0.0, 0.75, 0.75]);
        assert_eq!((shares[1].at(0.5), shares[1].at(1.0)), (0.875, 1.0));
        assert_eq!(Share::of_each(&[0]), [Share { from: 0.0, to: 0.0 }]);
    }

    #[test]
    fn all_is_ninety_nine_percent_until_the_commit() {
        let stats = SwarmStats { bytes_total: 100, bytes_done: 100, ..SwarmStats::default() };
        assert!((percent(share(&stats, (100, 40), 40, 40)) - 99.0).abs() < 0.01);
        let half = share(&stats, (0, 0), 0, 40);
        assert!(half > 0.5 && half < 0.9, "{half}");
        assert_eq!(share(&SwarmStats::default(), (0, 0), 0, 0), 0.0);
        assert_eq!(seconds_left(Duration::from_secs(30), 0.75), Some(10));
        assert_eq!(seconds_left(Duration::from_secs(30), 0.01), None);
    }
}
