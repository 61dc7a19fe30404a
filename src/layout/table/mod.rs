//! The bytes of partition tables, as a terminal's disk gets them, and what of a golden disk's table only
//! bytes can say.
//!
//! Invariant: every write lies on whole sectors of the disk, outside of all partitions. Places, types, GUIDs
//! and the active flags of partitions are those of the manifest, always; all other bytes of a table
//! ([`Patch`]) are the golden disk's where they differ from what is generated here. So an equal disk gets the
//! golden disk's table byte for byte, and on a disk of another size the fields that follow from the size do
//! so. Entries stay in their slots, so partition numbers stay. The `gpt` and `mbrman` crates are not used for
//! writing: the first closes up gaps between numbers, the second counts logical places in 32 bits. Whether
//! the table fits the disk is checked by `layout::plan` before.

mod gpt;
mod mbr;
mod verbatim;

use crate::manifest::{Entry, Manifest, Table};
use crate::units::{DiskOffset, Lba, SectorSize};

pub use gpt::{GPT_ENTRY_BYTES, crc32, gpt_entry_sectors};
pub use verbatim::Patch;

use verbatim::{Region, differences};

/// The mark at the end of a boot record.
const MBR_MARK: [u8; 2] = [0x55, 0xaa];
/// Where the four entries of a boot record begin.
const ENTRIES_AT: usize = 446;
/// Where the mark is.
const MARK_AT: usize = 510;
/// Beyond what cylinder, head and sector can say.
const CHS_BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];

/// Bytes that go to a place on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// What it is, for people.
    pub what: String,
    /// First byte.
    pub offset: DiskOffset,
    /// Whole sectors.
    pub bytes: Vec<u8>,
}

impl Write {
    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.offset.0.saturating_add(self.bytes.len() as u64)
    }
}

/// A partition as its table describes it.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// Its number.
    pub number: u32,
    /// First sector.
    pub first: Lba,
    /// Bytes.
    pub size: u64,
    /// The rest of its entry.
    pub entry: &'a Entry,
}

/// A table with its partitions.
#[derive(Debug, Clone)]
pub struct Described<'a> {
    /// The table's own fields.
    pub table: &'a Table,
    /// Its partitions.
    pub slots: Vec<Slot<'a>>,
    /// What LBAs count.
    pub sector: SectorSize,
}

impl<'a> Described<'a> {
    /// The table of an image.
    pub fn of(manifest: &'a Manifest) -> Self {
        let slot = |p: &'a crate::manifest::Partition| Slot {
            number: p.number,
            first: p.first,
            size: p.size,
            entry: &p.entry,
        };
        let slots = manifest.partitions.iter().map(slot).collect();
        Described { table: &manifest.disk.table, slots, sector: manifest.disk.sector_size }
    }

    /// What is written on a disk of `sectors` sectors, in the order in which it is written. Refused with the
    /// reason if `patches` would make the table say something else than it is described to say.
    pub fn writes(&self, sectors: u64, patches: &[Patch]) -> Result<Vec<Write>, String> {
        match self.table {
            Table::None => Ok(Vec::new()),
            Table::Gpt { guid, entries, first_usable } => {
                let gpt = gpt::Gpt { guid: *guid, entries: *entries, first_usable: *first_usable, sectors };
                gpt::writes(self, gpt, patches)
            }
            Table::Mbr { signature, extended } => mbr::writes(self, *signature, extended, patches),
        }
    }

    /// What the table on a disk has that is not generated. `sectors` is the size of the disk that the table
    /// was made for, `records` are the sectors of its chain of extended boot records, and `read` fills a
    /// buffer from an offset.
    pub fn patches<E>(
        &self,
        sectors: u64,
        records: &[Lba],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Vec<Patch>, E> {
        let mut found = Vec::new();
        match self.table {
            Table::None => {}
            Table::Gpt { guid, entries, first_usable } => {
                let gpt = gpt::Gpt { guid: *guid, entries: *entries, first_usable: *first_usable, sectors };
                for head in gpt::heads(self, gpt) {
                    compare(&head, &mut read, &mut found)?;
                }
                let array = gpt::array(self, gpt, gpt::entries_lba(self.sector, &found));
                compare(&array, &mut read, &mut found)?;
            }
            Table::Mbr { signature, extended } => {
                let regions = mbr::regions(self, *signature, extended);
                for region in &regions {
                    compare(region, &mut read, &mut found)?;
                }
                let size = u64::from(self.sector.get());
                let others = records.iter().map(|lba| lba.0.saturating_mul(size));
                for offset in others.filter(|at| !regions.iter().any(|region| region.offset == *at)) {
                    let mut bytes = vec![0; self.sector.get() as usize];
                    read(offset, &mut bytes)?;
                    found.push(Patch { offset, bytes });
                }
            }
        }
        found.sort_by_key(|patch| patch.offset);
        Ok(found)
    }
}

/// Adds what is on the disk where `region` is, and not in it.
fn compare<E>(
    region: &Region,
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    found: &mut Vec<Patch>,
) -> Result<(), E> {
    let mut there = vec![0; region.bytes.len()];
    read(region.offset, &mut there)?;
    // What has no mark is no record, and its bytes are nobody's.
    if !region.is_empty_record() || there.get(MARK_AT..MARK_AT + 2) == Some(&MBR_MARK[..]) {
        found.extend(differences(region, &there));
    }
    Ok(())
}

/// Cylinder, head and sector as every partitioning tool of today writes them: 255 heads, 63 sectors.
fn chs(lba: u64) -> [u8; 3] {
    let (cylinder, rest) = (lba / (255 * 63), lba % (255 * 63));
    if cylinder > 1023 {
        return CHS_BEYOND;
    }
    let [low, high, ..] = cylinder.to_le_bytes();
    let [head, ..] = (rest / 63).to_le_bytes();
    let [sector, ..] = (rest % 63 + 1).to_le_bytes();
    [head, sector | (high << 6), low]
}

#[cfg(test)]
mod tests;
