//! The calls of terminals and command lines to the server, as JSON under `/api/v1/`.
//!
//! `capture` has the calls about a disk that is captured where it stands, `personal` those about a system of
//! its own for each terminal.
//!
//! Invariant: only shapes, no behaviour; both sides use these same types. Unknown fields are ignored, so that
//! an agent of an older initramfs can talk to a newer server. A job's choices are in `terms`.
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

mod capture;
mod decision;
mod details;
mod device;
mod people;
mod personal;
mod registry;
mod terms;

use serde::{Deserialize, Serialize};

use crate::event::{Chosen, DiskIdentity, Installed, Outcome, Progress};
use crate::image_id::{self, ImageId};
pub use capture::{
    CaptureState, CaptureView, Lend, LendOffer, LendOrders, LendReport, LentView, NewCapture, Watch,
};
pub use decision::{
    CancelJobs, Decided, DescribeTerminals, ForgetTerminals, JobDecided, RetryTerminals, Targets,
};
pub use details::{AttemptView, PastAttempt, StageView, TerminalDetails};
pub use device::DeviceInfo;
pub use people::{AuditEntry, NewToken, TokenMade, TokenView};
pub use personal::{Booted, BootedView, Personal, PersonalReport, PersonalView};
pub use registry::{Describe, Imported};
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

/// A terminal's hardware.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// SMBIOS manufacturer and product.
    pub machine: String,
    pub serial: Option<String>,
    /// Processor model and number of cores.
    pub cpu: String,
    pub memory: u64,
    /// `bios` or `uefi`.
    pub firmware: String,
    pub disks: Vec<DiskInfo>,
    pub nics: Vec<NicInfo>,
    /// Network cards and disk controllers, whether a driver serves them or not; empty from older agents.
    #[serde(default)]
    pub devices: Vec<DeviceInfo>,
}

/// A disk as `/sys/block` shows it. Disk rules match against it.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Kernel name: `sda`, `nvme0n1`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector_size: u32,
    /// Model as the disk says.
    pub model: Option<String>,
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// `virtio`, `ata`, `nvme`, `scsi`, `usb`, `mmc`, `loop`.
    pub bus: String,
    /// Path in the device tree, stable across boots.
    pub path: String,
    pub rotational: bool,
    /// Can be pulled out.
    pub removable: bool,
    /// Writes are refused by the device.
    pub read_only: bool,
}

impl DiskInfo {
    /// The fields that tell it from other disks.
    pub fn identity(&self) -> DiskIdentity {
        DiskIdentity {
            serial: self.serial.clone(),
            wwn: self.wwn.clone(),
            path: self.path.clone(),
            size: self.size,
        }
    }
}

#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NicInfo {
    pub name: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    pub driver: Option<String>,
    /// Made by software (a tap, a bridge, a VLAN, a tunnel's end): other machines may have one with the same
    /// MAC.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub software: bool,
    pub link: bool,
    /// Mbit/s, if known.
    pub speed: Option<u32>,
    /// Address with prefix length, if it has one.
    pub address: Option<String>,
    /// The switch at the other end, once it was heard (LLDP: every 30 s).
    #[serde(default)]
    pub neighbour: Option<Neighbour>,
}

/// A switch as it names itself on the port where a cable ends (IEEE 802.1AB).
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Neighbour {
    /// The switch: most often its MAC address.
    pub chassis: String,
    pub port: String,
    /// Its name, if its administrator gave it one.
    pub name: Option<String>,
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

/// A terminal asks for its work.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Take {
    /// Job from the kernel command line, or `None` for any job.
    pub job: Option<String>,
    /// Image asked for on the agent's command line (`NAME` or `NAME@VERSION`), or `None`.
    pub image: Option<String>,
    /// Further images for further disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Further>,
    /// The agent knows [`Assignment::preflight`]. An agent that does not would write the disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preflight: bool,
    /// The agent knows [`Assignment::personal`] and [`Assignment::finish`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub personal: bool,
    /// The agent knows [`Assignment::limit_mbit`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub limit: bool,
    /// The agent knows the administrator's files (`after.json` of an image).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files: bool,
    /// The agent knows [`Assignment::growth`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub growth: bool,
    /// The agent knows [`Lend`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lend: bool,
    /// It wants nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_lend: bool,
}

/// One more requested image, and its disk.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Further {
    /// `NAME` or `NAME@VERSION`.
    pub image: String,
    /// A device, or a rule.
    pub disk: String,
}

/// A job for one terminal: one attempt.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub job: String,
    /// Number of this attempt, unique on the server.
    pub attempt: u64,
    /// Must come with every report, so that only this terminal reports for itself.
    pub token: String,
    /// Which image goes where.
    #[serde(flatten)]
    pub task: Task,
    /// Further images for further disks of the same terminal: all in this attempt, or none.
    #[serde(default)]
    pub also: Vec<Task>,
    /// The server's records of the terminal's disks.
    #[serde(default)]
    pub installed: Vec<Installed>,
    /// The fixed disks that the terminal ever had, unless a person has accepted that some are gone.
    #[serde(default)]
    pub known_disks: Vec<DiskInfo>,
    /// The disks that rules chose on this terminal before, on the same terms.
    #[serde(default)]
    pub chosen: Vec<Chosen>,
    /// Let pieces travel compressed.
    #[serde(default)]
    pub compress: Compress,
    /// The action after the image is on the disk.
    pub after: After,
    /// Check pieces as they arrive.
    pub verify: bool,
    /// Longest stay in the swarm after the commit, seconds.
    pub longest_stay: u64,
    /// What the terminal may use of its link, each way, in Mbit/s. Only given to an agent whose [`Take`] says
    /// that it knows this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_mbit: Option<u32>,
    /// Write nothing: look at the terminal, report, and boot the system that is on the disk. Only given to an
    /// agent whose [`Take`] says that it knows this.
    #[serde(default)]
    pub preflight: bool,
    /// What makes the installed system this terminal's own; `None`: it stays as it was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<Personal>,
    /// The system stays as it was captured, and its image lets a partition grow: the server waits for the
    /// [`PersonalReport`] that this is done, or that nothing had to grow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub growth: bool,
    /// The image is on the disk since an earlier run of this attempt: only `personal` and what may grow are
    /// left to do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finish: bool,
    /// The server's date as it answers, seconds since 1970.
    #[serde(default)]
    pub date: Option<i64>,
}

impl Assignment {
    /// All that is to be done: the image that starts first.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task> {
        std::iter::once(&self.task).chain(&self.also)
    }

    /// All tasks, to change.
    pub(crate) fn tasks_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        std::iter::once(&mut self.task).chain(&mut self.also)
    }

    /// `name@version` of each image, for people.
    pub fn title(&self) -> String {
        image_id::title(self.tasks().map(|task| &task.id))
    }
}

/// Bytes of the payload that pass in a second where `mbit` Mbit/s of a link may be used: a block of 16 KiB
/// takes 5 % more on the cable, for the headers of its packets, and other messages a little.
pub fn payload_rate(mbit: u32) -> u64 {
    u64::from(mbit) * 125_000 * 15 / 16
}

/// One image onto one disk.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    #[serde(flatten)]
    pub id: ImageId,
    /// Path of the version's folder under the server's address: `/images/NAME/VERSION/`.
    pub folder: String,
    /// Which disk (`layout::rule`), for example `internal` or `serial=WD-123`.
    pub disk: String,
    /// Write the image's own table, or use the partitions that are there.
    pub layout: LayoutMode,
    /// Numbers of the partitions that are written; the others stay, as the table does. `None`: all of the
    /// image's.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
    /// How pieces already on the disk are found.
    #[serde(default)]
    pub compare: Compare,
    /// Goes with each announce, as `t`; `None` if the image is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

impl Task {
    /// Chooses some partitions, which leaves the table unchanged.
    pub fn only(&mut self, partitions: Vec<u32>) {
        self.partitions = Some(partitions);
        self.layout = LayoutMode::Keep;
    }
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
