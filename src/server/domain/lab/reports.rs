//! Reports of running attempts, and orders for them.
//!
//! Invariant: only a caller that knows the token of a terminal's current attempt reports for it; the first
//! outcome stands. `jobs` decides whether an attempt may leave its swarm; `zones` knows which terminals still
//! need it.

use std::time::Duration;

use super::{Change, Lab, Terminal, bounds};
use crate::api::Orders;
use crate::event::{Chosen, Outcome, Progress};
use crate::layout::known;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::jobs::{self, Effects};
use crate::server::domain::ties::Ties;

/// Progress is written down so often; stages at once.
const WRITE_EVERY: Duration = Duration::from_secs(20);

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// No terminal has this attempt as its current one.
    #[error("this attempt is over: a newer one of the same terminal has begun, or the server never knew it")]
    Unknown,
    /// The token is not that of the attempt.
    #[error("wrong token for this attempt")]
    WrongToken,
}

impl Lab {
    /// The attempt that `token` may report for, with the name of its terminal, whose silence ends with this
    /// call.
    pub(super) fn reporting(
        &mut self,
        now: Duration,
        number: u64,
        token: &str,
    ) -> Result<(String, &mut Attempt), ReportError> {
        let terminal = self.by_attempt.get(&number).and_then(|id| self.terminals.get_mut(id));
        let terminal = terminal.ok_or(ReportError::Unknown)?;
        match &mut terminal.last {
            // An attempt that was cancelled before it ran has no token, so no caller can report for it.
            Some(attempt) if !token.is_empty() && attempt.token == token => {
                terminal.heard = Some(now);
                attempt.heard = now;
                Ok((terminal.id.clone(), attempt))
            }
            _ => Err(ReportError::WrongToken),
        }
    }

    /// An attempt says how far it is.
    pub fn progress(
        &mut self,
        now: Duration,
        number: u64,
        token: &str,
        progress: Progress,
        ties: &Ties,
    ) -> Result<(Orders, Vec<Change>), ReportError> {
        let (id, attempt) = self.reporting(now, number, token)?;
        attempt.course.reach(progress.stage, now);
        let before = attempt.progress.replace(bounds::progress(progress)).map(|p| p.stage);
        let changed = before != attempt.progress.as_ref().map(|p| p.stage);
        let attempt = attempt.clone();
        // A report may arrive after the outcome, because they are two calls.
        let effects = match attempt.outcome {
            None => self.jobs.renew(&id, number, attempt.was_committed(), now),
            Some(_) => Effects::default(),
        };
        let written = self.written.entry(number).or_insert(Duration::ZERO);
        let mut changes = Vec::new();
        if changed || now.saturating_sub(*written) >= WRITE_EVERY {
            *written = now;
            changes.push(Change::Attempt(id, Box::new(attempt.clone())));
        }
        changes.extend(self.apply(effects, now));
        Ok((self.orders(&attempt, ties, now), changes))
    }

    /// An attempt ended. The first outcome stands, so that a report that is sent twice does no harm; only the
    /// one that the server made up when a person cancelled is replaced by the terminal's own. The second
    /// report is stored like the first, because the database may have refused that one.
    pub fn outcome(
        &mut self,
        now: Duration,
        number: u64,
        token: &str,
        outcome: Outcome,
        ties: &Ties,
    ) -> Result<(Orders, Vec<Change>), ReportError> {
        let warning = self.of_attempt(number).and_then(|id| self.moved_warning(id));
        let (id, attempt) = self.reporting(now, number, token)?;
        let mut changes = Vec::new();
        // After a person's stop the agent may tell how it ended, once: it repeats what it thinks was lost.
        let stopped = attempt.cancelled && !matches!(attempt.outcome, Some(Outcome::Done { .. }));
        let first = attempt.outcome.is_none() || stopped;
        if first {
            let mut outcome = bounds::outcome(outcome);
            if let Outcome::Done { warnings, .. } = &mut outcome {
                warnings.extend(warning);
            }
            attempt.outcome = Some(outcome);
            attempt.ended = Some(now);
        }
        let attempt = attempt.clone();
        if !attempt.leaves_half_a_system() {
            self.moved.remove(&id);
        }
        if let Some(outcome) = &attempt.outcome {
            let effects = match first {
                true => self.jobs.outcome(&id, number, outcome, now),
                false => self.jobs.again(&id, number),
            };
            changes.push(Change::Attempt(id, Box::new(attempt.clone())));
            changes.extend(self.apply(effects, now));
        }
        Ok((self.orders(&attempt, ties, now), changes))
    }

    /// What people should know if this half-written terminal says now that it is done. Whoever asks for the
    /// boot script of a terminal that is switched off gets its ticket, and speaks in its name.
    fn moved_warning(&self, id: &str) -> Option<String> {
        let (earlier, address) = (self.moved.get(id)?, self.get(id)?.address.as_ref()?);
        Some(format!(
            "it was half written at {earlier}, and {address} said that it is done: if DHCP did not give it \
             another address, somebody may have spoken in its name; check that its system starts"
        ))
    }

    /// An attempt hands over its log.
    pub fn log(
        &mut self,
        now: Duration,
        attempt: u64,
        token: &str,
        packed: Vec<u8>,
    ) -> Result<Change, ReportError> {
        self.reporting(now, attempt, token)?;
        Ok(Change::Log { attempt, received: now, packed })
    }

    /// Keeps the disks that an attempt will write, regardless of its outcome: after a power cut, the same
    /// rule must not choose another disk.
    pub fn chosen(&mut self, number: u64, chosen: Vec<Chosen>) -> Option<Change> {
        let terminal = self.by_attempt.get(&number).and_then(|id| self.terminals.get_mut(id))?;
        let mut chosen = known::choose_again(&terminal.chosen, &bounds::chosen(chosen));
        chosen.truncate(bounds::MAX_PARTS);
        (chosen != terminal.chosen).then(|| {
            terminal.chosen = chosen;
            Change::Terminal(Box::new(terminal.clone()))
        })
    }

    fn orders(&self, attempt: &Attempt, ties: &Ties, now: Duration) -> Orders {
        let cancel = attempt.cancelled && !matches!(attempt.outcome, Some(Outcome::Done { .. }));
        // A thousand terminals report each second, and only the finished ones ask whether others need them.
        if attempt.outcome.is_none() {
            return Orders { release: false, cancel, wake: Vec::new() };
        }
        let me = self.by_attempt.get(&attempt.number).and_then(|id| self.get(id)).and_then(Terminal::ip);
        // The zones are compared last.
        let needs_me = |other: &&Terminal| {
            other.last.as_ref().is_some_and(|last| last.is_live(now)) && ties.needs(other.ip(), me)
        };
        let others = self.terminals.values().filter(needs_me).filter_map(|t| t.last.as_ref());
        // A terminal on its way is where it was the last time, or anywhere.
        let place = |id: &str| self.get(id).and_then(Terminal::ip);
        let coming = self.coming.iter(now).filter(|(id, _)| ties.needs(place(id), me));
        let release = jobs::may_leave(attempt, others, coming.flat_map(|(_, images)| images), now);
        Orders { release, cancel, wake: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, begin, lab};
    use super::*;
    use crate::event::Stage;
    use crate::image_id::ImageId;
    use crate::testkit::lab::{at, done, hello_of};

    #[test]
    fn a_stranger_who_asks_in_the_names_of_others_holds_no_finished_terminal_for_long() {
        let mut lab = lab();
        let a = begin(&mut lab, 1, A, "a");
        lab.outcome(at(2), a, "a", done(), &Ties::default()).expect("taken");
        let serving = Progress::at(Stage::Serve);
        let mut held = 0;
        for now in (10..3610).step_by(60) {
            lab.expect(at(now), B, [10, 0, 0, 66].into(), vec![ImageId::new("debian", "1")]);
            let orders = lab.progress(at(now), a, "a", serving.clone(), &Ties::default()).expect("taken").0;
            held += 60 * u64::from(!orders.release);
        }
        assert!((60..=360).contains(&held), "{held} s of an hour");
    }

    #[test]
    fn a_half_written_terminal_that_is_done_at_another_address_has_a_warning() {
        for (address, warned) in [("10.0.0.9", false), ("10.0.0.66", true)] {
            let mut lab = lab();
            let half = begin(&mut lab, 1, A, "a");
            lab.progress(at(2), half, "a", Progress::at(Stage::Fetch), &Ties::default()).expect("taken");
            for from in [address, address] {
                lab.hello(at(100), from.into(), hello_of(A)).expect("known");
            }
            let again = begin(&mut lab, 101, A, "b");
            lab.outcome(at(102), again, "b", done(), &Ties::default()).expect("taken");
            let last = lab.get(A).and_then(|terminal| terminal.last.clone()).expect("an attempt");
            let Some(Outcome::Done { warnings, .. }) = last.outcome else { panic!("it is done") };
            assert_eq!(
                warnings.iter().any(|text| text.contains("10.0.0.9") && text.contains(address)),
                warned
            );
            assert_eq!(warnings.len(), usize::from(warned));
            lab.hello(at(200), "10.0.0.77".into(), hello_of(A)).expect("known");
            let whole = begin(&mut lab, 201, A, "c");
            lab.outcome(at(202), whole, "c", done(), &Ties::default()).expect("taken");
            let last = lab.get(A).and_then(|terminal| terminal.last.clone()).expect("an attempt");
            assert!(matches!(last.outcome, Some(Outcome::Done { warnings, .. }) if warnings.is_empty()));
        }
    }

    #[test]
    fn a_terminal_that_is_told_the_same_again_is_no_news_for_an_hour() {
        let mut lab = lab();
        let news = |lab: &mut Lab, step: &str, now| lab.is_news(A, step, at(now));
        assert!(news(&mut lab, "disk", 0) && !news(&mut lab, "disk", 1) && news(&mut lab, "wait", 2));
        assert!(!news(&mut lab, "wait", 3601) && news(&mut lab, "wait", 3602));
        assert!(lab.is_news(B, "wait", at(3)), "another terminal");
    }
}
