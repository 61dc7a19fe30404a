//! PID 1 of a terminal: makes a system out of a kernel and an initramfs, runs the worker, and stops or
//! restarts the machine as the worker decided.
//!
//! Invariant: it never exits (the kernel would panic). Work that can fail runs in the worker, a child whose
//! crash is shown and which is started again up to [`CRASHES`] times.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::agent::journal;
use crate::agent::last_words::LastWords;
use crate::agent::leave::Leave;
use crate::io::disk::efivars;
use crate::io::host::console::{self, Console};
use crate::io::host::init::{self, End, PowerOff};
use crate::io::host::kmsg::since_start;
use crate::io::host::mirror;
use crate::io::host::modules::{Loader, Round};

/// The argument that makes this program the worker.
pub const WORKER: &str = "--worker";
/// The initramfs' list of its own files.
const CONTENTS: &str = "/etc/flashmob/contents.sha256";
/// Times the worker is started before the machine is restarted.
const CRASHES: u32 = 3;
/// How long a message stays on the screen before the machine is restarted.
const SHOW: Duration = Duration::from_secs(120);
/// How often drivers for late devices are looked for: an adapter may be plugged in at any time, most devices
/// are there within the first minute.
const ROUND_EVERY: Duration = Duration::from_secs(1);
const LATE_ROUNDS: u32 = 60;
const ROUND_AFTERWARDS_EVERY: Duration = Duration::from_secs(5);
/// Rounds at the start, while one driver's devices need another driver.
const FIRST_ROUNDS: u32 = 8;

/// Runs the machine. Never returns.
pub fn run() -> ! {
    let problems = init::mount_all();
    let mut consoles = Consoles(console::open_all());
    for problem in problems {
        consoles.say(&problem);
    }
    if let Err(e) = console::quiet_kernel() {
        consoles.say(&format!("cannot quiet the kernel's messages: {e}"));
    }
    if let Err(e) = init::keep_pace_after_idle() {
        consoles.say(&format!("connections begin slowly after each pause: {e}"));
    }
    consoles.say(&format!("agent {} begins", env!("CARGO_PKG_VERSION")));
    check_own_files(&mut consoles);
    load_drivers(&mut consoles);
    let leave = work(&mut consoles);
    end(&mut consoles, leave)
}

/// Writes to all consoles.
struct Consoles(Vec<Console>);

impl Consoles {
    fn say(&mut self, text: &str) {
        for console in &mut self.0 {
            // If the console is broken, there is no other place for the message.
            let _ = console.write(&format!("flashmob: {text}\r\n"));
        }
    }
}

/// A machine with too little memory has unpacked only a part of the initramfs.
fn check_own_files(consoles: &mut Consoles) {
    let wrong = match fs::read_to_string(CONTENTS) {
        Ok(list) => init::incomplete_files(&list, Path::new("/")),
        // The list is made with the initramfs: without it something is missing, or this is no such initramfs.
        Err(e) => vec![format!("{CONTENTS}: {e}")],
    };
    if wrong.is_empty() {
        return;
    }
    consoles.say("");
    consoles.say("FAILED: the initramfs is not complete.");
    for line in wrong.iter().take(5) {
        consoles.say(&format!("  {line}"));
    }
    consoles.say("Most likely this machine has too little memory: flashmob needs at least 512 MB.");
    consoles.say("Otherwise build the netboot files again with flashmob-initramfs.");
    consoles.say(&format!("The machine restarts in {} s.", SHOW.as_secs()));
    std::thread::sleep(SHOW);
    end(consoles, Leave::Restart)
}

/// Loads drivers for the devices present, then continues on a thread for late ones: USB, disks behind
/// controllers.
fn load_drivers(consoles: &mut Consoles) {
    let release = match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => release.trim().to_owned(),
        Err(e) => {
            return consoles.say(&format!("cannot read the kernel's version: {e}; no drivers are loaded"));
        }
    };
    let tree = Path::new("/lib/modules").join(&release);
    let mut loader = match Loader::open(&tree) {
        Ok(loader) if loader.is_empty() => {
            return consoles.say(&format!("there are no drivers for kernel {release} in the initramfs"));
        }
        Ok(loader) => loader,
        Err(e) => {
            return consoles.say(&format!("cannot read {}: {e}; no drivers are loaded", tree.display()));
        }
    };
    let mut loaded = Vec::new();
    for _ in 0..FIRST_ROUNDS {
        let round = loader.load_for_devices(Path::new("/sys"));
        let idle = round == Round::default();
        loaded.extend(round.loaded);
        for failed in round.failed {
            consoles.say(&format!("driver {failed}"));
        }
        if idle {
            break;
        }
    }
    if Path::new("/sys/firmware/efi").exists() {
        loaded.extend(loader.load("efivarfs").loaded);
        if let Err(e) = init::mount_efivars() {
            consoles.say(&format!("the firmware's variables cannot be read: {e}"));
        }
    }
    consoles.say(&format!("{} drivers loaded: {}", loaded.len(), loaded.join(" ")));
    let late = move || {
        for round in 0u32.. {
            std::thread::sleep(until_next(round));
            let round = loader.load_for_devices(Path::new("/sys"));
            if round != Round::default() {
                let Round { mut loaded, failed } = round;
                loaded.extend(failed);
                Consoles(console::open_all()).say(&format!("late drivers: {}", loaded.join(" ")));
            }
        }
    };
    // `std::thread::spawn` panics if no thread can be made, and a panic of the first process ends the
    // machine.
    if let Err(e) = std::thread::Builder::new().name("late-drivers".into()).spawn(late) {
        consoles.say(&format!("cannot start a thread: {e}; drivers for late devices are not loaded"));
    }
}

/// The pause before a round for late devices.
fn until_next(round: u32) -> Duration {
    if round < LATE_ROUNDS { ROUND_EVERY } else { ROUND_AFTERWARDS_EVERY }
}

/// Runs the worker until it decides.
fn work(consoles: &mut Consoles) -> Leave {
    for crash in 1..=CRASHES {
        let mut command = Command::new("/proc/self/exe");
        command.arg(WORKER);
        let words = LastWords::of(&mut command);
        let spawned = command.spawn();
        // It holds the other end of the pipe, which only the worker may keep open.
        drop(command);
        let worker = match spawned {
            Ok(child) => child.id(),
            Err(e) => {
                consoles.say(&format!("cannot start the worker: {e}"));
                std::thread::sleep(Duration::from_secs(5));
                continue;
            }
        };
        let what = match init::reap_until(worker) {
            Ok(End::Exited(status)) => match Leave::from_status(status) {
                Some(leave) => return leave,
                None => format!("ended with status {status}"),
            },
            Ok(End::Signalled(signal)) => format!("was killed by signal {signal}"),
            Err(e) => format!("cannot be waited for: {e}"),
        };
        let failed = format!("FAILED: the worker {what} (crash {crash} of {CRASHES}).");
        if let Err(e) = mirror::append(Path::new(journal::FILE), &crash_report(words.as_ref(), &failed)) {
            consoles.say(&format!("{}: {e}; the server gets no log of this crash", journal::FILE));
        }
        consoles.say("");
        consoles.say(&failed);
        consoles.say("This is a fault of flashmob: please report it with a photo of this screen.");
        std::thread::sleep(Duration::from_secs(5));
    }
    consoles.say(&format!("The machine restarts in {} s.", SHOW.as_secs()));
    std::thread::sleep(SHOW);
    Leave::Restart
}

/// A worker's last words and its end, as lines of the attempt's log.
fn crash_report(words: Option<&LastWords>, failed: &str) -> String {
    let words = words.map(LastWords::heard).unwrap_or_default();
    let words = words.lines().map(|line| format!("standard error: {line}"));
    words.chain([failed.to_owned()]).map(|line| journal::line(since_start(), &line)).collect()
}

fn end(consoles: &mut Consoles, leave: Leave) -> ! {
    let how = match leave {
        Leave::Restart => PowerOff::Restart,
        Leave::Off => PowerOff::Off,
        Leave::Kexec => PowerOff::Kexec,
        Leave::Shell => {
            shell(consoles);
            PowerOff::Restart
        }
        Leave::ToDisk => {
            to_disk(consoles);
            PowerOff::Restart
        }
    };
    consoles.say(match how {
        PowerOff::Restart => "restarting",
        PowerOff::Off => "switching off",
        PowerOff::Kexec => "starting the installed system's kernel",
    });
    let refused = init::end(how);
    consoles.say(&format!("the kernel refuses: {refused}; restarting"));
    let refused = init::end(PowerOff::Restart);
    consoles.say(&format!("the kernel refuses: {refused}; switch the machine off and on"));
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Chooses what the firmware starts after the restart.
fn to_disk(consoles: &mut Consoles) {
    match efivars::start_following(Path::new(efivars::EFIVARS)) {
        Ok(next) => consoles.say(&format!("the firmware goes on with its entry Boot{next:04X}")),
        Err(e) => {
            consoles.say(&format!("the firmware cannot be sent on to the disk: {e}"));
            consoles.say("Put the disk behind this entry in the firmware's boot order.");
            std::thread::sleep(SHOW);
        }
    }
}

/// A shell on the kernel's console until it exits; if the initramfs has none, the machine stays on.
fn shell(consoles: &mut Consoles) {
    match Command::new("/bin/sh").spawn() {
        Ok(child) => {
            if let Err(e) = init::reap_until(child.id()) {
                consoles.say(&format!("the shell cannot be waited for: {e}"));
            }
        }
        Err(e) => {
            consoles.say(&format!("there is no shell in the initramfs ({e}); staying as it is"));
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_that_is_plugged_in_after_minutes_gets_its_driver() {
        assert_eq!(until_next(0), Duration::from_secs(1));
        assert_eq!([until_next(60), until_next(100_000)], [Duration::from_secs(5); 2]);
    }
}
