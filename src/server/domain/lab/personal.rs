//! Systems of their own: what attempts give their terminals, the agents' reports, and the started systems'
//! calls.
//!
//! Invariant: a ticket for the call is good for one attempt and one call. A terminal that was cut off while
//! it personalised its system, or while its filesystems grew, is sent the agent again to finish, and is not
//! imaged for that.

use std::time::Duration;

use super::{Begun, Change, Lab, ReportError, bounds, date};
use crate::api::{Booted, BootedView, Personal as Given, PersonalReport};
use crate::event::Outcome;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::jobs::{Offer, Terms};
use crate::server::domain::personal::Personal;

/// Why a started system's call is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotBooted {
    #[error("this ticket is for an attempt that is over: its terminal was imaged again, or forgotten")]
    Over,
    #[error("this ticket was used before")]
    Used,
}

impl Lab {
    /// The attempt that has just begun gives its system these words.
    pub(crate) fn personalise(&mut self, id: &str, begun: &mut Begun, hostname: Option<String>) {
        let Terms { images, after, .. } = &begun.target.terms;
        let personal = Personal::new(hostname, images.clone(), *after);
        self.give(id, begun, personal);
    }

    /// The attempt that has just begun leaves its system as it was captured, and lets its filesystems grow.
    pub(crate) fn grow(&mut self, id: &str, begun: &mut Begun) {
        let Terms { images, after, .. } = &begun.target.terms;
        let personal = Personal::growth(images.clone(), *after);
        self.give(id, begun, personal);
    }

    fn give(&mut self, id: &str, begun: &mut Begun, personal: Personal) {
        let Some(last) = self.terminals.get_mut(id).and_then(|terminal| terminal.last.as_mut()) else {
            return;
        };
        last.personal = Some(personal);
        begun.attempt = last.clone();
        begun.changes.push(Change::Attempt(id.into(), Box::new(last.clone())));
    }

    /// The other terminal to which this run of the job has given the host name already. A failed attempt has
    /// left no system with its name.
    pub(crate) fn holder_of(&self, name: &str, id: &str, job: &str) -> Option<&str> {
        let others = self.jobs.members(job.parse().ok()?).filter(|(other, _)| *other != id);
        let has = |other: &str, attempt: Option<u64>| {
            let last = self.get(other)?.last.as_ref().filter(|last| attempt == Some(last.number))?;
            let given = last.personal.as_ref()?.hostname.as_ref()?;
            let failed = matches!(last.outcome, Some(Outcome::Failed { .. }));
            (!failed && given.eq_ignore_ascii_case(name)).then_some(())
        };
        others.filter(|(other, member)| has(other, member.attempt).is_some()).map(|(other, _)| other).next()
    }

    /// What the agent gets for an attempt of this terminal; `None` if its system stays as it was captured.
    pub(crate) fn given(
        &self,
        id: &str,
        label: Option<&str>,
        groups: Vec<String>,
        ticket: String,
    ) -> Option<Given> {
        let terminal = self.get(id)?;
        let personal = terminal.last.as_ref()?.personal.as_ref().filter(|personal| !personal.as_is)?;
        Some(Given {
            hostname: personal.hostname.clone(),
            label: label.map(str::to_owned),
            room: terminal.place.room.clone(),
            seat: terminal.place.seat.clone(),
            groups,
            model: terminal.inventory.machine.clone(),
            ticket,
        })
    }

    /// Is this terminal to finish its last attempt, whose image is on the disk, and nothing else?
    pub(crate) fn is_to_finish(&self, id: &str, offer: &Offer, now: Duration) -> bool {
        let last = self.get(id).and_then(|terminal| terminal.last.as_ref());
        last.is_some_and(|last| last.is_to_finish(now)) && !matches!(offer, Offer::Now(_))
    }

    /// A terminal takes its last attempt again, to finish it.
    pub(crate) fn finish(&mut self, id: &str, now: Duration) -> Option<(Attempt, Change)> {
        let terminal = self.terminals.get_mut(id)?;
        terminal.heard = Some(now);
        let last = terminal.last.as_mut()?;
        let personal = last.personal.as_mut()?;
        personal.finishes += 1;
        Some((last.clone(), Change::Attempt(id.into(), Box::new(last.clone()))))
    }

    /// An agent says how far it is with the terminal's own system.
    pub(crate) fn personal(
        &mut self,
        now: Duration,
        number: u64,
        report: PersonalReport,
    ) -> Result<Vec<Change>, ReportError> {
        let (id, attempt) = self.reporting(now, number, &report.token)?;
        let Some(personal) = &mut attempt.personal else { return Ok(Vec::new()) };
        personal.done |= report.done;
        personal.steps = bounds::sentences(report.steps);
        personal.problems = bounds::sentences(report.problems);
        Ok(vec![Change::Attempt(id, Box::new(attempt.clone()))])
    }

    /// The system that `attempt` installed has started.
    pub(crate) fn booted(
        &mut self,
        now: Duration,
        attempt: u64,
        said: Booted,
    ) -> Result<(String, Change), NotBooted> {
        let id = self.by_attempt.get(&attempt).cloned().ok_or(NotBooted::Over)?;
        let last = self.terminals.get_mut(&id).and_then(|terminal| terminal.last.as_mut());
        let last = last.filter(|last| last.number == attempt).ok_or(NotBooted::Over)?;
        let personal = last.personal.as_mut().ok_or(NotBooted::Over)?;
        if personal.booted.is_some() {
            return Err(NotBooted::Used);
        }
        let [hostname, system, kernel] = [said.hostname, said.system, said.kernel].map(bounds::line);
        personal.booted = Some(BootedView { at: date(now), hostname, system, kernel });
        // Its ticket was in the file that the agent writes last.
        personal.done = true;
        Ok((id.clone(), Change::Attempt(id, Box::new(last.clone()))))
    }

    /// What is known of the system that `attempt` left on this terminal's disk, for people.
    pub(crate) fn system(&self, id: &str, attempt: Option<u64>) -> Option<String> {
        let last = self.get(id)?.last.as_ref()?;
        last.system().filter(|_| attempt == Some(last.number))
    }
}
