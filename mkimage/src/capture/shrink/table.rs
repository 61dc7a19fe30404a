//! Gives partitions other places in a partition table, and changes nothing else in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use flashmob::layout::table::{chs, crc32};
use flashmob::layout::traces::number;
use flashmob::manifest::Table;

use crate::capture::plan::PartitionPlan;

/// A GPT has 128 entries of 128 bytes; this is 64 times that.
const LONGEST_ARRAY: u64 = 1 << 20;
const ENTRIES_OF_MBR: usize = 446;

/// A partition's new place: the byte where it begins, and its length.
pub(super) struct Moved<'a> {
    pub partition: &'a PartitionPlan,
    pub start: u64,
    pub size: u64,
}

/// Gives these partitions their new places; those of an MBR only become shorter. The error is for people.
pub(super) fn rewrite(disk: &File, sector: u32, table: &Table, moved: &[Moved<'_>]) -> Result<(), String> {
    let sector = u64::from(sector);
    let change = |moved: &Moved<'_>| {
        let first = moved.start / sector;
        let p = moved.partition;
        let old = (p.first.0, p.first.0 + p.size / sector - 1);
        Change { number: p.number, old, new: (first, first + moved.size / sector - 1) }
    };
    let changes: Vec<Change> = moved.iter().map(change).collect();
    let cannot = |e: io::Error| e.to_string();
    match table {
        Table::Gpt { .. } => {
            let backup = in_gpt(disk, sector, 1, &changes)?;
            // A damaged copy is not in force, and terminals get a new one.
            if let Err(why) = in_gpt(disk, sector, backup, &changes) {
                log::info!("the backup GPT stays as it is: {why}");
            }
            Ok(())
        }
        Table::Mbr { .. } => {
            let mut record = [0; 512];
            disk.read_exact_at(&mut record, 0).map_err(cannot)?;
            changes.iter().try_for_each(|change| change.in_mbr(&mut record))?;
            disk.write_all_at(&record, 0).map_err(cannot)
        }
        Table::None => Err("there is none".into()),
    }
}

/// Changes the copy whose header is at `lba` (UEFI 2.10, section 5.3). Returns where the other one is.
fn in_gpt(disk: &File, sector: u64, lba: u64, changes: &[Change]) -> Result<u64, String> {
    let cannot = |e: io::Error| e.to_string();
    let byte = |lba: u64| lba.checked_mul(sector).ok_or("a place in it is impossible");
    let mut header = vec![0; usize::try_from(sector).map_err(|e| e.to_string())?];
    disk.read_exact_at(&mut header, byte(lba)?).map_err(cannot)?;
    let field = |at, len| number(&header, at, len).unwrap_or_default();
    let (header_size, other, array) = (field(12, 4), field(32, 8), field(72, 8));
    let (count, entry_size) = (field(80, 4), field(84, 4));
    let length = count.checked_mul(entry_size).filter(|length| *length <= LONGEST_ARRAY);
    let header_size = usize::try_from(header_size).ok().filter(|size| (92..=header.len()).contains(size));
    let (Some(length), Some(header_size)) = (length, header_size) else {
        return Err("its header is damaged".into());
    };
    if !header.starts_with(b"EFI PART") {
        return Err("there is no header".into());
    }
    let mut entries = vec![0; usize::try_from(length).map_err(|e| e.to_string())?];
    disk.read_exact_at(&mut entries, byte(array)?).map_err(cannot)?;
    let entry_size = usize::try_from(entry_size).map_err(|e| e.to_string())?;
    for change in changes {
        change.in_entries(&mut entries, entry_size)?;
    }
    header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
    header[16..20].fill(0);
    let sum = crc32(&header[..header_size]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    disk.write_all_at(&entries, byte(array)?).map_err(cannot)?;
    disk.write_all_at(&header, byte(lba)?).map_err(cannot)?;
    Ok(other)
}

/// A partition's first and last sector.
struct Change {
    number: u32,
    old: (u64, u64),
    new: (u64, u64),
}

impl Change {
    fn slot(&self) -> Result<usize, String> {
        let slot = usize::try_from(self.number).ok().and_then(|number| number.checked_sub(1));
        slot.ok_or_else(|| "it has no number".into())
    }

    fn in_entries(&self, entries: &mut [u8], entry_size: usize) -> Result<(), String> {
        let at = self.slot()?.saturating_mul(entry_size);
        let known = (number(entries, at.saturating_add(32), 8), number(entries, at.saturating_add(40), 8));
        if known != (Some(self.old.0), Some(self.old.1)) {
            return Err("it has another entry there".into());
        }
        entries[at + 32..at + 40].copy_from_slice(&self.new.0.to_le_bytes());
        entries[at + 40..at + 48].copy_from_slice(&self.new.1.to_le_bytes());
        Ok(())
    }

    /// Changes a primary entry of a master boot record.
    fn in_mbr(&self, record: &mut [u8; 512]) -> Result<(), String> {
        let at = ENTRIES_OF_MBR + 16 * self.slot()?.min(3);
        let known = (number(record, at + 8, 4), number(record, at + 12, 4));
        let count = |(first, last): (u64, u64)| u32::try_from(last + 1 - first);
        let (old, new) = (count(self.old).ok(), count(self.new).map_err(|e| e.to_string())?);
        if known != (Some(self.new.0), old.map(u64::from)) {
            return Err("it has another entry there".into());
        }
        record[at + 12..at + 16].copy_from_slice(&new.to_le_bytes());
        // Fields of another geometry, or none, stay as they are.
        if record[at + 5..at + 8] == chs(self.old.1) {
            record[at + 5..at + 8].copy_from_slice(&chs(self.new.1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashmob::io::disk::table;
    use flashmob::layout::table::{Described, Slot};
    use flashmob::manifest::{Entry, Policy, Role};
    use flashmob::units::{Lba, SectorSize};
    use uuid::Uuid;

    const SECTORS: u64 = 20_000;

    fn partition(number: u32, first: u64, sectors: u64, sector: u64, entry: Entry) -> PartitionPlan {
        PartitionPlan {
            number,
            first: Lba(first),
            start: first * sector,
            size: sectors * sector,
            entry,
            role: Role::Data,
            filesystem: None,
            policy: Policy::Replace,
            grow: false,
            blank: None,
        }
    }

    /// A disk with this table, whose second partition is shortened to 1000 sectors.
    fn shortened(sector: u32, table: &Table, entry: &Entry) -> (File, Vec<(u32, u64, u64)>) {
        let bytes = u64::from(sector);
        let parts = [(1, 2048, 512), (2, 4096, 8192)]
            .map(|(number, first, sectors)| partition(number, first, sectors, bytes, entry.clone()));
        let slot = |p: &PartitionPlan| (p.number, p.first, p.size, p.entry.clone());
        let slots: Vec<_> = parts.iter().map(slot).collect();
        let slots = slots.iter().map(|(number, first, size, entry)| Slot {
            number: *number,
            first: *first,
            size: *size,
            entry,
        });
        let size = SectorSize::new(sector).expect("a size");
        let described = Described { table, slots: slots.collect(), sector: size };
        let disk = tempfile::tempfile().expect("a file");
        disk.set_len(SECTORS * bytes).expect("its size");
        for write in described.writes(SECTORS, &[]).expect("a table") {
            disk.write_all_at(&write.bytes, write.offset.0).expect("written");
        }
        let shorten = |sectors: u64| {
            let moved = Moved { partition: &parts[1], start: parts[1].start, size: sectors * bytes };
            rewrite(&disk, sector, table, &[moved])
        };
        shorten(1000).expect("shortened");
        assert!(shorten(900).is_err(), "another entry is there");
        let found = table::read(&mut &disk, SECTORS * bytes, size).expect("read").expect("a table");
        assert!(found.remarks.is_empty());
        let found = found.partitions.iter().map(|p| (p.number, p.first.0, p.size / bytes)).collect();
        (disk, found)
    }

    #[test]
    fn the_last_partition_alone_becomes_shorter_in_both_copies_of_a_gpt() {
        for sector in [512, 4096] {
            let guid = Uuid::from_bytes([7; 16]);
            let table = Table::Gpt { guid, entries: 128, first_usable: Lba(34) };
            let kind = Uuid::from_bytes([9; 16]);
            let entry = Entry::Gpt { kind, guid, attributes: 0, name: "data".into() };
            let (disk, found) = shortened(sector, &table, &entry);
            assert_eq!(found, [(1, 2048, 512), (2, 4096, 1000)]);
            // Without the first copy the other one says the same.
            let bytes = u64::from(sector);
            disk.write_all_at(&[0; 8], bytes).expect("written");
            let mut header = vec![0; 512];
            disk.read_exact_at(&mut header, (SECTORS - 1) * bytes).expect("read");
            let array = number(&header, 72, 8).expect("a place") * bytes;
            let mut entries = vec![0; 128 * 128];
            disk.read_exact_at(&mut entries, array).expect("read");
            assert_eq!(number(&entries, 128 + 40, 8), Some(4096 + 999));
            assert_eq!(number(&header, 88, 4), Some(u64::from(crc32(&entries))));
        }
    }

    #[test]
    fn the_last_partition_alone_becomes_shorter_in_an_mbr() {
        let table = Table::Mbr { signature: [1, 2, 3, 4], extended: Vec::new() };
        let entry = Entry::Mbr { kind: 0x83, active: false, ebr: None };
        let (disk, found) = shortened(512, &table, &entry);
        assert_eq!(found, [(1, 2048, 512), (2, 4096, 1000)]);
        let mut end = [0; 3];
        disk.read_exact_at(&mut end, 446 + 16 + 5).expect("read");
        assert_eq!(end, [80, 56, 0]);
    }
}
