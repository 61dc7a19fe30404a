//! Decisions of people for several terminals or jobs at once: `POST /api/v1/decisions/…`.
//!
//! Invariant: only shapes, as in the module above. Targets are the words of `job create`: a label, a MAC,
//! `uuid:…`, `room:NAME`, `group:NAME`, `zone:NAME`, `new` or `all`.

use serde::{Deserialize, Serialize};

use super::{Compare, Describe};

/// The terminals to cancel or to wake.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    pub targets: Vec<String>,
}

/// The terminals that begin again with their latest jobs. A terminal that is done begins again only if a
/// target names it alone.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryTerminals {
    pub targets: Vec<String>,
    /// How pieces on the disk are found, instead of the jobs' choices.
    #[serde(default)]
    pub compare: Option<Compare>,
    /// The disks that the terminals have now are the ones that they should have. Each target must then name
    /// one terminal.
    #[serde(default)]
    pub accept_disks: bool,
}

/// The terminals to forget.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetTerminals {
    pub targets: Vec<String>,
    /// Also all those that a room, a group, a zone, `new` or `all` means.
    #[serde(default)]
    pub all_of_them: bool,
}

/// The terminals to describe alike.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribeTerminals {
    pub targets: Vec<String>,
    pub set: Describe,
}

/// The jobs to cancel.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelJobs {
    pub jobs: Vec<u64>,
}

/// The result of a decision for one terminal.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Its name in calls.
    pub terminal: String,
    pub label: Option<String>,
    /// False if it is left as it was.
    pub changed: bool,
    /// What becomes of it, or why it is left as it was, for people.
    pub result: String,
    /// What to do about that, if there is anything.
    pub advice: String,
}

/// The result of a decision for one job.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDecided {
    pub job: u64,
    /// False if it is left as it was.
    pub changed: bool,
    /// Why it is left as it was, for people.
    pub result: String,
    pub advice: String,
}
