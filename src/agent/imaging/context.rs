//! An attempt's input, and its work on the disk, away from the network's threads.
//!
//! Invariant: dropping the attempt ends its work on threads.

use crate::agent::status::Status;
use crate::api::Compress;
use crate::event::Failure;
use crate::manifest::TrustedKeys;
use std::net::SocketAddr;
use std::time::Duration;

/// How long disks that the terminal had are waited for: rotating disks need up to 10 s to spin up, and some
/// host adapters start one after another.
pub const LATE_DISKS: Duration = Duration::from_secs(30);

/// The agent's input to an attempt.
#[derive(Clone)]
pub struct ImagingContext {
    /// The server's address, for example `http://10.0.0.1:6969`, without a slash at its end.
    pub server: String,
    /// Keys that may sign manifests.
    pub keys: TrustedKeys,
    /// Accept manifests without a signature.
    pub allow_insecure: bool,
    /// Believe the server's record of a disk, where a job asks for that.
    pub may_trust: bool,
    /// Receives the progress.
    pub status: Status,
    /// A disk rule from the command line: goes before the job's.
    pub disk_override: Option<String>,
    /// An administrator sits here and named the disk, so the server's record of this machine's disks does not
    /// count.
    pub attended: bool,
    /// How long disks that the terminal had are waited for.
    pub late_disks: Duration,
    /// Limits of all waits.
    pub bounds: Bounds,
    /// Whether pieces travel compressed, from the command line; overrides the server.
    pub compress: Option<Compress>,
    /// For the manifest and its sidecars.
    pub http: reqwest::Client,
    /// Most bytes of memory for piece buffers. Half of the memory available at the start is a limit as well.
    pub memory_limit: u64,
    /// Where peers are listened for.
    pub listen: SocketAddr,
}

/// Work with the disk, away from the network's threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(Failure::disk(format!("working on the disk ended unexpectedly: {e}"), "Run the job again."))
    })
}

/// Ends work on a thread when it is dropped, for any reason.
pub(super) struct StopOnDrop<F: Fn()>(pub(super) F);

impl<F: Fn()> Drop for StopOnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// How long is waited. Tests are less patient.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For a disk that does nothing. A disk that repairs itself may need a minute for one request, and the
    /// kernel tries again.
    pub disk: Duration,
    /// For the hashes of an image that was published without them: a night.
    pub hashes: Duration,
    /// For the next piece, from any peer. The server may be away for a while, or its copy be mended
    /// meanwhile.
    pub piece: Duration,
    /// For swarms to end and the firmware's variables to be written.
    pub end: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Bounds { disk: minutes(10), hashes: minutes(12 * 60), piece: minutes(60), end: minutes(1) }
    }
}
