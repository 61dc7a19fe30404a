//! What a person orders, and what the server answers: shapes only.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Overrun;
use crate::api::{After, Compare, LayoutMode};

/// What a person orders: the body of `POST /api/v1/jobs`. Times are words, because the server's time zone
/// counts.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOrder {
    /// `NAME` or `NAME@VERSION`.
    pub image: String,
    /// Labels, MACs, `uuid:…`, `room:…`, `group:…`, `zone:…`, `new`, `all`.
    pub targets: Vec<String>,
    #[serde(default)]
    pub at: Option<String>,
    #[serde(default)]
    pub until: Option<String>,
    #[serde(default)]
    pub every: Option<String>,
    #[serde(default)]
    pub follow: bool,
    #[serde(default)]
    pub wake: bool,
    #[serde(default)]
    pub wave: Option<u32>,
    #[serde(default)]
    pub attempts: Option<u32>,
    #[serde(default)]
    pub overrun: Overrun,
    #[serde(default)]
    pub disk: Option<String>,
    #[serde(default)]
    pub layout: LayoutMode,
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
    #[serde(default)]
    pub also: Vec<Order>,
    #[serde(default)]
    pub compare: Compare,
    #[serde(default)]
    pub after: After,
    /// Whether pieces are checked as they arrive; yes if it is left out.
    #[serde(default)]
    pub verify: Option<bool>,
    /// Longest stay in the swarm, seconds.
    #[serde(default)]
    pub longest_stay: Option<u64>,
    /// What each terminal may use of its link, each way, in Mbit/s; left out: all of it.
    #[serde(default)]
    pub limit_mbit: Option<u32>,
    /// Write nothing: look at the terminals, report, and boot back.
    #[serde(default)]
    pub preflight: bool,
    /// How the terminals get their host names: `csv`, or a pattern such as `{room}-{seat:02}`.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Leave the image as it was captured.
    #[serde(default)]
    pub as_is: bool,
    #[serde(default)]
    pub note: String,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// A further image for a further disk.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub image: String,
    /// Which disk: never left to chance.
    pub disk: String,
    #[serde(default)]
    pub layout: LayoutMode,
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
}

/// Something that a person should know before the night.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The terminal, by label or name; none if it is the job.
    pub terminal: Option<String>,
    pub error: String,
    pub advice: String,
}

/// A terminal that a job is for.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    pub id: String,
    pub label: Option<String>,
    /// What is lost on its disk, for people.
    pub loses: String,
    /// The host name that it gets.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The administrator's files that its system gets.
    #[serde(default)]
    pub files: Vec<String>,
}

/// A checked order: what will happen, and what to look at before.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobPlan {
    /// `None` if nothing was created.
    pub number: Option<u64>,
    /// `name@version` of each image.
    pub images: String,
    /// The terminals are only looked at.
    #[serde(default)]
    pub preflight: bool,
    #[schema(value_type = String, format = DateTime)]
    pub opens: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub closes: Timestamp,
    /// In the server's time zone, for people.
    pub window: String,
    /// The forecast for one terminal, seconds.
    pub needs: u64,
    /// The forecast for all of them, seconds.
    pub all: u64,
    pub terminals: Vec<Affected>,
    pub findings: Vec<Finding>,
}
