//! Bytes a second: over the last two seconds, and what a link was seen to carry.
//!
//! Invariant: a meter that nobody feeds reads zero after two seconds, whenever it is read.

use std::time::Duration;

use crate::swarm::ratio::Ratio;
use crate::units::Now;

const SLOTS: usize = 8;
const SLOT: Duration = Duration::from_millis(250);

/// A meter.
#[derive(Debug, Clone, Default)]
pub(crate) struct RateMeter {
    slots: [u64; SLOTS],
    /// Number of the slot that is being filled, counted from the start of time.
    current: u128,
    total: u64,
}

impl RateMeter {
    /// Counts `bytes` at `now`.
    pub(super) fn add(&mut self, now: Now, bytes: u64) {
        self.turn_to(now);
        self.slots[index(self.current)] += bytes;
        self.total += bytes;
    }

    /// Bytes a second, as of `now`.
    pub(super) fn rate(&self, now: Now) -> u64 {
        let slot = slot_of(now).max(self.current);
        let sum: u64 = (0..SLOTS as u128)
            .filter_map(|age| slot.checked_sub(age))
            .filter(|number| *number <= self.current && number + SLOTS as u128 > self.current)
            .map(|number| self.slots[index(number)])
            .sum();
        sum / 2
    }

    /// All bytes ever counted.
    pub(super) fn total(&self) -> u64 {
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

/// Bytes at the beginning of a busy time that say nothing about a link: what sockets, queues and a shaper's
/// bucket swallow at once.
pub(crate) const SWALLOWED: u64 = 256 * 1024;
/// Fewest bytes of a reading of a [`Capacity`].
const READING_BYTES: u64 = 1024 * 1024;
/// Shortest time of such a reading.
const READING_TIME: Duration = Duration::from_millis(40);

/// The part of the best reading that each further reading takes away.
const FADING: Ratio = Ratio(1, 64);

/// How long bytes are counted for a guess.
const GUESS: Duration = Duration::from_millis(10);
/// A time so long without bytes says something about the receivers, not about the link.
const STALL: Duration = Duration::from_secs(1);

/// What a link carries when it is busy: the best reading, forgotten slowly.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    /// Bytes on the wire that one counted byte stands for: 1, except in simulations.
    scale: u64,
    /// It is given no more than this, so it carries no more.
    ceiling: u64,
    /// Bytes of the busy time that were swallowed.
    swallowed: u64,
    since: Now,
    bytes: u64,
    best: u64,
    /// There was a reading.
    proved: bool,
    guessing: Option<(Now, u64)>,
}

/// The span that [`Recent`] looks back over.
const SPAN: Duration = Duration::from_millis(150);

/// Bytes a second over the last moments: whether a link is full just now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    began: Now,
    before: u64,
    bytes: u64,
}

impl Recent {
    /// Counts `bytes` at `now`.
    pub(super) fn add(&mut self, now: Now, bytes: u64) {
        self.turn_to(now);
        self.bytes += bytes;
    }

    /// Bytes a second, as of `now`.
    pub(super) fn rate(&mut self, now: Now) -> u64 {
        self.turn_to(now);
        let (age, span) = (now.since(self.began).as_micros(), SPAN.as_micros());
        let bytes = u128::from(self.before) * (span - age) / span + u128::from(self.bytes);
        u64::try_from(bytes * 1_000_000 / span).unwrap_or(u64::MAX)
    }

    fn turn_to(&mut self, now: Now) {
        let age = now.since(self.began);
        if age >= 2 * SPAN {
            (self.began, self.before, self.bytes) = (now, 0, 0);
        } else if age >= SPAN {
            (self.began, self.before, self.bytes) = (self.began + SPAN, self.bytes, 0);
        }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity::of_scale(1)
    }
}

impl Capacity {
    /// Nothing is known yet of a link on which each counted byte stands for `scale` bytes.
    pub(crate) fn of_scale(scale: u32) -> Self {
        Capacity {
            scale: u64::from(scale.max(1)),
            ceiling: u64::MAX,
            swallowed: 0,
            since: Now::ZERO,
            bytes: 0,
            best: 0,
            proved: false,
            guessing: None,
        }
    }

    /// The same link, of which at most `rate` bytes a second on the wire may be used.
    pub(crate) fn within(mut self, rate: Option<u64>) -> Self {
        self.ceiling = rate.map_or(u64::MAX, |rate| (rate / self.scale).max(1));
        self
    }

    /// Counts `bytes` at `now`, of a link that was busy since the last [`pause`](Self::pause).
    pub(super) fn add(&mut self, now: Now, bytes: u64) {
        if self.swallowed * self.scale < SWALLOWED {
            self.swallowed += bytes;
            (self.since, self.bytes) = (now, 0);
            return;
        }
        if !self.proved {
            self.guess(now, bytes);
        }
        self.bytes += bytes;
        let time = now.since(self.since);
        if self.bytes * self.scale >= READING_BYTES && time >= READING_TIME {
            if !std::mem::replace(&mut self.proved, true) {
                self.best = 0;
            }
            self.run(self.bytes, time);
            (self.since, self.bytes) = (now, 0);
        }
    }

    /// As long as nothing better is known: what came in a short time. One that reaches over a little idle
    /// time reads low, which does no harm: the best counts.
    fn guess(&mut self, now: Now, bytes: u64) {
        let (since, counted) = self.guessing.get_or_insert((now, 0));
        let time = now.since(*since);
        if time >= STALL {
            self.guessing = Some((now, bytes));
        } else if time >= GUESS {
            let counted = *counted;
            self.guessing = Some((now, bytes));
            self.run(counted, time);
        } else {
            *counted += bytes;
        }
    }

    /// As long as nothing was seen, it is assumed to carry this many bytes a second.
    pub(crate) fn suppose(&mut self, rate: u64) {
        if self.best == 0 {
            self.best = rate.min(self.ceiling);
        }
    }

    /// The link has nothing to do.
    pub(super) fn pause(&mut self) {
        self.swallowed = 0;
    }

    /// `bytes` came one after another in `time`: a reading of its own, good where the link idles in between.
    pub(super) fn run(&mut self, bytes: u64, time: Duration) {
        let rate = u128::from(bytes) * 1_000_000 / time.as_micros().max(1);
        let faded = self.best - FADING.of(self.best);
        self.best = u64::try_from(rate).unwrap_or(u64::MAX).min(self.ceiling).max(faded);
    }

    /// Bytes a second; zero until there was a reading.
    pub(super) fn get(&self) -> u64 {
        self.best
    }

    /// Bytes that it carries in `time`; none as long as nothing is known.
    pub(super) fn bytes_in(&self, time: Duration) -> u64 {
        u64::try_from(u128::from(self.best) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
    }

    /// How long `bytes` on the wire take, each counted byte standing for its scale; zero as long as nothing
    /// is known.
    pub(crate) fn time_on_wire(&self, bytes: u64) -> Duration {
        self.time_of(bytes / self.scale)
    }

    /// How long `bytes` take; zero as long as nothing is known.
    pub(crate) fn time_of(&self, bytes: u64) -> Duration {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.best.max(1));
        let known = u64::try_from(micros).map_or(Duration::MAX, Duration::from_micros);
        if self.best == 0 { Duration::ZERO } else { known }
    }
}

/// The part of a piece's time by which two pieces may overlap on a downlink: less leaves gaps, more shares
/// it.
const SLACK: Ratio = Ratio(1, 5);
/// Two pieces overlap no longer than this.
const LONGEST_SLACK: Duration = Duration::from_millis(25);

/// By how long two pieces may overlap on a downlink on which one takes `piece_time`.
pub(crate) fn slack(piece_time: Duration) -> Duration {
    SLACK.of_time(piece_time).min(LONGEST_SLACK)
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
    fn a_capacity_is_the_best_of_late_and_not_what_queues_swallow() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut link = Capacity::default();
        assert_eq!((link.get(), link.time_of(1000)), (0, Duration::ZERO));
        link.add(at(0), 4 * SWALLOWED);
        (1..=400).for_each(|ms| link.add(at(ms), 10_000));
        assert_eq!((link.get(), link.time_of(10_000_000)), (10_000_000, Duration::from_secs(1)));
        (401..=1000).for_each(|ms| link.add(at(ms), 1_000));
        assert!((9_000_000..10_000_000).contains(&link.get()), "{}", link.get());
        link.pause();
        link.add(at(5000), 4 * SWALLOWED);
        assert!(link.get() < 10_000_000);
    }

    #[test]
    fn a_guess_reaches_over_no_stall() {
        let at = |ms| Now(Duration::from_millis(ms));
        for pause in [false, true] {
            let mut link = Capacity::default();
            link.add(at(0), SWALLOWED);
            link.add(at(5), 16_384);
            if pause {
                link.pause();
            }
            link.add(at(8000), SWALLOWED);
            link.add(at(8005), 16_384);
            assert_eq!(link.get(), 0, "nothing is known yet");
            link.add(at(8020), 16_384);
            assert!(link.get() > 1_000_000, "{}", link.get());
        }
    }

    #[test]
    fn what_came_of_late_is_forgotten_soon() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut recent = Recent::default();
        (0..=1000).for_each(|ms| recent.add(at(ms), 1000));
        assert!((950_000..=1_050_000).contains(&recent.rate(at(1000))), "{}", recent.rate(at(1000)));
        assert!(recent.rate(at(1100)) < 600_000);
        assert_eq!(recent.rate(at(1400)), 0);
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
