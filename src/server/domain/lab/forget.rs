//! Terminals that are forgotten: by an administrator, or because a new one needs the place.
//!
//! Invariant: an attempt that is live is never forgotten, and the server itself never forgets what it knows
//! about a disk that was written.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Change, Lab, Terminal, some_of};
use crate::api::Refusal;
use crate::event::Stage;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::limits;

/// A finished terminal that was heard within this time still serves others.
const SERVING: Duration = Duration::from_secs(10);

/// How much is lost with a terminal, for those that may make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Worth {
    /// It is new and never took a job.
    New,
    /// It never took a job.
    NoJob,
    /// It took one, and wrote nothing.
    NothingWritten,
}

fn worth(terminal: &Terminal, now: Duration) -> Option<Worth> {
    if !terminal.place.is_empty() || terminal.heard.is_none() {
        // A person has entered it.
        return None;
    }
    match &terminal.last {
        None if !terminal.accepted => Some(Worth::New),
        None => Some(Worth::NoJob),
        Some(last) if is_at_work(last, now) || last.leaves_half_a_system() => None,
        Some(last) => last.leaves_installed().is_empty().then_some(Worth::NothingWritten),
    }
}

fn is_at_work(attempt: &Attempt, now: Duration) -> bool {
    let serves = attempt.progress.as_ref().is_some_and(|progress| progress.stage == Stage::Serve);
    attempt.is_live(now) || serves && now.saturating_sub(attempt.heard) < SERVING
}

impl Lab {
    /// An administrator wants terminals and their attempts to be forgotten: all of them, or none if one is at
    /// work.
    pub(crate) fn forget(&mut self, now: Duration, ids: &[String]) -> Result<Vec<Change>, Refusal> {
        let last = |id: &str| self.get(id).and_then(|terminal| terminal.last.as_ref());
        let at_work = |id: &&str| last(id).is_some_and(|attempt| is_at_work(attempt, now));
        let busy: Vec<&str> = ids.iter().map(String::as_str).filter(at_work).collect();
        let error = match busy.as_slice() {
            [] => return Ok(ids.iter().filter_map(|id| self.remove(id)).collect()),
            [id] => format!("terminal {id} is imaging now, or serves others"),
            some => format!("{} terminals are imaging now, or serve others: {}", some.len(), some_of(some)),
        };
        let advice = "Wait until it is done, or stop it with 'flashmob terminal cancel' and wait a minute.";
        Err(Refusal { error, advice: advice.into() })
    }

    /// Makes room for a new terminal. First go those that no person has registered and that never took a job,
    /// of these the ones of the address that has most of them, because invented terminals come from few
    /// addresses, and of these the one that has been silent longest.
    pub(super) fn forget_the_least(&mut self, now: Duration) -> Option<Change> {
        let from = |terminal: &Terminal| terminal.ip().map(limits::owner);
        let free = |t: &&Terminal| !self.jobs.is_wanted(&t.id);
        let able = || self.terminals.values().filter(free).filter_map(|t| Some((worth(t, now)?, t)));
        let mut together: HashMap<(Worth, Option<IpAddr>), usize> = HashMap::new();
        able().for_each(|(worth, t)| *together.entry((worth, from(t))).or_default() += 1);
        let least = able().min_by_key(|(worth, t)| {
            (*worth, Reverse(together.get(&(*worth, from(t))).copied()), t.heard, &t.id)
        });
        let id = least.map(|(_, terminal)| terminal.id.clone())?;
        self.remove(&id)
    }

    /// Leaves nothing of a terminal.
    pub(super) fn remove(&mut self, id: &str) -> Option<Change> {
        let terminal = self.terminals.remove(id)?;
        self.namesakes.forget(id, &terminal.identity);
        self.secrets.forget(id);
        self.jobs.forget(id);
        self.captures.forget(id);
        self.coming.came(id);
        self.moved.remove(id);
        self.told.remove(id);
        self.netboots.remove(id);
        if let Some(attempt) = &terminal.last {
            self.by_attempt.remove(&attempt.number);
            self.written.remove(&attempt.number);
        }
        Some(Change::Forget(terminal.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Class, Progress};
    use crate::server::domain::lab::{MAX_TERMINALS, NotKnown};
    use crate::server::domain::ties::Ties;
    use crate::testkit::lab::{at, done, failed, hello_of, job, moment, target};

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";

    fn invented(n: usize) -> String {
        format!("52:54:00:01:{:02x}:{:02x}", n >> 8, n & 255)
    }

    /// `known` says hello from 10.0.0.9 first, then invented ones from `from` until the lab is full.
    fn full(known: &[&str], from: &str) -> Lab {
        let mut lab = Lab::default();
        for mac in known {
            lab.hello(at(1), "10.0.0.9".into(), hello_of(mac)).expect("room");
        }
        for n in known.len()..MAX_TERMINALS {
            lab.hello(at(2), from.into(), hello_of(&invented(n))).expect("room");
        }
        lab
    }

    #[test]
    fn in_a_full_lab_a_new_terminal_takes_the_place_of_one_of_the_address_with_most_strangers() {
        let mut lab = full(&[A], "10.0.0.66");
        for n in 0..60 {
            let new = format!("52:54:00:02:00:{n:02x}");
            let (id, changes) = lab.hello(at(3), "10.0.0.10".into(), hello_of(&new)).expect("room");
            assert_eq!(lab.iter().count(), MAX_TERMINALS);
            let [Change::Forget(gone), Change::Terminal(_)] = &changes[..] else { panic!("{changes:?}") };
            assert!(gone.starts_with("52:54:00:01:") && lab.get(gone).is_none(), "{gone}");
            assert!(lab.get(&id).is_some());
        }
        assert!(lab.get(A).is_some(), "although it was silent for longest");
        lab.hello(at(4), "10.0.0.9".into(), hello_of(A)).expect("known");
    }

    #[test]
    fn a_new_terminal_that_a_job_waits_for_keeps_its_place() {
        let mut lab = full(&[A, B], "10.0.0.9");
        lab.add_job(job(1, 0, 1000), &[A.to_string()].into(), &moment(2));
        for n in 0..3 {
            lab.hello(at(3), "10.0.0.9".into(), hello_of(&format!("52:54:00:02:00:{n:02x}"))).expect("room");
        }
        assert!(lab.get(A).is_some() && lab.get(B).is_none());
    }

    #[test]
    fn of_strangers_that_come_from_as_many_addresses_the_silent_one_goes() {
        let mut lab = full(&[A, B], "10.0.0.9");
        lab.hello(at(3), "10.0.0.9".into(), hello_of(A)).expect("known");
        lab.hello(at(4), "10.0.0.9".into(), hello_of("52:54:00:02:00:01")).expect("room");
        assert!(lab.get(A).is_some() && lab.get(B).is_none());
    }

    #[test]
    fn what_the_server_knows_of_a_written_disk_makes_no_room() {
        let mut lab = full(&[], "10.0.0.66");
        let ids: Vec<String> = lab.iter().map(|t| t.id.clone()).collect();
        for (n, id) in ids.iter().enumerate() {
            let number = lab.take(at(5), id, &target(), "t".into()).expect("known").0.number;
            // A third is done, a third half written, a third writes now.
            let outcome = [Some(done()), Some(failed(Class::Disk, true)), None][n % 3].clone();
            if let Some(outcome) = outcome {
                lab.outcome(at(6), number, "t", outcome, &Ties::default()).expect("taken");
            }
        }
        let come = |lab: &mut Lab, now| lab.hello(now, "10.0.0.10".into(), hello_of(A)).map(|came| came.1);
        assert_eq!(come(&mut lab, at(10)), Err(NotKnown::Full));
        assert_eq!(lab.iter().count(), MAX_TERMINALS);
        // The last third is silent now, and said nothing of a disk.
        let changes = come(&mut lab, at(100)).expect("room");
        assert_eq!(changes.first(), Some(&Change::Forget(ids[2].clone())));
    }

    #[test]
    fn an_administrator_forgets_a_terminal_but_not_one_at_work() {
        let mut lab = Lab::default();
        for mac in [A, B] {
            lab.hello(at(0), String::new(), hello_of(mac)).expect("room");
        }
        let number = lab.take(at(1), A, &target(), "t".into()).expect("known").0.number;
        let forget = |lab: &mut Lab, now| lab.forget(at(now), &[A.to_owned()]);
        assert!(forget(&mut lab, 2).is_err(), "it begins");
        let serving = Progress::at(Stage::Serve);
        lab.outcome(at(3), number, "t", done(), &Ties::default()).expect("taken");
        lab.progress(at(4), number, "t", serving.clone(), &Ties::default()).expect("taken");
        assert!(forget(&mut lab, 5).is_err(), "it serves others");
        let both = lab.forget(at(5), &[A.to_owned(), B.to_owned()]).expect_err("one of them is at work");
        assert!(both.error.contains(A) && lab.iter().count() == 2, "all or nothing: {both:?}");
        assert_eq!(forget(&mut lab, 15), Ok(vec![Change::Forget(A.into())]));
        assert!(lab.progress(at(16), number, "t", serving, &Ties::default()).is_err());
        assert_eq!(lab.iter().map(|t| t.id.as_str()).collect::<Vec<_>>(), [B]);
        let (id, _) = lab.hello(at(17), String::new(), hello_of(A)).expect("room");
        assert!(id == A && lab.get(A).is_some_and(|t| t.last.is_none() && t.first == Some(at(17))));
        let next = lab.take(at(18), A, &target(), "t".into()).expect("known").0.number;
        assert!(next > number, "numbers are never given twice");
    }
}
