//! Runs programs to their end: arguments in, output out.
//!
//! Invariant: a command that did not exit with 0 is an error, or a panic, that carries the end of its output.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Folders that an ordinary user's path lacks.
const ALSO: &str = ":/usr/sbin:/sbin";

/// Runs `program` to its end and returns its stdout.
pub fn try_run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    try_command(Command::new(program).args(args))
}

/// As [`try_run`], for a command that needs more than arguments (a folder, an environment).
pub fn try_command(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output_of(command)?.stdout).into_owned())
}

/// Runs a command that must succeed.
pub fn run_command(command: &mut Command) -> Output {
    output_of(command).unwrap_or_else(|error| panic!("{error:#} (packages in qemu-tests/setup.sh)"))
}

/// Runs a program that must succeed.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&dyn AsRef<OsStr>]) -> Output {
    let mut command = tool(program);
    arguments.iter().for_each(|argument| {
        command.arg(argument);
    });
    run_command(&mut command)
}

/// Runs a program that must succeed with the words of a line, and returns its stdout.
pub fn run_line(program: &str, line: &str) -> String {
    let output = run_command(tool(program).args(line.split(' ')));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a script that can be started at once. A shell writes it: had this process the file open for
/// writing, a program that another thread starts at that moment would have it open too, and the kernel starts
/// no program that somebody has open for writing ("Text file busy").
pub fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("sh starts");
    let written = shell.stdin.take().map(|mut input| input.write_all(text.as_bytes()));
    assert!(matches!(written, Some(Ok(()))), "{}: {written:?}", path.display());
    assert!(shell.wait().expect("sh ends").success(), "{} is not written", path.display());
}

/// A program that makes or checks filesystems. mtools then take images that are no whole number of tracks.
pub fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(ALSO);
    let mut command = Command::new(program);
    command.env("MTOOLS_SKIP_CHECK", "1").env("PATH", path);
    command
}

fn output_of(command: &mut Command) -> Result<Output> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let text = String::from_utf8_lossy(&text);
        let from = text.char_indices().rev().nth(2000).map_or(0, |(i, _)| i);
        bail!("{shown} failed ({}): {}", output.status, text[from..].trim());
    }
    Ok(output)
}
