//! The work of one attempt: a terminal asks for it, and gets which image goes where.

use serde::{Deserialize, Serialize};

use super::inventory::DiskInfo;
use super::personal::Personal;
use super::terms::{After, Compare, Compress, LayoutMode};
use crate::event::{Chosen, Installed};
use crate::image_id::{self, ImageId};

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
    /// The agent knows manifests with a blank for the terminal's own file. Older ones refuse them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blank: bool,
    /// The agent knows [`Lend`](super::Lend).
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
    /// [`PersonalReport`](super::PersonalReport) that this is done, or that nothing had to grow.
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
