//! A part of a disk or file as a block device, for programs that want one (losetup of util-linux).
//!
//! Invariant: the device is detached when its value is dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

use flashmob::units::SectorSize;

/// An attached loop device.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `size` bytes from `start` of `source`. The error is for people.
    pub(crate) fn attach(source: &Path, start: u64, size: u64) -> Result<Self, String> {
        Self::attach_with(&["--read-only"], source, start, size)
    }

    /// The same, for programs that write, with the sectors of the disk.
    pub(crate) fn attach_writable(
        source: &Path,
        start: u64,
        size: u64,
        sector: SectorSize,
    ) -> Result<Self, String> {
        let bytes = sector.get().to_string();
        let options: &[&str] = if sector == SectorSize::DEFAULT { &[] } else { &["--sector-size", &bytes] };
        Self::attach_with(options, source, start, size)
    }

    fn attach_with(options: &[&str], source: &Path, start: u64, size: u64) -> Result<Self, String> {
        let ran = Command::new("losetup")
            .args(options)
            .args(["--find", "--show"])
            .args(["--offset", &start.to_string(), "--sizelimit", &size.to_string()])
            .arg(source)
            .output()
            .map_err(|e| format!("losetup cannot be run: {e}"))?;
        let said = String::from_utf8_lossy(if ran.status.success() { &ran.stdout } else { &ran.stderr });
        let said = said.trim();
        if ran.status.success() && said.starts_with("/dev/") {
            Ok(LoopDevice { path: PathBuf::from(said) })
        } else {
            Err(format!("no loop device, are you root? {said}"))
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let ran = Command::new("losetup").arg("--detach").arg(&self.path).status();
        if !ran.is_ok_and(|status| status.success()) {
            log::warn!("{} could not be detached: losetup --detach it by hand", self.path.display());
        }
    }
}
