//! Runs Debian's programs: arguments in, output out, and an error with the command and its output.
//!
//! Invariant: a command that did not exit with 0 is an error that carries the end of its output.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `program` to its end and returns its stdout.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    run_command(Command::new(program).args(args))
}

/// As [`run`], for a command that needs more than arguments (a folder, an environment).
pub fn run_command(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let text = String::from_utf8_lossy(&text);
        let from = text.char_indices().rev().nth(2000).map_or(0, |(i, _)| i);
        bail!("{shown} failed ({}): {}", output.status, text[from..].trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
