//! One attempt: from a job to a disk that is proved and bootable, still serving others.
//!
//! Invariant: nothing is written before everything that can be refused was looked at, and nothing is committed
//! for boot before all of it was read back from the device. What comes before (network, discovery, the job) and
//! after (reports, how long to stay, what to start) is left to `agent`.

use std::net::SocketAddr;

use crate::agent::status::Status;
use crate::api::Assignment;
use crate::event::{Class, Failure};
use crate::manifest::TrustedKeys;

/// What an attempt is given by the agent.
#[derive(Clone)]
pub struct ImagingContext {
    /// The server's address, for example `http://10.0.0.1:6969`, without a slash at its end.
    pub server: String,
    /// Keys that may sign manifests.
    pub keys: TrustedKeys,
    /// Accept manifests without a signature.
    pub allow_insecure: bool,
    /// Where progress is told.
    pub status: Status,
    /// A disk rule from the command line: goes before the job's.
    pub disk_override: Option<String>,
    /// For the manifest and its sidecars.
    pub http: reqwest::Client,
    /// Most bytes of memory for piece buffers. Half of what is available at the start is a bound as well.
    pub memory_limit: u64,
    /// Where peers are listened for.
    pub listen: SocketAddr,
}

/// What starts next, as far as the attempt could prepare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Restart through the firmware (or whatever the job says instead).
    Firmware,
    /// A kernel is loaded: `reboot(LINUX_REBOOT_CMD_KEXEC)` starts it.
    Kexec,
}

/// An image that is on the disk, proved from the disk and committed. The terminal goes on serving it to others
/// for as long as this value lives.
pub struct Imaged {
    /// The disk it is on: name, model, serial number.
    pub disk: String,
    /// What starts next.
    pub next: Next,
    /// What did not work although the image is good (boot entries, kexec), for people.
    pub warnings: Vec<String>,
}

impl Imaged {
    /// Bytes received and sent so far.
    pub fn traffic(&self) -> (u64, u64) {
        (0, 0)
    }

    /// Leaves the swarm and gives the disk back.
    pub async fn stop(self) {}
}

/// Carries out `assignment`. The failure comes with whether the disk's old content is gone.
pub async fn run(ctx: ImagingContext, assignment: Assignment) -> Result<Imaged, (Failure, bool)> {
    let what = format!("{}@{} from {}", assignment.image, assignment.version, ctx.server);
    Err((Failure::new(Class::Retry, format!("imaging {what} is being built"), "wait"), false))
}
