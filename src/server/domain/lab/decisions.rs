//! An administrator's decisions for one terminal: try again, or stop.
//!
//! Invariant: a decision is kept in the terminal's latest attempt, so that it survives a restart; one that
//! cannot be carried out is refused with advice. `api` checks the caller.

use std::time::Duration;

use super::{Change, Lab};
use crate::api::{Compare, Refusal};
use crate::event::{Failure, Outcome, Stage};
use crate::server::domain::jobs;
use crate::server::domain::target::Target;

impl Lab {
    /// An administrator wants another attempt, and may choose how pieces on the disk are found, and accept
    /// the terminal's present disks.
    pub fn retry(
        &mut self,
        now: Duration,
        id: &str,
        compare: Option<Compare>,
        accept_disks: bool,
    ) -> Result<Vec<Change>, Refusal> {
        let Some(terminal) = self.terminals.get_mut(id) else { return Ok(Vec::new()) };
        let mut changes = Vec::new();
        if let Some(attempt) = &mut terminal.last {
            if attempt.is_live(now) {
                return Err(Refusal {
                    error: format!("terminal {id} is imaging now"),
                    advice: "Wait until it is done, or stop it with 'flashmob job cancel'.".into(),
                });
            }
            attempt.retried = true;
            attempt.retried_as = compare;
            changes.push(Change::Attempt(id.into(), Box::new(attempt.clone())));
        }
        if accept_disks {
            // The disks of its last hello, which the administrator has seen: a disk that disappears until the
            // next hello is missed again.
            terminal.accept_disks();
            changes.push(Change::Terminal(Box::new(terminal.clone())));
        }
        Ok(changes)
    }

    /// A person wants a terminal to stop, or a waiting one not to start `target`.
    pub fn cancel(
        &mut self,
        now: Duration,
        id: &str,
        target: Option<&Target>,
    ) -> Result<Vec<Change>, Refusal> {
        let nothing = || Refusal {
            error: format!("terminal {id} has nothing to cancel"),
            advice: "'flashmob terminal list' shows the state of each one.".into(),
        };
        let last = self.terminals.get(id).and_then(|t| t.last.as_ref());
        let running = last.is_some_and(|a| a.outcome.is_none());
        let mut changes = Vec::new();
        if !running {
            let target = target.filter(|target| jobs::waits(last, Some(target))).ok_or_else(nothing)?;
            // An attempt that never ran, so that this survives a restart.
            let made = self.take(now, id, target, String::new()).ok_or_else(nothing)?;
            changes.extend(made.1);
        }
        let attempt = self.terminals.get_mut(id).and_then(|t| t.last.as_mut()).ok_or_else(nothing)?;
        let failure = Failure::refused(
            "cancelled by the administrator",
            format!("Start it again with 'flashmob job retry {id}'."),
        );
        let stage = attempt.progress.as_ref().map_or(Stage::Discover, |p| p.stage);
        let disk_touched = stage >= Stage::Disarm;
        attempt.outcome = Some(Outcome::Failed { stage, failure, disk_touched });
        attempt.ended = Some(now);
        attempt.cancelled = true;
        changes.push(Change::Attempt(id.into(), Box::new(attempt.clone())));
        Ok(changes)
    }
}
