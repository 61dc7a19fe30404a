//! The demonstration: a golden disk becomes an image, a person imports a room of three terminals with empty
//! disks and creates a job. They netboot, image themselves in one swarm, reboot, and the new system answers
//! on their serial consoles.
//!
//! Invariant: it ends with an error unless all three have booted the captured system. Everything that a
//! person would type is shown and run as such. The library starts all processes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use flashmob::api::{TerminalState, TerminalView};
use flashmob::event::{Outcome, Stage};
use qemu_tests::accel::Accel;
use qemu_tests::assets::{Assets, IMAGE};
use qemu_tests::lab::{Lab, PORT, ROOM, label};
use qemu_tests::machine::{Bus, Firmware, Machine};

/// Images three virtual terminals and shows how it goes. Needs root.
#[derive(Parser)]
#[command(name = "demo")]
struct Cli {
    /// Put pictures of the terminals' consoles here.
    #[arg(long, value_name = "DIR")]
    screenshots: Option<PathBuf>,
    /// Stay when all is done, so that the page can be looked at.
    #[arg(long)]
    stay: bool,
}

/// The installed system's greeting on its serial console.
const UP: &str = "GOLDEN new is up";
/// Three machines without KVM need about two minutes; a terminal that is silent until then has failed.
const DEADLINE: Duration = Duration::from_secs(540);
/// How often the room is looked at. What has not changed is not shown again.
const LOOK: Duration = Duration::from_secs(5);
/// The room's terminals: the number is the seat.
const TERMINALS: [(u8, Firmware, Bus); 3] =
    [(1, Firmware::Bios, Bus::Virtio), (2, Firmware::Uefi, Bus::Nvme), (3, Firmware::Bios, Bus::Ahci)];

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let begin = Instant::now();
    let assets = Assets::prepare(&|what| println!("[{:>4} s] {what}", begin.elapsed().as_secs()))?;
    if let Some(folder) = &cli.screenshots {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let keys = ["--keys".into(), assets.folder.join("keys/lab.pub")];
    let lab = Lab::without_job(&assets, "demo", &assets.images, &keys)?;
    let page = lab.network.open_door(PORT)?;
    println!("\nthe lab on one page:  http://{page}/");
    println!("logs and disks:       {}", lab.folder.display());
    if Accel::probed() == Accel::Tcg {
        println!("KVM does not work here: software emulation, so booting takes half a minute each time");
    }
    let job = order(&lab)?;
    let watches = image(&lab, cli.screenshots.as_deref())?;
    shown(&lab, &["job", "report", &job])?;
    summary(&assets, &watches, begin.elapsed());
    if cli.stay {
        println!("\nstaying; commands reach the server with --server http://{page}; press Ctrl-C to end");
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

/// Runs a command of the administrator and shows it as on a screen.
fn shown(lab: &Lab, words: &[&str]) -> Result<String> {
    println!("\n$ flashmob {}", words.join(" "));
    let said = lab.flashmob(words)?;
    print!("{said}");
    Ok(said)
}

/// What a person types so that the room is imaged: its table and a job, whose number is returned.
fn order(lab: &Lab) -> Result<String> {
    let file = lab.write_table(&TERMINALS.map(|(number, ..)| number))?;
    println!("\n$ cat {}", file.display());
    print!("{}", std::fs::read_to_string(&file)?);
    shown(lab, &["terminal", "import", &file.to_string_lossy()])?;
    let said = shown(lab, &["job", "create", IMAGE, &format!("room:{ROOM}")])?;
    let number = said.strip_prefix("Job ").and_then(|rest| rest.split(':').next());
    Ok(number.with_context(|| format!("no number of a job: {said}"))?.to_string())
}

/// Switches the terminals on, and shows the room until all of them have booted the new system.
fn image(lab: &Lab, pictures: Option<&Path>) -> Result<Vec<Watch>> {
    println!("\nNow the terminals are switched on, and boot from the network.");
    let mut watches = Vec::new();
    for (number, firmware, bus) in TERMINALS {
        watches.push(Watch::new(label(number), lab.netboot(number, firmware, bus)?));
    }
    let start = Instant::now();
    let (mut looked, mut before) = (None, String::new());
    while !watches.iter().all(Watch::is_over) {
        if start.elapsed() > DEADLINE {
            bail!("not all terminals booted within {} s; see their serial.log", DEADLINE.as_secs());
        }
        let views = lab.terminals()?;
        for watch in &mut watches {
            let view = views.iter().find(|view| view.macs.contains(&watch.machine.terminal.mac));
            watch.look(view, start, pictures)?;
        }
        if looked.is_none_or(|at: Instant| at.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            let list = ["terminal", "list", "--room", ROOM];
            let said = lab.flashmob(&list)?;
            if said != before {
                println!(
                    "\n[{:>4} s]\n$ flashmob {}\n{}",
                    start.elapsed().as_secs(),
                    list.join(" "),
                    said.trim_end()
                );
                before = said;
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(watches)
}

/// A terminal and the times of its stages.
struct Watch {
    label: String,
    machine: Machine,
    /// Stages, and when each began, in seconds after switching on.
    reached: Vec<(String, u64)>,
    pictured: bool,
}

impl Watch {
    fn new(label: String, machine: Machine) -> Self {
        Watch { label, machine, reached: Vec::new(), pictured: false }
    }

    fn is_over(&self) -> bool {
        self.reached.last().is_some_and(|(what, _)| what == BOOTED)
    }

    fn reach(&mut self, what: &str, start: Instant) {
        if self.reached.last().is_none_or(|(last, _)| last != what) {
            self.reached.push((what.to_string(), start.elapsed().as_secs()));
        }
    }

    /// Notes its stage; takes pictures.
    fn look(&mut self, view: Option<&TerminalView>, start: Instant, pictures: Option<&Path>) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        if self.machine.said().contains(UP) {
            self.reach(BOOTED, start);
            let seconds = start.elapsed().as_secs();
            println!(
                "\n[{seconds:>4} s] {}: the new system is up, and answers on its serial line",
                self.label
            );
            return self.picture(pictures, "booted");
        }
        let Some(view) = view else { bail!("the server does not know {}", self.label) };
        if let (TerminalState::Failed, Some(Outcome::Failed { failure, .. })) = (view.state, &view.outcome) {
            bail!("{} failed: {} {}", self.label, failure.message, failure.advice);
        }
        match (&view.state, &view.progress) {
            (TerminalState::Done, _) => self.reach("reboot into the new system", start),
            (_, Some(progress)) => {
                self.reach(progress.stage.title(), start);
                if progress.stage >= Stage::Fetch && !self.pictured {
                    self.pictured = true;
                    self.picture(pictures, "imaging")?;
                }
            }
            (_, None) => self.reach("netboot", start),
        }
        Ok(())
    }

    fn picture(&self, folder: Option<&Path>, when: &str) -> Result<()> {
        let Some(folder) = folder else { return Ok(()) };
        let folder = std::path::absolute(folder)?;
        self.machine.screenshot(&folder.join(format!("{}-{when}.png", self.machine.terminal.name)))
    }
}

const BOOTED: &str = "booted";

fn summary(assets: &Assets, watches: &[Watch], all: Duration) {
    println!("\nhow long each stage took\n");
    for step in &assets.steps {
        println!("  {:<32} {:>6.1} s", step.what, step.took.as_secs_f64());
    }
    for watch in watches {
        println!("\n  {}, {}", watch.label, watch.machine.terminal.name);
        for pair in watch.reached.windows(2) {
            let [(what, from), (_, to)] = pair else { continue };
            println!("    {what:<30} {:>4} s", to - from);
        }
        let end = watch.reached.last().map_or(0, |(_, at)| *at);
        println!("    {:<30} {end:>4} s after it was switched on", "new system up");
    }
    println!("\n  in all {} s", all.as_secs());
    println!("\nAll three terminals run what was captured from the golden disk.");
}
