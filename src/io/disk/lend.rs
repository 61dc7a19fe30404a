//! A disk that is lent to be read.
//!
//! Invariant: the device is open for reading only, so the kernel refuses every write through it, and
//! exclusively, so nothing on this machine mounts it meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use super::list;
use crate::api::DiskInfo;
use crate::event::Failure;
use crate::layout::known::check_opened;
use crate::layout::rule::{Rule, describe};

/// A disk that can be read.
#[derive(Debug)]
pub(crate) struct LentDisk {
    file: File,
    pub(crate) info: DiskInfo,
}

/// Opens the disk that `rule` means, or the device that it names.
pub(crate) fn open(rule: &str) -> Result<LentDisk, Failure> {
    let info = choose(rule.trim())?;
    let path = format!("/dev/{}", info.name);
    let exclusive = OFlag::O_EXCL.bits() | OFlag::O_CLOEXEC.bits();
    let opened = OpenOptions::new().read(true).custom_flags(exclusive).open(&path);
    let file = opened.map_err(|e| match e.raw_os_error() == Some(nix::libc::EBUSY) {
        true => Failure::refused(
            format!("{path} is in use on the terminal"),
            "Boot the terminal from the network or a stick, not from this disk.",
        ),
        false => Failure::disk(format!("opening {path}: {e}"), "Check the disk and its cable."),
    })?;
    check_opened(&info, &list::find(&path)?)?;
    // Hints: the disk itself is read, and read ahead.
    for advice in [PosixFadviseAdvice::POSIX_FADV_DONTNEED, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL] {
        if let Err(e) = posix_fadvise(&file, 0, 0, advice) {
            log::debug!("advising on {path}: {e}");
        }
    }
    Ok(LentDisk { file, info })
}

fn choose(rule: &str) -> Result<DiskInfo, Failure> {
    if rule.starts_with("/dev/") && !rule.contains(',') {
        return list::find(rule);
    }
    let parsed: Rule = rule.parse().map_err(|why: String| Failure::usage(why, "Correct --disk."))?;
    let all = list::all();
    let all = all.map_err(|e| Failure::retry(format!("listing the disks: {e}"), "Is /sys mounted?"))?;
    parsed.choose(&all, 0).cloned()
}

impl LentDisk {
    /// A file in place of a disk.
    #[cfg(test)]
    pub(crate) fn of(file: File, info: DiskInfo) -> Self {
        LentDisk { file, info }
    }

    /// Fills `into` from `offset`.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// The disk for people.
    pub(crate) fn title(&self) -> String {
        describe(&self.info)
    }
}
