//! The programs that tests run.
//!
//! Invariant: a program that fails ends the test with the words it said.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// How often a program is run again, and the time between.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Runs a program to its end; it must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    said(program, arguments, output(program, arguments))
}

/// Runs a program that needs a device for itself, again and again until it succeeds. The child that a test
/// beside this one has forked keeps a copy of each open file until it runs its own program, and a mount
/// namespace keeps a copy of each mount. The device is busy as long as there is a copy.
pub(crate) fn run_patiently(program: &str, arguments: &[&str]) -> String {
    for _ in 0..TRIES {
        let output = output(program, arguments);
        if output.status.success() {
            return said(program, arguments, output);
        }
        thread::sleep(PAUSE);
    }
    run(program, arguments)
}

/// Unmounts what is mounted at `place`.
pub(crate) fn unmount(place: &str) {
    run_patiently("umount", &[place]);
}

/// Writes a shell script that can be executed at once. A child writes it, because a file that this process
/// has open for writing is also open in each child that a test beside this one has just forked, and the
/// kernel executes no file that is open for writing.
pub(crate) fn write_script(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, format!("#!/bin/sh\n{text}\n")).expect("a draft");
    let [draft, path] = [&draft, path].map(|path| path.to_str().expect("text"));
    run("install", &["--mode=755", draft, path]);
    fs::remove_file(draft).expect("the draft goes");
}

fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().expect(program)
}

fn said(program: &str, arguments: &[&str], output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}
