//! One run of dnsmasq: its configuration is tested, it is started, its lines are read, and it is ended.
//!
//! Invariant: a [`Child`] that is dropped has ended. The kernel ends dnsmasq when the thread that started it
//! ends, so it never outlives the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::api::Refusal;
use crate::io::sys;
use crate::sync;

/// dnsmasq has looked at everything by then, or has ended.
const STARTING: Duration = Duration::from_secs(5);
/// How long dnsmasq may take to end by itself.
const ENDING: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(20);
/// Longest line that is read at once.
const LONGEST_LINE: u64 = 4096;
/// dnsmasq's word that it serves.
const STARTED: &str = "started, version";

/// What a run has said so far.
#[derive(Debug, Default)]
struct Said {
    started: bool,
    /// Its last line, which tells why it ended.
    last: String,
}

/// A dnsmasq that runs.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    said: Arc<Mutex<Said>>,
    reader: Option<JoinHandle<()>>,
}

/// Writes the configuration whole or not at all, and has dnsmasq read it.
pub(super) fn test(program: &Path, folder: &Path, text: &str) -> Result<PathBuf, Refusal> {
    let path = folder.join("dnsmasq.conf");
    let failed = |e: std::io::Error| Refusal {
        error: format!("writing {}: {e}", path.display()),
        advice: "Look at the folder that --state names.".into(),
    };
    let next = folder.join("dnsmasq.conf.new");
    std::fs::create_dir_all(folder).map_err(failed)?;
    std::fs::File::create(&next).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
    let mut command = command(program, &next);
    let tried =
        command.arg("--test").stderr(Stdio::piped()).output().map_err(|e| cannot_start(program, &e))?;
    if !tried.status.success() {
        let said = String::from_utf8_lossy(&tried.stderr).trim().replace(char::is_control, " ");
        return Err(Refusal {
            error: format!("dnsmasq refuses its configuration {}: {said}", next.display()),
            advice: "Is it dnsmasq 2.86 or newer? 'dnsmasq --version' tells.".into(),
        });
    }
    std::fs::rename(&next, &path).map_err(failed)?;
    Ok(path)
}

fn command(program: &Path, configuration: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg(format!("--conf-file={}", configuration.display()))
        // Its lines are read, so they must be in one language.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if Uid::effective().is_root() {
        // A process that changes its user or group is no longer ended with its parent.
        command.args(["--user=root", "--group=root"]);
    }
    command
}

fn cannot_start(program: &Path, e: &std::io::Error) -> Refusal {
    Refusal {
        error: format!("starting {}: {e}", program.display()),
        advice: "Install it again: 'apt install --reinstall dnsmasq-base'.".into(),
    }
}

impl Child {
    /// Starts dnsmasq; when this returns it serves. The thread that calls this must live as long as it.
    pub(super) fn start(
        program: &Path,
        configuration: &Path,
        heard: impl FnMut(&str) + Send + 'static,
    ) -> Result<Child, Refusal> {
        let mut command = command(program, configuration);
        command.args(["--keep-in-foreground", "--log-facility=-"]).stderr(Stdio::piped());
        sys::end_with_this_thread(&mut command);
        let mut process = command.spawn().map_err(|e| cannot_start(program, &e))?;
        let said = Arc::new(Mutex::new(Said::default()));
        let reader = process.stderr.take().map(|pipe| {
            let said = Arc::clone(&said);
            std::thread::spawn(move || read(pipe, &said, heard))
        });
        let mut child = Child { process, said, reader };
        let end = Instant::now() + STARTING;
        while !sync::lock(&child.said).started {
            if let Some(status) = child.ended() {
                return Err(child.last_words(status));
            }
            if Instant::now() > end {
                log::warn!("dnsmasq does not say that it serves");
                break;
            }
            std::thread::sleep(SHORT);
        }
        Ok(child)
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Why it ended.
    pub(super) fn last_words(&mut self, status: ExitStatus) -> Refusal {
        // The pipe is closed, so the reader ends.
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let last = sync::lock(&self.said).last.clone();
        let advice = match last.contains("capability") || last.contains("Permission") {
            true => "Run it as root, or give the service its capabilities: docs/netboot.md.",
            false => "The log has its earlier lines.",
        };
        Refusal { error: format!("dnsmasq ended ({status}): {last}"), advice: advice.into() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let pid = Pid::from_raw(self.process.id().cast_signed());
            // It is a child of ours that nobody has waited for, so the number is its own.
            let _ = kill(pid, Signal::SIGTERM);
            let end = Instant::now() + ENDING;
            while self.ended().is_none() && Instant::now() < end {
                std::thread::sleep(SHORT);
            }
            // Both fail only if it has ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Reads dnsmasq's lines until it closes its end.
fn read(pipe: impl Read, said: &Mutex<Said>, mut heard: impl FnMut(&str)) {
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // File names in it come from the network.
        let line = String::from_utf8_lossy(&bytes).trim_end().replace(char::is_control, " ");
        if line.is_empty() {
            continue;
        }
        heard(&line);
        let mut said = sync::lock(said);
        said.started |= line.contains(STARTED);
        said.last = line;
    }
}
