//! One try of a job on one terminal: its course, and the state in which it leaves the disks.
//!
//! Invariant: a plain value, pure; a disk that an attempt has touched counts as half written until one is
//! done. `jobs` decides the terminal's next step.

use std::time::Duration;

use crate::api::Compare;
use crate::event::{Installed, Outcome, Progress, Stage};
use crate::image_id::{self, ImageId};
use crate::server::domain::target::Target;

/// An attempt that is silent for this time is interrupted: switched off, or cut off.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// So many attempts at the same thing are made without a person, when they end without an outcome or fail
/// with `Class::Retry`.
pub(crate) const TRIES: u32 = 3;

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
    /// When its outcome came.
    pub ended: Option<Duration>,
    pub outcome: Option<Outcome>,
    /// 1 for the first of a row of attempts at the same thing that were made without a person.
    pub tries: u32,
    /// The disk was already half written when it began.
    pub dirty: bool,
    /// An administrator wants another attempt, regardless of this one's outcome.
    pub retried: bool,
    /// How pieces on the disk are found in the next attempt, if the administrator chose.
    pub retried_as: Option<Compare>,
    /// The versions on the terminal's disks when it began, as far as known.
    pub installed: Vec<Installed>,
    /// A person wants it to stop.
    pub cancelled: bool,
}

impl Attempt {
    /// The try of `target` that begins now and follows `last` on the same terminal.
    pub fn after(last: Option<&Attempt>, number: u64, token: String, target: &Target, now: Duration) -> Self {
        Attempt {
            number,
            token,
            job: target.job.name.clone(),
            image: target.image.clone(),
            also: target.also.clone(),
            started: now,
            heard: now,
            progress: None,
            ended: None,
            outcome: None,
            tries: last.map_or(1, |last| last.tries_of_next(target)),
            dirty: last.is_some_and(Attempt::leaves_half_a_system),
            retried: false,
            retried_as: None,
            installed: last.map(Attempt::leaves_installed).unwrap_or_default(),
            cancelled: false,
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
        match &self.outcome {
            Some(Outcome::Done { .. }) => false,
            Some(Outcome::Failed { disk_touched, .. }) => *disk_touched || self.dirty,
            None => self.dirty || self.progress.as_ref().is_some_and(|p| p.stage >= Stage::Disarm),
        }
    }

    /// Did the terminal say that its image is on the disk, although no outcome came?
    fn was_committed(&self) -> bool {
        self.progress.as_ref().is_some_and(|p| p.stage >= Stage::Serve)
    }

    /// Another attempt at the same thing may follow it without a person, by the number of tries.
    pub(crate) fn may_be_tried_again(&self) -> bool {
        self.tries < TRIES || self.outcome.is_none() && self.was_committed()
    }

    /// The versions on the terminal's disks after it, the newest first, as far as known. A touched disk has
    /// no record.
    pub(crate) fn leaves_installed(&self) -> Vec<Installed> {
        match &self.outcome {
            Some(Outcome::Done { installed: new, .. }) => {
                let others = self.installed.iter().filter(|old| !new.iter().any(|new| new.disk == old.disk));
                new.iter().chain(others).cloned().collect()
            }
            Some(Outcome::Failed { disk_touched: false, .. }) if !self.dirty => self.installed.clone(),
            // The last report says too little, because the disarm may have followed it.
            _ => Vec::new(),
        }
    }

    /// Is it a try of this?
    pub(crate) fn is_for(&self, target: &Target) -> bool {
        self.job == target.job.name && self.images().eq(target.images())
    }

    /// Number in the row of attempts without a person, for one at `target` that follows this one.
    pub(crate) fn tries_of_next(&self, target: &Target) -> u32 {
        match &self.outcome {
            _ if self.retried || !self.is_for(target) => 1,
            Some(Outcome::Done { .. }) => self.tries,
            Some(Outcome::Failed { .. }) => self.tries.saturating_add(1),
            // The image is on the disk, and only the stay in the swarm was interrupted.
            None if self.was_committed() => self.tries,
            // It ended in a crash, a hang or a power cut. A terminal that crashes each time must not try for
            // ever.
            None => self.tries.saturating_add(1),
        }
    }
}
