//! Block devices as sysfs shows them, and the mounts of `/proc/self/mountinfo`.
//!
//! Invariant: an unreadable fact is absent, never guessed. The callers interpret facts.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// Has a folder for each block device, by its name.
pub(crate) const CLASS: &str = "/sys/class/block";
/// Bytes of the unit in which sysfs gives starts and sizes, for every sector size of the disk.
pub const SECTOR: u64 = 512;

/// The text of a fact without white space and NULs around it, if there is any.
pub fn text(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then(|| text.to_string())
}

/// The number that a fact is.
pub fn number(file: &Path) -> Option<u64> {
    text(file)?.parse().ok()
}

/// The number of a device as the kernel writes it, `major:minor`.
pub fn numbers(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

/// The folder of the block device with this number.
pub fn folder(device: u64) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}", numbers(device)))
}

/// The folder of the disk that this number's device is, or is a partition of.
pub fn disk_folder(device: u64) -> PathBuf {
    let own = folder(device);
    if own.join("partition").exists() { own.join("..") } else { own }
}

/// A fact of a device's request queue; a partition has the queue of its disk.
pub fn queue_fact(device: u64, name: &str) -> Option<u64> {
    ["queue", "../queue"].iter().find_map(|queue| number(&folder(device).join(queue).join(name)))
}

/// Partitions of the disk with this folder, as the kernel knows them: number and folder.
pub fn partitions(disk: &Path) -> Vec<(u32, PathBuf)> {
    partition_folders(disk)
        .filter_map(|folder| Some((u32::try_from(number(&folder.join("partition"))?).ok()?, folder)))
        .collect()
}

fn partition_folders(disk: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let below = fs::read_dir(disk).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|folder| folder.join("partition").exists())
}

/// The device with this number and, if it is a disk, its partitions, as `major:minor`.
pub fn with_partitions(device: u64) -> Vec<String> {
    // A partition whose number cannot be read is one too: it may be mounted.
    let partitions = partition_folders(&folder(device)).filter_map(|part| text(&part.join("dev")));
    std::iter::once(numbers(device)).chain(partitions).collect()
}

/// A place where a device is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device's `major:minor`. Some filesystems (btrfs) have one of their own instead.
    pub numbers: String,
    /// The folder.
    pub place: String,
    /// The device's path.
    pub device: String,
    /// The filesystem may be written to, even if this mount of it is read-only.
    pub writable: bool,
}

/// The mounts of `/proc/self/mountinfo`, whose text is `mountinfo` (proc(5)).
pub fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let numbers = fields.next()?.to_string();
        let place = fields.nth(1)?.replace("\\040", " ");
        let mut fields = after.split(' ').skip(1);
        let device = fields.next()?.to_string();
        let writable = fields.next()?.split(',').any(|option| option == "rw");
        Some(Mount { numbers, place, device, writable })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_have_their_device_and_only_the_filesystem_says_who_may_write() {
        let text = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n\
                    30 22 254:2 / /mnt/a\\040b ro,relatime shared:2 - ext4 /dev/vda2 rw\n\
                    31 22 254:3 / /mnt/ro ro,relatime - ext4 /dev/vda3 ro\nnot a mount\n";
        let found: Vec<_> = mounts(text).map(|m| (m.numbers, m.place, m.device, m.writable)).collect();
        let mount = |numbers: &str, place: &str, device: &str, writable| {
            (numbers.to_string(), place.to_string(), device.to_string(), writable)
        };
        assert_eq!(
            found,
            [
                mount("254:1", "/", "/dev/vda1", true),
                mount("254:2", "/mnt/a b", "/dev/vda2", true),
                mount("254:3", "/mnt/ro", "/dev/vda3", false),
            ]
        );
    }

    #[test]
    fn partitions_are_the_folders_that_say_so() {
        let disk = tempfile::tempdir().expect("a folder");
        for (name, number) in [("sda1", "1\n"), ("sda2", "2\n"), ("queue", "")] {
            fs::create_dir(disk.path().join(name)).expect("made");
            fs::write(disk.path().join(name).join("partition"), number).expect("written");
        }
        let mut found = partitions(disk.path());
        found.sort();
        assert_eq!(found, [(1, disk.path().join("sda1")), (2, disk.path().join("sda2"))]);
    }
}
