//! What the running server measures of itself: how long requests and the database's transactions take, how
//! many changes wait, how attempts ended.
//!
//! Invariant: measuring never waits and never fails, and its memory is bounded by the routes of the router.
//! Counters begin at zero with each start, as Prometheus expects.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::event::Outcome;
use crate::sync;

/// Upper bounds of a histogram's buckets, in microseconds, with the same in seconds for the exposition.
pub(crate) const BOUNDS: [(u64, &str); 12] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
];

/// Durations by size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// How many were within each bound and above the one before it; the last field has the rest.
    within: [u64; BOUNDS.len() + 1],
    pub micros: u64,
}

impl Histogram {
    fn count(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BOUNDS.len());
        self.within[bucket] += 1;
        self.micros = self.micros.saturating_add(micros);
    }

    /// How many were within each bound, the smaller ones included; the last field counts all.
    pub(crate) fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut sum = 0;
        self.within.map(|n| {
            sum += n;
            sum
        })
    }
}

/// Which requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub method: &'static str,
    /// The address as the router has it, with placeholders.
    pub path: String,
}

/// The requests of one route.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    pub took: Histogram,
    /// How many were answered with each status.
    pub by_status: BTreeMap<u16, u64>,
}

/// The database's thread.
#[derive(Debug, Default)]
pub(crate) struct DatabaseMeter {
    /// Requests that wait for the thread.
    waiting: AtomicU64,
    failed: AtomicU64,
    wrote: Mutex<Histogram>,
}

impl DatabaseMeter {
    /// Called before the request goes into the queue, so that the number never falls below zero.
    /// Returns how many wait with it.
    pub(crate) fn queued(&self) -> u64 {
        self.waiting.fetch_add(1, Relaxed) + 1
    }

    /// The thread has taken a request, or it was not queued.
    pub(crate) fn taken(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    pub(crate) fn wrote(&self, took: Duration, success: bool) {
        sync::lock(&self.wrote).count(took);
        if !success {
            self.failed.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub(crate) fn transactions(&self) -> Histogram {
        sync::lock(&self.wrote).clone()
    }
}

/// Requests and attempts.
#[derive(Debug, Default)]
pub struct Meters {
    requests: Mutex<BTreeMap<Route, Requests>>,
    attempts: Mutex<BTreeMap<&'static str, u64>>,
    /// Numbers from the database, and when they were counted.
    history: Mutex<Option<(Duration, Counts)>>,
}

/// How many attempts have each result.
type Counts = Vec<(String, u64)>;

/// The attempts of the database are counted again after this time, because that reads all of them.
const COUNT_AGAIN: Duration = Duration::from_secs(60);

impl Meters {
    pub(crate) fn request(&self, route: Route, status: u16, took: Duration) {
        let mut requests = sync::lock(&self.requests);
        let requests = requests.entry(route).or_default();
        requests.took.count(took);
        *requests.by_status.entry(status).or_default() += 1;
    }

    /// An attempt has ended.
    pub(crate) fn ended(&self, outcome: &Outcome, cancelled: bool) {
        *sync::lock(&self.attempts).entry(result(outcome, cancelled)).or_default() += 1;
    }

    /// The database's numbers of attempts; the last ones if it cannot count now.
    pub(crate) async fn history<E, F: Future<Output = Result<Counts, E>>>(
        &self,
        now: Duration,
        count: impl FnOnce() -> F,
    ) -> Counts {
        let last = sync::lock(&self.history).clone();
        match last {
            Some((then, counts)) if now.saturating_sub(then) < COUNT_AGAIN => counts,
            last => match count().await {
                Ok(counts) => {
                    *sync::lock(&self.history) = Some((now, counts.clone()));
                    counts
                }
                Err(_) => last.map(|(_, counts)| counts).unwrap_or_default(),
            },
        }
    }

    pub(crate) fn requests(&self) -> BTreeMap<Route, Requests> {
        sync::lock(&self.requests).clone()
    }

    /// How many attempts ended in each way, with zeros.
    pub(crate) fn attempts(&self) -> BTreeMap<&'static str, u64> {
        let mut all: BTreeMap<_, _> = RESULTS.into_iter().map(|result| (result, 0)).collect();
        all.extend(sync::lock(&self.attempts).iter());
        all
    }
}

/// The results that are told apart.
pub(crate) const RESULTS: [&str; 4] = ["done", "checked", "failed", "cancelled"];

fn result(outcome: &Outcome, cancelled: bool) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Checked { .. } => "checked",
        Outcome::Failed { .. } if cancelled => "cancelled",
        Outcome::Failed { .. } => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_counts_what_is_at_most_its_bound() {
        let mut histogram = Histogram::default();
        for micros in [1, 500, 501, 10_000_000, 10_000_001] {
            histogram.count(Duration::from_micros(micros));
        }
        let counts = histogram.cumulative();
        assert_eq!((counts[0], counts[1], counts[11], counts[12]), (2, 3, 4, 5));
        assert_eq!(histogram.micros, 20_001_003);
        for (micros, seconds) in BOUNDS {
            let seconds: f64 = seconds.parse().expect("a number");
            assert!((seconds * 1e6 - f64::from(u32::try_from(micros).expect("small"))).abs() < 1e-3);
        }
    }
}
