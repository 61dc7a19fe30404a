//! A process that this one started and that never outlives it.
//!
//! Invariant: dropping a [`Guarded`] kills its process and the processes of its group, and waits for it. A
//! killed test run takes its processes along, because [`command`] sets `PR_SET_PDEATHSIG` by `setpriv`, which
//! the process replaces. Only handles are used, never names.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// How long between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);
/// The same for a process that is about to end.
const SHORT: Duration = Duration::from_millis(20);

/// The script that is libtorrent's side of a swarm.
const LIBTORRENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/libtorrent_peer.py");

/// `program`, in a network namespace if one is given, killed when the thread that starts it ends. Its input
/// is empty, because a process outside the terminal's group may not read from the terminal.
pub fn command(namespace: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).stdin(Stdio::null());
    if let Some(namespace) = namespace {
        command.args(["ip", "netns", "exec", namespace]);
    }
    command.arg(program);
    command
}

/// Returns `program` if it is on the path; otherwise the test fails and names the missing Debian package.
pub fn of_package<'a>(program: &'a str, package: &str) -> &'a str {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    assert!(there, "{program} is missing: install the Debian package {package}");
    program
}

/// The libtorrent peer, which ends when its standard input is closed; `libtorrent_peer.py` tells its
/// arguments.
pub fn libtorrent(namespace: Option<&str>) -> Command {
    let python = "/usr/bin/python3";
    let import = Command::new(python).args(["-c", "import libtorrent"]).output();
    assert!(
        import.is_ok_and(|output| output.status.success()),
        "{python} cannot import libtorrent: install the Debian package python3-libtorrent"
    );
    let mut command = command(namespace, python);
    command.arg(LIBTORRENT).stdin(Stdio::piped());
    command
}

/// A running process, with its group.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    /// Set when the child is reaped: from then on its number may belong to another process.
    ended: Option<ExitStatus>,
    /// The file that its output goes to.
    log: Option<PathBuf>,
}

impl Guarded {
    /// Starts it; the test fails if that cannot be.
    pub fn start(command: &mut Command) -> Self {
        Self::try_start(command).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Starts it as the leader of a process group of its own.
    pub fn try_start(command: &mut Command) -> Result<Self> {
        let child = command.process_group(0).spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Guarded { child, ended: None, log: None })
    }

    /// Starts it, its output going to `log`.
    pub fn logged(command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let mut started = Self::try_start(command.stdout(output.try_clone()?).stderr(output))?;
        started.log = Some(log.to_owned());
        Ok(started)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Its standard output, for the first caller who asks, if it was started with a pipe.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard error, for the first caller who asks, if it was started with a pipe.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// How it ended, if it has. The rest of its group ends with it.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            if waitid(Id::Pid(self.pid()), flags)? != WaitStatus::StillAlive {
                self.kill();
            }
        }
        Ok(self.ended)
    }

    /// An error with the end of its output if it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.status()? {
            bail!("it ended with {status}: {}", self.log.as_deref().map(tail).unwrap_or_default());
        }
        Ok(())
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.status(), Ok(None))
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("it does not end within {} s", deadline.as_secs());
            }
            std::thread::sleep(SHORT);
        }
    }

    /// Waits for it to end by itself, and returns the output that went into pipes.
    pub fn finish(mut self, deadline: Duration) -> Result<Output> {
        let (out, err) = (self.take_stdout().map(collect), self.take_stderr().map(collect));
        let status = self.wait(deadline)?;
        let text = |reader: Option<JoinHandle<Vec<u8>>>| {
            reader.map_or_else(Vec::new, |reader| reader.join().unwrap_or_default())
        };
        Ok(Output { status, stdout: text(out), stderr: text(err) })
    }

    /// Waits for it to end by itself; the test fails if it needs more than `seconds`.
    pub async fn exit_code(&mut self, seconds: u64) -> i32 {
        let end = async {
            loop {
                if let Some(status) = self.status().expect("a child of ours") {
                    return status.code().unwrap_or(-1);
                }
                tokio::time::sleep(SHORT).await;
            }
        };
        crate::swarm::within(seconds, end).await
    }

    /// Asks it to end, as a service manager would.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends it a signal, and does not wait.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // An error means that it has ended already.
            let _ = kill(self.pid(), signal);
        }
    }

    /// Ends it and its group at once, as a power cut does, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // Until the child is reaped, the number of its group belongs to no other process.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads a pipe on a thread of its own, so that the process never waits for a reader.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Bytes that came before an error still help a reader of the failure.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Calls `done` until it returns true; an error describes the wait as `what`.
pub fn wait_until(what: &str, deadline: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + deadline;
    loop {
        if done()? {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("{what}: not within {} s", deadline.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// The last lines of a log, for error messages.
pub fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(40)..].join("\n");
    format!("\n--- end of {} ---\n{last}\n---", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = command(None, "sh");
        command.args(["-c", script]);
        command
    }

    fn runs(pid: &str) -> bool {
        // An orphan is a zombie until its new parent has reaped it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
    }

    #[test]
    fn a_dropped_guard_leaves_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut sleep = command(None, "sleep");
        let guard = Guarded::logged(sleep.arg("1000"), &dir.path().join("log")).unwrap();
        let pid = guard.id();
        drop(guard);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn processes_that_a_process_started_end_with_it() {
        let orphan = |guard: &mut Guarded| {
            let (mut line, mut byte) = (String::new(), [0]);
            let mut out = guard.take_stdout().unwrap();
            while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
                line.push(byte[0].into());
            }
            line
        };
        for script in ["sleep 1000 & echo $!; wait", "sleep 1000 & echo $!"] {
            let mut guard = Guarded::start(sh(script).stdout(Stdio::piped()));
            let pid = orphan(&mut guard);
            if !script.ends_with("wait") {
                assert!(guard.wait(Duration::from_secs(10)).unwrap().success());
            }
            drop(guard);
            wait_until("the orphan ends", Duration::from_secs(10), || Ok(!runs(&pid))).unwrap();
        }
    }

    #[test]
    fn a_process_that_wrote_more_than_a_pipe_holds_is_finished_with_all_of_it() {
        let mut command = sh("head -c 300000 /dev/zero; echo words >&2; exit 3");
        let guard = Guarded::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let output = guard.finish(Duration::from_secs(10)).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 300_000));
        assert_eq!(output.stderr, b"words\n");
    }

    #[test]
    fn what_does_not_happen_in_time_is_an_error() {
        let error = wait_until("the moon", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }

    #[test]
    fn a_process_that_ended_is_an_error_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = Guarded::logged(&mut sh("echo words; exit 3"), &dir.path().join("log")).unwrap();
        wait_until("its end", Duration::from_secs(10), || Ok(!guard.is_running())).unwrap();
        assert!(guard.check().unwrap_err().to_string().contains("words"));
    }
}
