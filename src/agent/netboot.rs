//! The worker process of a netbooted terminal: reads its settings, then runs `worker`.
//!
//! Invariant: all settings are checked before anything begins; a mistake is shown, never guessed around.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::agent::attempt::{Pace, RealImager};
use crate::agent::cmdline::{self, Cmdline};
use crate::agent::imaging::{Bounds, ImagingContext, LATE_DISKS};
use crate::agent::journal::{self, Journal};
use crate::agent::leave::Leave;
use crate::agent::logger;
use crate::agent::network;
use crate::agent::screen::Screens;
use crate::agent::status::Status;
use crate::agent::worker::{Patience, Worker};
use crate::event::{Failure, Outcome, Stage};
use crate::io::disk::efivars::EFIVARS;
use crate::io::host::enrol::{Efivars, Enrolled, Updates, enrol};
use crate::io::host::{console, kmsg};
use crate::io::net::api_client;
use crate::io::net::credentials::Credentials;
use crate::manifest::TrustedKeys;

const KEYS: &str = "/etc/flashmob/keys.pub";
const SERVER: &str = "/etc/flashmob/server";
/// The secrets that servers gave, for a worker that is started again after a crash.
const SECRETS: &str = "/etc/flashmob/secrets.json";
/// There when the initramfs was built to accept unsigned manifests.
const ALLOW_INSECURE: &str = "/etc/flashmob/allow-insecure";
/// Exists if the initramfs was built never to believe a record of a disk.
const NO_TRUST: &str = "/etc/flashmob/no-trust";
/// Keys that the administrator wants enrolled; absent by default.
const ENROL: &str = "/etc/flashmob/secureboot";
/// Where the C library reads its name servers.
const RESOLVERS: &str = "/etc/resolv.conf";
/// Where peers connect to.
pub(crate) const PEER_PORT: u16 = 6881;
/// Most bytes of memory for pieces; half of the available memory is a limit as well.
pub const MEMORY: u64 = 512 << 20;
/// How long settings that are wrong are shown before the restart, which may bring better ones.
const SHOW: Duration = Duration::from_secs(300);

/// Runs the worker; its exit status is a [`Leave`] for PID 1.
pub fn run() -> ExitCode {
    let journal = Journal::with_file(Path::new(journal::FILE));
    let told = journal.clone();
    if let Err(e) = kmsg::follow(true, move |record| told.kernel(record)) {
        journal.say(&format!("/dev/kmsg: {e}; the kernel's messages are missing here"));
    }
    let status = Status::with_journal(journal);
    let screens = Screens::start(console::open_all(), &status);
    let leave = match prepare(status.journal()).and_then(|setup| work(setup, &status)) {
        Ok(leave) => leave,
        Err(failure) => {
            status.note(format!("restarting in {} minutes", SHOW.as_secs() / 60));
            status.change(|view| {
                view.outcome = Some(Outcome::Failed { stage: Stage::Start, failure, disk_touched: false });
            });
            std::thread::sleep(SHOW);
            Leave::Restart
        }
    };
    screens.finish();
    leave.into()
}

/// This terminal's settings from its start.
struct Setup {
    cmdline: Cmdline,
    file: Option<String>,
    keys: TrustedKeys,
    /// The initramfs allows unsigned manifests.
    may_be_insecure: bool,
    /// The initramfs allows `compare = "trust"`.
    may_trust: bool,
}

fn prepare(journal: &Journal) -> Result<Setup, Failure> {
    let text = fs::read_to_string("/proc/cmdline").map_err(|e| {
        Failure::usage(format!("/proc/cmdline: {e}"), "This is a bug in flashmob: report it.")
    })?;
    let cmdline = cmdline::parse(&text).map_err(|wrong| {
        Failure::usage(
            format!("the kernel command line is wrong: {}", wrong.join("; ")),
            "Correct it where the netboot script or the boot menu is written.",
        )
    })?;
    cmdline.ticket.iter().for_each(|ticket| journal.hide(ticket));
    let mut standard_error = env_logger::Builder::new();
    standard_error.filter_level(cmdline.log.unwrap_or(log::LevelFilter::Warn));
    logger::install(standard_error, journal);
    let keys = optional(KEYS)?.unwrap_or_default();
    let keys = TrustedKeys::parse(&keys).map_err(|e| damaged(KEYS, &e.to_string()))?;
    let file = optional(SERVER)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let may_be_insecure = fs::exists(ALLOW_INSECURE).unwrap_or(false);
    // In doubt the strict way.
    let may_trust = !fs::exists(NO_TRUST).unwrap_or(true);
    Ok(Setup { cmdline, file, keys, may_be_insecure, may_trust })
}

/// A file that may be absent.
fn optional(path: &str) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(damaged(path, &e.to_string())),
    }
}

fn damaged(path: &str, why: &str) -> Failure {
    let advice = "Build the netboot files again with flashmob-initramfs.";
    Failure::usage(format!("{path} in the initramfs: {why}"), advice)
}

/// Enrols the organisation's keys of Secure Boot, where the initramfs was built to do that.
fn enrol_keys(status: &Status) {
    let enrolled = Updates::read(Path::new(ENROL)).and_then(|updates| {
        updates.map(|updates| enrol(&updates, &mut Efivars(Path::new(EFIVARS)))).transpose()
    });
    match enrolled {
        Ok(None | Some(Enrolled::NotInSetupMode)) => {}
        Ok(Some(Enrolled::Done)) => status.note(
            "the firmware was in Setup Mode and has the organisation's keys now; Secure Boot is on from the \
             next start, unless it is switched off in the firmware's setup",
        ),
        Err(e) => status.note(format!("the keys of Secure Boot are not enrolled: {e}")),
    }
}

/// Builds the runtime and works.
fn work(setup: Setup, status: &Status) -> Result<Leave, Failure> {
    let Setup { cmdline, file, keys, may_be_insecure, may_trust } = setup;
    if cmdline.insecure && !may_be_insecure {
        status.note("flashmob.insecure=1 is not heard: this initramfs was not built to allow it");
    }
    if keys.is_empty() && !(cmdline.insecure && may_be_insecure) {
        status.note("there are no keys in the initramfs: every image will be refused as unsigned");
    }
    enrol_keys(status);
    let kernel = |what: &str, e: &dyn std::fmt::Display| {
        Failure::retry(
            format!("{what}: {e}"),
            "This is a bug in flashmob: report it with a photo of the screen.",
        )
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| kernel("cannot start the runtime", &e))?;
    let http = api_client::client().map_err(|e| kernel("cannot prepare HTTP", &e))?;
    let leave = runtime.block_on(async {
        let (rounds, round) = tokio::sync::watch::channel(0);
        let network = network::start(cmdline.boot_mac.clone(), status.clone(), RESOLVERS.into(), round)
            .map_err(|e| kernel("cannot speak netlink", &e))?;
        let context = ImagingContext {
            server: String::new(),
            keys,
            allow_insecure: cmdline.insecure && may_be_insecure,
            may_trust,
            status: status.clone(),
            disk_override: cmdline.disk.clone(),
            attended: false,
            late_disks: LATE_DISKS,
            bounds: Bounds::default(),
            compress: None,
            http: http.clone(),
            memory_limit: MEMORY,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PEER_PORT)),
        };
        let ticket = cmdline.server.clone().zip(cmdline.ticket.clone());
        let worker = Worker {
            credentials: Credentials::of_terminal(ticket, Some(SECRETS.into())),
            cmdline,
            file,
            browse: true,
            imager: RealImager(context),
            status: status.clone(),
            http,
            network,
            rounds,
            pace: Pace::default(),
            patience: Patience::default(),
        };
        Ok(worker.run().await)
    });
    // Background tasks must not delay the end.
    runtime.shutdown_background();
    leave
}
