//! Corrects times that an earlier run of the server stored.
//!
//! Invariant: the machine's date may have been set either way meanwhile, so it tells nothing about how long a
//! terminal was silent. Silence counts only while the server runs, because it cannot hear terminals while it
//! is off. No stored time stays in the future.

use std::time::Duration;

use super::{Change, Terminal};

/// The latest time that is written down of a terminal.
fn time(terminal: &Terminal) -> Duration {
    let attempt = terminal.last.as_ref().map(|a| a.heard.max(a.started).max(a.ended.unwrap_or_default()));
    terminal.heard.unwrap_or_default().max(attempt.unwrap_or_default())
}

/// The latest time that is written down of any terminal.
pub(super) fn last_time(terminals: &[Terminal]) -> Option<Duration> {
    terminals.iter().map(time).max()
}

/// Corrects the times of `terminals` for a clock that says `now`. Returns the corrected ones, to be stored
/// again.
pub(super) fn correct(now: Duration, terminals: &mut [Terminal]) -> Vec<Change> {
    let stopped = last_time(terminals).unwrap_or_default();
    let mut changes = Vec::new();
    for terminal in terminals {
        let future = time(terminal) > now;
        terminal.first = terminal.first.map(|first| first.min(now));
        terminal.heard = terminal.heard.map(|heard| heard.min(now));
        if let Some(attempt) = &mut terminal.last {
            attempt.started = attempt.started.min(now);
            attempt.ended = attempt.ended.map(|ended| ended.min(now));
            attempt.heard = match attempt.outcome {
                // Its silence at the time when the server stopped.
                None => now.saturating_sub(stopped.saturating_sub(attempt.heard)),
                Some(_) => attempt.heard.min(now),
            };
        }
        if future {
            let attempt = terminal.last.clone();
            changes.push(Change::Terminal(Box::new(terminal.clone())));
            changes.extend(attempt.map(|a| Change::Attempt(terminal.id.clone(), Box::new(a))));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::super::Lab;
    use super::*;
    use crate::api::TerminalState;
    use crate::server::domain::jobs;
    use crate::server::domain::ties::Ties;
    use crate::testkit::lab::done;
    use crate::testkit::lab::{at, hello_of, target};

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";
    const C: &str = "52:54:00:00:00:0c";
    const STOPPED: u64 = 1_800_000_000;

    /// A has been imaging until the server stopped, B until an hour before, and C is done.
    fn before() -> Vec<Terminal> {
        let mut lab = Lab::default();
        for (mac, when) in [(B, STOPPED - 3600), (A, STOPPED), (C, STOPPED)] {
            lab.hello(at(when), String::new(), hello_of(mac)).expect("room");
            let number = lab.take(at(when), mac, &target(), mac.into()).expect("known").0.number;
            if mac == C {
                lab.outcome(at(when), number, mac, done(), &Ties::default()).expect("taken");
            }
        }
        lab.iter().cloned().collect()
    }

    /// The states of A and B, whether C may leave, and whether anything was written down, `later` seconds
    /// after a start at `date`.
    fn states(date: u64, later: u64) -> (TerminalState, TerminalState, bool, bool) {
        let (mut lab, changes) = Lab::restore(at(date), before(), 9);
        let now = at(date + later);
        let state = |lab: &Lab, id| jobs::state(lab.get(id).expect("there").last.as_ref(), None, now);
        let (a, b) = (state(&lab, A), state(&lab, B));
        let number = lab.get(C).and_then(|t| t.last.as_ref()).expect("attempt").number;
        let orders = lab.outcome(now, number, C, done(), &Ties::default()).expect("taken").0;
        (a, b, orders.release, !changes.is_empty())
    }

    #[test]
    fn silence_is_counted_while_the_server_runs_whatever_the_date_says_at_its_next_start() {
        use TerminalState::{Imaging, Interrupted};
        const YEAR: u64 = 365 * 24 * 3600;
        for date in [STOPPED - 17 * YEAR, STOPPED, STOPPED + 1, STOPPED + 30 * YEAR] {
            let past = date < STOPPED;
            assert_eq!(states(date, 1), (Imaging, Interrupted, false, past), "just started, {date}");
            assert_eq!(states(date, 61), (Interrupted, Interrupted, true, past), "A stays silent, {date}");
        }
        assert_eq!(states(0, 61), (Interrupted, Interrupted, true, true), "a clock without a battery");
    }

    #[test]
    fn no_time_in_the_future_is_left_or_written() {
        let mut terminals = before();
        let changes = correct(at(100), &mut terminals);
        assert_eq!(changes.len(), 6);
        assert!(correct(at(100), &mut terminals).is_empty(), "it is corrected once");
        let shown = terminals.iter().map(|t| t.silent(at(100))).max();
        assert_eq!(shown, Some(Some(Duration::ZERO)));
    }
}
