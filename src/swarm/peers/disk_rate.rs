//! How fast our medium takes pieces, seen while pieces wait for it.
//!
//! Invariant: time in which nothing was handed to the medium does not count.

use std::time::Duration;

use crate::swarm::rate::Capacity;
use crate::units::Now;

/// How long pieces are counted for one reading, unless the medium is done with all of them sooner.
const READING: Duration = Duration::from_millis(500);

/// The meter.
#[derive(Debug, Default)]
pub(crate) struct DiskRate {
    busy_since: Option<Now>,
    bytes: u64,
    capacity: Capacity,
}

impl DiskRate {
    /// At `now` it has something to store, or nothing.
    pub(crate) fn see(&mut self, busy: bool, now: Now) {
        match (self.busy_since, busy) {
            (None, true) => self.busy_since = Some(now),
            (Some(since), false) => {
                self.read(now.since(since));
                self.busy_since = None;
            }
            _ => {}
        }
    }

    /// `bytes` are stored at `now`.
    pub(crate) fn stored(&mut self, bytes: u64, now: Now) {
        self.bytes += bytes;
        if let Some(since) = self.busy_since.filter(|since| now.since(*since) >= READING) {
            self.read(now.since(since));
            self.busy_since = Some(now);
        }
    }

    fn read(&mut self, time: Duration) {
        self.capacity.run(self.bytes, time);
        self.bytes = 0;
    }

    /// Bytes a second; `None` until pieces were stored.
    pub(crate) fn get(&self) -> Option<u64> {
        Some(self.capacity.get()).filter(|rate| *rate > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_something_waits_counts() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut medium = DiskRate::default();
        assert_eq!(medium.get(), None);
        for second in 0..5 {
            medium.see(true, at(second * 1000));
            medium.stored(10_000, at(second * 1000 + 100));
            medium.see(false, at(second * 1000 + 100));
        }
        assert!((95_000..=100_000).contains(&medium.get().expect("seen")), "{medium:?}");
    }
}
