//! Whether a receiver can be relied on: it answers offers, and requests the pieces that it grants.
//!
//! A terminal whose cable was pulled closes no socket and always looks free. So a receiver that lets us down
//! rests for a time that doubles, and is asked when no other is free; one that stays silent counts as gone.
//!
//! Invariant: any message excuses silence and nothing else; only the request of a granted piece excuses a
//! missing request.

use std::time::Duration;

use crate::units::Now;

/// How long an offer waits for its answer, and how long a receiver rests that gave none; the rest doubles
/// each time.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);
/// The rest doubles this many times at most: up to 25.6 s.
const MAX_DOUBLINGS: u32 = 6;
/// A peer that owes an answer and says nothing for so long is gone.
const GONE: Duration = Duration::from_secs(5);

/// The answers that a receiver owes us, and how often it let us down in a row.
#[derive(Debug, Default)]
pub(crate) struct Reliance {
    /// Offers that it did not answer since it spoke last.
    unanswered: u32,
    /// When the first of them was given up.
    silent_since: Option<Now>,
    /// Grants in a row of which it asked for nothing.
    unasked: u32,
}

impl Reliance {
    /// It did not answer an offer; says how long it rests.
    pub(crate) fn gave_no_answer(&mut self, now: Now) -> Duration {
        self.unanswered += 1;
        self.silent_since.get_or_insert(now);
        self.rest()
    }

    /// It took a piece and asked for nothing of it; says how long it rests.
    pub(crate) fn asked_for_nothing(&mut self) -> Duration {
        self.unasked += 1;
        self.rest()
    }

    fn rest(&self) -> Duration {
        let times = self.unanswered.max(self.unasked).saturating_sub(1);
        PATIENCE * 2u32.pow(times.min(MAX_DOUBLINGS))
    }

    /// A message came from it.
    pub(crate) fn spoke(&mut self) {
        (self.unanswered, self.silent_since) = (0, None);
    }

    /// It asked for what it took.
    pub(crate) fn asked(&mut self) {
        self.unasked = 0;
    }

    /// It let us down the last time.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.unanswered > 0 || self.unasked > 0
    }

    /// It owes an answer and has been silent for so long that nobody is there.
    pub(crate) fn is_gone(&self, now: Now) -> bool {
        self.silent_since.is_some_and(|since| now.since(since) + PATIENCE >= GONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now(Duration::from_millis(millis))
    }

    #[test]
    fn a_receiver_that_does_not_answer_rests_longer_each_time_until_it_speaks() {
        let mut reliance = Reliance::default();
        let rests: Vec<u128> = (0..9).map(|_| reliance.gave_no_answer(at(0)).as_millis()).collect();
        assert_eq!(rests, [400, 800, 1600, 3200, 6400, 12_800, 25_600, 25_600, 25_600]);
        reliance.spoke();
        assert!(!reliance.is_doubtful());
        assert_eq!(reliance.gave_no_answer(at(0)), PATIENCE);
    }

    #[test]
    fn a_receiver_that_takes_pieces_and_asks_for_nothing_is_not_excused_by_talking() {
        let mut reliance = Reliance::default();
        reliance.asked_for_nothing();
        reliance.spoke();
        assert_eq!(reliance.asked_for_nothing(), PATIENCE * 2);
        reliance.asked();
        assert_eq!(reliance.asked_for_nothing(), PATIENCE);
    }

    #[test]
    fn only_a_receiver_that_owes_an_answer_for_seconds_is_gone() {
        let mut reliance = Reliance::default();
        assert!(!reliance.is_gone(at(1_000_000)), "it owes nothing");
        reliance.gave_no_answer(at(400));
        assert!(!reliance.is_gone(at(4999)));
        assert!(reliance.is_gone(at(5000)), "5 s after the offer");
        reliance.spoke();
        assert!(!reliance.is_gone(at(9000)));
    }
}
