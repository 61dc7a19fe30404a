//! A terminal in a list: who it is, and how it stands.

use serde::{Deserialize, Serialize};

use crate::event::{Outcome, Progress};

/// One row of the lab.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TerminalView {
    /// The terminal's name in calls.
    pub id: String,
    /// Its name in the configuration, if any.
    pub label: Option<String>,
    /// Problems with its identity for people, for example that others share its UUID.
    #[serde(default)]
    pub notes: Vec<String>,
    pub macs: Vec<String>,
    pub uuid: Option<String>,
    /// Last address it spoke from.
    pub address: Option<String>,
    /// Manufacturer and product.
    pub machine: String,
    pub state: TerminalState,
    /// `name@version` of its latest attempt.
    pub image: Option<String>,
    /// The latest progress while it is imaging.
    pub progress: Option<Progress>,
    /// How its latest attempt ended.
    pub outcome: Option<Outcome>,
    /// The job that says most about it.
    #[serde(default)]
    pub job: Option<u64>,
    /// Why it is in this state, short.
    #[serde(default)]
    pub reason: Option<String>,
    /// What is known of the system that its latest attempt installed: imaged, personalised, booted.
    #[serde(default)]
    pub system: Option<String>,
    /// How the capture of its disk stands, in words, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<String>,
    /// Seconds since it was last heard; `None` if it never was.
    pub silent: Option<u64>,
    /// No person has registered it.
    #[serde(default)]
    pub new: bool,
    #[serde(default)]
    pub room: Option<String>,
    #[serde(default)]
    pub seat: Option<String>,
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub hostname: Option<String>,
    /// Its zone, if zones are configured.
    #[serde(default)]
    pub zone: Option<String>,
    /// Its zone exchanges pieces with others through it.
    #[serde(default)]
    pub gateway: bool,
    /// The switch that it hears, for people.
    #[serde(default)]
    pub switch: Option<String>,
}

/// Where a terminal stands.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TerminalState {
    /// Known, nothing to do.
    Idle,
    /// A job is for it, whose window has not opened.
    Planned,
    /// A job waits for it.
    Waiting,
    Imaging,
    /// Imaging, but silent for long: switched off, or cut off.
    Interrupted,
    /// Its job is done.
    Done,
    Failed,
    /// A person or the end of a window stopped it.
    Cancelled,
    /// The window of its job ended before it began.
    Missed,
    /// It did not wake before the window of its job ended.
    Asleep,
}

impl TerminalState {
    /// All of them, in the order in which people look at them.
    pub const ALL: [TerminalState; 10] = [
        TerminalState::Failed,
        TerminalState::Interrupted,
        TerminalState::Asleep,
        TerminalState::Missed,
        TerminalState::Cancelled,
        TerminalState::Imaging,
        TerminalState::Waiting,
        TerminalState::Planned,
        TerminalState::Done,
        TerminalState::Idle,
    ];

    /// The state as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            TerminalState::Idle => "idle",
            TerminalState::Planned => "planned",
            TerminalState::Waiting => "waiting",
            TerminalState::Imaging => "imaging",
            TerminalState::Interrupted => "interrupted",
            TerminalState::Done => "done",
            TerminalState::Failed => "failed",
            TerminalState::Cancelled => "cancelled",
            TerminalState::Missed => "missed",
            TerminalState::Asleep => "asleep",
        }
    }
}
