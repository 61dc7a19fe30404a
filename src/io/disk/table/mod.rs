//! Reading partition tables from a disk, a device or a file into the manifest's types.
//!
//! Invariant: a [`DiskTable`] that exists is sound: its checksums are right, every partition lies on the
//! disk, none overlaps another, and the table could be written again unchanged. It is the table that Linux
//! and firmware use: a GPT counts only behind a boot record with an entry of type 0xEE that begins in the
//! second sector. A doubtful table is refused with a remedy, because capture and terminals that keep
//! partitions would otherwise act on a guess. `layout::table` and `io::disk::commit` write tables.

mod found;
mod gpt;
mod identity;
mod mbr;

use std::io::{Read, Seek};

use crate::manifest::{Entry, Role, Table};
use crate::units::{Lba, SectorSize};

use found::read_sector;
pub use found::{DiskTable, GPT_BIOS_BOOT, GPT_ESP, GPT_LINUX_SWAP, Remark, TableError, TablePartition};
pub use identity::identity;

/// Reads the table of a disk of `disk_size` bytes; `None` if it has none (an empty disk, or a filesystem that
/// begins at its first byte).
pub fn read<D: Read + Seek>(
    disk: &mut D,
    disk_size: u64,
    sector_size: SectorSize,
) -> Result<Option<DiskTable>, TableError> {
    let Some(sector) = first_sector(disk, disk_size)? else { return Ok(None) };
    let has_gpt = gpt::is_there(disk, disk_size, sector_size)?;
    let found = match mbr::Head::parse(&sector) {
        Some(head) if head.protects_gpt() && has_gpt => Some(gpt::read(disk, disk_size, sector_size)?),
        Some(head) if head.protects_gpt() => {
            return Err(TableError::Damaged(format!(
                "there is a protective MBR, but no GPT in the second sector of {} bytes",
                sector_size.get()
            )));
        }
        Some(_) if is_filesystem(&sector) => None,
        Some(head) if head.has_misplaced_protection() => {
            return Err(TableError::Damaged(
                "the MBR's entry of type 0xEE does not begin in sector 1, so neither Linux nor firmware \
                 takes the disk for one with a GPT"
                    .into(),
            ));
        }
        Some(head) => mbr::read(disk, &head, disk_size, sector_size)?.map(|mut table| {
            table.remarks.extend(has_gpt.then_some(Remark::StaleGpt));
            table
        }),
        None => None,
    };
    if let Some(table) = &found {
        check_places(table)?;
    }
    Ok(found)
}

/// Is there a GPT that is not in force, because the first sector has no protective entry?
pub fn has_unprotected_gpt<D: Read + Seek>(
    disk: &mut D,
    disk_size: u64,
    sector_size: SectorSize,
) -> Result<bool, TableError> {
    let Some(sector) = first_sector(disk, disk_size)? else { return Ok(false) };
    let protected = mbr::Head::parse(&sector).is_some_and(|head| head.protects_gpt());
    Ok(!protected && gpt::is_there(disk, disk_size, sector_size)?)
}

/// The sector size of a disk image in a file, from the place of its GPT; 512 if it has none.
pub fn guess_sector_size<D: Read + Seek>(disk: &mut D, disk_size: u64) -> Result<SectorSize, TableError> {
    let head = first_sector(disk, disk_size)?.and_then(|sector| mbr::Head::parse(&sector));
    if !head.is_some_and(|head| head.protects_gpt()) {
        return Ok(SectorSize::DEFAULT);
    }
    for bytes in [512, 4096] {
        if let Some(size) = SectorSize::new(bytes)
            && gpt::is_there(disk, disk_size, size)?
        {
            return Ok(size);
        }
    }
    Ok(SectorSize::DEFAULT)
}

/// A partition's purpose, as far as its type tells.
pub fn role(entry: &Entry) -> Role {
    match entry {
        Entry::Gpt { kind, .. } if *kind == GPT_ESP => Role::Esp,
        Entry::Gpt { kind, .. } if *kind == GPT_BIOS_BOOT => Role::BiosBoot,
        Entry::Gpt { kind, .. } if *kind == GPT_LINUX_SWAP => Role::Swap,
        Entry::Mbr { kind: 0xef, .. } => Role::Esp,
        Entry::Mbr { kind: 0x82, .. } => Role::Swap,
        _ => Role::Data,
    }
}

/// The first 512 bytes, `None` on a smaller disk.
fn first_sector<D: Read + Seek>(disk: &mut D, disk_size: u64) -> Result<Option<[u8; 512]>, TableError> {
    if disk_size < 512 {
        return Ok(None);
    }
    read_sector(disk, 0).map(Some)
}

/// Boot sectors of FAT, NTFS and exFAT end with the MBR's mark too.
fn is_filesystem(sector: &[u8; 512]) -> bool {
    let is = |at: usize, text: &[u8]| sector[at..].starts_with(text);
    is(3, b"NTFS    ") || is(3, b"EXFAT   ") || is(3, b"-FVE-FS-") || is(54, b"FAT") || is(82, b"FAT32")
}

/// Every partition is on the disk and none overlaps another.
fn check_places(table: &DiskTable) -> Result<(), TableError> {
    let mut taken: Vec<(u64, u64, String)> = Vec::new();
    let bytes = |lba: Lba, what: &str| {
        let offset = table.sector_size.offset_of(lba);
        offset.map(|o| o.0).ok_or_else(|| TableError::Damaged(format!("{what} begins beyond 2^64")))
    };
    let sector = u64::from(table.sector_size.get());
    let mut boxes = Vec::new();
    if let Table::Mbr { extended, .. } = &table.table {
        for one in extended {
            let what = format!("extended partition {}", one.number);
            let start = bytes(one.first, &what)?;
            boxes.push((start, start.saturating_add(one.sectors.saturating_mul(sector)), what));
        }
    }
    for p in &table.partitions {
        let what = format!("partition {}", p.number);
        let start = bytes(p.first, &what)?;
        let end = start.saturating_add(p.size);
        if p.size == 0 || start < sector {
            return Err(TableError::Damaged(format!("{what} is empty or lies on the table")));
        }
        if let Entry::Mbr { ebr: Some(ebr), .. } = p.entry {
            let at = bytes(ebr, &what)?;
            let inside =
                boxes.iter().any(|(from, to, _)| *from <= at && at < start && *from <= start && end <= *to);
            if !inside {
                return Err(TableError::Damaged(format!("logical {what} is outside its extended partition")));
            }
            taken.push((at, at.saturating_add(sector), format!("the record of {what}")));
        } else {
            let across = boxes.iter().find(|(from, to, _)| start < *to && *from < end);
            if let Some((_, _, other)) = across {
                return Err(TableError::Overlap(what, other.clone()));
            }
        }
        taken.push((start, end, what));
    }
    taken.sort();
    for pair in taken.windows(2) {
        if let [(_, end, one), (start, _, other)] = pair
            && start < end
        {
            return Err(TableError::Overlap(one.clone(), other.clone()));
        }
    }
    match taken.into_iter().chain(boxes).find(|(_, end, _)| *end > table.disk_size) {
        Some((_, end, what)) => Err(TableError::Truncated { what, end, size: table.disk_size }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod verbatim;
