//! Opens a disk exclusively, or finds out which program or device uses it.
//!
//! Invariant: a [`ClaimedDisk`] is exclusively open: the kernel refuses to mount, swap on or stack anything
//! on it (or, while the table is kept, on each partition that is replaced) for as long as the value lives.
//! `layout::plan` decides its use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::api::{DiskInfo, LayoutMode};
use crate::event::{Class, Failure};
use crate::io::disk::list;
use crate::io::disk::partition_reader::PartitionReader;
use crate::io::disk::table;
use crate::io::storage::device::Disk;
use crate::io::sys;
use crate::layout::known::check_opened;
use crate::layout::plan::{DiskFacts, Existing, ExistingPartition};
use crate::layout::rule::describe;
use crate::units::Lba;

const CLASS: &str = "/sys/class/block";
/// Bytes of the unit in which sysfs gives starts and sizes, for every sector size of the disk.
const SYSFS_SECTOR: u64 = 512;

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
    pub fn reread_partitions(&self) -> io::Result<()> {
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
        return Err(refused(
            format!("{path} refuses writes"),
            "Look for a write-protect switch, or use another disk.",
        ));
    }
    let (guards, whole) = match open_exclusive(&path) {
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

fn open_exclusive(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_EXCL.bits() | OFlag::O_CLOEXEC.bits())
        .open(path)
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EBUSY as i32)
}

fn refused(message: String, advice: &str) -> Failure {
    Failure::new(Class::Refused, message, advice)
}

fn held(path: &str, by: &[String]) -> Failure {
    let by = if by.is_empty() { "another program".to_string() } else { by.join(", ") };
    refused(
        format!("{path} is in use by {by}"),
        "Unmount it or stop its user, or choose another disk in the job.",
    )
}

fn broken(path: &str, action: &str, error: &io::Error) -> Failure {
    let message = format!("{action} {path}: {error}");
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
            refused(message, "Run as root, and look whether the disk's name is right.")
        }
        _ => Failure::new(
            Class::Disk,
            message,
            "Look at the disk's cable and at its own health report (SMART).",
        ),
    }
}

/// Each partition node is taken by itself; the kernel then refuses to mount just these.
fn claim_partitions(disk: &str, numbers: &[u32]) -> Result<Vec<File>, Failure> {
    let nodes = partition_nodes(Path::new(CLASS), disk);
    let mut guards = Vec::new();
    for number in numbers {
        let node = nodes.iter().find(|(n, _)| n == number);
        let (_, name) = node.ok_or_else(|| {
            refused(
                format!("{disk} is in use and the kernel does not know its partition {number}"),
                "Partition the disk as the image's disk is.",
            )
        })?;
        let path = format!("/dev/{name}");
        guards.push(open_exclusive(&path).map_err(|e| {
            if is_busy(&e) {
                held(&path, &holders(Path::new(CLASS), name))
            } else {
                broken(&path, "opening", &e)
            }
        })?);
    }
    Ok(guards)
}

/// The partitions that are held are the ones the table describes: a table that was changed and not read again
/// by the kernel would have pieces written into a partition that somebody else uses.
fn same_places(class: &Path, disk: &str, numbers: &[u32], facts: &DiskFacts) -> Result<(), Failure> {
    let Ok(existing) = &facts.table else { return Ok(()) };
    let nodes = partition_nodes(class, disk);
    for partition in existing.partitions.iter().filter(|p| numbers.contains(&p.number)) {
        let node =
            nodes.iter().find(|(n, _)| *n == partition.number).map(|(_, name)| class.join(disk).join(name));
        let bytes = |file: &str| {
            let text = fs::read_to_string(node.as_ref()?.join(file)).ok()?;
            text.trim().parse::<u64>().ok()?.checked_mul(SYSFS_SECTOR)
        };
        let start = facts.sector.offset_of(partition.first).map(|offset| offset.0);
        if start.is_none() || bytes("start") != start || bytes("size") != Some(partition.size) {
            return Err(refused(
                format!("the kernel has partition {} of {disk} elsewhere than its table", partition.number),
                "Restart the machine, so that the kernel reads the partition table again.",
            ));
        }
    }
    Ok(())
}

/// Partitions of a disk as the kernel knows them: number and name.
fn partition_nodes(class: &Path, disk: &str) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(class.join(disk)) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let number = fs::read_to_string(entry.path().join("partition")).ok()?;
            Some((number.trim().parse().ok()?, entry.file_name().to_string_lossy().into_owned()))
        })
        .collect()
}

/// The users of a block device or its partitions: mounts, swap, devices stacked on it.
fn holders(class: &Path, name: &str) -> Vec<String> {
    let mut names = vec![name.to_string()];
    names.extend(partition_nodes(class, name).into_iter().map(|(_, name)| name));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut found = Vec::new();
    for name in names {
        let dir = class.join(&name);
        if let Ok(number) = fs::read_to_string(dir.join("dev")) {
            found.extend(mounts_of(&mounts, number.trim()).map(|at| format!("{name} (mounted on {at})")));
        }
        let is_swap =
            swaps.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{name}")));
        if is_swap {
            found.push(format!("{name} (swap)"));
        }
        let stacked: Vec<PathBuf> = fs::read_dir(dir.join("holders"))
            .map(|all| all.flatten().map(|e| e.path()).collect())
            .unwrap_or_default();
        for holder in stacked {
            let holder = holder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            found.push(format!("{holder} (stacked on {name})"));
        }
    }
    found
}

/// Mount points of the device `number` (`major:minor`), from `/proc/self/mountinfo` (proc(5)).
fn mounts_of<'a>(mountinfo: &'a str, number: &'a str) -> impl Iterator<Item = &'a str> {
    mountinfo.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        let mount_point = fields.nth(1)?;
        (device == number).then_some(mount_point)
    })
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
            return Err(Failure::new(Class::Disk, message, "Replace the disk: it cannot be read."));
        }
        Err(other) => Err(other.to_string()),
    };
    let backup_gpt = backup_of(disk)
        .map_err(|e| Failure::new(Class::Disk, e.to_string(), "Replace the disk: it cannot be read."))?;
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
    fn a_device_that_is_another_disk_once_it_is_open_is_refused_and_given_back() {
        let disk = crate::io::testing::LoopDisk::used(1 << 20, 512);
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

    #[test]
    fn mount_points_are_found_by_device_number() {
        let text = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                    37 35 7:1 / /media/x rw - ext4 /dev/loop1 rw\n38 35 7:11 / /other rw - ext4 /dev/loop11 rw\n";
        assert_eq!(mounts_of(text, "7:1").collect::<Vec<_>>(), ["/media/x"]);
        assert_eq!(mounts_of(text, "8:1").count(), 0);
        assert_eq!(mounts_of("", "8:1").count(), 0);
    }
}
