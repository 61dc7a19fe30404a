//! GUID partition tables (UEFI 2.10 §5.3), through the `gpt` crate.
//!
//! Invariant: the crate sees only headers whose sizes were checked here, because it trusts them. Primary and
//! backup must both be sound and agree, because only an administrator can say which of two tables is right.

use std::io::{Cursor, Read, Seek, SeekFrom};

use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, HeaderError, read_header_from_arbitrary_device};
use gpt::partition::file_read_partitions;

use super::found::{DiskTable, Remark, TableError, TablePartition, read_sector};
use super::mbr;
use crate::manifest::{Entry, Table};
use crate::units::{Lba, SectorSize};

/// Most entries of a table; nearly all have 128, and a larger number is garbage.
const MAX_ENTRIES: u32 = 1024;
/// Bytes of an entry. The specification allows larger ones, but no tool makes them.
const ENTRY_BYTES: u32 = 128;

/// True when the second sector has a GPT's mark.
pub(super) fn is_there<D: Read + Seek>(
    disk: &mut D,
    disk_size: u64,
    sector_size: SectorSize,
) -> Result<bool, TableError> {
    let at = u64::from(sector_size.get());
    Ok(disk_size >= at + 512 && read_sector(disk, at)?.starts_with(b"EFI PART"))
}

pub(super) fn read<D: Read + Seek>(
    disk: &mut D,
    disk_size: u64,
    sector_size: SectorSize,
) -> Result<DiskTable, TableError> {
    let block = match sector_size.get() {
        512 => LogicalBlockSize::Lb512,
        4096 => LogicalBlockSize::Lb4096,
        other => return Err(TableError::Unsupported(format!("a GPT with sectors of {other} bytes"))),
    };
    let sector = u64::from(sector_size.get());
    let primary = header(disk, 1, block, "primary")?;
    let backup_at = primary.backup_lba;
    let end = backup_at.checked_add(1).and_then(|lbas| lbas.checked_mul(sector)).unwrap_or(u64::MAX);
    if end > disk_size {
        return Err(TableError::Truncated { what: "the backup GPT".into(), end, size: disk_size });
    }
    let backup = header(disk, backup_at, block, "backup")?;
    if backup.disk_guid != primary.disk_guid || backup.crc32_parts != primary.crc32_parts {
        return Err(TableError::Damaged("primary and backup GPT differ".into()));
    }
    let entries = |header: &Header, disk: &mut D, which: &str| {
        file_read_partitions(disk, header, block)
            .map_err(|e| TableError::Damaged(format!("the entries of the {which} GPT: {e}")))
    };
    let found = entries(&primary, disk, "primary")?;
    entries(&backup, disk, "backup")?;
    let mut partitions = Vec::new();
    for (number, p) in found.into_iter().filter(|(_, p)| p.is_used()) {
        let usable = primary.first_usable <= p.first_lba && p.last_lba <= primary.last_usable;
        let size = p.last_lba.checked_sub(p.first_lba).and_then(|less| less.checked_add(1));
        let Some(size) = size.filter(|_| usable).and_then(|sectors| sectors.checked_mul(sector)) else {
            return Err(TableError::Damaged(format!(
                "partition {number} has sectors {} to {}, outside of {} to {}",
                p.first_lba, p.last_lba, primary.first_usable, primary.last_usable
            )));
        };
        let entry =
            Entry::Gpt { kind: p.part_type_guid.guid, guid: p.part_guid, attributes: p.flags, name: p.name };
        partitions.push(TablePartition { number, first: Lba(p.first_lba), size, entry });
    }
    partitions.sort_by_key(|p| p.first);
    let mut remarks = Vec::new();
    if mbr::Head::parse(&read_sector(disk, 0)?).is_some_and(|head| head.is_hybrid()) {
        remarks.push(Remark::HybridMbr);
    }
    if end + sector <= disk_size {
        remarks.push(Remark::BackupNotAtEnd);
    }
    let table = Table::Gpt {
        guid: primary.disk_guid,
        entries: primary.num_parts,
        first_usable: Lba(primary.first_usable),
    };
    let sectors = end / sector;
    Ok(DiskTable { sector_size, disk_size, table, partitions, sectors, records: Vec::new(), remarks })
}

/// The header at `lba`, with everything checked that the crate takes as given.
fn header<D: Read + Seek>(
    disk: &mut D,
    lba: u64,
    block: LogicalBlockSize,
    which: &str,
) -> Result<Header, TableError> {
    let sector = block.as_u64();
    let damaged = |why: String| TableError::Damaged(format!("the {which} GPT in sector {lba}: {why}"));
    // The crate always reads the second sector of its input.
    let start = lba.checked_sub(1).and_then(|before| before.checked_mul(sector));
    let start = start.ok_or_else(|| damaged("is in an impossible place".into()))?;
    let failed = |source| TableError::Read { offset: start + sector, source };
    let mut bytes = vec![0; block.as_usize()];
    disk.seek(SeekFrom::Start(start + sector)).map_err(failed)?;
    disk.take(sector).read_to_end(&mut bytes).map_err(failed)?;
    let header = read_header_from_arbitrary_device(&mut Cursor::new(bytes), block).map_err(|e| match e {
        HeaderError::Io(source) => failed(source),
        other => damaged(other.to_string()),
    })?;
    let entry_sectors = (u64::from(header.num_parts) * u64::from(ENTRY_BYTES)).div_ceil(sector);
    let table_end = header.part_start.checked_add(entry_sectors);
    if header.current_lba != lba {
        return Err(damaged(format!("says that it is in sector {}", header.current_lba)));
    }
    if header.part_size != ENTRY_BYTES || header.num_parts == 0 || header.num_parts > MAX_ENTRIES {
        return Err(TableError::Unsupported(format!(
            "the {which} GPT has {} entries of {} bytes each",
            header.num_parts, header.part_size
        )));
    }
    // The primary's entries lie before the usable sectors, the backup's after them.
    let apart = table_end.is_some_and(|end| {
        if lba == 1 {
            header.part_start > 1 && end <= header.first_usable
        } else {
            header.part_start > header.last_usable
        }
    });
    if !apart || header.first_usable > header.last_usable {
        return Err(damaged("its entries lie where partitions may lie".into()));
    }
    Ok(header)
}
