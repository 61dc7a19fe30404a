//! A person's decisions for terminals: try again, or stop.
//!
//! Invariant: a decision is kept in the terminal's place in its job, so that it survives a restart; one that
//! cannot be carried out for a terminal is refused with advice, and changes nothing of it. `api` checks the
//! caller.

use std::collections::BTreeMap;

use super::{Change, Lab};
use crate::api::{Compare, Refusal};
use crate::server::domain::attempt::Attempt;
use crate::server::domain::jobs::{Each, Job, Left, Moment, State, Which, stamp};
use crate::server::domain::target::BY_HAND;
use crate::server::domain::targets::Meant;

impl Lab {
    /// A person wants another attempt of terminals, each at its latest job, and may choose how pieces on the
    /// disk are found, and accept the terminals' present disks. The answers have the numbers of the jobs.
    pub(crate) fn retry_terminals(
        &mut self,
        at: &Moment,
        meant: &Meant,
        compare: Option<Compare>,
        accept_disks: bool,
    ) -> (Each<u64>, Vec<Change>) {
        let (mut answers, mut jobs) = (BTreeMap::new(), BTreeMap::new());
        for id in &meant.ids {
            match self.job_to_retry(id) {
                Ok(number) => drop(jobs.insert(id.as_str(), number)),
                Err(refusal) => drop(answers.insert(id.clone(), Err(refusal))),
            }
        }
        let mut numbers: Vec<u64> = jobs.values().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut changes = Vec::new();
        for number in numbers {
            let named = meant.only(|id| jobs.get(id) == Some(&number));
            let (each, retried) = self.retry_job(number, Which::Named(&named), compare, at);
            changes.extend(retried);
            for (id, answer) in each {
                let member = self.jobs.member(number, &id);
                let answer = match answer {
                    // One that waits already may still be waiting for this consent.
                    Err(_) if accept_disks && member.is_some_and(|m| m.state == State::Waiting) => Ok(number),
                    answer => answer.map(|()| number),
                };
                if accept_disks && answer.is_ok() {
                    changes.extend(self.accept_disks(&id));
                }
                answers.insert(id, answer);
            }
        }
        (answers.into_iter().collect(), changes)
    }

    /// The latest job of a terminal, unless it is not clear that its image is the one to write again.
    fn job_to_retry(&self, id: &str) -> Result<u64, Refusal> {
        let Some((job, member)) = self.jobs.current(id) else {
            return Err(Refusal {
                error: format!("terminal {id} was in no job yet"),
                advice: format!("Start one: flashmob job create IMAGE {id}"),
            });
        };
        let last = self.get(id).and_then(|terminal| terminal.last.as_ref());
        match last.filter(|last| last.job != job.name() && stamp(last.started) > member.since) {
            Some(last) if member.state.is_final() => Err(not_the_latest(id, job, last)),
            _ => Ok(job.number),
        }
    }

    /// The disks of a terminal's last hello, which the administrator has seen, are the ones that it should
    /// have: a disk that disappears until the next hello is missed again.
    fn accept_disks(&mut self, id: &str) -> Option<Change> {
        let terminal = self.terminals.get_mut(id)?;
        terminal.accept_disks();
        Some(Change::Terminal(Box::new(terminal.clone())))
    }

    /// A person wants terminals to stop, or waiting ones not to start.
    pub(crate) fn cancel_terminals(&mut self, at: &Moment, ids: &[String]) -> (Each<Left>, Vec<Change>) {
        let (each, effects) = self.jobs.cancel_terminals(ids, at);
        (each, self.apply(effects, at.now))
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
    const B: &str = "52:54:00:00:00:0b";

    /// Decisions for one terminal.
    impl Lab {
        pub(crate) fn retry(
            &mut self,
            at: &Moment,
            id: &str,
            compare: Option<Compare>,
            accept_disks: bool,
        ) -> Result<Vec<Change>, Refusal> {
            let (mut each, changes) = self.retry_terminals(at, &Meant::each([id]), compare, accept_disks);
            each.pop().expect("an answer").1.map(|_| changes)
        }

        pub(crate) fn cancel(&mut self, at: &Moment, id: &str) -> Result<Vec<Change>, Refusal> {
            let (mut each, changes) = self.cancel_terminals(at, &[id.to_owned()]);
            each.pop().expect("an answer").1.map(|_| changes)
        }
    }

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
        let (each, _) = lab.retry_job(1, Which::Named(&Meant::each([A])), None, &moment(602));
        assert_eq!(each, [(A.into(), Ok(()))], "it is named");
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

    #[test]
    fn of_several_terminals_one_that_is_done_begins_again_only_if_a_word_names_it_alone() {
        let mut lab = after_job_1();
        lab.hello(at(30), String::new(), hello_of(B)).expect("room");
        lab.add_job(job(2, 40, 1000), &BTreeSet::from([B.into()]), &moment(40));
        lab.cancel(&moment(41), B).expect("it waits");
        let named = Meant::each([A, B]);
        let both = |lab: &mut Lab, meant: &Meant| lab.retry_terminals(&moment(50), meant, None, false).0;
        let of_a_room = Meant { ids: named.ids.clone(), ..Meant::default() };
        let each = both(&mut lab, &of_a_room);
        assert!(matches!(&each[0].1, Err(refusal) if refusal.error.ends_with("is done")), "{each:?}");
        assert_eq!(each[1], (B.into(), Ok(2)), "its own job");
        let each = both(&mut lab, &named);
        assert_eq!(each[0], (A.into(), Ok(1)));
        assert!(matches!(&each[1].1, Err(refusal) if refusal.error.contains("waits already")), "{each:?}");
    }
}
