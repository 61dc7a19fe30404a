//! The next step of one terminal: how it boots, how its next attempt begins, whether it may leave the swarm.
//!
//! Invariant: pure functions of the latest attempt, the terminal's place in a job, and the time. A disk that
//! is half written is never booted: once an attempt has touched it, only a later attempt that is done makes
//! it whole.

use std::time::Duration;

use super::{Job, Member, Offer, Phase, State};
use crate::api::{Compare, TerminalState};
use crate::event::Outcome;
use crate::image_id::ImageId;
use crate::server::domain::attempt::Attempt;
use crate::server::domain::target::{BY_HAND, Target};

/// Where the terminal stands, for people. `place` is the one that says most about it.
pub(crate) fn state(last: Option<&Attempt>, place: Option<(&Job, &Member)>, now: Duration) -> TerminalState {
    let live = last.is_some_and(|last| last.is_live(now));
    let open = last.is_some_and(|last| last.outcome.is_none());
    // An attempt by hand, or of a server that kept no jobs, says more than an older place. A preflight says
    // nothing of other jobs.
    let place = place.filter(|(job, member)| {
        let began =
            last.filter(|last| !last.preflight).map(|last| (last.job.as_str() == job.name(), last.started));
        let changed = Duration::from_secs(u64::try_from(member.since.as_second()).unwrap_or(0));
        began.is_none_or(|(same, started)| same || started <= changed)
    });
    match (place, last) {
        _ if live => TerminalState::Imaging,
        (Some((job, member)), _) => match member.state {
            State::Waiting if job.run.phase == Phase::Planned => TerminalState::Planned,
            State::Waiting | State::Running if open && member.attempt.is_some() => TerminalState::Interrupted,
            State::Waiting | State::Running => TerminalState::Waiting,
            State::Done => TerminalState::Done,
            State::Failed => TerminalState::Failed,
            State::Cancelled => TerminalState::Cancelled,
            State::Missed => TerminalState::Missed,
            State::Asleep => TerminalState::Asleep,
        },
        (None, Some(last)) => match &last.outcome {
            None => TerminalState::Interrupted,
            Some(Outcome::Done { .. } | Outcome::Checked { .. }) => TerminalState::Done,
            Some(Outcome::Failed { .. }) => TerminalState::Failed,
        },
        (None, None) => TerminalState::Idle,
    }
}

/// The next step of a netbooting terminal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AtBoot {
    /// Work waits: boot the agent.
    Agent(Target),
    /// The image is on the disk, and the agent has not finished making it the terminal's own.
    Finish,
    /// Work waits for a place of the wave: ask again soon.
    Queue { why: String },
    /// Nothing to do: boot from the disk.
    Disk,
    /// The disk holds half a system and nothing will mend it by itself.
    Hold {
        error: String,
        /// The remedy.
        advice: String,
    },
}

/// Decides the next step of a netbooting terminal. `name` is its name in the commands that it shows.
pub(crate) fn at_boot(name: &str, last: Option<&Attempt>, offer: Offer) -> AtBoot {
    let why = match offer {
        Offer::Now(target) => return AtBoot::Agent(target),
        Offer::Queued(why) => return AtBoot::Queue { why },
        Offer::Later(why) => Some(why),
        Offer::Nothing => None,
    };
    let Some(last) = last.filter(|last| last.leaves_half_a_system()) else { return AtBoot::Disk };
    // An attempt by hand has no job to retry.
    let again = match last.job == BY_HAND {
        true => format!("Then run on the server: flashmob job create {} {name}", last.image),
        false => format!("Then run on the server: flashmob terminal retry {name}"),
    };
    match (&last.outcome, why) {
        _ if last.preflight => AtBoot::Hold {
            error: "the disk was half written before the last preflight, which changed nothing".into(),
            advice: format!("Image it again: flashmob job create {} {name}", last.image),
        },
        (Some(Outcome::Failed { failure, .. }), _) => {
            let advice = match failure.advice.contains("terminal retry") {
                true => failure.advice.clone(),
                false => format!("{} {again}", failure.advice),
            };
            AtBoot::Hold { error: failure.message.clone(), advice }
        }
        (_, Some(why)) => AtBoot::Hold {
            error: format!("writing {} was interrupted, and {why}", last.title()),
            advice: format!(
                "Look for the cause (memory, power supply, overheating, the disk's cable). {again}"
            ),
        },
        (_, None) => AtBoot::Hold {
            error: format!("writing {} was interrupted, and no job is for this terminal", last.title()),
            advice: format!("Start one on the server: flashmob job create {} {name}", last.image),
        },
    }
}

/// How the attempt that begins now finds pieces on the disk; `chosen` is a person's choice for this one.
/// After an attempt at the same target that was interrupted or sent no outcome, the disk is compared, because
/// the terminal may have gone on without the server, and right pieces are not written again.
pub(crate) fn compare_of_next(last: Option<&Attempt>, target: &Target, chosen: Option<Compare>) -> Compare {
    match (chosen, last) {
        (Some(chosen), _) => chosen,
        (None, Some(last))
            if last.is_for(target) && (last.outcome.is_none() || last.leaves_half_a_system()) =>
        {
            Compare::Auto
        }
        _ => target.terms.compare,
    }
}

/// Whether a finished terminal may leave the swarm: yes if no other attempt at the same image is live, and no
/// terminal is `coming` for it.
pub(crate) fn may_leave<'a>(
    me: &Attempt,
    mut others: impl Iterator<Item = &'a Attempt>,
    mut coming: impl Iterator<Item = &'a ImageId>,
    now: Duration,
) -> bool {
    let mine = |image: &ImageId| me.images().any(|own| own == image);
    let fetches = |other: &Attempt| !other.preflight && other.images().any(mine);
    me.outcome.is_some()
        && !others.any(|other| other.number != me.number && other.is_live(now) && fetches(other))
        && !coming.any(mine)
}
