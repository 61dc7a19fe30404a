//! Bytes a second: over the last two seconds, and what a link was seen to carry.
//!
//! Invariant: a meter that nobody feeds reads zero after two seconds, whenever it is read.

use std::time::Duration;

use crate::units::Now;

const SLOTS: usize = 8;
const SLOT: Duration = Duration::from_millis(250);

/// A meter.
#[derive(Debug, Clone, Default)]
pub struct RateMeter {
    slots: [u64; SLOTS],
    /// Number of the slot that is being filled, counted from the start of time.
    current: u128,
    total: u64,
}

impl RateMeter {
    /// Counts `bytes` at `now`.
    pub fn add(&mut self, now: Now, bytes: u64) {
        self.turn_to(now);
        self.slots[index(self.current)] += bytes;
        self.total += bytes;
    }

    /// Bytes a second, as of `now`.
    pub fn rate(&self, now: Now) -> u64 {
        let slot = slot_of(now).max(self.current);
        let sum: u64 = (0..SLOTS as u128)
            .filter_map(|age| slot.checked_sub(age))
            .filter(|number| *number <= self.current && number + SLOTS as u128 > self.current)
            .map(|number| self.slots[index(number)])
            .sum();
        sum / 2
    }

    /// All bytes ever counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn turn_to(&mut self, now: Now) {
        let slot = slot_of(now);
        let passed = slot.saturating_sub(self.current).min(SLOTS as u128);
        for step in 1..=passed {
            self.slots[index(self.current + step)] = 0;
        }
        if passed == SLOTS as u128 {
            self.slots = [0; SLOTS];
        }
        self.current = self.current.max(slot);
    }
}

/// How long bytes are counted for one reading of a [`Capacity`].
const READING: Duration = Duration::from_millis(100);

/// What a link carries when it is busy: the best reading, forgotten slowly.
#[derive(Debug, Clone, Default)]
pub struct Capacity {
    since: Now,
    bytes: u64,
    best: u64,
}

impl Capacity {
    /// Counts `bytes` at `now`.
    pub fn add(&mut self, now: Now, bytes: u64) {
        let time = now.since(self.since);
        if time >= READING {
            self.run(self.bytes, time);
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes += bytes;
    }

    /// `bytes` came one after another in `time`: a reading of its own, good where the link idles in between.
    pub fn run(&mut self, bytes: u64, time: Duration) {
        let rate = u128::from(bytes) * 1_000_000 / time.as_micros().max(1);
        let faded = self.best - self.best / 64;
        self.best = u64::try_from(rate).unwrap_or(u64::MAX).max(faded);
    }

    /// Bytes a second; zero until there was a reading.
    pub fn get(&self) -> u64 {
        self.best
    }

    /// Bytes that it carries in `time`; no end of them as long as nothing is known.
    pub fn bytes_in(&self, time: Duration) -> u64 {
        let known = u64::try_from(u128::from(self.best) * time.as_micros() / 1_000_000);
        if self.best == 0 { u64::MAX } else { known.unwrap_or(u64::MAX) }
    }

    /// How long `bytes` take; zero as long as nothing is known.
    pub fn time_of(&self, bytes: u64) -> Duration {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.best.max(1));
        let known = u64::try_from(micros).map_or(Duration::MAX, Duration::from_micros);
        if self.best == 0 { Duration::ZERO } else { known }
    }
}

fn slot_of(now: Now) -> u128 {
    now.0.as_millis() / SLOT.as_millis()
}

fn index(slot: u128) -> usize {
    usize::try_from(slot % SLOTS as u128).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_the_best_of_late() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut link = Capacity::default();
        assert_eq!((link.get(), link.time_of(1000)), (0, Duration::ZERO));
        (0..=200).for_each(|ms| link.add(at(ms), 100));
        assert_eq!((link.get(), link.time_of(100_000)), (100_000, Duration::from_secs(1)));
        (201..=500).for_each(|ms| link.add(at(ms), 10));
        assert!((90_000..100_000).contains(&link.get()), "{}", link.get());
    }

    #[test]
    fn a_steady_stream_reads_its_rate_and_fades_when_it_ends() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut meter = RateMeter::default();
        for tick in 0..40 {
            meter.add(at(tick * 100), 1000);
        }
        assert_eq!(meter.rate(at(3999)), 10_000);
        assert!(meter.rate(at(5000)) < 10_000);
        assert_eq!(meter.rate(at(6000)), 0);
        meter.add(at(60_000), 500);
        assert_eq!(meter.rate(at(60_000)), 250);
        assert_eq!(meter.total(), 40_500);
    }
}
