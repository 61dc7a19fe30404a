//! A job: what happens to which terminals, and when.
//!
//! Invariant: the images, the terms and the terminals of a job are fixed when a person creates it. Only a
//! standing job that follows its images takes newer versions, at the opening of a run.

use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use crate::api::{After, Compare, LayoutMode};
use crate::image_id::{self, ImageId};
use crate::server::domain::registry::hostname::HostnameRule;
use crate::server::domain::times::{Closing, Every};

/// Longest stay in the swarm after the commit, in seconds.
pub(crate) const LONGEST_STAY: u64 = 30 * 60;

/// What a job does to a terminal's disks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The first one starts.
    pub images: Vec<Placement>,
    /// How pieces that are on the disk already are found.
    pub compare: Compare,
    /// The action after the images are on the disks.
    pub after: After,
    /// Check pieces as they arrive.
    pub verify: bool,
    /// Longest stay in the swarm after the commit, seconds.
    pub longest_stay: u64,
    /// What each terminal may use of its link, each way, in Mbit/s.
    #[serde(default)]
    pub limit_mbit: Option<u32>,
    /// Write nothing: the terminals are looked at and boot back.
    #[serde(default)]
    pub preflight: bool,
    /// How each terminal's system gets its host name; without a rule it keeps the image's.
    #[serde(default)]
    pub hostname: Option<HostnameRule>,
    /// Leave the image as it was captured, without a file of the terminal's own.
    #[serde(default)]
    pub as_is: bool,
}

/// One image for one disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    #[serde(flatten)]
    pub id: ImageId,
    /// Which disk (`layout::rule`).
    pub disk: String,
    pub layout: LayoutMode,
    /// Some of the image's partitions only; the table and the others stay.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
}

impl Placement {
    /// The whole image onto the only internal disk.
    pub(crate) fn whole(id: ImageId) -> Self {
        Placement { id, disk: "internal".into(), layout: LayoutMode::WholeDisk, partitions: None }
    }
}

impl Terms {
    /// One image with every choice at its default.
    pub(crate) fn of(placement: Placement) -> Self {
        Terms {
            images: vec![placement],
            compare: Compare::Auto,
            after: After::Reboot,
            verify: true,
            longest_stay: LONGEST_STAY,
            limit_mbit: None,
            preflight: false,
            hostname: None,
            as_is: false,
        }
    }

    /// Its images, the one that starts first.
    pub fn ids(&self) -> impl Iterator<Item = &ImageId> {
        self.images.iter().map(|one| &one.id)
    }

    /// The same for people.
    pub fn title(&self) -> String {
        image_id::title(self.ids())
    }
}

/// What the end of a window does to terminals that have begun.
#[derive(utoipa::ToSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overrun {
    /// They go on; a half-written one may come back.
    #[default]
    Finish,
    /// They stop at once, and a half-written one is held until a person decides.
    Stop,
}

impl std::str::FromStr for Overrun {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "finish" => Ok(Overrun::Finish),
            "stop" => Ok(Overrun::Stop),
            _ => Err(format!("'{text}' is not one of finish, stop")),
        }
    }
}

/// How a job's terminals take their turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Attempts that a terminal makes without a person.
    pub attempts: u32,
    /// Terminals that may be under way at once; all of them without a limit.
    pub wave: Option<u32>,
    /// The server switches the terminals on.
    pub wake: bool,
    pub overrun: Overrun,
}

/// The calendar of a job that runs again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub every: Every,
    pub closing: Closing,
    /// Each run takes the newest versions of the images.
    pub follow: bool,
}

/// Where a run stands.
#[derive(utoipa::ToSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its window has not opened.
    Planned,
    /// Terminals may begin, or are under way.
    Open,
    /// Each terminal has its final state.
    Over,
}

/// One window of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Counted from 1.
    pub number: u32,
    pub opens: Timestamp,
    pub closes: Timestamp,
    pub phase: Phase,
}

/// What a person ordered. Its terminals are `members` of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Counted from 1, unique on the server.
    pub number: u64,
    pub created: Timestamp,
    /// Who created it.
    pub by: String,
    pub note: String,
    /// The terminals as the person named them.
    pub targets: Vec<String>,
    pub terms: Terms,
    pub pace: Pace,
    /// The forecast for one terminal, seconds: none begins when less is left of the window.
    pub needs: u64,
    /// Bytes of the images, of which `needs` is the forecast.
    #[serde(default)]
    pub bytes: u64,
    pub standing: Option<Standing>,
    pub run: Run,
    /// When the next run of a standing job opens.
    pub next: Option<Timestamp>,
    /// A person has cancelled it.
    pub cancelled: bool,
}

/// Jobs of different kinds do not exclude each other on one terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) standing: bool,
    pub(crate) preflight: bool,
}

impl Job {
    pub(crate) fn kind(&self) -> Kind {
        Kind { standing: self.standing.is_some(), preflight: self.terms.preflight }
    }

    /// Its name in attempts.
    pub fn name(&self) -> String {
        self.number.to_string()
    }

    /// Whether nothing of it is to come.
    pub fn is_over(&self) -> bool {
        self.run.phase == Phase::Over && self.next.is_none()
    }

    /// The window that opens at `next`, and the opening of the one after it.
    pub(super) fn window(standing: &Standing, opens: &Zoned) -> (Timestamp, Timestamp) {
        (standing.closing.of(&standing.every.opening(opens)), standing.every.next(opens).timestamp())
    }
}
