//! One try of a job on one terminal: its course, and the state in which it leaves the disks.
//!
//! Invariant: a plain value, pure; a disk that an attempt has touched counts as half written until one is
//! done. `jobs` decides the terminal's next step.

use std::time::Duration;

use crate::event::{Installed, Outcome, Progress, Stage};
use crate::image_id::{self, ImageId};
use crate::server::domain::course::Course;
use crate::server::domain::personal::Personal;
use crate::server::domain::target::Target;

/// An attempt that is silent for this time is interrupted: switched off, or cut off.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// How long after its last word it may be finished. Later a person has perhaps worked with the system.
const FINISH_WITHIN: Duration = Duration::from_secs(12 * 3600);

/// One try of a job on one terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Unique on the server, growing.
    pub number: u64,
    /// Must come with every report.
    pub token: String,
    pub job: String,
    /// The image that starts.
    pub image: ImageId,
    /// Further ones for further disks.
    pub also: Vec<ImageId>,
    pub started: Duration,
    /// When it was last heard.
    pub heard: Duration,
    pub progress: Option<Progress>,
    /// When its stages began.
    pub course: Course,
    /// When its outcome came.
    pub ended: Option<Duration>,
    pub outcome: Option<Outcome>,
    /// Its number among the attempts of its job since a person last let the terminal begin.
    pub tries: u32,
    /// The disk was already half written when it began.
    pub dirty: bool,
    /// The versions on the terminal's disks when it began, as far as known.
    pub installed: Vec<Installed>,
    /// A person wants it to stop.
    pub cancelled: bool,
    /// It only looks at the terminal.
    pub preflight: bool,
    /// What makes its system the terminal's own; `None`: it stays as it was captured.
    pub personal: Option<Personal>,
}

impl Attempt {
    /// The try of `target` that begins now and follows `last` on the same terminal.
    pub fn after(last: Option<&Attempt>, number: u64, token: String, target: &Target, now: Duration) -> Self {
        let mut images = target.images().cloned();
        Attempt {
            number,
            token,
            job: target.job.clone(),
            image: images.next().unwrap_or_default(),
            also: images.collect(),
            started: now,
            heard: now,
            progress: None,
            course: Course::default(),
            ended: None,
            outcome: None,
            tries: 1,
            dirty: last.is_some_and(Attempt::leaves_half_a_system),
            installed: last.map(Attempt::leaves_installed).unwrap_or_default(),
            cancelled: false,
            preflight: target.terms.preflight,
            personal: None,
        }
    }

    /// All of its images, the one that starts first.
    pub fn images(&self) -> impl Iterator<Item = &ImageId> {
        std::iter::once(&self.image).chain(&self.also)
    }

    /// The same for people.
    pub fn title(&self) -> String {
        image_id::title(self.images())
    }

    /// Under way, and heard lately.
    pub(crate) fn is_live(&self, now: Duration) -> bool {
        self.outcome.is_none() && now.saturating_sub(self.heard) < SILENCE
    }

    /// Whether the disk holds half a system because of it, or since before it.
    pub(crate) fn leaves_half_a_system(&self) -> bool {
        let disarmed = self.progress.as_ref().is_some_and(|p| p.stage >= Stage::Disarm);
        match &self.outcome {
            Some(Outcome::Done { .. }) => false,
            // It was stopped when only its outcome was missing.
            Some(Outcome::Failed { .. }) if self.cancelled && self.was_committed() => false,
            // The agent may have gone on after a person's stop, until it heard of it.
            Some(Outcome::Failed { disk_touched, .. }) => {
                *disk_touched || self.dirty || self.cancelled && disarmed
            }
            None if self.was_committed() => false,
            Some(Outcome::Checked { .. }) | None => self.dirty || disarmed,
        }
    }

    /// Did the terminal say that its image is on the disk?
    pub(crate) fn was_committed(&self) -> bool {
        self.progress.as_ref().is_some_and(|p| p.stage >= Stage::Serve)
    }

    /// The versions on the terminal's disks after it, the newest first, as far as known. A touched disk has
    /// no record.
    pub(crate) fn leaves_installed(&self) -> Vec<Installed> {
        match &self.outcome {
            Some(Outcome::Done { installed: new, .. }) => {
                let others = self.installed.iter().filter(|old| !new.iter().any(|new| new.disk == old.disk));
                // Also before the agent says so: it may be cut off after the first step.
                let personalised = self.personal.as_ref().is_some_and(|personal| !personal.as_is);
                let new = new.iter().map(|one| Installed { personalised, ..one.clone() });
                new.chain(others.cloned()).collect()
            }
            Some(Outcome::Failed { .. } | Outcome::Checked { .. })
                if !self.leaves_half_a_system() && !self.was_committed() =>
            {
                self.installed.clone()
            }
            None if self.preflight && !self.leaves_half_a_system() => self.installed.clone(),
            // The last report says too little, because the disarm may have followed it.
            _ => Vec::new(),
        }
    }

    /// Its image is on the disk, the agent has not finished making it the terminal's own, and nobody can have
    /// worked with it for long.
    pub(crate) fn is_to_finish(&self, now: Duration) -> bool {
        let imaged = match &self.outcome {
            Some(outcome) => matches!(outcome, Outcome::Done { .. }),
            None => self.was_committed(),
        };
        let recent = now.saturating_sub(self.heard) < FINISH_WITHIN;
        recent && imaged && self.personal.as_ref().is_some_and(Personal::is_unfinished)
    }

    /// What is known of the system that it left on the disk, for people; `None` if it left none.
    pub(crate) fn system(&self) -> Option<String> {
        let imaged = match &self.outcome {
            Some(outcome) => matches!(outcome, Outcome::Done { .. }),
            None => self.was_committed(),
        };
        imaged.then(|| self.personal.as_ref().map_or_else(|| "imaged".into(), Personal::words))
    }

    /// Is it a try of this?
    pub(crate) fn is_for(&self, target: &Target) -> bool {
        self.job == target.job && self.images().eq(target.images())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_finished_within_twelve_hours_of_its_last_word_and_not_later() {
        let at = |hours: u64| Duration::from_secs(hours * 3600);
        let target = crate::testkit::lab::target();
        let mut attempt = Attempt::after(None, 1, "token".into(), &target, at(1));
        attempt.personal = Some(Personal::new(None, Vec::new(), target.terms.after));
        assert!(!attempt.is_to_finish(at(1)), "no image is on the disk");
        attempt.outcome = Some(crate::testkit::lab::done());
        attempt.heard = at(2);
        assert!(attempt.is_to_finish(at(13)) && !attempt.is_to_finish(at(14)));
    }
}
