//! All that the server knows of one terminal: `GET /api/v1/terminals/{id}`.
//!
//! Invariant: only shapes, as in the module above. Times are RFC 3339 texts in UTC.

use serde::{Deserialize, Serialize};

use super::{DiskInfo, Inventory, PersonalView, TerminalView};
use crate::event::{Installed, Outcome, Stage};

/// One terminal: its row, and what only a look at this terminal shows.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TerminalDetails {
    #[serde(flatten)]
    pub row: TerminalView,
    /// Version of its agent.
    pub agent: String,
    /// When the server first heard it; `None` if it never did, or an older server did not write it down.
    pub first_heard: Option<String>,
    /// `None` if it never was.
    pub last_heard: Option<String>,
    /// When it, or somebody in its name, last booted from the network since the server's start, from which
    /// address, and what it was told.
    #[serde(default)]
    pub netbooted: Option<String>,
    /// Those of its MACs that only its hello named; nobody has listed them, and they bring no agent.
    #[serde(default)]
    pub claimed_macs: Vec<String>,
    /// Its hardware, as in its last hello.
    pub inventory: Inventory,
    /// Fixed disks that it had and that its last hello does not name.
    pub missing_disks: Vec<DiskInfo>,
    /// The images on its disks, as far as known.
    pub installed: Vec<Installed>,
    /// A disk holds half a system because of an attempt.
    pub half_written: bool,
    /// Its last attempt. `row` has its progress and outcome.
    pub attempt: Option<AttemptView>,
}

/// An attempt of a terminal.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    pub number: u64,
    pub job: String,
    /// `name@version` of its images.
    pub images: String,
    pub started: String,
    /// When its last report came.
    pub heard: String,
    pub ended: Option<String>,
    /// 1 for the first of a row of attempts that were made without a person.
    pub tries: u32,
    /// A person stopped it.
    pub cancelled: bool,
    /// How much the system is the terminal's own; `None` if it was left as it was captured.
    #[serde(default)]
    pub personal: Option<PersonalView>,
    /// Its stages in the order in which they began, as far as reports told.
    #[serde(default)]
    pub stages: Vec<StageView>,
}

/// A stage of an attempt.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageView {
    pub stage: Stage,
    pub began: String,
    /// Until the next stage began, or the last report came.
    pub seconds: u64,
}

/// An attempt in the history.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastAttempt {
    /// The terminal's name in calls.
    pub terminal: String,
    #[serde(flatten)]
    pub attempt: AttemptView,
    /// `None` if none came, or none yet.
    pub outcome: Option<Outcome>,
}
