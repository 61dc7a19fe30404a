//! Opens a disk exclusively, or finds out which program or device uses it. A disk that is busy without a user
//! that can be named is tried again for a second, because it may have been given back just now.
//!
//! Invariant: a [`ClaimedDisk`] is exclusively open: the kernel refuses to mount, swap on or stack anything
//! on it (or, while the table is kept, on each partition that is replaced) for as long as the value lives.
//! `layout::plan` decides its use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::api::{DiskInfo, LayoutMode};
use crate::event::Failure;
use crate::io::disk::list;
use crate::io::disk::partition_reader::PartitionReader;
use crate::io::disk::patience::patiently;
use crate::io::disk::table;
use crate::io::storage::device::Disk;
use crate::io::sys;
use crate::io::sysfs::{self, CLASS};
use crate::layout::known::check_opened;
use crate::layout::plan::{DiskFacts, Existing, ExistingPartition};
use crate::layout::rule::describe;
use crate::units::Lba;

/// A disk that is exclusively open.
#[derive(Debug)]
pub struct ClaimedDisk {
    disk: Disk,
    guards: Vec<File>,
    whole: bool,
    facts: DiskFacts,
}

impl ClaimedDisk {
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The facts that a plan needs.
    pub fn facts(&self) -> &DiskFacts {
        &self.facts
    }

    /// Has the kernel read the table again. Only the holder of the whole disk may ask for that; where
    /// partitions are held the table did not change.
    pub(crate) fn reread_partitions(&self) -> io::Result<()> {
        match self.guards.first() {
            Some(guard) if self.whole => sys::reread_partitions(guard),
            _ => Ok(()),
        }
    }
}

/// Claims `info`'s disk. In keep mode, where other partitions of the disk are in use, the partitions with the
/// numbers `replaced` are claimed instead.
pub fn claim(info: &DiskInfo, mode: LayoutMode, replaced: &[u32]) -> Result<ClaimedDisk, Failure> {
    let path = format!("/dev/{}", info.name);
    if info.read_only {
        return Err(write_protected(&path));
    }
    let (guards, whole) = match unless_used(Path::new(CLASS), &info.name, || open_exclusive(&path)) {
        Ok(guard) => (vec![guard], true),
        Err(e) if is_busy(&e) && mode == LayoutMode::Keep => (claim_partitions(&info.name, replaced)?, false),
        Err(e) if is_busy(&e) => return Err(held(&path, &holders(Path::new(CLASS), &info.name))),
        Err(e) => return Err(broken(&path, "opening", &e)),
    };
    // A name can move to another disk between the choice and the open; from here on it cannot.
    check_opened(info, &list::find(&path)?)?;
    let disk = Disk::open(&path, info.rotational).map_err(|e| broken(&path, "opening", &e))?;
    let facts = facts(&disk, info)?;
    if !whole {
        same_places(Path::new(CLASS), &info.name, replaced, &facts)?;
    }
    Ok(ClaimedDisk { disk, guards, whole, facts })
}

/// A disk that is open for reading only, and what a plan needs to know of it.
pub(crate) struct ExaminedDisk {
    pub(crate) disk: Disk,
    pub(crate) facts: DiskFacts,
}

/// Opens `info`'s disk for reading only, and refuses it where [`claim`] would. The kernel refuses each write
/// through the result.
pub(crate) fn examine(info: &DiskInfo, mode: LayoutMode) -> Result<ExaminedDisk, Failure> {
    let path = format!("/dev/{}", info.name);
    let open = |shared| Disk::open_to_read(&path, info.rotational, shared);
    let disk = match unless_used(Path::new(CLASS), &info.name, || open(false)) {
        // Some of its partitions may be in use, and others free to be replaced.
        Err(e) if is_busy(&e) && mode == LayoutMode::Keep => open(true),
        opened => opened,
    };
    let disk = disk.map_err(|e| match is_busy(&e) {
        true => held(&path, &holders(Path::new(CLASS), &info.name)),
        false => broken(&path, "opening", &e),
    })?;
    if info.read_only {
        return Err(write_protected(&path));
    }
    check_opened(info, &list::find(&path)?)?;
    let facts = facts(&disk, info)?;
    Ok(ExaminedDisk { disk, facts })
}

fn write_protected(path: &str) -> Failure {
    Failure::refused(
        format!("{path} refuses writes"),
        "Look for a write-protect switch, or use another disk.",
    )
}

fn open_exclusive(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_EXCL.bits() | OFlag::O_CLOEXEC.bits())
        .open(path)
}

/// Lets `open` try again for a moment while the device `name` is busy and no user of it can be named.
fn unless_used<T>(class: &Path, name: &str, open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    patiently(|e| is_busy(e) && holders(class, name).is_empty(), open)
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EBUSY as i32)
}

fn held(path: &str, by: &[String]) -> Failure {
    let by = if by.is_empty() { "another program".to_string() } else { by.join(", ") };
    Failure::refused(
        format!("{path} is in use by {by}"),
        "Unmount it or stop its user, or choose another disk in the job.",
    )
}

fn broken(path: &str, action: &str, error: &io::Error) -> Failure {
    let message = format!("{action} {path}: {error}");
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
            Failure::refused(message, "Run as root, and check that the disk's name is right.")
        }
        _ => Failure::disk(message, "Look at the disk's cable and at its own health report (SMART)."),
    }
}

/// Each partition node is taken by itself; the kernel then refuses to mount just these.
fn claim_partitions(disk: &str, numbers: &[u32]) -> Result<Vec<File>, Failure> {
    let nodes = sysfs::partitions(&Path::new(CLASS).join(disk));
    let mut guards = Vec::new();
    for number in numbers {
        let node = nodes.iter().find(|(n, _)| n == number);
        let (_, folder) = node.ok_or_else(|| {
            Failure::refused(
                format!("{disk} is in use and the kernel does not know its partition {number}"),
                "Partition the disk as the image's disk is.",
            )
        })?;
        let name = name_of(folder);
        let path = format!("/dev/{name}");
        let guard = unless_used(Path::new(CLASS), &name, || open_exclusive(&path));
        guards.push(guard.map_err(|e| match is_busy(&e) {
            true => held(&path, &holders(Path::new(CLASS), &name)),
            false => broken(&path, "opening", &e),
        })?);
    }
    Ok(guards)
}

/// Checks that the held partitions are those of the table. If the table was changed and the kernel did not
/// read it again, pieces would be written into a partition that another program may use.
fn same_places(class: &Path, disk: &str, numbers: &[u32], facts: &DiskFacts) -> Result<(), Failure> {
    let Ok(existing) = &facts.table else { return Ok(()) };
    let nodes = sysfs::partitions(&class.join(disk));
    for partition in existing.partitions.iter().filter(|p| numbers.contains(&p.number)) {
        let node = nodes.iter().find(|(n, _)| *n == partition.number).map(|(_, folder)| folder);
        let bytes = |file: &str| sysfs::number(&node?.join(file))?.checked_mul(sysfs::SECTOR);
        let start = facts.sector.offset_of(partition.first).map(|offset| offset.0);
        if start.is_none() || bytes("start") != start || bytes("size") != Some(partition.size) {
            return Err(Failure::refused(
                format!("the kernel has partition {} of {disk} elsewhere than its table", partition.number),
                "Restart the machine, so that the kernel reads the partition table again.",
            ));
        }
    }
    Ok(())
}

/// The users of a block device or its partitions: mounts, swap, devices stacked on it.
fn holders(class: &Path, name: &str) -> Vec<String> {
    let partitions = sysfs::partitions(&class.join(name));
    let names = std::iter::once(name.to_string()).chain(partitions.iter().map(|(_, part)| name_of(part)));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut found = Vec::new();
    for name in names {
        let dir = class.join(&name);
        if let Some(numbers) = sysfs::text(&dir.join("dev")) {
            let here = sysfs::mounts(&mounts).filter(|mount| mount.numbers == numbers);
            found.extend(here.map(|mount| format!("{name} (mounted on {})", mount.place)));
        }
        let is_swap =
            swaps.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{name}")));
        if is_swap {
            found.push(format!("{name} (swap)"));
        }
        let stacked = fs::read_dir(dir.join("holders")).into_iter().flatten().flatten();
        found.extend(stacked.map(|holder| format!("{} (stacked on {name})", name_of(&holder.path()))));
    }
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reads the disk's present state. An unreadable table matters only if it is to be kept.
fn facts(disk: &Disk, info: &DiskInfo) -> Result<DiskFacts, Failure> {
    let mut reader = PartitionReader::new(disk, 0, disk.size());
    let table = match table::read(&mut reader, disk.size(), disk.sector()) {
        Ok(Some(found)) => Ok(Existing {
            table: found.table,
            partitions: found
                .partitions
                .into_iter()
                .map(|p| ExistingPartition { number: p.number, first: p.first, size: p.size, entry: p.entry })
                .collect(),
        }),
        Ok(None) => Err("there is no partition table".to_string()),
        Err(table::TableError::Read { offset, source }) => {
            let message = format!("reading {} at byte {offset}: {source}", disk.name());
            return Err(Failure::disk(message, "Replace the disk: it cannot be read."));
        }
        Err(other) => Err(other.to_string()),
    };
    let backup_gpt =
        backup_of(disk).map_err(|e| Failure::disk(e.to_string(), "Replace the disk: it cannot be read."))?;
    Ok(DiskFacts { name: describe(info), size: disk.size(), sector: disk.sector(), table, backup_gpt })
}

/// The place of the backup that a GPT header in the second sector names, even if the header is damaged.
fn backup_of(disk: &Disk) -> Result<Option<Lba>, crate::storage::StorageError> {
    let at = u64::from(disk.sector().get());
    if disk.size() < 2 * at {
        return Ok(None);
    }
    let mut head = [0u8; 40];
    disk.read_at(at, &mut head)?;
    let lba = head.last_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    Ok(lba.filter(|_| head.starts_with(b"EFI PART")).map(Lba))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;

    #[test]
    fn a_held_partition_must_lie_where_the_table_says() {
        use crate::manifest::{Entry, Table};
        use crate::units::SectorSize;
        let class = tempfile::tempdir().expect("a folder");
        let node = class.path().join("sdz/sdz2");
        fs::create_dir_all(&node).expect("made");
        let entry = Entry::Mbr { kind: 0x83, active: false, ebr: None };
        let partition = ExistingPartition { number: 2, first: Lba(256), size: 8 << 20, entry };
        let facts = DiskFacts {
            name: "sdz".into(),
            size: 64 << 20,
            sector: SectorSize::new(4096).expect("valid"),
            table: Ok(Existing {
                table: Table::Mbr { signature: [0; 4], extended: Vec::new() },
                partitions: vec![partition],
            }),
            backup_gpt: None,
        };
        let says = |start: &str, size: &str| {
            for (file, text) in [("partition", "2"), ("start", start), ("size", size)] {
                fs::write(node.join(file), format!("{text}\n")).expect("written");
            }
            same_places(class.path(), "sdz", &[2], &facts)
        };
        assert_eq!(says("2048", "16384"), Ok(()));
        for (start, size) in [("4096", "16384"), ("2048", "32768"), ("256", "16384"), ("", "16384")] {
            assert!(says(start, size).is_err_and(|f| f.class == Class::Refused), "{start} {size}");
        }
    }

    #[test]
    fn a_busy_device_is_tried_again_only_while_nobody_can_be_named_who_uses_it() {
        let class = tempfile::tempdir().expect("a folder");
        let opened_at = |last: u32, failure: Errno| {
            let mut tries = 0;
            let opened = unless_used(class.path(), "sdz", || {
                tries += 1;
                if tries < last { Err(io::Error::from(failure)) } else { Ok(()) }
            });
            (opened.is_ok(), tries)
        };
        assert_eq!(opened_at(3, Errno::EBUSY), (true, 3), "it was given back meanwhile");
        assert!(!opened_at(u32::MAX, Errno::EBUSY).0, "the wait ends");
        assert_eq!(opened_at(3, Errno::EIO), (false, 1), "no other failure passes");
        fs::create_dir_all(class.path().join("sdz/holders/dm-0")).expect("made");
        assert_eq!(opened_at(3, Errno::EBUSY), (false, 1), "dm-0 uses it");
    }

    #[test]
    fn a_device_that_is_another_disk_once_it_is_open_is_refused_and_given_back() {
        let disk = crate::testkit::disks::LoopDisk::used(1 << 20, 512);
        let chosen = disk.info();
        let others = [
            DiskInfo { serial: Some("SSD-1".into()), ..chosen.clone() },
            DiskInfo { wwn: Some("naa.5000".into()), ..chosen.clone() },
            DiskInfo { size: 2 << 20, ..chosen.clone() },
        ];
        for other in others {
            let failure = claim(&other, LayoutMode::WholeDisk, &[]).expect_err("another disk");
            assert_eq!(failure.class, Class::Refused, "{failure:?}");
            assert!(failure.message.contains("was chosen, and the device that was opened is"), "{failure:?}");
        }
        claim(&chosen, LayoutMode::WholeDisk, &[]).expect("nobody holds it");
        assert!(disk.bytes().iter().all(|byte| *byte == 0xaa), "not a byte was written");
    }
}
