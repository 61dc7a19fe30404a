//! Whose turn it is: offers, places of a wave, leases.
//!
//! Invariant: nobody begins outside of a window, nor when the forecast says that the rest of it is too short.
//! A terminal whose disk is half written may go on after the window, unless the job says stop.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    COMING, Effects, Entry, Job, JobChange, Jobs, LEASE, Lease, Member, Moment, Overrun, Phase, State, stamp,
};
use crate::event::{Class, Outcome};
use crate::server::domain::target::Target;

/// How long a terminal that is being woken keeps a place of the wave.
const WAKING: Duration = Duration::from_secs(300);

/// What a terminal may do now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Offer {
    /// No job is for it now.
    Nothing,
    /// A job is for it, but not yet: why, for people.
    Later(String),
    /// It may begin.
    Now(Target),
}

/// A member's window as a person may have changed it.
fn closes(job: &Job, member: &Member) -> Timestamp {
    member.until.unwrap_or(job.run.closes)
}

impl Entry {
    /// May this member begin at `date`, places of the wave aside? `Err` says why not, for people.
    fn may_begin(&self, member: &Member, half_written: bool, date: Timestamp) -> Result<(), String> {
        let job = &self.job;
        if job.run.phase == Phase::Planned {
            return Err(format!("job {} opens at {}", job.number, job.run.opens));
        }
        if member.tries >= job.pace.attempts {
            return Err(format!("it was interrupted {} times in a row", member.tries));
        }
        if half_written && job.pace.overrun == Overrun::Finish {
            return Ok(());
        }
        let left = closes(job, member).duration_since(date).as_secs();
        if left <= 0 {
            return Err(format!("the window of job {} is over", job.number));
        }
        let needs = i64::try_from(job.needs).unwrap_or(i64::MAX);
        if left < needs {
            let (left, needs) = (left.div_euclid(60), needs.div_euclid(60) + 1);
            return Err(format!("the window ends in {left} min and imaging takes about {needs} min"));
        }
        Ok(())
    }
}

impl Jobs {
    /// The jobs in which this terminal has no final state, the one that goes first before the others:
    /// open ones before planned ones, a single job before a standing one.
    fn unfinished(&self, terminal: &str) -> Vec<&Entry> {
        let numbers = self.of_terminal.get(terminal).into_iter().flatten();
        let mut entries: Vec<&Entry> = numbers
            .filter_map(|number| self.entries.get(number))
            .filter(|entry| entry.members.get(terminal).is_some_and(|member| !member.state.is_final()))
            .collect();
        entries.sort_by_key(|e| (e.job.run.phase == Phase::Planned, e.job.standing.is_some(), e.job.number));
        entries
    }

    /// What `terminal` may do now. A terminal that asks while it holds a lease has restarted.
    pub(crate) fn offer(&self, terminal: &str, half_written: bool, at: &Moment) -> Offer {
        let mut why = None;
        for entry in self.unfinished(terminal) {
            let Some(member) = entry.members.get(terminal) else { continue };
            match entry.may_begin(member, half_written, at.date.timestamp()) {
                Ok(()) if self.has_place(entry, terminal, at.now) => {
                    let target = Target { job: entry.job.name(), terms: entry.job.terms.clone() };
                    return Offer::Now(target);
                }
                Ok(()) => {
                    let wave = entry.job.pace.wave.unwrap_or_default();
                    let number = entry.job.number;
                    why.get_or_insert(format!(
                        "job {number} images {wave} terminals at a time, and all places are taken"
                    ));
                }
                Err(reason) => {
                    why.get_or_insert(reason);
                }
            }
        }
        why.map_or(Offer::Nothing, Offer::Later)
    }

    /// Does this terminal wait only for a place of a wave?
    pub(crate) fn waits_for_a_place(&self, terminal: &str, half_written: bool, at: &Moment) -> bool {
        self.unfinished(terminal).into_iter().any(|entry| {
            let member = entry.members.get(terminal);
            member.is_some_and(|m| entry.may_begin(m, half_written, at.date.timestamp()).is_ok())
        }) && matches!(self.offer(terminal, half_written, at), Offer::Later(_))
    }

    fn has_place(&self, entry: &Entry, terminal: &str, now: Duration) -> bool {
        let Some(wave) = entry.job.pace.wave else { return true };
        self.taken(entry.job.number, Some(terminal), now) < usize::try_from(wave).unwrap_or(usize::MAX)
    }

    /// Places of a job's wave that others than `but` hold.
    pub(super) fn taken(&self, job: u64, but: Option<&str>, now: Duration) -> usize {
        let other = |id: &String| Some(id.as_str()) != but;
        let live = |lease: &Lease| lease.job == job && now.saturating_sub(lease.renewed) < LEASE;
        let leases = self.leases.iter().filter(|(id, lease)| other(id) && live(lease)).count();
        let coming = self.granted.iter().filter(|(id, (of, until))| {
            other(id) && *of == job && *until > now && !self.leases.contains_key(*id)
        });
        leases + coming.count()
    }

    /// A terminal was sent the agent for `job`: its place is kept while it starts.
    pub(crate) fn grant(&mut self, terminal: &str, job: &str, now: Duration) -> Effects {
        let Ok(number) = job.parse() else { return Effects::default() };
        self.granted.retain(|_, (_, until)| *until > now);
        self.granted.insert(terminal.into(), (number, now + COMING));
        self.spoke(terminal)
    }

    /// A terminal spoke: it is awake.
    pub(crate) fn spoke(&mut self, terminal: &str) -> Effects {
        self.woken.remove(terminal);
        let mut effects = Effects::default();
        for number in self.of_terminal.get(terminal).into_iter().flatten() {
            let Some(entry) = self.entries.get_mut(number) else { continue };
            let open = entry.job.run.phase == Phase::Open;
            let Some(member) = entry.members.get_mut(terminal) else { continue };
            if open && !member.heard && !member.state.is_final() {
                member.heard = true;
                effects.changes.push(entry.change(terminal));
            }
        }
        effects
    }

    /// An attempt at a job's target begins.
    pub(crate) fn take(&mut self, terminal: &str, job: &str, attempt: u64, now: Duration) -> Effects {
        let Ok(number) = job.parse::<u64>() else { return Effects::default() };
        let Some(entry) = self.entries.get_mut(&number) else { return Effects::default() };
        let Some(member) = entry.members.get_mut(terminal) else { return Effects::default() };
        if self.leases.get(terminal).is_some_and(|lease| lease.committed) {
            // Its image is on the disk, and only the stay in the swarm was interrupted.
            member.tries = member.tries.saturating_sub(1);
        }
        member.take(attempt, stamp(now));
        self.granted.remove(terminal);
        self.woken.remove(terminal);
        self.leases.insert(terminal.into(), Lease { job: number, renewed: now, committed: false });
        Effects { changes: entry.changes(&[terminal.into()]), stops: Vec::new() }
    }

    /// The job in which `attempt` is a terminal's latest one.
    fn job_of(&self, terminal: &str, attempt: u64) -> Option<u64> {
        let numbers = self.of_terminal.get(terminal)?;
        let is_of = |number: &&u64| {
            self.member(**number, terminal).is_some_and(|member| member.attempt == Some(attempt))
        };
        numbers.iter().rev().find(is_of).copied()
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
        self.leases.insert(terminal.into(), Lease { job: number, renewed: now, committed });
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
        let attempts = entry.job.pace.attempts;
        let Some(member) = entry.members.get_mut(terminal) else { return Effects::default() };
        self.leases.remove(terminal);
        let since = stamp(now);
        match outcome {
            Outcome::Done { .. } => member.enter(State::Done, since, ""),
            Outcome::Failed { failure, .. } => match member.state {
                State::Cancelled | State::Done => return Effects::default(),
                _ if failure.class == Class::Retry => {
                    member.try_again_or_fail(attempts, since, &failure.message);
                }
                _ => member.enter(State::Failed, since, &*failure.message),
            },
        }
        Effects { changes: entry.changes(&[terminal.into()]), stops: Vec::new() }
    }

    /// Ends the leases of attempts that are silent for too long, and frees their places.
    pub(super) fn expire(&mut self, at: &Moment) -> Vec<JobChange> {
        let silent: Vec<(String, Lease)> = self
            .leases
            .iter()
            .filter(|(_, lease)| at.now.saturating_sub(lease.renewed) >= LEASE)
            .map(|(id, lease)| (id.clone(), *lease))
            .collect();
        let mut changes = Vec::new();
        for (terminal, lease) in silent {
            self.leases.remove(&terminal);
            let Some(entry) = self.entries.get_mut(&lease.job) else { continue };
            let attempts = entry.job.pace.attempts;
            let Some(member) = entry.members.get_mut(&terminal) else { continue };
            if member.state != State::Running {
                continue;
            }
            let since = at.date.timestamp();
            if lease.committed {
                // Its image is on the disk: the next attempt only finds that out.
                member.tries = member.tries.saturating_sub(1);
            }
            let reason = match member.tries {
                0 | 1 => "it was cut off".to_string(),
                tries => format!("it was cut off {tries} times in a row"),
            };
            member.try_again_or_fail(attempts, since, &reason);
            changes.extend(entry.changes(&[terminal]));
        }
        changes
    }

    /// The terminals that should be switched on now: the first ones that have not spoken, as many as the
    /// wave has places. One that does not answer for [`WAKING`] gives its place to the next and is woken
    /// beside it.
    pub(crate) fn to_wake(&mut self, at: &Moment) -> Vec<String> {
        let mut wanted = Vec::new();
        let date = at.date.timestamp();
        for (number, entry) in &self.entries {
            if !entry.job.pace.wake || entry.job.run.phase != Phase::Open {
                continue;
            }
            let wave =
                entry.job.pace.wave.map_or(usize::MAX, |wave| usize::try_from(wave).unwrap_or(usize::MAX));
            let mut free = wave.saturating_sub(self.taken(*number, None, at.now));
            for (id, member) in &entry.members {
                let asleep = member.state == State::Waiting && !member.heard;
                if !asleep || entry.may_begin(member, false, date).is_err() {
                    continue;
                }
                let since = self.woken.get(id).copied();
                let late = since.is_some_and(|since| at.now.saturating_sub(since) >= WAKING);
                if !late && free == 0 {
                    continue;
                }
                if !late {
                    free -= 1;
                }
                self.woken.entry(id.clone()).or_insert(at.now);
                wanted.push(id.clone());
            }
        }
        wanted
    }
}
