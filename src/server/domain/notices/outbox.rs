//! Notices for one webhook, in their order, until it has taken them.

use std::collections::VecDeque;
use std::time::Duration;

use super::Notice;

/// Most notices that wait. The oldest goes first, because the newest say how things are.
const MOST: usize = 1000;
/// How long after a failed try the next one follows; the last one repeats.
const WAITS: [u64; 6] = [1, 5, 30, 120, 300, 600];
/// A notice that could not be delivered for this long is dropped.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// What became of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Taken,
    /// It may be taken later.
    NotNow,
    /// It will never be taken.
    Refused,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<(Duration, Notice)>,
    /// Tries of the first one that failed.
    failed: usize,
    next: Duration,
}

impl Outbox {
    /// Takes a notice at `now`. Returns how many old ones were dropped for it.
    pub(crate) fn put(&mut self, now: Duration, notice: Notice) -> usize {
        self.waiting.push_back((now, notice));
        let over = self.waiting.len().saturating_sub(MOST);
        self.waiting.drain(..over);
        over
    }

    /// The notice to send at `now`, if it is time.
    pub(crate) fn due(&self, now: Duration) -> Option<&Notice> {
        self.waiting.front().filter(|_| now >= self.next).map(|(_, notice)| notice)
    }

    /// What became of the one that was due. Returns true if it was given up.
    pub(crate) fn sent(&mut self, now: Duration, how: Sent) -> bool {
        let old = self.waiting.front().is_some_and(|(since, _)| now.saturating_sub(*since) >= KEEP);
        let given_up = how == Sent::Refused || (how == Sent::NotNow && old);
        if how == Sent::Taken || given_up {
            self.waiting.pop_front();
        }
        match how {
            Sent::Taken | Sent::Refused => {
                self.failed = 0;
                self.next = now;
            }
            // Also the next one waits: it is the same receiver that does not answer.
            Sent::NotNow => {
                self.next = now + Duration::from_secs(WAITS[self.failed.min(WAITS.len() - 1)]);
                self.failed = self.failed.saturating_add(1);
            }
        }
        given_up
    }
}
