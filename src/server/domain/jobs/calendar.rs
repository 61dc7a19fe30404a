//! Windows that open and close, and the runs of standing jobs.
//!
//! Invariant: a run goes from planned to open to over, never back by the date. What was missed while the
//! server was down begins late inside its window, else it is reported as missed.

use super::{Effects, Entry, Job, Jobs, Moment, Overrun, Phase, State};
use crate::image_id::{ImageId, ImageRef};

/// Why a terminal did not begin in a window during which the server did not run.
const NOT_RUNNING: &str = "the server did not run during the window";

impl Jobs {
    /// Brings everything up to this moment: leases, windows, runs. `half_written` knows the terminals whose
    /// disks are, `newest` the version that an image's name means now.
    pub(crate) fn tick(
        &mut self,
        at: &Moment,
        half_written: &dyn Fn(&str) -> bool,
        newest: &dyn Fn(&ImageRef) -> Option<ImageId>,
    ) -> Effects {
        let mut effects = Effects { changes: self.expire(at), stops: Vec::new() };
        let mut stopped = Vec::new();
        for entry in self.entries.values_mut() {
            effects.and(entry.begin_next_run(at, newest));
            effects.and(entry.open(at));
            let closed = entry.close(at, half_written);
            stopped.extend(closed.stops.iter().map(|(id, _)| id.clone()));
            effects.and(closed);
            // Nobody may be left, because terminals were cancelled before the window opened, or forgotten.
            effects.changes.extend(entry.changes(&[]));
        }
        for id in stopped {
            self.leases.remove(&id);
        }
        effects
    }
}

impl Entry {
    /// The window of a planned run opens.
    fn open(&mut self, at: &Moment) -> Effects {
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
        let mut ids = Vec::new();
        for (id, member) in &mut self.members {
            if member.state == State::Waiting {
                member.enter(State::Missed, at.date.timestamp(), NOT_RUNNING);
                ids.push(id.clone());
            }
        }
        changes.extend(ids.iter().map(|id| self.change(id)));
        Effects { changes, stops: Vec::new() }
    }

    /// The window of an open run closes: terminals that have not begun have missed it.
    fn close(&mut self, at: &Moment, half_written: &dyn Fn(&str) -> bool) -> Effects {
        let date = at.date.timestamp();
        if self.job.run.phase != Phase::Open {
            return Effects::default();
        }
        let (run, pace, needs) = (&self.job.run, &self.job.pace, self.job.needs);
        let mut ids = Vec::new();
        let mut stops = Vec::new();
        for (id, member) in &mut self.members {
            let closes = member.until.unwrap_or(run.closes);
            if date < closes {
                continue;
            }
            match member.state {
                State::Waiting if pace.overrun == Overrun::Finish && half_written(id) => continue,
                State::Waiting if !member.heard && pace.wake => {
                    member.enter(State::Asleep, date, "it did not wake");
                }
                State::Waiting if !member.heard => {
                    member.enter(State::Missed, date, "it did not boot from the network");
                }
                State::Waiting if member.tries > 0 => {
                    let reason = std::mem::take(&mut member.reason);
                    member.enter(State::Failed, date, format!("{reason}; then the window ended"));
                }
                State::Waiting => {
                    let reason = match needs / 60 {
                        0 => "its turn did not come before the window ended".to_string(),
                        min => format!(
                            "its turn did not come, or less than the {min} min that imaging takes were left"
                        ),
                    };
                    member.enter(State::Missed, date, reason);
                }
                State::Running if pace.overrun == Overrun::Stop => {
                    let reason = "the window ended, and the job says stop";
                    member.enter(State::Cancelled, date, reason);
                    stops.push((id.clone(), reason.to_string()));
                }
                _ => continue,
            }
            ids.push(id.clone());
        }
        if ids.is_empty() {
            return Effects::default();
        }
        Effects { changes: self.changes(&ids), stops }
    }

    /// A standing job's next run takes the place of the one before.
    fn begin_next_run(&mut self, at: &Moment, newest: &dyn Fn(&ImageRef) -> Option<ImageId>) -> Effects {
        let (Some(standing), Some(mut opens)) = (self.job.standing.clone(), self.job.next) else {
            return Effects::default();
        };
        let date = at.date.timestamp();
        if date < opens {
            return Effects::default();
        }
        let zone = at.date.time_zone();
        let (mut closes, mut next) = Job::window(&standing, &opens.to_zoned(zone.clone()));
        // Of several windows that passed while the server was down, the last one stands for all.
        while closes <= date && next <= date {
            opens = next;
            (closes, next) = Job::window(&standing, &opens.to_zoned(zone.clone()));
        }
        if standing.follow {
            for image in &mut self.job.terms.images {
                let named = ImageRef { name: image.id.name.clone(), version: None };
                image.id = newest(&named).unwrap_or_else(|| image.id.clone());
            }
        }
        let number = self.job.run.number + 1;
        self.job.run = super::Run { number, opens, closes, phase: Phase::Planned };
        self.job.next = Some(next);
        for member in self.members.values_mut() {
            // One that is still under way goes on in the new run.
            if member.state != State::Running {
                let attempt = member.attempt;
                *member = super::Member { attempt, ..super::Member::waiting(date) };
            }
        }
        let mut changes = vec![super::JobChange::Job(Box::new(self.job.clone()))];
        changes.extend(self.members.keys().map(|id| self.change(id)));
        Effects { changes, stops: Vec::new() }
    }
}
