//! A person's words about a job: cancel it, let terminals begin again.
//!
//! Invariant: each word has one result in each state; one that would change nothing is refused with advice.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Effects, JobChange, Jobs, Kind, Moment, Phase, State, Stop};
use crate::api::{Compare, Refusal};
use crate::server::domain::targets::Meant;

/// How long a terminal may begin that a person retried when the rest of its job's window was too short.
const AGAIN: SignedDuration = SignedDuration::from_hours(12);

/// Which terminals of a job are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    /// All that have not succeeded.
    Unsuccessful,
    /// These. One that is done only if it has a word of its own, because a person may use its system.
    Named(&'a Meant),
}

/// A person's word, carried out or refused for each terminal.
pub(crate) type Each<T> = Vec<(String, Result<T, Refusal>)>;

/// What a terminal has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) jobs: Vec<u64>,
    /// An attempt was under way.
    pub(crate) running: bool,
}

fn refused(error: String, advice: &str) -> Refusal {
    Refusal { error, advice: advice.into() }
}

fn no_job(number: u64) -> Refusal {
    refused(format!("there is no job {number}"), "'flashmob job list' shows all jobs.")
}

impl Jobs {
    /// Ends a job: no terminal begins, and those under way stop, including those that are silent now.
    pub(crate) fn cancel(&mut self, number: u64, at: &Moment) -> Result<Effects, Refusal> {
        let entry = self.entries.get_mut(&number).ok_or_else(|| no_job(number))?;
        if entry.job.is_over() {
            return Err(refused(
                format!("job {number} is over already"),
                "'flashmob job list' shows which are not.",
            ));
        }
        entry.job.cancelled = true;
        entry.job.next = None;
        // A planned run ends before it opened.
        entry.job.run.phase = Phase::Open;
        let all: Vec<String> = entry.members.keys().cloned().collect();
        let mut effects = self.stop(number, &all, at);
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.job.run.phase = Phase::Over;
            effects.changes.push(JobChange::Job(Box::new(entry.job.clone())));
        }
        Ok(effects)
    }

    /// Takes terminals out of all jobs that are still to come or under way for them, until a person retries
    /// them.
    pub(crate) fn cancel_terminals(&mut self, terminals: &[String], at: &Moment) -> (Each<Left>, Effects) {
        let (mut each, mut of_job) = (Each::new(), BTreeMap::<u64, Vec<String>>::new());
        for id in terminals {
            let mut left = Left::default();
            let wanted = self.of(id);
            let wanted = wanted
                .filter(|(job, member)| !member.out && (!member.state.is_final() || job.next.is_some()));
            for (job, member) in wanted {
                left.jobs.push(job.number);
                left.running |= member.state == State::Running;
                of_job.entry(job.number).or_default().push(id.clone());
            }
            let advice = "'flashmob terminal list' shows the state of each one.";
            each.push(match left.jobs.is_empty() {
                true => (id.clone(), Err(refused(format!("terminal {id} has nothing to cancel"), advice))),
                false => (id.clone(), Ok(left)),
            });
        }
        let mut effects = Effects::default();
        for (number, ids) in of_job {
            effects.and(self.stop(number, &ids, at));
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            for id in &ids {
                if let Some(member) = entry.members.get_mut(id) {
                    member.out = true;
                }
                effects.changes.push(entry.change(id));
            }
        }
        (each, effects)
    }

    fn stop(&mut self, number: u64, terminals: &[String], at: &Moment) -> Effects {
        let Some(entry) = self.entries.get_mut(&number) else { return Effects::default() };
        let (mut ids, mut stops, mut committed) = (Vec::new(), Vec::new(), Vec::new());
        for id in terminals {
            let Some(member) = entry.members.get_mut(id).filter(|member| member.state != State::Done) else {
                continue;
            };
            // Only its outcome is missing.
            if self.leases.get(id).is_some_and(|lease| lease.job == number && lease.committed) {
                committed.push(id.clone());
                continue;
            }
            let reason = "cancelled by a person";
            stops.extend(Stop::of(id, member, reason));
            if member.state.is_final() {
                continue;
            }
            member.enter(State::Cancelled, at.date.timestamp(), reason);
            self.granted.came(id);
            self.woken.remove(id);
            ids.push(id.clone());
        }
        let mut changes = entry.changes(&ids);
        ids.iter().for_each(|id| self.end_lease(id, number));
        for id in committed {
            changes.extend(self.committed(&id, number, at.date.timestamp()));
            self.end_lease(&id, number);
        }
        Effects { changes, stops }
    }

    /// Lets terminals of a job begin again. Those that wait, are under way or have another job are left as
    /// they are, and the answer says why.
    pub(crate) fn retry(
        &mut self,
        number: u64,
        which: Which<'_>,
        compare: Option<Compare>,
        at: &Moment,
    ) -> (Each<()>, Effects) {
        let mut effects = Effects { changes: self.expire(at), stops: Vec::new() };
        let names: Vec<String> = match which {
            Which::Unsuccessful => {
                let again = |state: State| state.is_final() && state != State::Done;
                let members = self.members(number).filter(|(_, member)| again(member.state));
                members.map(|(id, _)| id.to_owned()).collect()
            }
            Which::Named(meant) => meant.ids.clone(),
        };
        let (mut each, mut again) = (Each::new(), Vec::new());
        for id in names {
            let may = self.may_retry(number, &id, which);
            if may.is_ok() {
                again.push(id.clone());
            }
            each.push((id, may));
        }
        let date = at.date.timestamp();
        let Some(entry) = self.entries.get_mut(&number).filter(|_| !again.is_empty()) else {
            return (each, effects);
        };
        let later = date.checked_add(AGAIN).unwrap_or(Timestamp::MAX);
        let left = entry.job.run.closes.duration_since(date).as_secs();
        let needs = i64::try_from(entry.job.needs).unwrap_or(i64::MAX);
        let too_short = date >= entry.job.run.opens && (left <= 0 || left < needs);
        let until = too_short.then_some(later);
        for id in &again {
            if let Some(member) = entry.members.get_mut(id) {
                member.retry(compare, until, date);
            }
        }
        // A date that was set back does not plan a run again that others are in.
        let open = entry.job.run.phase == Phase::Open || date >= entry.job.run.opens;
        entry.job.run.phase = if open { Phase::Open } else { Phase::Planned };
        entry.job.cancelled = false;
        effects.changes.extend(entry.changes(&again));
        effects.changes.push(JobChange::Job(Box::new(entry.job.clone())));
        for id in &again {
            self.woken.remove(id);
            self.forget_answers(id);
        }
        (each, effects)
    }

    fn may_retry(&self, number: u64, terminal: &str, which: Which<'_>) -> Result<(), Refusal> {
        let Some(member) = self.member(number, terminal) else {
            let advice = "'flashmob job show' lists its terminals; 'flashmob job create' makes a new job.";
            return Err(refused(format!("terminal {terminal} is not in job {number}"), advice));
        };
        match member.state {
            State::Waiting if member.tries == 0 => Err(refused(
                format!("terminal {terminal} waits already"),
                "It begins when it boots from the network.",
            )),
            State::Running => Err(refused(
                format!("terminal {terminal} is imaging now"),
                "Wait until it is done, or stop it with 'flashmob terminal cancel'.",
            )),
            State::Done if matches!(which, Which::Named(meant) if !meant.is_alone(terminal)) => Err(refused(
                format!("terminal {terminal} is done"),
                "Name it by its label or MAC to image it again.",
            )),
            _ => match self.get(number) {
                Some(job) => self.free_for(terminal, number, job.kind()),
                None => Err(no_job(number)),
            },
        }
    }

    /// A terminal is in at most one unfinished single job, in one standing job, and in one preflight of each.
    pub(crate) fn free_for(&self, terminal: &str, number: u64, kind: Kind) -> Result<(), Refusal> {
        let busy = self.of(terminal).find(|(job, member)| {
            let unfinished = !member.state.is_final() || job.standing.is_some() && job.next.is_some();
            job.number != number && job.kind() == kind && unfinished
        });
        match busy {
            None => Ok(()),
            Some((job, _)) => Err(refused(
                format!("terminal {terminal} is in job {} already", job.number),
                "Wait for that job, or cancel it with 'flashmob job cancel' or 'flashmob terminal cancel'.",
            )),
        }
    }
}
