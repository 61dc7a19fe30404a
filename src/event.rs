//! Everything a terminal can say about itself: stages, progress, outcome.
//!
//! Invariant: these values are facts, and the log, the console, the server's page and the tests all read
//! them, never log wording. `api` carries them, `agent::console` and the page show them.

use std::io;

use serde::{Deserialize, Serialize};

use crate::image_id::ImageId;
use crate::storage::StorageError;

/// The steps of an attempt, in order.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Mounting, loading drivers.
    Start,
    /// Waiting for a link and an address.
    Network,
    /// Looking for the server and a job.
    Discover,
    /// Fetching and checking the manifest and its sidecars.
    Manifest,
    /// Choosing and claiming the disk, planning.
    Claim,
    /// Looking at the hardware, in a preflight.
    Check,
    /// Lending the disk to a capture, which reads it.
    Lend,
    /// Finding the image's pieces that are on the disk already.
    Compare,
    /// Making the disk unbootable before the first piece.
    Disarm,
    /// In the swarm: receiving and writing pieces.
    Fetch,
    /// Everything is written; waiting for the hashes that prove it.
    Hashes,
    /// Reading everything back from the device.
    Verify,
    /// Writing the bytes that make the system bootable.
    Commit,
    /// Done; serving others until released.
    Serve,
    /// Making the system on the disk this terminal's own.
    Personalise,
    /// About to start the next system.
    Leave,
}

impl Stage {
    /// The stage in words for the console and the page.
    pub fn title(self) -> &'static str {
        match self {
            Stage::Start => "starting",
            Stage::Network => "waiting for the network",
            Stage::Discover => "looking for the server",
            Stage::Manifest => "reading the manifest",
            Stage::Claim => "claiming the disk",
            Stage::Check => "checking the hardware",
            Stage::Compare => "comparing what is there",
            Stage::Disarm => "disarming the old system",
            Stage::Fetch => "fetching the image",
            Stage::Hashes => "waiting for the hashes",
            Stage::Verify => "verifying from the disk",
            Stage::Commit => "committing for boot",
            Stage::Serve => "done, serving others",
            Stage::Personalise => "making the system its own",
            Stage::Lend => "lending the disk, read-only",
            Stage::Leave => "leaving",
        }
    }
}

/// Why something failed, by the receiver's remedy. The numbers are the exit codes of all programs.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Try again later (network, server away).
    Retry = 1,
    /// The command or configuration is wrong.
    Usage = 2,
    /// Refused before anything was written (busy, too small, ambiguous).
    Refused = 3,
    /// Signature or hash.
    Untrusted = 4,
    /// The disk failed.
    Disk = 5,
}

impl Class {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// A failure with its class and a remedy for people.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Tells the receiver how to react.
    pub class: Class,
    /// The object, the action on it and the problem.
    pub message: String,
    /// The remedy, for people.
    pub advice: String,
}

impl Failure {
    /// A failure whose class is chosen at run time.
    pub fn new(class: Class, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Failure { class, message: message.into(), advice: advice.into() }
    }

    /// A failure that may be over the next time.
    pub fn retry(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Failure::new(Class::Retry, message, advice)
    }

    /// A wrong command or configuration.
    pub fn usage(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Failure::new(Class::Usage, message, advice)
    }

    /// A refusal before anything was written.
    pub fn refused(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Failure::new(Class::Refused, message, advice)
    }

    /// A wrong signature or hash.
    pub fn untrusted(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Failure::new(Class::Untrusted, message, advice)
    }

    /// A failure of the disk.
    pub fn disk(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Failure::new(Class::Disk, message, advice)
    }
}

/// A failed access to a storage is a failure of the disk below it.
impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let advice = match error.source.kind() {
            io::ErrorKind::StorageFull => {
                "Free some space and start again: what is there is kept and checked."
            }
            io::ErrorKind::UnexpectedEof => "It is shorter than it was: is something else changing it?",
            _ => "Look at the kernel's messages (dmesg); the disk may be failing.",
        };
        Failure::disk(error.to_string(), advice)
    }
}

/// How far a terminal is; one is reported every second.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The step it is in.
    pub stage: Stage,
    /// Share of this attempt that is done, 0 to 100 (received, written and read back count).
    pub percent: f32,
    /// Payload bytes received and checked.
    pub bytes_done: u64,
    /// Payload bytes in all.
    pub bytes_total: u64,
    /// Bytes a second coming in, over the last seconds.
    pub rate_in: u64,
    /// Bytes a second going out.
    pub rate_out: u64,
    /// Bytes sent to peers since the start.
    pub bytes_out: u64,
    pub peers: u32,
    /// Payload bytes read back from the device and found right.
    pub bytes_verified: u64,
    /// Seconds until this attempt is done, as far as can be told.
    pub seconds_left: Option<u64>,
}

impl Progress {
    /// Nothing done yet, in `stage`.
    pub fn at(stage: Stage) -> Self {
        Progress {
            stage,
            percent: 0.0,
            bytes_done: 0,
            bytes_total: 0,
            rate_in: 0,
            rate_out: 0,
            bytes_out: 0,
            peers: 0,
            bytes_verified: 0,
            seconds_left: None,
        }
    }
}

/// How an attempt ended.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Outcome {
    /// The image is on the disk, proved from the disk, and committed.
    Done {
        /// Seconds since the agent began.
        seconds: u64,
        /// Payload bytes received.
        bytes_in: u64,
        /// Bytes sent to other peers so far.
        bytes_out: u64,
        /// The disk it is on: name, model, serial number.
        disk: String,
        /// The images now on the disks.
        #[serde(default)]
        installed: Vec<Installed>,
        /// Problems that do not prevent success (identities that differ, boot entries that were not written).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// A preflight: the terminal was looked at, and nothing was written.
    Checked {
        /// Seconds since the agent began.
        seconds: u64,
        /// What a person should look at, errors first.
        findings: Vec<CheckFinding>,
        /// What was measured and read, for people.
        facts: Vec<CheckFact>,
    },
    Failed {
        stage: Stage,
        failure: Failure,
        /// True when the disk's old content is gone.
        disk_touched: bool,
    },
}

/// How much a finding of a preflight matters.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Imaging would fail.
    Error,
    /// Imaging would be slow, or something is about to fail.
    Warning,
}

/// Something that a preflight found and a person should look at.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFinding {
    pub severity: Severity,
    /// The problem.
    pub what: String,
    /// The remedy.
    pub advice: String,
}

impl CheckFinding {
    /// Imaging would fail.
    pub fn error(what: impl Into<String>, advice: impl Into<String>) -> Self {
        CheckFinding { severity: Severity::Error, what: what.into(), advice: advice.into() }
    }

    /// Imaging would be slow, or something is about to fail.
    pub fn warning(what: impl Into<String>, advice: impl Into<String>) -> Self {
        CheckFinding { severity: Severity::Warning, what: what.into(), advice: advice.into() }
    }
}

impl From<Failure> for CheckFinding {
    fn from(failure: Failure) -> Self {
        CheckFinding::error(failure.message, failure.advice)
    }
}

impl std::fmt::Display for CheckFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
        };
        write!(f, "{word}: {}. {}", self.what, self.advice)
    }
}

/// A fact that a preflight read or measured, for people.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFact {
    /// For example `read speed`.
    pub name: String,
    /// For example `512 MB/s`.
    pub value: String,
}

/// The finding of a preflight to be looked at first.
pub fn worst(findings: &[CheckFinding]) -> Option<&CheckFinding> {
    findings.iter().min_by_key(|finding| finding.severity)
}

impl Outcome {
    /// The outcome in a sentence for people.
    pub fn title(&self) -> String {
        match self {
            Outcome::Done { seconds, disk, warnings, .. } => {
                let warnings: String = warnings.iter().map(|w| format!("; WARNING: {w}")).collect();
                format!("done in {seconds} s on {disk}{warnings}")
            }
            Outcome::Checked { findings, .. } if findings.is_empty() => {
                "checked: nothing to object to. Nothing was written.".into()
            }
            Outcome::Checked { findings, .. } => {
                let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
                format!("checked: {} Nothing was written.", findings.join(" "))
            }
            Outcome::Failed { stage, failure: Failure { message, advice, .. }, disk_touched } => {
                let disk = if *disk_touched { "The disk was written to." } else { "Nothing was written." };
                format!("failed while {}: {message}. {advice} {disk}", stage.title())
            }
        }
    }
}

/// A version of an image that an attempt wrote to a disk, proved and committed.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Installed {
    #[serde(flatten)]
    pub id: ImageId,
    /// The disk: name, model, serial number, size.
    pub disk: String,
    /// The partitions that were written; `None`: all of the image's.
    #[serde(default)]
    pub partitions: Option<Vec<u32>>,
    /// How it starts from there.
    #[serde(default)]
    pub starts: Starts,
    /// Files of it were changed afterwards to make it the terminal's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub personalised: bool,
}

/// How a system starts from the disk that it was written to. Partitions are named as Linux does after
/// `PARTUUID=`, so that no other disk is meant, even one with the same layout or content.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Starts {
    /// By BIOS: the disk with this partition starts from its first sector.
    #[serde(default)]
    pub bios: Option<String>,
    /// By UEFI.
    #[serde(default)]
    pub uefi: Option<Loader>,
}

/// A loader on a disk.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Loader {
    /// Its EFI system partition.
    pub partition: String,
    /// Path with slashes, for example `/EFI/debian/shimx64.efi`.
    pub path: String,
}

/// A disk that a rule chose.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chosen {
    pub rule: String,
    /// The disk for people: name, model, serial number, size.
    pub disk: String,
    /// The disk, to be known again.
    pub identity: DiskIdentity,
}

/// The facts that tell one disk from another under any kernel name.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskIdentity {
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Path in the device tree.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

impl DiskIdentity {
    /// Whether both are one piece of hardware: by the serial number, else by the WWN, else by place and size.
    pub fn same(&self, other: &DiskIdentity) -> bool {
        let by_number = |one: &Option<String>, other: &Option<String>| Some(one.as_ref()? == other.as_ref()?);
        by_number(&self.serial, &other.serial)
            .or_else(|| by_number(&self.wwn, &other.wwn))
            .unwrap_or_else(|| (&self.path, self.size) == (&other.path, other.size))
    }
}

/// A line of `--json` on stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Once a second.
    Progress(Progress),
    /// Every byte is written and synced.
    Complete {
        /// Payload bytes.
        bytes: u64,
        /// Seconds since the start.
        seconds: f64,
    },
    Error(Failure),
}
