//! What of the history is old enough to go.
//!
//! Invariant: the last attempt of each terminal stays, and so does a terminal that ever took a job: both say
//! what its disk has. One that a person has given a place, or that has yet to come, stays too. What goes is
//! decided by times that this server wrote; `watch` waits where the date is in doubt.

use std::time::Duration;

use super::{Change, Lab};

impl Lab {
    /// Forgets terminals that never took anything and were not heard for `keep`. The changes delete them, and
    /// attempts that ended longer ago, in one transaction.
    pub fn forget_older(&mut self, now: Duration, keep: Duration) -> Vec<Change> {
        let Some(before) = now.checked_sub(keep) else { return Vec::new() };
        let stranger = |t: &&super::Terminal| {
            t.last.is_none() && t.place.is_empty() && t.heard.is_some_and(|heard| heard < before)
        };
        let gone: Vec<String> = self
            .terminals
            .values()
            .filter(stranger)
            .filter(|t| !self.jobs.is_wanted(&t.id))
            .map(|t| t.id.clone())
            .collect();
        self.jobs.forget_older(before);
        let gone: Vec<Change> = gone.iter().filter_map(|id| self.remove(id)).collect();
        std::iter::once(Change::Expire { ended_before: before }).chain(gone).collect()
    }

    /// For how long nothing had been written down when the server started, by the dates of both.
    pub fn unwritten_at_start(&self) -> Duration {
        self.unwritten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::domain::identity::{Identity, TerminalKey};
    use crate::testkit::lab::{at, hello_of, target};

    const OLD: &str = "52:54:00:00:00:0a";
    const NEW: &str = "52:54:00:00:00:0b";
    const IMAGED: &str = "52:54:00:00:00:0c";
    const KEEP: Duration = Duration::from_secs(1000);

    /// Terminals that were heard at 10, 900 and 10 s; the last one took a job.
    fn lab() -> Lab {
        let mut lab = Lab::default();
        for (mac, when) in [(OLD, 10), (NEW, 900), (IMAGED, 10)] {
            lab.hello(at(when), String::new(), hello_of(mac)).expect("room");
        }
        lab.take(at(10), IMAGED, &target(), "token".into()).expect("known");
        lab
    }

    fn names(lab: &Lab) -> Vec<&str> {
        lab.iter().map(|t| t.id.as_str()).collect()
    }

    #[test]
    fn a_terminal_that_never_took_anything_is_forgotten_when_it_was_silent_for_long() {
        let mut lab = lab();
        let changes = lab.forget_older(at(1500), KEEP);
        assert_eq!(changes, [Change::Expire { ended_before: at(500) }, Change::Forget(OLD.into())]);
        assert_eq!(names(&lab), [NEW, IMAGED]);
        let key: TerminalKey = OLD.parse().expect("a MAC");
        assert!(lab.fitting(&key).is_empty(), "nothing of it is left");
        assert!(lab.find(&Identity::new(&[OLD], None), at(1500)).is_none());
        let back = lab.hello(at(1600), String::new(), hello_of(OLD)).expect("room").0;
        assert_eq!((back.as_str(), lab.fitting(&key).len()), (OLD, 1), "it may come back");
    }

    #[test]
    fn nothing_is_forgotten_before_its_time() {
        for now in [0, 999, 1000, 1010] {
            let mut lab = lab();
            let changes = lab.forget_older(at(now), KEEP);
            assert!(!changes.iter().any(|change| matches!(change, Change::Forget(_))), "{now}");
            assert_eq!(names(&lab).len(), 3, "{now}");
        }
        assert_eq!(lab().forget_older(at(999), KEEP), [], "a clock without a battery");
    }

    #[test]
    fn a_lab_that_starts_says_how_long_nothing_was_written() {
        let terminals: Vec<_> = lab().iter().cloned().collect();
        let gap =
            |now: u64, terminals: &[_]| Lab::restore(at(now), terminals.to_vec(), 1).0.unwritten_at_start();
        assert_eq!(gap(5900, &terminals), Duration::from_secs(5000));
        assert_eq!(gap(100, &terminals), Duration::ZERO, "the date is before that of the last run");
        assert_eq!(gap(5900, &[]), Duration::ZERO, "a new lab has no last run");
    }
}
