//! The bytes of partition tables on a terminal's disk, and the bytes of a golden disk's table that no field
//! of the manifest holds.
//!
//! Invariant: every write lies on whole sectors of the disk, outside of all partitions. Places, types, GUIDs
//! and the active flags of partitions are those of the manifest, always; all other bytes of a table
//! ([`Patch`]) are the golden disk's where they differ from the generated ones. So an equal disk gets the
//! golden disk's table byte for byte, and on a disk of another size the fields that depend on the size are
//! adapted. Entries stay in their slots, so partition numbers stay. The `gpt` and `mbrman` crates are not
//! used for writing: the first closes up gaps between numbers, the second counts logical places in 32 bits.
//! `layout::plan` has checked before that the table fits the disk.

mod described;
mod gpt;
mod mbr;
mod verbatim;

use crate::manifest::Table;
use crate::units::Lba;

pub use gpt::{GPT_ENTRY_BYTES, crc32, gpt_entry_sectors};
pub use verbatim::Patch;

pub use described::{Described, Slot, Write, chs};
use described::{MARK_AT, MBR_MARK};
use verbatim::{Region, differences};

impl Described<'_> {
    /// The writes for a disk of `sectors` sectors, in their order. Refused with the reason if `patches` would
    /// make the table differ from its description.
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

    /// The bytes of the table on a disk that are not generated. `sectors` is the size of the disk that the
    /// table was made for, `records` are the sectors of its chain of extended boot records, and `read` fills
    /// a buffer from an offset.
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

/// Adds the bytes on the disk that differ from `region`.
fn compare<E>(
    region: &Region,
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    found: &mut Vec<Patch>,
) -> Result<(), E> {
    let mut there = vec![0; region.bytes.len()];
    read(region.offset, &mut there)?;
    // A sector without the signature is not a record, and its bytes do not count.
    if !region.is_empty_record() || there.get(MARK_AT..MARK_AT + 2) == Some(&MBR_MARK[..]) {
        found.extend(differences(region, &there));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
