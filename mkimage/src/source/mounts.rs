//! Where a source is mounted, because a filesystem that is mounted may change while it is read.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use flashmob::event::Failure;
use flashmob::io::sysfs::{self, Mount};

use crate::keys::file_failure;

/// Mounts of block devices with these numbers.
pub(super) fn of_devices(devices: &[String]) -> Result<Vec<Mount>, Failure> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(|e| file_failure("reading", path, &e))?;
    // Some filesystems (btrfs) do not give their device's number, but its path.
    let is_device = |source: &str| {
        fs::metadata(source)
            .is_ok_and(|m| m.file_type().is_block_device() && devices.contains(&sysfs::numbers(m.rdev())))
    };
    Ok(listed(&text, devices, is_device))
}

/// The mounts of `mountinfo` whose device has one of these numbers, or a path that `is_device` knows.
fn listed(mountinfo: &str, devices: &[String], is_device: impl Fn(&str) -> bool) -> Vec<Mount> {
    let mounts = sysfs::mounts(mountinfo);
    mounts.filter(|mount| devices.contains(&mount.numbers) || is_device(&mount.device)).collect()
}

/// Mounts of loop devices that this file backs.
pub(super) fn of_file(path: &Path) -> Result<Vec<Mount>, Failure> {
    let real = fs::canonicalize(path).map_err(|e| file_failure("opening", path, &e))?;
    let mut devices = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        let numbers = fs::read_to_string(entry.path().join("dev")).unwrap_or_default();
        if Path::new(backing.trim_end()) == real
            && let Some((major, minor)) = numbers.trim().split_once(':')
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            devices.extend(sysfs::with_partitions(nix::sys::stat::makedev(major, minor)));
        }
    }
    if devices.is_empty() { Ok(Vec::new()) } else { of_devices(&devices) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 22 254:2 / /mnt/a\\040b ro,relatime shared:2 - ext4 /dev/vda2 rw
31 22 254:3 / /mnt/ro ro,relatime shared:3 - ext4 /dev/vda3 ro
32 22 0:40 /sub /srv rw,noatime - btrfs /dev/vdb1 rw,space_cache
33 22 254:22 / /other rw - ext4 /dev/vdc rw
";

    #[test]
    fn mounts_are_found_by_number_and_by_path_and_only_the_filesystem_says_who_may_write() {
        let devices = ["254:2", "254:3"].map(String::from);
        let found = listed(MOUNTINFO, &devices, |path| path == "/dev/vdb1");
        let found: Vec<_> = found.iter().map(|m| (m.place.as_str(), m.writable)).collect();
        assert_eq!(found, [("/mnt/a b", true), ("/mnt/ro", false), ("/srv", true)]);
    }
}
