//! The calls of terminals and command lines to the server, as JSON under `/api/v1/`.
//!
//! `capture` has the calls about a disk that is captured where it stands, `personal` those about a system of
//! its own for each terminal.
//!
//! Invariant: only shapes, no behaviour; both sides use these same types. Unknown fields are ignored, so that
//! an agent of an older initramfs can talk to a newer server. The hardware is in `inventory`, the work of an
//! attempt in `assignment`, a job's choices in `terms`, and a terminal of the list in `terminal`.
//! `server::http::api` checks the callers, and describes the calls at `/api/v1/openapi.json`.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /api/v1/hello` | [`Hello`] | [`Welcome`] |
//! | `POST /api/v1/terminals/{id}/take` | [`Take`] | 200 [`Assignment`], 204 nothing to do, 409 [`Refusal`] |
//! | `POST /api/v1/attempts/{attempt}/progress` | [`ProgressReport`] | [`Orders`] |
//! | `POST /api/v1/attempts/{attempt}/outcome` | [`OutcomeReport`] | [`Orders`] |
//! | `GET /api/v1/terminals[?room=…&group=…&new=true]` | | `[`[`TerminalView`]`]` |
//! | `POST /api/v1/attempts/{attempt}/log` | zstd frame, token in [`TOKEN_HEADER`] | 204 |
//! | `GET /api/v1/attempts/{attempt}/log[?terminal=ID]` | | text |
//! | `GET /api/v1/terminals/{id}` | | [`TerminalDetails`] |
//! | `PATCH /api/v1/terminals/{id}` | [`Describe`] | 204; a person |
//! | `POST /api/v1/terminals/import` | CSV | [`Imported`]; a person |
//! | `GET /api/v1/terminals/export[?new=true]` | | CSV |
//! | `DELETE /api/v1/terminals/{id}` | | 204 forgotten; a person |
//! | `POST /api/v1/terminals/{target}/wake` | | `[`[`Woken`]`]`; a person |
//! | `POST /api/v1/terminals/{id}/retry[?compare=…&accept_disks=true]` | | 204; a person |
//! | `POST /api/v1/decisions/retry` | [`RetryTerminals`] | `[`[`Decided`]`]`; a person |
//! | `POST /api/v1/decisions/cancel` | [`Targets`] | `[`[`Decided`]`]`; a person |
//! | `POST /api/v1/decisions/forget` | [`ForgetTerminals`] | `[`[`Decided`]`]`; a person |
//! | `POST /api/v1/decisions/set` | [`DescribeTerminals`] | `[`[`Decided`]`]`; a person |
//! | `POST /api/v1/decisions/wake` | [`Targets`] | `[`[`Woken`]`]`; a person |
//! | `POST /api/v1/decisions/cancel-jobs` | [`CancelJobs`] | `[`[`JobDecided`]`]`; a person |
//!
//! `hello` brings `Authorization: Ticket …` from the kernel command line, and gets a secret. From then on
//! `hello` and `take` bring `Authorization: Bearer …` with it. A report has the token of its attempt instead.
//!
//! Where people name a terminal, `{id}` may also be its label, one of its MACs, or its UUID. Any call may be
//! answered with 429, a [`Refusal`] and `Retry-After`: the caller's address asks too much. The same call
//! succeeds later.

mod assignment;
mod capture;
mod decision;
mod details;
mod device;
mod inventory;
mod people;
mod personal;
mod registry;
mod terminal;
mod terms;

use serde::{Deserialize, Serialize};

use crate::event::{Chosen, Outcome, Progress};
pub use assignment::{Assignment, Further, Take, Task, payload_rate};
pub use capture::{
    CaptureState, CaptureView, Lend, LendOffer, LendOrders, LendReport, LentView, NewCapture, Watch,
};
pub use decision::{
    CancelJobs, Decided, DescribeTerminals, ForgetTerminals, JobDecided, RetryTerminals, Targets,
};
pub use details::{AttemptView, PastAttempt, StageView, TerminalDetails};
pub use device::DeviceInfo;
pub use inventory::{DiskInfo, Inventory, Neighbour, NicInfo};
pub use people::{AuditEntry, NewToken, TokenMade, TokenView};
pub use personal::{Booted, BootedView, Personal, PersonalReport, PersonalView};
pub use registry::{Describe, Imported, MAX_TABLE};
pub use terminal::{TerminalState, TerminalView};
pub use terms::{After, Compare, Compress, LayoutMode, check_partitions, partition_numbers};

/// Most bytes of an attempt's log.
pub const MAX_LOG: usize = 512 << 10;
/// Most bytes of its zstd frame.
pub const MAX_PACKED_LOG: usize = 64 << 10;
/// The header with the attempt's token, for a call whose body is no JSON.
pub const TOKEN_HEADER: &str = "flashmob-token";

/// A terminal introduces itself.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// SMBIOS UUID, lower case, if the firmware has one.
    pub uuid: Option<String>,
    /// MAC addresses of all its interfaces, `aa:bb:cc:dd:ee:ff`, the one it netbooted from first.
    pub macs: Vec<String>,
    pub inventory: Inventory,
    /// Version of the agent.
    pub agent: String,
}

/// Answer to [`Hello`].
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Always `flashmob`: anything else is another program.
    pub service: String,
    /// Version of the server.
    pub version: String,
    /// The terminal's name in later calls (letters, digits, `-`, `:`).
    pub terminal: String,
    /// Its name for people, if any.
    pub label: Option<String>,
    /// What the terminal presents from now on; `None` if what it presented stays good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The answer to `/boot/step`: what a terminal does that asks at its start, without a boot script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum BootStep {
    /// There is work; the ticket lets it speak.
    Work { ticket: Option<String> },
    /// On to its disk.
    Disk,
    /// Nothing yet, and the disk must not be started: ask again.
    Wait { why: String },
}

/// Why a terminal gets no work although it asked for some.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The problem.
    pub error: String,
    /// The remedy.
    pub advice: String,
}

/// How far an attempt is.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// From the assignment.
    pub token: String,
    pub progress: Progress,
    /// The disks that are written, once they are chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chosen: Vec<Chosen>,
}

/// How an attempt ended.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutcomeReport {
    /// From the assignment.
    pub token: String,
    pub outcome: Outcome,
}

/// The server's answer to a report.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orders {
    /// The terminal may leave the swarm.
    pub release: bool,
    /// The attempt is to stop now (a person cancelled the job).
    pub cancel: bool,
    /// MACs of machines that the terminal is to wake, because they are in its network and not in the
    /// server's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wake: Vec<String>,
}

/// The ways that the wake-up packets for one terminal took. Without any way and failure they leave soon.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Woken {
    /// The terminal's name in calls.
    pub terminal: String,
    pub label: Option<String>,
    pub macs: Vec<String>,
    /// Interfaces of the server that sent.
    pub interfaces: Vec<String>,
    /// Networks behind routers to whose broadcast address the server sent.
    pub networks: Vec<String>,
    /// Terminals that send, with their next report.
    pub relays: Vec<String>,
    /// Why some packets could not leave.
    pub problems: Vec<String>,
    /// Why none leaves.
    pub failure: Option<String>,
}
