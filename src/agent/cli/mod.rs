//! The agent on a running Linux: one attempt, from its command line.
//!
//! Invariant: the same attempt as on a netbooted terminal, without bringing up the network, and the machine
//! keeps running unless `--after` says otherwise. The exit code is the outcome's class.

pub mod lend;

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::attempt::{self, Ended, Imager, Pace, RealImager};
use crate::agent::console;
use crate::agent::imaging::{Bounds, ImagingContext, LATE_DISKS};
use crate::agent::leave::Leave;
use crate::agent::log_lines::LogLines;
use crate::agent::logger;
use crate::agent::netboot::{MEMORY, PEER_PORT};
use crate::agent::network;
use crate::agent::screen::PROGRESS_EVERY;
use crate::agent::status::Status;
use crate::agent::worker::machine;
use crate::api::{After, Compare, Compress, Further, Take, partition_numbers};
use crate::event::{Event, Failure, Outcome, Stage};
use crate::io::host::init::{self, PowerOff};
use crate::io::host::inventory;
use crate::io::host::kmsg;
use crate::io::net::api_client::{self, Api, CallError, Taken};
use crate::io::net::credentials::Credentials;
use crate::io::net::token_file;
use crate::lan::discovery::server_url;
use crate::manifest::TrustedKeys;

/// The remedy where the program cannot start its own parts.
const START_AGAIN: &str =
    "Check this process's limits ('ulimit -a') and the free memory, and start it again.";

/// Fetches an image from a flashmob server onto a disk of this machine. Everything on the disk is replaced.
#[derive(Debug, Clone, Parser)]
#[command(name = "flashmob-agent", version)]
pub struct Args {
    /// Address of the flashmob server, for example http://10.0.0.1:6969
    #[arg(long, value_name = "URL", value_parser = server_url)]
    pub server: String,
    /// The image to fetch
    #[arg(long, value_name = "NAME[@VERSION]")]
    pub image: String,
    /// The disk to write: a device, or a rule such as serial=WD-123
    #[arg(long, value_name = "DISK")]
    pub disk: String,
    /// One more image for another disk of this machine, in the same attempt; may be repeated. No disk is
    /// written unless all of them can be
    #[arg(long, value_name = "NAME[@VERSION]=DISK", value_parser = further)]
    pub also: Vec<Further>,
    /// How pieces already on the disk are found: auto, full or trust [default: from the server's job]
    #[arg(long, value_name = "HOW")]
    pub compare: Option<Compare>,
    /// Write only these partitions of the image; the table and the others stay
    #[arg(long, value_name = "1,3,…", value_parser = Only::parse)]
    pub partitions: Option<Only>,
    /// File with the minisign public keys that may sign images
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// File with your token, on another machine than the server [default: the file that FLASHMOB_TOKEN_FILE
    /// names, else ~/.config/flashmob/token]
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// Accept an image without a signature
    #[arg(long)]
    pub insecure: bool,
    /// How to end, when done: reboot, poweroff or kexec [default: just exit]
    #[arg(long, value_name = "WHAT")]
    pub after: Option<After>,
    /// Address that peers connect to
    #[arg(long, value_name = "ADDR:PORT", default_value_t = SocketAddr::from(([0, 0, 0, 0], PEER_PORT)))]
    pub listen: SocketAddr,
    /// Accept compressed pieces: auto, on or off [default: from the server]
    #[arg(long, value_name = "WHEN")]
    pub compress: Option<Compress>,
    /// Print one JSON event a line on stdout
    #[arg(long)]
    pub json: bool,
}

/// A choice of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only(Vec<u32>);

impl Only {
    fn parse(text: &str) -> Result<Self, String> {
        partition_numbers(text).map(Only)
    }
}

/// `NAME[@VERSION]=DISK`; a rule for the disk may have more of `=`.
fn further(text: &str) -> Result<Further, String> {
    match text.split_once('=') {
        Some((image, disk)) if !image.is_empty() && !disk.is_empty() => {
            Ok(Further { image: image.into(), disk: disk.into() })
        }
        _ => Err("an image and its disk, for example data=/dev/sdb".into()),
    }
}

/// The command line's choices, beside the job's settings.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub image: String,
    pub also: Vec<Further>,
    /// How pieces already on the disk are found.
    pub compare: Option<Compare>,
    /// Some of its partitions.
    pub partitions: Option<Vec<u32>>,
}

/// Runs one attempt; the result is the exit code.
pub fn run(args: Args) -> ExitCode {
    let status = Status::new();
    let standard_error = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"));
    logger::install(standard_error, status.journal());
    let json = args.json;
    let after = args.after;
    let ended = match start(args, &status) {
        Ok(ended) => ended,
        Err(failure) => Ended::Failed { failure, disk_touched: false },
    };
    match ended {
        Ended::Done(next) => {
            let left = after.map_or(Ok(()), |after| leave(Leave::after(after, &next)));
            match left {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => fail(&failure, json),
            }
        }
        Ended::Checked => ExitCode::SUCCESS,
        Ended::Failed { failure, .. } => fail(&failure, json),
    }
}

fn fail(failure: &Failure, json: bool) -> ExitCode {
    if json {
        print_event(&Event::Error(failure.clone()));
    }
    eprintln!("flashmob-agent: {}", failure.message);
    if !failure.advice.is_empty() {
        eprintln!("flashmob-agent: {}", failure.advice);
    }
    ExitCode::from(failure.class.exit_code())
}

/// One event a line; flushed, because other programs wait for it.
fn print_event(event: &Event) {
    let mut out = std::io::stdout().lock();
    if let Ok(line) = serde_json::to_string(event) {
        // A reader that has gone away does not stop the imaging.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

fn start(args: Args, status: &Status) -> Result<Ended, Failure> {
    if args.after == Some(After::Shell) {
        return Err(Failure::usage("--after shell is for netbooted terminals", "Leave --after out."));
    }
    let keys = match &args.keys {
        None if args.insecure => TrustedKeys::default(),
        None => {
            return Err(Failure::usage(
                "no keys are given that may sign images",
                "Give --keys FILE with the public key of the image's maker, or --insecure.",
            ));
        }
        Some(path) => {
            let advice = "Give the public key file that flashmob-mkimage keygen wrote.";
            let text = std::fs::read_to_string(path).map_err(|e| {
                Failure::usage(format!("cannot read keys from {}: {e}", path.display()), advice)
            })?;
            TrustedKeys::parse(&text)
                .map_err(|why| Failure::usage(format!("{}: {why}", path.display()), advice))?
        }
    };
    let token = token_file::token(args.token.as_deref())?;
    token.iter().for_each(|token| status.journal().hide(token));
    let credentials = Credentials::of_person(token);
    let local = |e: &dyn std::fmt::Display| Failure::retry(format!("cannot start: {e}"), START_AGAIN);
    let runtime = tokio::runtime::Runtime::new().map_err(|e| local(&e))?;
    let http = api_client::client().map_err(|e| local(&e))?;
    let journal = status.journal().clone();
    // What came before is not the attempt's, and only root may read it.
    if let Err(e) = kmsg::follow(false, move |record| journal.kernel(record)) {
        log::info!("/dev/kmsg: {e}; the kernel's messages are not in the attempt's log");
    }
    let imager = RealImager(ImagingContext {
        server: String::new(),
        keys,
        allow_insecure: args.insecure,
        may_trust: true,
        status: status.clone(),
        disk_override: Some(args.disk.clone()),
        attended: true,
        late_disks: LATE_DISKS,
        bounds: Bounds::default(),
        compress: args.compress,
        http: http.clone(),
        memory_limit: MEMORY,
        listen: args.listen,
    });
    let Args { image, also, compare, partitions, .. } = args.clone();
    let wish = Wish { image, also, compare, partitions: partitions.map(|only| only.0) };
    let ended = runtime.block_on(async {
        let api = Api::new(http, args.server.clone()).with(credentials);
        let (end, over) = watch::channel(false);
        let people = !args.json || std::io::stderr().is_terminal();
        let teller = tokio::spawn(tell(status.clone(), people, args.json.then_some(print_event), over));
        let stop = async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        };
        let ended = attempt(&api, wish, &imager, status, Pace::default(), stop).await;
        // It has the last word: a server may release a terminal at once.
        let _ = end.send(true);
        if teller.await.is_err() {
            log::error!("telling how it went ended unexpectedly");
        }
        ended
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Introduces this machine, takes the job and carries it out.
pub async fn attempt<I: Imager>(
    api: &Api,
    wish: Wish,
    imager: &I,
    status: &Status,
    pace: Pace,
    stop: impl Future<Output = ()>,
) -> Result<Ended, Failure> {
    let Wish { image, also, compare, partitions } = wish;
    status.stage(Stage::Discover);
    let hello = inventory::hello(inventory::read(network::towards(api.base()).await), None);
    status.change(|view| view.machine = machine(&hello));
    let welcome = api.hello(&hello, Duration::from_secs(10)).await.map_err(|e| failed_call(&e))?;
    status.change(|view| view.server = api.base().to_owned());
    let asked = also.len();
    let take = Take { job: None, image: Some(image.clone()), also, preflight: true, ..Take::default() };
    match api.take(&welcome.terminal, &take).await.map_err(|e| failed_call(&e))? {
        Taken::Job(assignment) if assignment.also.len() != asked => Err(Failure::refused(
            format!(
                "the server {} gives {} further images instead of {asked}",
                api.base(),
                assignment.also.len()
            ),
            "Use a server and an agent of the same version, or write one image after the other.",
        )),
        Taken::Job(mut assignment) => {
            let as_job = assignment.task.compare;
            assignment.tasks_mut().for_each(|task| task.compare = compare.unwrap_or(as_job));
            if let Some(partitions) = partitions {
                assignment.task.only(partitions);
            }
            let pace = Pace { tell: pace.tell.min(Duration::from_secs(30)), ..pace };
            Ok(attempt::run(api, &assignment, imager, status, pace, stop).await)
        }
        Taken::Lend(_) => Err(Failure::refused(
            format!("the server {} captures this machine's disk", api.base()),
            "Nothing was done. Wait until 'flashmob capture' has ended on the server.",
        )),
        Taken::Nothing => Err(Failure::refused(
            format!("the server {} has no job with image {image} for this machine", api.base()),
            "Look at the server's page for its images, and at its configuration for this machine's job.",
        )),
    }
}

fn failed_call(error: &CallError) -> Failure {
    let message = error.to_string();
    match error {
        CallError::Away { .. } => {
            Failure::retry(message, "Check the address, and that 'flashmob serve' runs there.")
        }
        CallError::Stranger { .. } => {
            Failure::usage(message, "Give the address of a flashmob server with --server.")
        }
        CallError::Refused(rejected) => Failure::refused(message, rejected.advice.clone()),
        CallError::Busy { rejected, .. } => Failure::retry(message, rejected.advice.clone()),
    }
}

/// Tells people (stderr) and programs (by `say`) how it goes, until it is `over`, and once more then.
async fn tell(status: Status, people: bool, say: Option<impl Fn(&Event)>, mut over: watch::Receiver<bool>) {
    let began = Instant::now();
    let mut changes = status.subscribe();
    let (mut log, mut complete) = (LogLines::new(PROGRESS_EVERY, console::outcome_text), false);
    let mut next = Instant::now();
    loop {
        // Asked before looking, so that the last look sees all.
        let last = *over.borrow();
        let view = changes.borrow_and_update().clone();
        if people {
            eprint!("{}", log.update(&view, began.elapsed()));
        }
        if let Some(say) = &say {
            if let (Some(Outcome::Done { bytes_in, .. }), false) = (&view.outcome, complete) {
                complete = true;
                say(&Event::Complete { bytes: *bytes_in, seconds: began.elapsed().as_secs_f64() });
            }
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_secs(1);
                say(&Event::Progress(view.progress));
            }
        }
        if last {
            return;
        }
        tokio::select! {
            _ = changes.changed() => tokio::time::sleep(Duration::from_millis(50)).await,
            () = tokio::time::sleep_until(next), if say.is_some() => {}
            _ = over.changed() => {}
        }
    }
}

/// Ends this running system as asked.
fn leave(leave: Leave) -> Result<(), Failure> {
    let failed = |what: &str, why: String| {
        let advice = "The image is on the disk; restart the machine by hand.";
        Failure::retry(format!("cannot {what}: {why}"), advice)
    };
    let program = match leave {
        Leave::Restart | Leave::ToDisk => "reboot",
        Leave::Off => "poweroff",
        Leave::Kexec => return Err(failed("start the new kernel", init::end(PowerOff::Kexec).to_string())),
        Leave::Shell => return Ok(()),
    };
    match Command::new(program).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(program, status.to_string())),
        Err(e) => Err(failed(program, e.to_string())),
    }
}

#[cfg(test)]
mod tests;
