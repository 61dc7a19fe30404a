//! Windows that open and close, and the runs of standing jobs.
//!
//! Invariant: a run goes from planned to open to over, never back by the date. What was missed while the
//! server was down begins late inside its window, else it is reported as missed.

use jiff::{SignedDuration, Timestamp};

use super::lease::COMMITTED;
use super::turn::closes;
use super::{Effects, Entry, Job, Jobs, Member, Moment, Newest, Overrun, Phase, State, Stop};
use crate::image_id::ImageRef;

/// Why a terminal has not begun in a window whose end the server did not see.
const NOT_TO_THE_END: &str = "the server did not run until the end of the window";

/// What becomes of a terminal in a run that the next one replaces while it is under way.
const GOES_ON: &str = "it was under way when the next run began, and goes on in that one";

/// Why a terminal did not begin in a window during which the server did not run.
const NOT_RUNNING: &str = "the server did not run during the window";

/// A date that is set back by less than this leaves the calendar as it is.
const DRIFT: SignedDuration = SignedDuration::from_hours(1);

impl Jobs {
    /// Brings everything up to this moment: leases, windows, runs. `half_written` knows the terminals whose
    /// disks are, `newest` the version that an image's name means now.
    pub(crate) fn tick(
        &mut self,
        at: &Moment,
        half_written: &dyn Fn(&str) -> bool,
        newest: Newest<'_>,
    ) -> Effects {
        let mut effects = Effects { changes: self.expire(at), stops: Vec::new() };
        let mut stopped = Vec::new();
        for entry in self.entries.values_mut() {
            let committed = |id: &str| self.leases.get(id).is_some_and(|lease| lease.committed);
            let (next, ended) = entry.begin_next_run(at, newest, &committed);
            stopped.extend(ended.into_iter().map(|id| (id, entry.job.number)));
            effects.and(next);
            effects.and(entry.open(at));
            let (closed, ended) = entry.close(at, half_written, &committed);
            stopped.extend(ended.into_iter().map(|id| (id, entry.job.number)));
            effects.and(closed);
            // Nobody may be left, because terminals were cancelled before the window opened, or forgotten.
            effects.changes.extend(entry.changes(&[]));
        }
        for (id, number) in stopped {
            self.end_lease(&id, number);
            self.woken.remove(&id);
        }
        effects
    }
}

impl Entry {
    /// The window of a planned run opens.
    pub(super) fn open(&mut self, at: &Moment) -> Effects {
        let date = at.date.timestamp();
        let run = &mut self.job.run;
        if run.phase != Phase::Planned || date < run.opens {
            return Effects::default();
        }
        if date < run.closes {
            run.phase = Phase::Open;
            let job = super::JobChange::Job(Box::new(self.job.clone()));
            return Effects { changes: vec![job], stops: Vec::new() };
        }
        self.miss(at)
    }

    /// Nobody began in a window that has passed.
    fn miss(&mut self, at: &Moment) -> Effects {
        self.job.run.phase = Phase::Over;
        let mut changes = vec![super::JobChange::Job(Box::new(self.job.clone()))];
        let missed = self.nobody_begins(at, NOT_RUNNING);
        changes.extend(missed.iter().map(|id| self.change(id)));
        Effects { changes, stops: Vec::new() }
    }

    /// Those that wait have missed the run. Returns them.
    fn nobody_begins(&mut self, at: &Moment, why: &str) -> Vec<String> {
        let mut missed = Vec::new();
        for (id, member) in self.members.iter_mut().filter(|(_, member)| member.state == State::Waiting) {
            member.enter(State::Missed, at.date.timestamp(), why);
            missed.push(id.clone());
        }
        missed
    }

    /// The window of an open run closes: terminals that have not begun have missed it. Of those that
    /// `committed` knows only the outcome is missing.
    fn close(
        &mut self,
        at: &Moment,
        half_written: &dyn Fn(&str) -> bool,
        committed: &dyn Fn(&str) -> bool,
    ) -> (Effects, Vec<String>) {
        let date = at.date.timestamp();
        if self.job.run.phase != Phase::Open {
            return (Effects::default(), Vec::new());
        }
        let Entry { job, members, .. } = self;
        let due = |member: &Member| date >= member.until.unwrap_or(job.run.closes);
        let ids: Vec<String> =
            members.iter().filter(|(_, member)| due(member)).map(|(id, _)| id.clone()).collect();
        let (mut ended, mut stops) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(member) = self.members.get(&id) else { continue };
            if member.state == State::Waiting && self.may_finish(member, half_written(&id), date) {
                continue;
            }
            if member.state == State::Running && committed(&id) {
                continue;
            }
            let Some((state, reason)) = self.at_the_end(&id, member) else { continue };
            if let Some(member) = self.members.get_mut(&id) {
                if state == State::Cancelled {
                    stops.extend(Stop::of(&id, member, &reason));
                }
                member.enter(state, date, reason);
            }
            self.asked.remove(&id);
            ended.push(id);
        }
        if ended.is_empty() {
            return (Effects::default(), Vec::new());
        }
        (Effects { changes: self.changes(&ended), stops }, ended)
    }

    /// What the end of the window makes of a terminal's place; `None` if nothing.
    fn at_the_end(&self, id: &str, member: &Member) -> Option<(State, String)> {
        let pace = &self.job.pace;
        let told = self.asked.get(id).map(|told| format!("it asked, but {}", told.why));
        Some(match member.state {
            State::Running if pace.overrun == Overrun::Stop => {
                (State::Cancelled, "the window ended, and the job says stop".into())
            }
            State::Waiting if member.tries > 0 => {
                (State::Failed, format!("{}; then the window ended", member.reason))
            }
            State::Waiting if told.is_some() => (State::Missed, told.unwrap_or_default()),
            State::Waiting if !member.heard && pace.wake => (State::Asleep, "it did not wake".into()),
            State::Waiting if !member.heard => (State::Missed, "it did not boot from the network".into()),
            State::Waiting => {
                (State::Missed, "its agent came, and its turn did not before the window ended".into())
            }
            _ => return None,
        })
    }

    /// Ends a run that the date has left behind: nobody begins in it from now on.
    fn end_early(&mut self, at: &Moment) -> Effects {
        let missed = self.nobody_begins(at, "the server's date was set back");
        Effects { changes: self.changes(&missed), stops: Vec::new() }
    }

    /// Writes down what has become of each terminal in the run that the one from `opens` replaces. Returns
    /// those that were under way and do not go on in the next one.
    fn end_run(
        &mut self,
        opens: Timestamp,
        at: &Moment,
        committed: &dyn Fn(&str) -> bool,
    ) -> (Effects, Vec<String>) {
        let (mut effects, mut ended) = (Effects::default(), Vec::new());
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            let Some(member) = self.members.get(&id).filter(|member| !member.state.is_final()) else {
                continue;
            };
            // A server that runs closes a window before the next one opens.
            let unseen = member.tries == 0 && closes(&self.job, member) < opens;
            let (state, reason) = match member.state {
                State::Running if committed(&id) => (State::Done, COMMITTED.to_string()),
                State::Waiting if unseen && self.job.run.phase == Phase::Planned => {
                    (State::Missed, NOT_RUNNING.into())
                }
                State::Waiting if unseen => (State::Missed, NOT_TO_THE_END.into()),
                _ => self.at_the_end(&id, member).unwrap_or_else(|| (State::Failed, GOES_ON.into())),
            };
            let goes_on = state == State::Failed && member.state == State::Running;
            let before = member.clone();
            if state == State::Cancelled {
                effects.stops.extend(Stop::of(&id, member, &reason));
            }
            if let Some(member) = self.members.get_mut(&id) {
                member.enter(state, at.date.timestamp(), reason);
            }
            effects.changes.push(self.change(&id));
            match goes_on {
                true => drop(self.members.insert(id, before)),
                false => ended.push(id),
            }
        }
        (effects, ended)
    }

    /// A standing job's next run takes the place of the one before. `committed` knows the terminals whose
    /// images are on their disks while only their outcomes are missing. Returns those whose leases end.
    fn begin_next_run(
        &mut self,
        at: &Moment,
        newest: Newest<'_>,
        committed: &dyn Fn(&str) -> bool,
    ) -> (Effects, Vec<String>) {
        let (Some(standing), Some(mut opens)) = (self.job.standing.clone(), self.job.next) else {
            return Default::default();
        };
        let date = at.date.timestamp();
        let first = standing.every.next(&at.date).timestamp();
        let planned = self.job.run.phase == Phase::Planned;
        if planned && self.job.run.opens > first {
            // The date was set back after the job was created.
            let (closes, next) = Job::window(&standing, &first.to_zoned(at.date.time_zone().clone()));
            (self.job.run.opens, self.job.run.closes, self.job.next) = (first, closes, Some(next));
            let changes = vec![super::JobChange::Job(Box::new(self.job.clone()))];
            return (Effects { changes, stops: Vec::new() }, Vec::new());
        } else if !planned && opens > first && self.job.run.opens.duration_since(date) > DRIFT {
            // The date was wrong for a while, and the calendar went with it.
            self.job.next = Some(first);
            let mut effects = self.end_early(at);
            effects.changes.push(super::JobChange::Job(Box::new(self.job.clone())));
            return (effects, Vec::new());
        }
        if date < opens {
            return Default::default();
        }
        let (mut effects, ended) = self.end_run(opens, at, committed);
        let zone = at.date.time_zone();
        let (mut closes, mut next) = Job::window(&standing, &opens.to_zoned(zone.clone()));
        // Of several windows that passed while the server was down, the last one stands for all.
        while closes <= date && next <= date {
            opens = next;
            (closes, next) = Job::window(&standing, &opens.to_zoned(zone.clone()));
        }
        if standing.follow {
            let mut bytes = 0;
            for image in &mut self.job.terms.images {
                let named = ImageRef { name: image.id.name.clone(), version: None };
                let Some((id, size)) = newest(&named) else { continue };
                image.id = id;
                bytes += size;
            }
            if bytes > 0 && self.job.bytes > 0 {
                // A larger version takes longer.
                let needs = u128::from(self.job.needs) * u128::from(bytes) / u128::from(self.job.bytes);
                self.job.needs = u64::try_from(needs).unwrap_or(u64::MAX);
                self.job.bytes = bytes;
            }
        }
        let number = self.job.run.number + 1;
        self.asked.clear();
        self.job.run = super::Run { number, opens, closes, phase: Phase::Planned };
        self.job.next = Some(next);
        for member in self.members.values_mut() {
            // One that is still under way goes on in the new run.
            match member.state {
                State::Running => {}
                _ if member.out => member.enter(State::Cancelled, date, "cancelled by a person"),
                _ => *member = Member::waiting(date),
            }
        }
        effects.changes.push(super::JobChange::Job(Box::new(self.job.clone())));
        effects.changes.extend(self.members.keys().map(|id| self.change(id)));
        (effects, ended)
    }
}
