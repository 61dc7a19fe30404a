//! The demonstration: a golden disk becomes an image, three terminals with empty disks netboot, image
//! themselves in one swarm, reboot, and the new system answers on their serial consoles.
//!
//! Invariant: it ends with an error unless all three have booted the captured system. The library starts all
//! processes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use flashmob::api::{TerminalState, TerminalView};
use flashmob::event::{Outcome, Stage};
use qemu_tests::accel::Accel;
use qemu_tests::assets::Assets;
use qemu_tests::lab::{Job, Lab, PORT};
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
    let lab = Lab::start(&assets, "demo", &[Job::for_all()], &assets.images)?;
    let page = lab.network.open_door(PORT)?;
    println!("\nthe lab on one page:  http://{page}/");
    println!("logs and disks:       {}", lab.folder.display());
    if Accel::probed() == Accel::Tcg {
        println!("KVM does not work here: software emulation, so booting takes half a minute each time");
    }
    println!();
    let mut watches = Vec::new();
    for (number, (firmware, bus)) in
        (1u8..).zip([(Firmware::Bios, Bus::Virtio), (Firmware::Uefi, Bus::Nvme), (Firmware::Bios, Bus::Ahci)])
    {
        watches.push(Watch::new(lab.netboot(number, firmware, bus)?));
    }
    let start = Instant::now();
    while !watches.iter().all(Watch::is_over) {
        if start.elapsed() > DEADLINE {
            bail!("not all terminals booted within {} s; see their serial.log", DEADLINE.as_secs());
        }
        let views = lab.terminals()?;
        for watch in &mut watches {
            let view = views.iter().find(|view| view.macs.contains(&watch.machine.terminal.mac));
            watch.look(view, start, cli.screenshots.as_deref())?;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    summary(&assets, &watches, begin.elapsed());
    if cli.stay {
        println!("\nstaying; press Ctrl-C to end");
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

/// A terminal and the times of its stages.
struct Watch {
    machine: Machine,
    /// Stages, and when each began, in seconds after switching on.
    reached: Vec<(String, u64)>,
    pictured: bool,
}

impl Watch {
    fn new(machine: Machine) -> Self {
        Watch { machine, reached: Vec::new(), pictured: false }
    }

    fn is_over(&self) -> bool {
        self.reached.last().is_some_and(|(what, _)| what == BOOTED)
    }

    fn reach(&mut self, what: &str, start: Instant) {
        if self.reached.last().is_none_or(|(last, _)| last != what) {
            self.reached.push((what.to_string(), start.elapsed().as_secs()));
        }
    }

    /// Prints a line about it.
    fn look(&mut self, view: Option<&TerminalView>, start: Instant, pictures: Option<&Path>) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let seconds = start.elapsed().as_secs();
        // While firmware and kernels start, nothing moves for half a minute: a line now and then is enough.
        let calm = seconds.is_multiple_of(5);
        let name = self.machine.terminal.name.clone();
        if self.machine.said().contains(UP) {
            self.reach(BOOTED, start);
            println!("[{seconds:>4} s] {name:<15} the new system is up and answers");
            return self.picture(pictures, "booted");
        }
        let Some(view) = view else {
            self.reach("netboot", start);
            if calm {
                println!("[{seconds:>4} s] {name:<15} netbooting");
            }
            return Ok(());
        };
        if let (TerminalState::Failed, Some(Outcome::Failed { failure, .. })) = (view.state, &view.outcome) {
            bail!("{name} failed: {} {}", failure.message, failure.advice);
        }
        match (&view.state, &view.progress) {
            (TerminalState::Done, _) => {
                self.reach("reboot into the new system", start);
                if calm {
                    println!("[{seconds:>4} s] {name:<15} imaged; waiting for the new system");
                }
            }
            (_, Some(progress)) => {
                self.reach(progress.stage.title(), start);
                println!(
                    "[{seconds:>4} s] {name:<15} {:>3.0} %  in {:>5.1} MB/s  out {:>5.1} MB/s  {} peers  {}",
                    progress.percent,
                    megabytes(progress.rate_in),
                    megabytes(progress.rate_out),
                    progress.peers,
                    progress.stage.title()
                );
                if progress.stage >= Stage::Fetch && !self.pictured {
                    self.pictured = true;
                    self.picture(pictures, "imaging")?;
                }
            }
            (state, None) => println!("[{seconds:>4} s] {name:<15} {state:?}"),
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

fn megabytes(bytes: u64) -> f64 {
    let kilobytes = u32::try_from(bytes / 1000).unwrap_or(u32::MAX);
    f64::from(kilobytes) / 1000.0
}

fn summary(assets: &Assets, watches: &[Watch], all: Duration) {
    println!("\nhow long each stage took\n");
    for step in &assets.steps {
        println!("  {:<32} {:>6.1} s", step.what, step.took.as_secs_f64());
    }
    for watch in watches {
        println!("\n  {}", watch.machine.terminal.name);
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
