//! A system of its own for each terminal: what the server gives, what the agent and the started system
//! report.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /api/v1/attempts/{attempt}/personal` | [`PersonalReport`] | 204 |
//! | `POST /api/v1/booted` | [`Booted`] | 204; by the installed system |
//!
//! Invariant: only shapes, as in the module above.

use serde::{Deserialize, Serialize};

/// What makes the system on a terminal's disk its own.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Personal {
    /// By the job's rule; `None`: the image's host name stays.
    #[serde(default)]
    pub hostname: Option<String>,
    #[serde(default)]
    pub label: Option<String>,
    #[serde(default)]
    pub room: Option<String>,
    #[serde(default)]
    pub seat: Option<String>,
    /// The groups that the terminal is in, for the rules of the administrator's files.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Maker and product of the machine, for the same.
    #[serde(default)]
    pub model: String,
    /// For one call of the installed system: [`Booted`].
    pub ticket: String,
}

/// How far the agent is with making the system the terminal's own.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PersonalReport {
    /// From the assignment.
    pub token: String,
    /// Nothing is left to do. What could not be done is among the problems.
    pub done: bool,
    /// The steps that are done, for people.
    pub steps: Vec<String>,
    /// Why steps could not be done.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// The installed system has started: the body of `POST /api/v1/booted`.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Booted {
    /// From the file that the agent left for it.
    pub ticket: String,
    /// The host name that it has now.
    pub hostname: String,
    /// For example `Debian GNU/Linux 12 (bookworm)`.
    #[serde(default)]
    pub system: String,
    /// For example `6.1.0-26-amd64`.
    #[serde(default)]
    pub kernel: String,
}

/// A system that has started and called back.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BootedView {
    /// RFC 3339.
    pub at: String,
    pub hostname: String,
    pub system: String,
    pub kernel: String,
}

/// How much a terminal's system is its own.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PersonalView {
    /// The system stays as it was captured: its filesystems grow, and nothing else is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_is: bool,
    /// The host name that the job gives it.
    pub hostname: Option<String>,
    /// Nothing is left for the agent to do.
    pub done: bool,
    pub steps: Vec<String>,
    pub problems: Vec<String>,
    /// `None` until the started system has called.
    pub booted: Option<BootedView>,
}
