//! Decisions about one terminal: whether a job waits for it, how it boots, whether it may leave the swarm.
//!
//! Invariant: pure functions of the latest attempt, the configured target, and the time. A disk that is half
//! written is never booted: once an attempt has touched it, only a later attempt that is done makes it whole.

use std::time::Duration;

use crate::api::{Compare, TerminalState};
use crate::event::{Class, Outcome};
use crate::image_id::ImageId;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::target::Target;

/// How long a terminal that was sent the agent and has not called yet is expected.
pub(crate) const COMING: Duration = Duration::from_secs(180);

/// Does work wait for the terminal when it asks?
pub fn waits(last: Option<&Attempt>, target: Option<&Target>) -> bool {
    let Some(target) = target else { return false };
    let Some(last) = last.filter(|last| !last.retried && last.is_for(target)) else { return true };
    match &last.outcome {
        None => last.may_be_tried_again() && !last.cancelled,
        Some(Outcome::Done { .. }) => false,
        Some(Outcome::Failed { failure, .. }) => {
            failure.class == Class::Retry && last.may_be_tried_again() && !last.cancelled
        }
    }
}

/// Where the terminal stands, for people.
pub fn state(last: Option<&Attempt>, target: Option<&Target>, now: Duration) -> TerminalState {
    let waits = waits(last, target);
    match last {
        Some(last) if last.is_live(now) => TerminalState::Imaging,
        Some(last) if last.outcome.is_none() && !last.retried => TerminalState::Interrupted,
        _ if waits => TerminalState::Waiting,
        Some(Attempt { outcome: Some(Outcome::Done { .. }), .. }) => TerminalState::Done,
        Some(Attempt { outcome: Some(Outcome::Failed { .. }), .. }) => TerminalState::Failed,
        _ => TerminalState::Idle,
    }
}

/// The next step of a netbooting terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AtBoot {
    /// Work waits: boot the agent.
    Agent,
    /// Nothing to do: boot from the disk.
    Disk,
    /// The disk holds half a system and nothing will mend it by itself.
    Hold {
        error: String,
        /// The remedy.
        advice: String,
    },
}

/// Decides the next step of a netbooting terminal.
pub(crate) fn at_boot(id: &str, last: Option<&Attempt>, target: Option<&Target>) -> AtBoot {
    if waits(last, target) {
        return AtBoot::Agent;
    }
    let Some(last) = last.filter(|last| last.leaves_half_a_system()) else { return AtBoot::Disk };
    let again = format!("Then run on the server: flashmob job retry {id}");
    match &last.outcome {
        Some(Outcome::Failed { failure, .. }) => {
            AtBoot::Hold { error: failure.message.clone(), advice: format!("{} {again}", failure.advice) }
        }
        None if target.is_some_and(|target| last.is_for(target)) => AtBoot::Hold {
            error: format!("writing {} was interrupted {} times in a row", last.title(), last.tries),
            advice: format!(
                "Look for the cause (memory, power supply, overheating, the disk's cable). {again}"
            ),
        },
        _ => AtBoot::Hold {
            error: format!("writing {} was interrupted, and no job is assigned any more", last.title()),
            advice: format!("Assign a job to this terminal in the server's configuration. {again}"),
        },
    }
}

/// How the attempt that begins now finds pieces on the disk. After an attempt at the same target that was
/// interrupted or sent no outcome, the disk is compared, because the terminal may have gone on without the
/// server, and right pieces are not written again.
pub(crate) fn compare_of_next(last: Option<&Attempt>, target: &Target) -> Compare {
    match last {
        Some(last) if last.retried => last.retried_as.unwrap_or(target.job.compare),
        Some(last) if last.is_for(target) && (last.outcome.is_none() || last.leaves_half_a_system()) => {
            Compare::Auto
        }
        _ => target.job.compare,
    }
}

/// Whether a finished terminal may leave the swarm: yes if no other attempt at the same image is live, and no
/// terminal that was just sent the agent is expected.
pub(crate) fn may_leave<'a>(
    me: &Attempt,
    mut others: impl Iterator<Item = &'a Attempt>,
    mut coming: impl Iterator<Item = &'a (Duration, ImageId)>,
    now: Duration,
) -> bool {
    let mine = |image: &ImageId| me.images().any(|own| own == image);
    let fetches = |other: &Attempt| other.images().any(mine);
    me.outcome.is_some()
        && !others.any(|other| other.number != me.number && other.is_live(now) && fetches(other))
        && !coming.any(|(since, what)| mine(what) && now.saturating_sub(*since) < COMING)
}

#[cfg(test)]
mod tests;
