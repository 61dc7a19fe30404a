//! A block device as the kernel shows it in sysfs, by its number.
//!
//! Invariant: a partition has the queue of its disk.

use std::fs::{self};
use std::path::PathBuf;

pub(super) fn split(device: u64) -> (u64, u64) {
    (nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

pub(super) fn sys_of(device: u64) -> PathBuf {
    let (major, minor) = split(device);
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// The request queue's facts; a partition has those of its disk.
pub(super) fn queue_of(device: u64) -> PathBuf {
    let own = sys_of(device).join("queue");
    if own.exists() { own } else { sys_of(device).join("..").join("queue") }
}

/// The device and, if it is a disk, its partitions, as `major:minor`.
pub(super) fn family(device: u64) -> Vec<String> {
    let (major, minor) = split(device);
    let mut found = vec![format!("{major}:{minor}")];
    for entry in fs::read_dir(sys_of(device)).into_iter().flatten().flatten() {
        if entry.path().join("partition").exists()
            && let Ok(numbers) = fs::read_to_string(entry.path().join("dev"))
        {
            found.push(numbers.trim().to_string());
        }
    }
    found
}
