//! Master boot records and the chain of records (EBR) of logical partitions, through the `mbrman` crate.
//!
//! Invariant: the chain is followed here, record by record, with a limit, no repeats and 64-bit places: the
//! crate's own walk and its writing count in 32 bits, which is wrong beyond 4 GiB. Numbers are those Linux
//! gives: logical partitions from 5 in the order of the chain, records without a partition not counted.

use std::io::{Cursor, Read, Seek};

use mbrman::{MBRHeader, MBRPartitionEntry};

use super::found::{DiskTable, TableError, TablePartition, read_sector};
use crate::manifest::{Entry, Extended, Table};
use crate::units::{Lba, SectorSize};

/// Type byte of the entry that protects a GPT (UEFI 2.10 §5.2.3).
const PROTECTIVE: u8 = 0xee;
/// Where the header of a GPT lies.
const GPT_LBA: u32 = 1;
/// Longest chain of records that is followed.
const MAX_LOGICAL: usize = 128;

/// The four entries of a record.
pub(super) struct Head(MBRHeader);

impl Head {
    /// `None` without the mark at its end, or with an active flag that is neither set nor clear.
    pub(super) fn parse(sector: &[u8; 512]) -> Option<Self> {
        MBRHeader::read_from(&mut Cursor::new(&sector[..])).ok().map(Head)
    }

    /// It protects a GPT: Linux and firmware look for one only behind an entry of this type that begins in
    /// sector 1.
    pub(super) fn protects_gpt(&self) -> bool {
        self.0.iter().any(|(_, entry)| entry.sys == PROTECTIVE && entry.starting_lba == GPT_LBA)
    }

    /// It has an entry of that type, and none that begins where it must.
    pub(super) fn has_misplaced_protection(&self) -> bool {
        !self.protects_gpt() && self.0.iter().any(|(_, entry)| entry.sys == PROTECTIVE)
    }

    pub(super) fn has_partitions(&self) -> bool {
        self.0.iter().any(|(_, entry)| is_used(entry))
    }

    /// The signature by which Windows and Linux know the disk.
    pub(super) fn signature(&self) -> [u8; 4] {
        self.0.disk_signature
    }

    /// It protects a GPT and has other partitions too.
    pub(super) fn is_hybrid(&self) -> bool {
        self.0.iter().any(|(_, entry)| entry.sys != PROTECTIVE && is_used(entry))
    }
}

/// Linux takes an entry for used when it has sectors.
fn is_used(entry: &MBRPartitionEntry) -> bool {
    entry.is_used() && entry.sectors > 0
}

/// `None` if no entry is used.
pub(super) fn read<D: Read + Seek>(
    disk: &mut D,
    head: &Head,
    disk_size: u64,
    sector_size: SectorSize,
) -> Result<Option<DiskTable>, TableError> {
    let mut extended = Vec::new();
    let mut partitions = Vec::new();
    let mut records = Vec::new();
    for (number, entry) in (1u32..).zip(head.0.iter().map(|(_, entry)| entry)) {
        if !is_used(entry) {
            continue;
        }
        let first = Lba(entry.starting_lba.into());
        if entry.is_extended() {
            extended.push(Extended { number, kind: entry.sys, first, sectors: entry.sectors.into() });
        } else {
            partitions.push(partition(number, first, entry, None, sector_size));
        }
    }
    match extended.as_slice() {
        [] => {}
        [one] => records = read_chain(disk, one, disk_size, sector_size, &mut partitions)?,
        _ => return Err(TableError::Unsupported("more than one extended partition".into())),
    }
    if partitions.is_empty() {
        return Ok(None);
    }
    partitions.sort_by_key(|p| p.first);
    let table = Table::Mbr { signature: head.0.disk_signature, extended };
    let sectors = disk_size / u64::from(sector_size.get());
    Ok(Some(DiskTable { sector_size, disk_size, table, partitions, sectors, records, remarks: Vec::new() }))
}

fn partition(
    number: u32,
    first: Lba,
    entry: &MBRPartitionEntry,
    ebr: Option<Lba>,
    sector_size: SectorSize,
) -> TablePartition {
    TablePartition {
        number,
        first,
        size: u64::from(entry.sectors) * u64::from(sector_size.get()),
        entry: Entry::Mbr { kind: entry.sys, active: entry.is_active(), ebr },
    }
}

/// Follows the records of logical partitions. A record has its partition, relative to itself, and a link to
/// the next record, relative to the extended partition; either may be missing. Returns the sectors of the
/// records.
fn read_chain<D: Read + Seek>(
    disk: &mut D,
    extended: &Extended,
    disk_size: u64,
    sector_size: SectorSize,
    partitions: &mut Vec<TablePartition>,
) -> Result<Vec<Lba>, TableError> {
    let sector = u64::from(sector_size.get());
    let mut seen: Vec<u64> = Vec::new();
    let mut number = 5;
    let mut next = Some(extended.first.0);
    while let Some(lba) = next {
        if seen.contains(&lba) || seen.len() >= MAX_LOGICAL {
            return Err(TableError::Damaged("the chain of logical partitions has no end".into()));
        }
        seen.push(lba);
        let at = lba.saturating_mul(sector);
        let end = at.saturating_add(512);
        if end > disk_size {
            let what = format!("the record of logical partition {number}");
            return Err(TableError::Truncated { what, end, size: disk_size });
        }
        let Some(Head(record)) = Head::parse(&read_sector(disk, at)?) else {
            if lba == extended.first.0 {
                // An extended partition that nothing was put into yet.
                return Ok(Vec::new());
            }
            return Err(TableError::Damaged(format!(
                "there is no record of a logical partition in sector {lba}"
            )));
        };
        next = None;
        for (_, entry) in record.iter().filter(|(_, entry)| is_used(entry)) {
            if entry.is_extended() {
                if next.is_some() {
                    return Err(TableError::Damaged(format!("the record in sector {lba} has two links")));
                }
                next = Some(extended.first.0 + u64::from(entry.starting_lba));
            } else {
                let first = Lba(lba + u64::from(entry.starting_lba));
                partitions.push(partition(number, first, entry, Some(Lba(lba)), sector_size));
                number += 1;
            }
        }
    }
    Ok(seen.into_iter().map(Lba).collect())
}
