//! Loop devices over files of a test's own, for root alone.

use std::path::Path;
use std::process::Command;

use super::succeed;

/// A loop device, detached when it is dropped.
pub struct Loop(pub String);

impl Loop {
    /// Over a whole file; `options` are those of `losetup`.
    pub fn of(file: &Path, options: &[&str]) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .args(options)
            .arg(file)
            .output()
            .expect("losetup");
        Loop(succeed(&output).trim().to_string())
    }

    /// Over `size` bytes of a file.
    pub fn part(file: &Path, start: u64, size: u64) -> Self {
        Self::of(file, &["--offset", &start.to_string(), "--sizelimit", &size.to_string()])
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.0]).status();
        assert!(std::thread::panicking() || detached.expect("losetup").success());
    }
}
