//! Work for terminals: the jobs of the lab meet its terminals and their attempts.
//!
//! Invariant: `jobs` decides; this keeps the terminals' attempts in step with it, and hands on all changes in
//! the order in which they happened.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Zoned;

use super::{Change, Lab, Terminal};
use crate::api::{Compare, Refusal};
use crate::event::{Failure, Outcome, Stage};
use crate::server::domain::attempt::Attempt;
use crate::server::domain::identity::Mac;
use crate::server::domain::jobs::{
    self, AtBoot, Each, Effects, Job, Moment, Newest, Offer, Stop, Which, at_boot,
};
use crate::server::domain::limits;
use crate::server::domain::target::Target;

/// When a step that a netbooting terminal was told before is worth a line in the log again.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);

/// The last network boot of a terminal, or of somebody in its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Netboot {
    pub(crate) at: Duration,
    pub(crate) from: IpAddr,
    /// The card that it came by, if only a hello named that as its own.
    pub(crate) claimed: Option<Mac>,
    /// What the server told it, as the end of a sentence.
    pub(crate) told: String,
}

/// Work that a terminal has taken.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) attempt: Attempt,
    pub(crate) target: Target,
    pub(crate) compare: Compare,
    pub(crate) changes: Vec<Change>,
}

impl Lab {
    /// Whether the disk of this terminal is half written.
    pub(crate) fn is_half_written(&self, id: &str) -> bool {
        let last = self.get(id).and_then(|terminal| terminal.last.as_ref());
        last.is_some_and(Attempt::leaves_half_a_system)
    }

    /// The job that is for this terminal, whether it may begin now or not, else its latest one: an attempt by
    /// hand must not write the table of a disk whose job kept it.
    pub(crate) fn job_of(&self, id: &str) -> Option<&Job> {
        let unfinished = self.jobs.of(id).filter(|(_, member)| !member.state.is_final());
        let latest = || self.jobs.current(id).map(|(job, _)| job);
        unfinished.map(|(job, _)| job).next_back().or_else(latest)
    }

    /// What this terminal may do now.
    pub(crate) fn offer(&self, id: &str, at: &Moment) -> Offer {
        let offer = self.jobs.offer(id, self.is_half_written(id), at);
        if let (Offer::Now(_), Some(capture)) = (&offer, self.captures.of(id, at.now)) {
            return Offer::Later(format!("it is captured as {}", capture.request.image));
        }
        offer
    }

    /// A terminal reports that is not at work.
    pub(crate) fn is_heard(&mut self, id: &str, now: Duration) {
        if let Some(terminal) = self.terminals.get_mut(id) {
            terminal.heard = Some(now);
        }
    }

    /// The next step of a netbooting terminal.
    pub(crate) fn next_step(&mut self, id: &str, at: &Moment) -> AtBoot {
        let offer = self.offer(id, at);
        if let Offer::Later(why) | Offer::Queued(why) = &offer {
            self.jobs.asked(id, why);
        }
        if self.is_to_finish(id, &offer, at.now) {
            return AtBoot::Finish;
        }
        let last = self.get(id).and_then(|terminal| terminal.last.as_ref());
        let label = self.get(id).and_then(|terminal| terminal.place.label.as_deref());
        let name = label.filter(|label| !label.contains(char::is_whitespace));
        at_boot(name.unwrap_or(id), last, offer)
    }

    /// Is it worth a line in the log that this terminal, or somebody in its name, was told `step`? Yes if it
    /// was told something else before, or nothing for a while.
    pub(crate) fn is_news(&mut self, id: &str, step: &str, now: Duration) -> bool {
        let old = self.told.get(id);
        if old.is_some_and(|(told, logged)| told == step && now.saturating_sub(*logged) < TOLD_AGAIN) {
            return false;
        }
        if self.terminals.contains_key(id) {
            self.told.insert(id.into(), (step.into(), now));
        }
        true
    }

    /// A terminal, or somebody in its name, netboots.
    pub(crate) fn netbooted(&mut self, id: &str, netboot: Netboot) {
        if self.terminals.contains_key(id) {
            self.netboots.insert(id.into(), netboot);
        }
    }

    /// Its last network boot since the server's start.
    pub(crate) fn netboot_of(&self, id: &str) -> Option<&Netboot> {
        self.netboots.get(id)
    }

    /// A terminal, or somebody in its name, was sent the agent at `from`: its place is kept while it starts.
    pub(crate) fn grant(&mut self, id: &str, target: &Target, from: IpAddr, at: &Moment) {
        self.jobs.grant(id, &target.job, limits::owner(from), at.now);
    }

    /// A terminal takes `target`. `None` if it is not known.
    pub(crate) fn begin(&mut self, id: &str, target: Target, token: String, now: Duration) -> Option<Begun> {
        let last = self.get(id)?.last.as_ref();
        let number = target.job.parse().unwrap_or_default();
        let member = self.jobs.member(number, id);
        let compare = jobs::compare_of_next(last, &target, member.and_then(|member| member.compare));
        let (mut attempt, mut changes) = self.take(now, id, &target, token)?;
        let effects = self.jobs.take(id, &target.job, attempt.number, now);
        if let Some(member) = self.jobs.member(number, id) {
            attempt.tries = member.tries;
            self.replace_last(id, &attempt);
            // Its change is the last one.
            changes.pop();
            changes.push(Change::Attempt(id.into(), Box::new(attempt.clone())));
        }
        changes.extend(self.apply(effects, now));
        Some(Begun { attempt, target, compare, changes })
    }

    /// A terminal asked for its work of `job`, and was told `why` it does not get it before `again`.
    pub(crate) fn put_off(&mut self, id: &str, job: &str, why: &str, again: &Zoned) {
        self.jobs.put_off(id, job, why, again);
    }

    /// A terminal cannot do what a job wants, and why.
    pub(crate) fn unable(&mut self, id: &str, job: &str, why: &str, now: Duration) -> Vec<Change> {
        let effects = self.jobs.unable(id, job, why, now);
        self.apply(effects, now)
    }

    fn replace_last(&mut self, id: &str, attempt: &Attempt) {
        if let Some(terminal) = self.terminals.get_mut(id) {
            terminal.last = Some(attempt.clone());
        }
    }

    /// Carries out what follows from an event of a job.
    pub(super) fn apply(&mut self, effects: Effects, now: Duration) -> Vec<Change> {
        let mut changes: Vec<Change> = effects.changes.into_iter().map(Change::Job).collect();
        for Stop { terminal: id, attempt: number, why } in effects.stops {
            let last = self.terminals.get_mut(&id).and_then(|terminal| terminal.last.as_mut());
            let goes_on = |last: &&mut Attempt| last.number == number && last.outcome.is_none();
            let Some(attempt) = last.filter(goes_on) else { continue };
            let advice = format!("Start it again with 'flashmob terminal retry {id}'.");
            let stage = attempt.progress.as_ref().map_or(Stage::Discover, |p| p.stage);
            let disk_touched = stage >= Stage::Disarm;
            let failure = Failure::refused(why, advice);
            attempt.outcome = Some(Outcome::Failed { stage, failure, disk_touched });
            attempt.ended = Some(now);
            attempt.cancelled = true;
            changes.push(Change::Attempt(id, Box::new(attempt.clone())));
        }
        changes
    }

    /// Puts a job that was checked into force.
    pub(crate) fn add_job(&mut self, job: Job, terminals: &BTreeSet<String>, at: &Moment) -> Vec<Change> {
        let effects = self.jobs.add(job, terminals, at);
        self.apply(effects, at.now)
    }

    /// Brings all jobs up to this moment.
    pub(crate) fn tick(&mut self, at: &Moment, newest: Newest<'_>) -> Vec<Change> {
        let terminals = &self.terminals;
        let half_written = |id: &str| {
            let last = terminals.get(id).and_then(|terminal: &Terminal| terminal.last.as_ref());
            last.is_some_and(Attempt::leaves_half_a_system)
        };
        let effects = self.jobs.tick(at, &half_written, newest);
        self.apply(effects, at.now)
    }

    /// Terminals that should be switched on now.
    pub(crate) fn wanted_awake(&mut self, at: &Moment) -> Vec<String> {
        self.jobs.wanted_awake(at)
    }

    /// A person ends a job.
    pub(crate) fn cancel_job(&mut self, number: u64, at: &Moment) -> Result<Vec<Change>, Refusal> {
        let effects = self.jobs.cancel(number, at)?;
        Ok(self.apply(effects, at.now))
    }

    /// A person lets terminals of a job begin again.
    pub(crate) fn retry_job(
        &mut self,
        number: u64,
        which: Which<'_>,
        compare: Option<Compare>,
        at: &Moment,
    ) -> (Each<()>, Vec<Change>) {
        let (each, effects) = self.jobs.retry(number, which, compare, at);
        (each, self.apply(effects, at.now))
    }
}
