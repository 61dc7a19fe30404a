//! An administrator's decisions for one terminal: try again, or stop.
//!
//! Invariant: a decision is kept in the terminal's place in its job, so that it survives a restart; one that
//! cannot be carried out is refused with advice. `api` checks the caller.

use super::{Change, Lab};
use crate::api::{Compare, Refusal};
use crate::server::domain::attempt::Attempt;
use crate::server::domain::jobs::{Job, Moment, State, Which, stamp};
use crate::server::domain::target::BY_HAND;

impl Lab {
    /// An administrator wants another attempt at the terminal's latest job, and may choose how pieces on the
    /// disk are found, and accept the terminal's present disks.
    pub(crate) fn retry(
        &mut self,
        at: &Moment,
        id: &str,
        compare: Option<Compare>,
        accept_disks: bool,
    ) -> Result<Vec<Change>, Refusal> {
        let Some((job, member)) = self.jobs.current(id) else {
            return Err(Refusal {
                error: format!("terminal {id} was in no job yet"),
                advice: format!("Start one: flashmob job create IMAGE {id}"),
            });
        };
        let last = self.get(id).and_then(|terminal| terminal.last.as_ref());
        if let Some(last) = last.filter(|last| last.job != job.name() && stamp(last.started) > member.since)
            && member.state.is_final()
        {
            return Err(not_the_latest(id, job, last));
        }
        let waits = self.jobs.member(job.number, id).is_some_and(|member| member.state == State::Waiting);
        let retried = self.retry_job(job.number, Which::Named(&[id.to_owned()]), compare, at);
        let mut changes = match retried {
            Ok((_, changes)) => changes,
            // One that waits already may still be waiting for this consent.
            Err(_) if waits && accept_disks => Vec::new(),
            Err(refusal) => return Err(refusal),
        };
        if let Some(terminal) = self.terminals.get_mut(id).filter(|_| accept_disks) {
            // The disks of its last hello, which the administrator has seen: a disk that disappears until the
            // next hello is missed again.
            terminal.accept_disks();
            changes.push(Change::Terminal(Box::new(terminal.clone())));
        }
        Ok(changes)
    }

    /// A person wants a terminal to stop, or a waiting one not to start.
    pub(crate) fn cancel(&mut self, at: &Moment, id: &str) -> Result<Vec<Change>, Refusal> {
        let effects = self.jobs.cancel_terminal(id, at)?;
        Ok(self.apply(effects, at.now))
    }
}

/// The terminal's latest job is older than its last attempt, so "retry" does not say which one is meant.
fn not_the_latest(id: &str, job: &Job, last: &Attempt) -> Refusal {
    let made = match last.job.as_str() {
        BY_HAND => "was made by hand".to_string(),
        other => format!("was of job {other}"),
    };
    let (number, image) = (job.number, &last.image);
    Refusal {
        error: format!("the last attempt of terminal {id} {made}, after job {number}, its latest"),
        advice: format!(
            "Name the job to write {} again: flashmob job retry {number} {id}. For {image}: flashmob job \
             create {image} {id}",
            job.terms.title(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::event::Class;
    use crate::server::domain::jobs::AtBoot;
    use crate::server::domain::target::Target;
    use crate::server::domain::ties::Ties;
    use crate::testkit::lab::{at, done, failed, hello_of, job, moment, target};

    const A: &str = "52:54:00:00:00:0a";

    /// The terminal is done with job 1.
    fn after_job_1() -> Lab {
        let mut lab = Lab::default();
        lab.hello(at(0), String::new(), hello_of(A)).expect("room");
        lab.add_job(job(1, 0, 1000), &BTreeSet::from([A.into()]), &moment(1));
        take(&mut lab, "1", 10, &done());
        lab
    }

    fn take(lab: &mut Lab, job: &str, now: u64, outcome: &crate::event::Outcome) {
        let wanted = Target { job: job.into(), ..target() };
        let begun = lab.begin(A, wanted, "token".into(), at(now)).expect("known");
        let number = begun.attempt.number;
        lab.outcome(at(now + 10), number, "token", outcome.clone(), &Ties::default()).expect("taken");
    }

    #[test]
    fn a_retry_after_an_attempt_by_hand_is_refused_until_the_job_is_named() {
        let mut lab = after_job_1();
        take(&mut lab, BY_HAND, 500, &failed(Class::Disk, true));
        let refusal = lab.retry(&moment(600), A, None, false).expect_err("which one?");
        assert!(refusal.error.contains("made by hand"), "{refusal:?}");
        assert!(refusal.advice.contains(&format!("flashmob job retry 1 {A}")), "{refusal:?}");
        let AtBoot::Hold { advice, .. } = lab.next_step(A, &moment(601)) else { panic!("half a system") };
        assert!(advice.contains("flashmob job create debian@1") && !advice.contains("retry"), "{advice}");
        lab.retry_job(1, Which::Named(&[A.into()]), None, &moment(602)).expect("it is named");
    }

    #[test]
    fn a_retry_after_an_attempt_of_the_latest_job_or_before_it_takes_that_job() {
        let mut lab = after_job_1();
        lab.retry(&moment(100), A, None, false).expect("its own job");
        let mut lab = after_job_1();
        take(&mut lab, BY_HAND, 500, &done());
        lab.add_job(job(2, 600, 1000), &BTreeSet::from([A.into()]), &moment(600));
        lab.tick(&moment(1000), &|_| None);
        lab.retry(&moment(1001), A, None, false).expect("it missed job 2 after the attempt by hand");
    }
}
