//! Terminals at work: a lease holds a place of the wave from the take on, reports renew it, an outcome or
//! silence ends it.
//!
//! Invariant: a terminal has at most one lease. One whose image was committed is done when its lease ends,
//! and never begins again by itself.

use std::time::Duration;

use jiff::Timestamp;

use super::{Effects, JobChange, Jobs, LEASE, Lease, Moment, Phase, State, stamp};
use crate::event::{Class, Outcome};

/// Why a terminal is done that did not say so.
pub(super) const COMMITTED: &str = "its image is on the disk; it did not tell how it ended";

impl Jobs {
    /// An attempt at a job's target begins.
    pub(crate) fn take(&mut self, terminal: &str, job: &str, attempt: u64, now: Duration) -> Effects {
        let Ok(number) = job.parse::<u64>() else { return self.take_by_hand(terminal, now) };
        let repeats = self.repeats(terminal, number, now);
        let Some(entry) = self.entries.get_mut(&number) else { return Effects::default() };
        let Some(member) = entry.members.get_mut(terminal) else { return Effects::default() };
        let before = self.leases.get(terminal).filter(|_| repeats);
        // One that crashes right after each take must not repeat the same attempt for ever.
        let began = before.map_or(now, |lease| lease.began);
        if repeats {
            member.tries = member.tries.saturating_sub(1);
        }
        member.take(attempt, stamp(now));
        let mut changes = entry.changes(&[terminal.into()]);
        self.granted.came(terminal);
        self.woken.remove(terminal);
        self.forget_answers(terminal);
        changes.extend(self.leave_others(terminal, Some(number), now));
        let lease = Lease { job: number, began, renewed: now, reported: false, committed: false };
        self.leases.insert(terminal.into(), lease);
        Effects { changes, stops: Vec::new() }
    }

    /// An attempt begins that is of no job here. The terminal has left the job that it was under way with.
    fn take_by_hand(&mut self, terminal: &str, now: Duration) -> Effects {
        let mut changes = Vec::new();
        match self.leases.remove(terminal) {
            Some(Lease { job, committed: true, .. }) => {
                changes.extend(self.committed(terminal, job, stamp(now)));
            }
            Some(_) => changes.extend(self.leave_others(terminal, None, now)),
            None => {}
        }
        Effects { changes, stops: Vec::new() }
    }

    /// A terminal that begins job `number` has left whatever it was under way with.
    fn leave_others(&mut self, terminal: &str, number: Option<u64>, now: Duration) -> Vec<JobChange> {
        let others = self.of_terminal.get(terminal).cloned().unwrap_or_default();
        let mut changes = Vec::new();
        for other in others.into_iter().filter(|other| Some(*other) != number) {
            let Some(entry) = self.entries.get_mut(&other) else { continue };
            let attempts = entry.job.pace.attempts;
            let Some(member) = entry.members.get_mut(terminal) else { continue };
            if member.state == State::Running {
                member.try_again_or_fail(attempts, stamp(now), "it was cut off");
                changes.extend(entry.changes(&[terminal.into()]));
            }
        }
        changes
    }

    /// Ends a terminal's lease of this job. One of another job stays.
    pub(super) fn end_lease(&mut self, terminal: &str, job: u64) {
        if self.leases.get(terminal).is_some_and(|lease| lease.job == job) {
            self.leases.remove(terminal);
        }
    }

    /// The job in which `attempt` is a terminal's latest one.
    pub(super) fn job_of(&self, terminal: &str, attempt: u64) -> Option<u64> {
        let numbers = self.of_terminal.get(terminal)?;
        let is_of = |number: &&u64| {
            self.member(**number, terminal).is_some_and(|member| member.attempt == Some(attempt))
        };
        numbers.iter().rev().find(is_of).copied()
    }

    /// A terminal cannot do what a job wants: it has failed without an attempt, and boots its disk.
    pub(crate) fn unable(&mut self, terminal: &str, job: &str, why: &str, now: Duration) -> Effects {
        let entry = job.parse().ok().and_then(|number: u64| self.entries.get_mut(&number));
        let Some(entry) = entry else { return Effects::default() };
        let Some(member) = entry.members.get_mut(terminal) else { return Effects::default() };
        member.enter(State::Failed, stamp(now), why);
        let changes = entry.changes(&[terminal.into()]);
        self.granted.came(terminal);
        self.woken.remove(terminal);
        self.forget_answers(terminal);
        Effects { changes, stops: Vec::new() }
    }

    /// An attempt says that it goes on. One whose lease ended comes back, unless a person or the window
    /// stopped it.
    pub(crate) fn renew(&mut self, terminal: &str, attempt: u64, committed: bool, now: Duration) -> Effects {
        let Some(number) = self.job_of(terminal, attempt) else { return Effects::default() };
        let Some(entry) = self.entries.get_mut(&number) else { return Effects::default() };
        let Some(member) = entry.members.get_mut(terminal) else { return Effects::default() };
        let back = match member.state {
            State::Running => false,
            State::Waiting | State::Failed if member.tries > 0 => true,
            _ => return Effects::default(),
        };
        let began = self.leases.get(terminal).map_or(now, |lease| lease.began);
        let lease = Lease { job: number, began, renewed: now, reported: true, committed };
        self.leases.insert(terminal.into(), lease);
        if !back {
            return Effects::default();
        }
        member.enter(State::Running, stamp(now), "");
        Effects { changes: entry.changes(&[terminal.into()]), stops: Vec::new() }
    }

    /// An attempt ended. Only the first outcome of an attempt reaches this, or its own "done" after a
    /// person's stop.
    pub(crate) fn outcome(
        &mut self,
        terminal: &str,
        attempt: u64,
        outcome: &Outcome,
        now: Duration,
    ) -> Effects {
        let Some(number) = self.job_of(terminal, attempt) else { return Effects::default() };
        let Some(entry) = self.entries.get_mut(&number) else { return Effects::default() };
        let (attempts, preflight) = (entry.job.pace.attempts, entry.job.terms.preflight);
        let Some(member) = entry.members.get_mut(terminal) else { return Effects::default() };
        let since = stamp(now);
        match outcome {
            Outcome::Done { .. } => member.enter(State::Done, since, ""),
            Outcome::Checked { .. } if member.state == State::Cancelled => return Effects::default(),
            Outcome::Checked { findings, .. } if preflight => member.checked(findings, since),
            Outcome::Checked { .. } => member.enter(State::Failed, since, "it only looked at its disk"),
            Outcome::Failed { failure, .. } => match member.state {
                State::Cancelled | State::Done | State::Missed | State::Asleep => return Effects::default(),
                State::Waiting | State::Running if failure.class == Class::Retry => {
                    member.try_again_or_fail(attempts, since, &failure.message);
                }
                _ => member.enter(State::Failed, since, &*failure.message),
            },
        }
        let done = member.state == State::Done && entry.job.standing.is_none() && !preflight;
        let mut changes = entry.changes(&[terminal.into()]);
        self.end_lease(terminal, number);
        if done {
            changes.extend(self.spare(terminal, number, since));
        }
        Effects { changes, stops: Vec::new() }
    }

    /// A single job has imaged a terminal: the standing job whose window is open leaves it as it is.
    fn spare(&mut self, terminal: &str, by: u64, since: Timestamp) -> Vec<JobChange> {
        let others = self.of_terminal.get(terminal).cloned().unwrap_or_default();
        let mut changes = Vec::new();
        for other in others.into_iter().filter(|other| *other != by) {
            let Some(entry) = self.entries.get_mut(&other) else { continue };
            let open = entry.job.standing.is_some() && entry.job.run.phase == Phase::Open;
            let Some(member) = entry.members.get_mut(terminal) else { continue };
            if open && member.state == State::Waiting {
                member.enter(State::Missed, since, format!("job {by} imaged it in this window"));
                changes.extend(entry.changes(&[terminal.into()]));
            }
        }
        changes
    }

    /// Where an attempt has left its terminal and its job, to be stored once more.
    pub(crate) fn again(&self, terminal: &str, attempt: u64) -> Effects {
        let entry = self.job_of(terminal, attempt).and_then(|number| self.entries.get(&number));
        let changes =
            entry.map(|entry| vec![entry.change(terminal), JobChange::Job(Box::new(entry.job.clone()))]);
        Effects { changes: changes.unwrap_or_default(), stops: Vec::new() }
    }

    /// Ends the leases of attempts that are silent for too long, and frees their places.
    pub(super) fn expire(&mut self, at: &Moment) -> Vec<JobChange> {
        let live = |lease: &Lease| at.now.saturating_sub(lease.renewed) < LEASE;
        let since = at.date.timestamp();
        let (mut changes, mut committed) = (Vec::new(), Vec::new());
        for (number, entry) in &mut self.entries {
            let attempts = entry.job.pace.attempts;
            let mut ids = Vec::new();
            for (id, member) in &mut entry.members {
                let lease = self.leases.get(id).filter(|lease| lease.job == *number);
                if member.state != State::Running || lease.is_some_and(live) {
                    continue;
                }
                if lease.is_some_and(|lease| lease.committed) {
                    committed.push((id.clone(), *number));
                    continue;
                }
                let reason = match member.tries {
                    0 | 1 => "it was cut off".to_string(),
                    tries => format!("it was cut off {tries} times in a row"),
                };
                member.try_again_or_fail(attempts, since, &reason);
                ids.push(id.clone());
            }
            if !ids.is_empty() {
                changes.extend(entry.changes(&ids));
            }
        }
        self.leases.retain(|_, lease| live(lease));
        for (id, number) in committed {
            changes.extend(self.committed(&id, number, since));
        }
        changes
    }

    /// A terminal fell silent after its image was committed: it is done. It never starts again by itself,
    /// because a person may use the new system by now.
    pub(super) fn committed(&mut self, terminal: &str, number: u64, since: Timestamp) -> Vec<JobChange> {
        let Some(entry) = self.entries.get_mut(&number) else { return Vec::new() };
        let Some(member) = entry.members.get_mut(terminal) else { return Vec::new() };
        member.enter(State::Done, since, COMMITTED);
        let single = entry.job.standing.is_none();
        let mut changes = entry.changes(&[terminal.into()]);
        if single {
            changes.extend(self.spare(terminal, number, since));
        }
        changes
    }
}
