//! What terminals and the server say to each other as JSON under `/api/v1/`.
//!
//! Invariant: only shapes, no behaviour; both sides use these same types. Unknown fields are ignored, so that an
//! agent of yesterday's initramfs still talks to today's server. Who may say what is decided in `server::api`.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /api/v1/hello` | [`Hello`] | [`Welcome`] |
//! | `POST /api/v1/terminals/{id}/take` | [`Take`] | 200 [`Assignment`], 204 nothing to do, 409 [`Refusal`] |
//! | `POST /api/v1/attempts/{attempt}/progress` | [`ProgressReport`] | [`Orders`] |
//! | `POST /api/v1/attempts/{attempt}/outcome` | [`OutcomeReport`] | [`Orders`] |
//! | `GET /api/v1/terminals` | | `[`[`TerminalView`]`]` |
//! | `POST /api/v1/terminals/{id}/retry[?compare=…]` | | 204; only from the server itself |

use serde::{Deserialize, Serialize};

use crate::event::{Installed, Outcome, Progress};

/// A terminal introduces itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// SMBIOS UUID, lower case, if the firmware has one.
    pub uuid: Option<String>,
    /// MAC addresses of all its interfaces, `aa:bb:cc:dd:ee:ff`, the one it netbooted from first.
    pub macs: Vec<String>,
    /// What it is made of.
    pub inventory: Inventory,
    /// Version of the agent.
    pub agent: String,
}

/// What a terminal is made of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// SMBIOS manufacturer and product.
    pub machine: String,
    /// SMBIOS serial number.
    pub serial: Option<String>,
    /// Processor model and number of cores.
    pub cpu: String,
    /// Bytes of memory.
    pub memory: u64,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// Its disks.
    pub disks: Vec<DiskInfo>,
    /// Its network interfaces.
    pub nics: Vec<NicInfo>,
}

/// A disk as `/sys/block` shows it. Also what disk rules match against.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Kernel name: `sda`, `nvme0n1`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Logical sector size.
    pub sector_size: u32,
    /// Model as the disk says.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// `virtio`, `ata`, `nvme`, `scsi`, `usb`, `mmc`, `loop`.
    pub bus: String,
    /// Path in the device tree, stable across boots.
    pub path: String,
    /// Seeks slowly.
    pub rotational: bool,
    /// Can be pulled out.
    pub removable: bool,
    /// Writes are refused by the device.
    pub read_only: bool,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NicInfo {
    /// Kernel name.
    pub name: String,
    /// MAC address.
    pub mac: String,
    /// Driver.
    pub driver: Option<String>,
    /// Carrier seen.
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Neighbour {
    /// The switch: most often its MAC address.
    pub chassis: String,
    /// Its port.
    pub port: String,
    /// What its administrator calls it.
    pub name: Option<String>,
}

/// Answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Always `flashmob`: anything else is another program.
    pub service: String,
    /// Version of the server.
    pub version: String,
    /// The terminal's name in later calls (letters, digits, `-`, `:`).
    pub terminal: String,
    /// What people call it, if the configuration names it.
    pub label: Option<String>,
}

/// A terminal asks for its work.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Take {
    /// Job from the kernel command line, or `None` for whatever waits.
    pub job: Option<String>,
    /// Image asked for on the agent's command line (`NAME` or `NAME@VERSION`), or `None`.
    pub image: Option<String>,
}

/// A job for one terminal: one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The job's name.
    pub job: String,
    /// Number of this attempt, unique on the server.
    pub attempt: u64,
    /// Must come with every report, so that nobody else reports for this terminal.
    pub token: String,
    /// Which image goes where.
    #[serde(flatten)]
    pub task: Task,
    /// Further images for further disks of the same terminal: all in this attempt, or none.
    #[serde(default)]
    pub also: Vec<Task>,
    /// What the server's records say is on the terminal's disks.
    #[serde(default)]
    pub installed: Vec<Installed>,
    /// Let pieces travel compressed.
    #[serde(default)]
    pub compress: Compress,
    /// What follows.
    pub after: After,
    /// Check pieces as they arrive.
    pub verify: bool,
    /// Longest stay in the swarm after the commit, seconds.
    pub longest_stay: u64,
}

impl Assignment {
    /// All that is to be done: the image that starts first.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        std::iter::once(&self.task).chain(&self.also)
    }

    /// All of it, to change.
    pub fn tasks_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        std::iter::once(&mut self.task).chain(&mut self.also)
    }

    /// `name@version` of each image, for people.
    pub fn title(&self) -> String {
        let ids: Vec<String> = self.tasks().map(Task::image_id).collect();
        ids.join(" + ")
    }
}

/// One image onto one disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Image name.
    pub image: String,
    /// Image version.
    pub version: String,
    /// Path of the version's folder under the server's address: `/images/NAME/VERSION/`.
    pub folder: String,
    /// Which disk (`layout::rule`), for example `internal` or `serial=WD-123`.
    pub disk: String,
    /// Write the image's own table, or use the partitions that are there.
    pub layout: LayoutMode,
    /// Numbers of the partitions that are written; the others stay, as the table does. `None`: all of the image's.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
    /// What becomes of what is on the disk already.
    #[serde(default)]
    pub compare: Compare,
}

impl Task {
    /// Some partitions only: that leaves the table as it is.
    pub fn only(&mut self, partitions: Vec<u32>) {
        self.partitions = Some(partitions);
        self.layout = LayoutMode::Keep;
    }

    /// `name@version`.
    pub fn image_id(&self) -> String {
        format!("{}@{}", self.image, self.version)
    }
}

/// Reads a list of partition numbers as people write it: `1,3`.
pub fn partition_numbers(text: &str) -> Result<Vec<u32>, String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.map_err(|_| format!("'{text}' is not a list of partition numbers such as 1,3"))?;
    check_partitions(&numbers)?;
    Ok(numbers)
}

/// A choice of partitions names some, and each of them once.
pub fn check_partitions(numbers: &[u32]) -> Result<(), String> {
    let twice = numbers.iter().enumerate().find(|(i, number)| numbers[..*i].contains(number));
    match (numbers.is_empty(), twice) {
        (true, _) => Err("a choice of partitions must name one at least".into()),
        (_, Some((_, number))) => Err(format!("partition {number} is named twice")),
        _ => Ok(()),
    }
}

/// What becomes of what lies on a disk already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compare {
    /// Pieces of the image that are on the disk are found by their hashes and not fetched again.
    #[default]
    Auto,
    /// Everything is fetched and written.
    Full,
    /// The server's record of what is on the disk is believed, and only what differs from it is fetched.
    Trust,
}

impl Compare {
    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Compare::Auto => "auto",
            Compare::Full => "full",
            Compare::Trust => "trust",
        }
    }
}

impl std::str::FromStr for Compare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Compare::Auto, Compare::Full, Compare::Trust];
        let found = all.into_iter().find(|mode| mode.word() == text);
        found.ok_or_else(|| format!("'{text}' is not one of auto, full, trust"))
    }
}

/// Whether pieces travel compressed between flashmob peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compress {
    /// If the processor is fast enough for the link.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl std::str::FromStr for Compress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Compress::Auto),
            "on" => Ok(Compress::On),
            "off" => Ok(Compress::Off),
            other => Err(format!("'{other}' is not one of auto, on, off")),
        }
    }
}

/// What happens to the disk's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayoutMode {
    /// The disk gets the image's table.
    #[default]
    WholeDisk,
    /// The table stays; partitions match by number, start, size and type.
    Keep,
}

/// What a terminal does when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// Restart by the firmware.
    #[default]
    Reboot,
    /// Switch off.
    Poweroff,
    /// Start the image's kernel directly; restart where that is refused.
    Kexec,
    /// Stay with a shell on the console.
    Shell,
}

impl std::str::FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reboot" => Ok(After::Reboot),
            "poweroff" => Ok(After::Poweroff),
            "kexec" => Ok(After::Kexec),
            "shell" => Ok(After::Shell),
            other => Err(format!("'{other}' is not one of reboot, poweroff, kexec, shell")),
        }
    }
}

/// Why a terminal gets no work although it asked for some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub error: String,
    /// What a person should do.
    pub advice: String,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// From the assignment.
    pub token: String,
    /// The facts.
    pub progress: Progress,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutcomeReport {
    /// From the assignment.
    pub token: String,
    /// The facts.
    pub outcome: Outcome,
}

/// The server's answer to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orders {
    /// The terminal may leave the swarm.
    pub release: bool,
    /// The attempt is to stop now (a person cancelled the job).
    pub cancel: bool,
}

/// One row of the lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TerminalView {
    /// The terminal's name in calls.
    pub id: String,
    /// What people call it.
    pub label: Option<String>,
    /// Its MAC addresses.
    pub macs: Vec<String>,
    /// SMBIOS UUID.
    pub uuid: Option<String>,
    /// Last address it spoke from.
    pub address: Option<String>,
    /// Manufacturer and product.
    pub machine: String,
    /// Where it stands.
    pub state: TerminalState,
    /// `name@version` of its latest attempt.
    pub image: Option<String>,
    /// The latest progress while it is imaging.
    pub progress: Option<Progress>,
    /// How its latest attempt ended.
    pub outcome: Option<Outcome>,
    /// Seconds since it was last heard.
    pub silent: u64,
    /// Its zone, where there are zones.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TerminalState {
    /// Known, nothing to do.
    Idle,
    /// A job waits for it.
    Waiting,
    /// Imaging now.
    Imaging,
    /// Imaging, but silent for long: switched off, or cut off.
    Interrupted,
    /// Its job is done.
    Done,
    /// Its job failed.
    Failed,
}
