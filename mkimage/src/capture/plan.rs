//! The parts of a source to capture: table and partitions, or a single partition.
//!
//! Invariant: a [`Plan`] that exists can be captured: the table is sound, every partition lies on the source.

use flashmob::event::Failure;
use flashmob::io::disk::table::{self, DiskTable, TablePartition};
use flashmob::manifest::{Entry, Policy, Role, Table};
use flashmob::units::Lba;

use super::filesystem::{self, START};
use super::ranges::Used;
use crate::source::Source;

/// A partition that becomes part of the image.
#[derive(Debug, Clone)]
pub(crate) struct PartitionPlan {
    pub number: u32,
    pub first: Lba,
    /// First byte on the source.
    pub start: u64,
    pub size: u64,
    pub entry: Entry,
    pub role: Role,
    pub filesystem: Option<&'static str>,
    /// Written or kept on terminals.
    pub policy: Policy,
    /// It takes the room of a larger disk.
    pub grow: bool,
    /// Where its blank for the terminal's own file begins, from its first byte.
    pub blank: Option<u64>,
}

impl PartitionPlan {
    /// Does nothing find it by its place, as `layout::plan::growth` demands of one that moves?
    pub(super) fn may_move(&self) -> bool {
        let by_guid = matches!(self.entry, Entry::Gpt { .. });
        by_guid && self.policy == Policy::Replace && matches!(self.role, Role::Data | Role::Swap)
    }
}

/// All that is taken.
#[derive(Debug)]
pub(crate) struct Plan {
    pub table: Table,
    /// Sectors of the disk that the table was made for.
    pub sectors: u64,
    /// Sectors of its chain of extended boot records.
    pub records: Vec<Lba>,
    /// Partitions in the order of the disk.
    pub partitions: Vec<PartitionPlan>,
    /// Bytes of the smallest disk that takes it.
    pub minimum_size: u64,
    /// Bytes of all partitions that are read.
    pub bytes: u64,
    /// Ranges in use of each partition; `None` if unknown, then everything except zeros is taken.
    pub used: Vec<Option<Used>>,
    pub remarks: Vec<String>,
}

/// Reads the source's table and plans the capture.
pub(super) fn make(source: &Source, keep: &[u32]) -> Result<Plan, Failure> {
    let found = table::read(&mut &source.file, source.size, source.sector_size)?;
    let mut plan = match found {
        Some(table) => of_disk(source, table)?,
        None => of_partition(source)?,
    };
    for number in keep {
        let Some(partition) = plan.partitions.iter_mut().find(|p| p.number == *number) else {
            return Err(Failure::usage(
                format!("there is no partition {number} to keep on {}", source.path.display()),
                "List the partitions with `fdisk -l`.",
            ));
        };
        partition.policy = Policy::Keep;
    }
    plan.bytes = plan.partitions.iter().filter(|p| p.policy == Policy::Replace).map(|p| p.size).sum();
    Ok(plan)
}

fn of_disk(source: &Source, found: DiskTable) -> Result<Plan, Failure> {
    let remarks: Vec<String> = found.remarks.iter().map(|remark| remark.text().to_string()).collect();
    let minimum_size = minimum_size(&found);
    let mut partitions = Vec::new();
    for TablePartition { number, first, size, entry } in found.partitions {
        // The table was checked to lie on the source.
        let start = source.sector_size.offset_of(first).map_or(0, |offset| offset.0);
        let filesystem = look_at_start(source, start, size)?;
        let role = table::role(&entry);
        let policy = Policy::Replace;
        partitions.push(PartitionPlan {
            number,
            first,
            start,
            size,
            entry,
            role,
            filesystem,
            policy,
            grow: false,
            blank: None,
        });
    }
    Ok(Plan {
        table: found.table,
        sectors: found.sectors,
        records: found.records,
        partitions,
        minimum_size,
        bytes: 0,
        used: Vec::new(),
        remarks,
    })
}

fn of_partition(source: &Source) -> Result<Plan, Failure> {
    let sector = u64::from(source.sector_size.get());
    if source.size == 0 {
        return Err(Failure::refused(
            format!("{} is empty", source.path.display()),
            "Check that it is the disk or file that you mean.",
        ));
    }
    if !source.size.is_multiple_of(sector) {
        return Err(Failure::refused(
            format!(
                "{} has {} bytes, which is not a whole number of sectors of {sector} bytes",
                source.path.display(),
                source.size
            ),
            "It was cut off, or is no disk image.",
        ));
    }
    let mut remarks = Vec::new();
    let filesystem = look_at_start(source, 0, source.size)?;
    if table::has_unprotected_gpt(&mut &source.file, source.size, source.sector_size)? {
        if filesystem.is_none() {
            return Err(Failure::refused(
                format!(
                    "{} has a GPT, and no protective MBR before it: Linux and firmware find no partitions \
                     on it",
                    source.path.display()
                ),
                "If the GPT is right, write the protective MBR again (gdisk: `w`); if it is an old one, \
                 remove it (wipefs -a -t gpt).",
            ));
        }
        remarks.push("there is an old GPT that is not in force; it is part of the one partition".into());
    }
    remarks.push(match filesystem {
        Some(name) => format!("there is no partition table: captured as one partition with {name}"),
        None => "there is no partition table and no known filesystem: captured as one partition".into(),
    });
    let partition = PartitionPlan {
        number: 1,
        first: Lba(0),
        start: 0,
        size: source.size,
        entry: Entry::None,
        role: if filesystem == Some("swap") { Role::Swap } else { Role::Data },
        filesystem,
        policy: Policy::Replace,
        grow: false,
        blank: None,
    };
    Ok(Plan {
        table: Table::None,
        sectors: source.size / sector,
        records: Vec::new(),
        partitions: vec![partition],
        minimum_size: source.size,
        bytes: 0,
        used: Vec::new(),
        remarks,
    })
}

fn look_at_start(source: &Source, start: u64, size: u64) -> Result<Option<&'static str>, Failure> {
    let mut bytes = vec![0; usize::try_from(size.min(START)).unwrap_or(0)];
    source.read(start, &mut bytes)?;
    Ok(filesystem::name(&bytes))
}

/// The end of the last partition, room for the backup GPT behind it, up to the next MiB (but no more than the
/// source has, so that an equal disk always fits).
fn minimum_size(found: &DiskTable) -> u64 {
    let sector = u64::from(found.sector_size.get());
    let ends = found.partitions.iter().map(|p| p.first.0 * sector + p.size);
    let (boxes, backup) = match &found.table {
        Table::Gpt { entries, .. } => (&[][..], (u64::from(*entries) * 128).div_ceil(sector) + 1),
        Table::Mbr { extended, .. } => (extended.as_slice(), 0),
        Table::None => (&[][..], 0),
    };
    let boxes = boxes.iter().map(|one| (one.first.0 + one.sectors) * sector);
    let needed = ends.chain(boxes).max().unwrap_or(0) + backup * sector;
    needed.next_multiple_of(1 << 20).min(found.disk_size.max(needed))
}

/// Plans for tests.
#[cfg(test)]
pub(super) mod examples {
    use super::*;
    use uuid::Uuid;

    /// A partition of 1 MiB at `number` MiB.
    pub(crate) fn partition(number: u32, filesystem: Option<&'static str>, role: Role) -> PartitionPlan {
        let entry = Entry::Gpt { kind: Uuid::nil(), guid: Uuid::nil(), attributes: 0, name: String::new() };
        PartitionPlan {
            number,
            first: Lba(u64::from(number) * 2048),
            start: u64::from(number) << 20,
            size: 1 << 20,
            entry,
            role,
            filesystem,
            policy: Policy::Replace,
            grow: false,
            blank: None,
        }
    }

    /// An EFI system partition, a root and swap.
    pub(crate) fn plan() -> Plan {
        let partitions = vec![
            partition(1, Some("vfat"), Role::Esp),
            partition(2, Some("ext4"), Role::Data),
            partition(3, Some("swap"), Role::Swap),
        ];
        Plan {
            table: Table::Gpt { guid: Uuid::nil(), entries: 128, first_usable: Lba(34) },
            sectors: 1 << 20,
            records: Vec::new(),
            partitions,
            minimum_size: 0,
            bytes: 0,
            used: Vec::new(),
            remarks: Vec::new(),
        }
    }
}
