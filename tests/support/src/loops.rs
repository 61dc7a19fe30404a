//! Loop devices over files of a test's own, for root alone.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::command::run_command;

/// A loop device, detached when it is dropped.
#[derive(Debug)]
pub struct LoopDevice(String);

impl LoopDevice {
    /// Over a whole file; `options` are those of `losetup`.
    pub fn over(file: &Path, options: &[&str]) -> Self {
        let mut losetup = Command::new("losetup");
        let output = run_command(losetup.args(["--find", "--show"]).args(options).arg(file));
        LoopDevice(String::from_utf8_lossy(&output.stdout).trim().to_string())
    }

    /// Over `size` bytes of a file.
    pub fn part(file: &Path, start: u64, size: u64) -> Self {
        Self::over(file, &["--offset", &start.to_string(), "--sizelimit", &size.to_string()])
    }

    /// Over a new file of `length` zeros.
    pub fn blank(file: &Path, length: u64) -> Self {
        File::create(file).and_then(|file| file.set_len(length)).expect("a file");
        Self::over(file, &[])
    }

    /// Its path as text.
    pub fn name(&self) -> &str {
        &self.0
    }

    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl AsRef<OsStr> for LoopDevice {
    fn as_ref(&self) -> &OsStr {
        self.0.as_ref()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.0]).status();
        assert!(std::thread::panicking() || detached.expect("losetup").success());
    }
}
