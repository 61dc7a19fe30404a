//! Changes that are not on the disk yet.
//!
//! Invariant: batches leave in the order in which they came, and a batch leaves only when it is written or
//! refused. The one exception keeps a long failure small: the progress of an attempt that no caller waits for
//! gives way to a later row of the same attempt, because the later row has everything that the earlier one
//! says.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::oneshot;

use super::error::StoreError;
use crate::server::domain::jobs::JobChange;
use crate::server::domain::lab::Change;

pub(super) type Ack = oneshot::Sender<Result<(), StoreError>>;

/// Changes that belong together: all of them are written, or none.
pub(super) struct Batch {
    pub changes: Vec<Change>,
    /// `None` when the caller was answered already.
    pub ack: Option<Ack>,
}

impl Batch {
    /// Answers the caller, if it still waits.
    pub(super) fn answer(&mut self, result: Result<(), StoreError>) {
        if let Some(ack) = self.ack.take() {
            // Changes that nobody waits for have no receiver.
            let _ = ack.send(result);
        }
    }

    /// The attempt, if its row is all that changes.
    fn attempt(&self) -> Option<u64> {
        match &self.changes[..] {
            [Change::Attempt(_, attempt)] => Some(attempt.number),
            _ => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Pending {
    /// By numbers that only grow.
    batches: BTreeMap<u64, Batch>,
    next: u64,
    /// The latest batch that changes nothing but one attempt, by the attempt.
    attempts: HashMap<u64, u64>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Adds the newest batch. Returns how many changes gave way to it.
    pub(super) fn push(&mut self, batch: Batch) -> usize {
        let number = self.next;
        self.next += 1;
        let before = batch.attempt().and_then(|attempt| self.attempts.insert(attempt, number));
        self.batches.insert(number, batch);
        let answered = before.filter(|n| self.batches.get(n).is_some_and(|earlier| earlier.ack.is_none()));
        answered.and_then(|n| self.batches.remove(&n)).map_or(0, |earlier| earlier.changes.len())
    }

    /// The oldest batches, `most` of them.
    pub(super) fn oldest(&self, most: usize) -> impl Iterator<Item = &Batch> {
        self.batches.values().take(most)
    }

    /// Removes the oldest batch, which is written or refused.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let (number, batch) = self.batches.pop_first()?;
        if let Some(attempt) = batch.attempt()
            && self.attempts.get(&attempt) == Some(&number)
        {
            self.attempts.remove(&attempt);
        }
        Some(batch)
    }

    /// Tells all callers that their changes are not on the disk. The changes stay, except those that
    /// may go. Returns how many went.
    pub(super) fn fail(&mut self, error: &StoreError) -> usize {
        let before = self.changes();
        self.batches.values_mut().for_each(|batch| batch.answer(Err(error.clone())));
        self.batches.retain(|_, batch| !may_go(&batch.changes));
        before - self.changes()
    }

    pub(super) fn changes(&self) -> usize {
        self.batches.values().map(|batch| batch.changes.len()).sum()
    }
}

/// May these changes go when they cannot be written? A log would take up to 512 KiB of memory, nothing
/// else in memory depends on it, and an agent that still runs sends it again. The last log of an attempt
/// may be lost.
pub(super) fn may_go(changes: &[Change]) -> bool {
    changes.iter().all(|change| matches!(change, Change::Log { .. }))
}

/// What a batch is about, for the log: no tokens and no secrets.
pub(super) fn title(changes: &[Change]) -> String {
    const NAMED: usize = 5;
    let one = |change: &Change| match change {
        Change::Terminal(terminal) => format!("terminal {}", terminal.id),
        Change::Attempt(terminal, attempt) => format!("attempt {} of {terminal}", attempt.number),
        Change::Secret(terminal, _) => format!("the secret of {terminal}"),
        Change::TicketKey(_) => "the key of the tickets".into(),
        Change::Person(person) => format!("the token of '{}'", person.name),
        Change::Revoke(name) => format!("the end of the token of '{name}'"),
        Change::Audit(entry) => format!("the audit's '{}' of '{}'", entry.action, entry.who),
        Change::Log { attempt, .. } => format!("the log of attempt {attempt}"),
        Change::Forget(terminal) => format!("the end of terminal {terminal}"),
        Change::Job(JobChange::Job(job)) => format!("job {}", job.number),
        Change::Job(JobChange::Member { job, run, terminal, .. }) => {
            format!("terminal {terminal} in run {run} of job {job}")
        }
        Change::Capture(terminal, _) => format!("the capture of {terminal}"),
        Change::Expire { .. } => "the end of old history".into(),
    };
    let mut named: Vec<String> = changes.iter().take(NAMED).map(one).collect();
    if changes.len() > NAMED {
        named.push(format!("{} more", changes.len() - NAMED));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::domain::lab::Lab;
    use crate::testkit::lab::{at, hello_of, target};

    fn of(changes: Vec<Change>) -> Batch {
        Batch { changes, ack: None }
    }

    #[test]
    fn progress_gives_way_to_a_later_row_of_the_same_attempt_and_to_nothing_else() {
        let mut lab = Lab::default();
        let (id, hello) = lab.hello(at(1), "10.0.0.1".into(), hello_of("52:54:00:00:00:01")).expect("room");
        let taken = lab.take(at(2), &id, &target(), "token".into()).expect("known").1;
        let row = taken.iter().find(|change| matches!(change, Change::Attempt(..))).expect("begun").clone();
        let mut pending = Pending::default();
        let both = vec![row.clone(), hello[0].clone()];
        assert_eq!(pending.push(of(hello)), 0);
        assert_eq!(pending.push(of(both.clone())), 0, "more than progress");
        assert_eq!(pending.push(of(vec![row.clone()])), 0);
        assert_eq!(pending.push(of(both)), 0);
        assert_eq!(pending.push(of(vec![row.clone()])), 1);
        assert_eq!(pending.oldest(9).map(|batch| batch.changes.len()).collect::<Vec<_>>(), [1, 2, 2, 1]);

        let (ack, _caller) = oneshot::channel();
        pending.push(Batch { changes: vec![row.clone()], ack: Some(ack) });
        assert_eq!(pending.push(of(vec![row])), 0, "a caller waits for the earlier one");
        while pending.pop().is_some() {}
        assert!(pending.attempts.is_empty());
    }

    #[test]
    fn a_failure_keeps_all_changes_except_logs() {
        let mut pending = Pending::default();
        pending.push(of(vec![Change::Log { attempt: 1, received: at(1), packed: vec![0; 9] }]));
        pending.push(of(Vec::new()));
        pending.push(of(vec![Change::Forget("a".into())]));
        assert_eq!(pending.fail(&StoreError::Behind), 1);
        assert_eq!((pending.len(), pending.changes()), (1, 1));
    }
}
