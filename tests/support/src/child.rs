//! A process that this one started and that never outlives it.
//!
//! Invariant: dropping a [`Guarded`] kills its process and waits for it; a killed test run takes its
//! processes along (`PR_SET_PDEATHSIG`, set by `setpriv`, which the process replaces). Only handles are used,
//! never names.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// A running process and the file its output goes to.
#[derive(Debug)]
pub struct Guarded {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Guarded {
    /// Starts `program` (inside the network namespace `namespace`, if one is given), its output going to
    /// `log`.
    pub fn spawn<S: AsRef<OsStr>>(
        namespace: Option<&str>,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> Result<Self> {
        let mut words: Vec<OsString> = vec!["--pdeathsig".into(), "KILL".into(), "--".into()];
        if let Some(namespace) = namespace {
            words.extend(["ip", "netns", "exec", namespace].map(OsString::from));
        }
        words.push(program.as_ref().to_owned());
        words.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        let name = Path::new(program.as_ref()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let output = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let child = Command::new("setpriv")
            .args(&words)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Guarded { name, child, log: log.to_owned() })
    }

    /// Ends it at once, as a power cut does, and waits until it is gone.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// An error with the end of its output if it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}: {}", self.name, tail(&self.log));
        }
        Ok(())
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
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

    #[test]
    fn a_dropped_guard_leaves_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let guard = Guarded::spawn(None, "sleep", ["1000"], &dir.path().join("log")).unwrap();
        let pid = guard.child.id();
        drop(guard);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn what_does_not_happen_in_time_is_an_error() {
        let error = wait_until("the moon", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }

    #[test]
    fn a_process_that_ended_is_an_error_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut guard =
            Guarded::spawn(None, "sh", ["-c", "echo words; exit 3"], &dir.path().join("log")).unwrap();
        wait_until("its end", Duration::from_secs(10), || Ok(!guard.is_running())).unwrap();
        assert!(guard.check().unwrap_err().to_string().contains("words"));
    }
}
