//! One try of a job on one terminal: what is known of it, and what it leaves on the disks.
//!
//! Invariant: a plain value, pure; a disk that an attempt has touched counts as half written until one is
//! done. What follows from it for the terminal is decided in `jobs`.

use std::time::Duration;

use crate::api::Compare;
use crate::event::{Installed, Outcome, Progress, Stage};
use crate::server::domain::target::Target;

/// An attempt that says nothing for so long is interrupted: switched off, or cut off.
pub const SILENCE: Duration = Duration::from_secs(60);
/// So many attempts at the same thing are made without a person, when they end without an outcome or fail
/// with `Class::Retry`.
pub const TRIES: u32 = 3;

/// One try of a job on one terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Unique on the server, growing.
    pub number: u64,
    /// Must come with every report.
    pub token: String,
    /// The job's name.
    pub job: String,
    /// The image.
    pub image: String,
    /// The version.
    pub version: String,
    /// `name@version` of further images for further disks.
    pub also: Vec<String>,
    /// When it began.
    pub started: Duration,
    /// When it was last heard.
    pub heard: Duration,
    /// Its latest report.
    pub progress: Option<Progress>,
    /// When its outcome came.
    pub ended: Option<Duration>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// 1 for the first of a row of attempts at the same thing that were made without a person.
    pub tries: u32,
    /// The disk was already half written when it began.
    pub dirty: bool,
    /// A person wants another attempt whatever came of this one.
    pub retried: bool,
    /// What becomes of what is on the disk then, if the person said so.
    pub retried_as: Option<Compare>,
    /// What was on the terminal's disks when it began, as far as is known.
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
            version: target.version.clone(),
            also: target.image_ids().split_off(1),
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

    /// `name@version` of each image, the one that starts first.
    pub fn image_ids(&self) -> Vec<String> {
        let first = format!("{}@{}", self.image, self.version);
        std::iter::once(first).chain(self.also.iter().cloned()).collect()
    }

    /// The same for people.
    pub fn title(&self) -> String {
        self.image_ids().join(" + ")
    }

    /// Under way, and heard lately.
    pub fn is_live(&self, now: Duration) -> bool {
        self.outcome.is_none() && now.saturating_sub(self.heard) < SILENCE
    }

    /// Does the disk hold half a system because of it, or since before it?
    pub fn leaves_half_a_system(&self) -> bool {
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
    pub fn may_be_tried_again(&self) -> bool {
        self.tries < TRIES || self.outcome.is_none() && self.was_committed()
    }

    /// What is on the terminal's disks after it, the newest first, as far as is known: a disk that was
    /// touched is no record's.
    pub fn leaves_installed(&self) -> Vec<Installed> {
        match &self.outcome {
            Some(Outcome::Done { installed: new, .. }) => {
                let others = self.installed.iter().filter(|old| !new.iter().any(|new| new.disk == old.disk));
                new.iter().chain(others).cloned().collect()
            }
            Some(Outcome::Failed { disk_touched: false, .. }) if !self.dirty => self.installed.clone(),
            // What was heard last says too little: the next thing may have been the disarm.
            _ => Vec::new(),
        }
    }

    /// Is it a try of this?
    pub fn is_for(&self, target: &Target) -> bool {
        self.job == target.job.name && self.image_ids() == target.image_ids()
    }

    /// Number in the row of attempts without a person, for one at `target` that follows this one.
    pub fn tries_of_next(&self, target: &Target) -> u32 {
        match &self.outcome {
            _ if self.retried || !self.is_for(target) => 1,
            Some(Outcome::Done { .. }) => self.tries,
            Some(Outcome::Failed { .. }) => self.tries.saturating_add(1),
            // The image is on the disk: what was interrupted is the stay in the swarm.
            None if self.was_committed() => self.tries,
            // It ended in a crash, a hang or a power cut. A terminal that crashes each time must not try for
            // ever.
            None => self.tries.saturating_add(1),
        }
    }
}
