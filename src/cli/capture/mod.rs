//! `flashmob capture`: an image of a terminal's disk, while the terminal stays where it is.
//!
//! ```text
//! flashmob capture ──asks, and watches──► flashmob serve ◄──reports── the terminal's agent
//!        └─starts─► flashmob-mkimage capture nbd://… ──reads────────────►┘
//! ```
//!
//! Invariant: no byte of the disk is read before a person has typed the code on the golden machine's screen
//! (`code`), or has said that the network is to be trusted. However this ends, the server is told, and the
//! terminal boots its own disk. Nothing is written to it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use reqwest::Method;

use self::code::Gate;
use super::call::{Content, ServerArg, ask, send, text_of, understand};
use crate::api::{CaptureState, CaptureView, LentView, NewCapture, Watch};
use crate::event::{Class, Failure};
use crate::image_id::is_plain_name;

mod code;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A server that is away for longer is not waited for.
const AWAY: Duration = Duration::from_secs(80);
/// How often a capture is begun anew after its connection was lost.
const TRIES: u32 = 5;
const PROGRAM: &str = "flashmob-mkimage";

/// Make an image of a terminal's disk over the network, and leave the disk as it is. Runs on the server: at
/// its next network boot the terminal lends its disk, read-only, to the server alone. Its screen shows a code
/// of six digits, which you type here before anything is read.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// The terminal: label, MAC or UUID. Shut its system down properly, then let it boot from the network.
    terminal: String,
    /// The image's name.
    #[arg(long)]
    name: String,
    /// The version; today's date (UTC) with a number if left out.
    #[arg(long)]
    version: Option<String>,
    /// Share unchanged pieces with this version of the image instead of storing them again.
    #[arg(long, value_name = "VERSION")]
    parent: Option<String>,
    /// Sign the image with this secret key. Without it somebody signs the image later.
    #[arg(long, value_name = "SECRET")]
    key: Option<PathBuf>,
    /// The folder with one folder for each image.
    #[arg(long, value_name = "DIR", default_value = "/srv/images")]
    repository: PathBuf,
    /// The terminal's disk, by a rule.
    #[arg(long, value_name = "RULE", default_value = "internal")]
    disk: String,
    /// Read the disk of whichever machine answers as this terminal, without its code: for scripts, in a
    /// network where no other machine can use its MAC.
    #[arg(long)]
    trust_network: bool,
    #[command(flatten)]
    server: ServerArg,
    /// More options of 'flashmob-mkimage capture', for example -- --raw 2 --rescue.
    #[arg(last = true, value_name = "OPTION")]
    more: Vec<String>,
}

/// Captures, and tells the server how that ends.
pub async fn run(args: CaptureArgs) -> Result<(), Failure> {
    let program = program();
    check(&args)?;
    let wanted = NewCapture { image: args.name.clone(), disk: args.disk.clone() };
    let path = ["api", "v1", "terminals", &args.terminal, "capture"];
    let view: CaptureView = understand(&post(&args.server, &path, &wanted).await?)?;
    println!("{}: waiting until it lends its disk", view.title);
    println!(
        "  Shut its system down and start it from the network. 'flashmob terminal wake' can switch it on."
    );
    if let Some(job) = &view.job {
        println!("  {job} waits for it meanwhile.");
    }
    let number = view.number.to_string();
    let captured = tokio::select! {
        captured = follow(&args, &program, &number) => captured,
        _ = tokio::signal::ctrl_c() => Err(Failure::refused("interrupted", "No image was made.")),
    };
    let path = ["api", "v1", "captures", &number];
    match ask(&args.server, Method::DELETE, &path, None).await {
        Ok(_) => println!("{}: released, it boots its own disk", view.title),
        // The terminal is released by the server's or this program's silence.
        Err(e) => eprintln!("note: {}; the terminal is released within two minutes", e.message),
    }
    captured?;
    if args.key.is_none() {
        println!("The image is not signed: jobs with it wait for 'flashmob-mkimage sign'.");
    }
    Ok(())
}

fn check(args: &CaptureArgs) -> Result<(), Failure> {
    for text in std::iter::once(&args.name).chain(&args.version).chain(&args.parent) {
        if !is_plain_name(text) {
            return Err(Failure::usage(
                format!("'{text}' cannot be the name of an image or a version"),
                "Use letters, digits, '.', '_' and '-' only, and do not begin with '.'.",
            ));
        }
    }
    if let Some(parent) = &args.parent
        && !args.repository.join(&args.name).join(parent).is_dir()
    {
        return Err(Failure::usage(
            format!("{} has no version {parent} of {}", args.repository.display(), args.name),
            "Correct --parent or --repository.",
        ));
    }
    if let Some(key) = &args.key
        && let Err(e) = std::fs::File::open(key)
    {
        return Err(Failure::usage(format!("reading {}: {e}", key.display()), "Correct --key."));
    }
    Ok(())
}

/// `flashmob-mkimage` beside this program, else the one on the path.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PROGRAM.into())
}

async fn post(server: &ServerArg, path: &[&str], body: &impl serde::Serialize) -> Result<String, Failure> {
    let unwritten = |e: serde_json::Error| Failure::usage(format!("writing the call: {e}"), "");
    let body = serde_json::to_vec(body).map_err(unwritten)?;
    text_of(send(server, Method::POST, path, (Content::Json, body)).await?).await
}

/// Waits for the terminal, and captures as often as needed.
async fn follow(args: &CaptureArgs, program: &Path, number: &str) -> Result<(), Failure> {
    let mut making: Option<Making> = None;
    let mut heard = Instant::now();
    let mut said = None;
    let mut terminal = None;
    let mut tries = 0;
    let mut gate = Gate::new(args.trust_network);
    loop {
        let watch = Watch { percent: making.as_ref().map(Making::percent) };
        let view = match post(&args.server, &["api", "v1", "captures", number], &watch).await {
            Ok(text) => understand::<CaptureView>(&text)?,
            Err(e) if e.class == Class::Retry && heard.elapsed() < AWAY => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(e) => return Err(e),
        };
        heard = Instant::now();
        if terminal.get_or_insert_with(|| view.terminal.clone()) != &view.terminal {
            return Err(Failure::refused(
                "the server has another state than before, and has forgotten this capture",
                "Nothing was published. Begin it again.",
            ));
        }
        if said.replace(view.state) != Some(view.state) {
            tell(&view);
        }
        if let Some(failure) = view.failure {
            return Err(failure);
        }
        // A server that was started again learns from the agent's next report what is lent.
        let other = |making: &mut Making| view.lent.as_ref().is_some_and(|lent| lent.url != making.url);
        if making.take_if(other).is_some() {
            println!("  the terminal was started again: the capture begins anew");
        }
        match (&mut making, view.lent) {
            (Some(running), _) => match running.ended()? {
                None => {}
                Some(Ok(())) => return Ok(()),
                Some(Err(failure)) if failure.class == Class::Retry && tries < TRIES => {
                    println!("  {}; trying again", failure.message);
                    making = None;
                }
                Some(Err(failure)) => return Err(failure),
            },
            (None, Some(lent)) if view.state == CaptureState::Lending && gate.passes(&lent)? => {
                tries += 1;
                making = Some(Making::start(args, program, &lent)?);
            }
            (None, _) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn tell(view: &CaptureView) {
    match (view.state, &view.lent) {
        (CaptureState::Lending, Some(lent)) => println!("{}: lends {}", view.title, lent.disk),
        (CaptureState::Silent, _) => println!("{}: silent", view.title),
        _ => {}
    }
}

/// A running `flashmob-mkimage`; it ends with this value.
struct Making {
    child: Child,
    url: String,
    percent: Arc<AtomicU8>,
}

impl Making {
    fn start(args: &CaptureArgs, program: &Path, lent: &LentView) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.arg("capture").arg(&lent.url).arg("--percent").arg("--repository").arg(&args.repository);
        command.args(["--name", &args.name]);
        for (option, value) in [("--version", &args.version), ("--parent", &args.parent)] {
            command.args(value.iter().flat_map(|value| [option, value]));
        }
        if let Some(key) = &args.key {
            command.arg("--key").arg(key);
        }
        if lent.sector_size != 512 {
            command.args(["--sector-size", &lent.sector_size.to_string()]);
        }
        let child = command.args(&args.more).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| {
            Failure::usage(
                format!("{} cannot be run: {e}", program.display()),
                "Install flashmob-mkimage beside flashmob, or on the path.",
            )
        })?;
        let percent = Arc::new(AtomicU8::new(0));
        if let Some(out) = child.stdout.take() {
            let told = Arc::clone(&percent);
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    match line.strip_prefix("percent ").and_then(|number| number.parse().ok()) {
                        Some(number) => told.store(number, Ordering::Relaxed),
                        None => println!("{line}"),
                    }
                }
            });
        }
        Ok(Making { child, url: lent.url.clone(), percent })
    }

    fn percent(&self) -> u8 {
        self.percent.load(Ordering::Relaxed)
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Result<Option<Result<(), Failure>>, Failure> {
        let status = self.child.try_wait();
        let status =
            status.map_err(|e| Failure::retry(format!("waiting for {PROGRAM}: {e}"), "Try again."))?;
        Ok(status.map(|status| {
            if status.success() {
                return Ok(());
            }
            let classes = [Class::Retry, Class::Usage, Class::Refused, Class::Untrusted, Class::Disk];
            let class = classes.into_iter().find(|class| Some(i32::from(class.exit_code())) == status.code());
            let message = format!("{PROGRAM} ended without an image");
            Err(Failure::new(class.unwrap_or(Class::Refused), message, "It said why above."))
        }))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
