//! An administrator's decisions for one terminal: try again, or stop.
//!
//! Invariant: a decision is kept in the terminal's place in its job, so that it survives a restart; one that
//! cannot be carried out is refused with advice. `api` checks the caller.

use super::{Change, Lab};
use crate::api::{Compare, Refusal};
use crate::server::domain::jobs::{Moment, State, Which};

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
        let Some((job, _)) = self.jobs.current(id) else {
            return Err(Refusal {
                error: format!("terminal {id} was in no job yet"),
                advice: format!("Start one: flashmob job create IMAGE {id}"),
            });
        };
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
