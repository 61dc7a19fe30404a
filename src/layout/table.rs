//! The bytes of partition tables, as a terminal's disk gets them.
//!
//! Invariant: every write lies on whole sectors of the disk, outside of all partitions, and is made only of what
//! the manifest says and of the disk's own size; entries stay in their slots, so partition numbers stay. The
//! `gpt` and `mbrman` crates are not used for writing: the first closes up gaps between numbers, the second
//! counts logical places in 32 bits. Whether the table fits the disk is checked by `layout::plan` before.

use uuid::Uuid;

use crate::manifest::{Entry, Extended, Partition};
use crate::units::{DiskOffset, Lba, SectorSize};

/// Bytes of a GPT entry (UEFI 2.10 §5.3.3).
pub const GPT_ENTRY_BYTES: u32 = 128;
const GPT_HEADER_BYTES: u32 = 92;
const GPT_REVISION: u32 = 0x0001_0000;
/// The link to the next logical partition's record has this type in every system.
const EXTENDED_LINK: u8 = 0x05;
const MBR_MARK: [u8; 2] = [0x55, 0xaa];
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

/// Sectors that the entries of a GPT take.
pub fn gpt_entry_sectors(entries: u32, sector: SectorSize) -> u64 {
    (u64::from(entries) * u64::from(GPT_ENTRY_BYTES)).div_ceil(u64::from(sector.get()))
}

/// A GPT for a disk of `sectors` sectors, in the order in which it is written: backup at the disk's own end,
/// primary, and the protective MBR last, without which the others are not looked at.
pub fn gpt(
    guid: Uuid,
    entries: u32,
    first_usable: Lba,
    partitions: &[Partition],
    sectors: u64,
    sector: SectorSize,
) -> Vec<Write> {
    let array = gpt_entries(entries, partitions, sector);
    let array_sectors = gpt_entry_sectors(entries, sector);
    let last = sectors.saturating_sub(1);
    let last_usable = last.saturating_sub(array_sectors + 1);
    let crc = crc32(&array[..(entries * GPT_ENTRY_BYTES) as usize]);
    let header = |this: u64, other: u64, array_at: u64| {
        let mut bytes = Vec::with_capacity(sector.get() as usize);
        bytes.extend_from_slice(b"EFI PART");
        bytes.extend_from_slice(&GPT_REVISION.to_le_bytes());
        bytes.extend_from_slice(&GPT_HEADER_BYTES.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]); // its own CRC, filled in below, and a reserved field
        for lba in [this, other, first_usable.0, last_usable] {
            bytes.extend_from_slice(&lba.to_le_bytes());
        }
        bytes.extend_from_slice(&guid.to_bytes_le());
        bytes.extend_from_slice(&array_at.to_le_bytes());
        for number in [entries, GPT_ENTRY_BYTES, crc] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let own = crc32(&bytes);
        bytes[16..20].copy_from_slice(&own.to_le_bytes());
        bytes.resize(sector.get() as usize, 0);
        bytes
    };
    let at = |lba: u64| DiskOffset(lba.saturating_mul(u64::from(sector.get())));
    let backup_array = last.saturating_sub(array_sectors);
    let mut backup = array.clone();
    backup.extend(header(last, 1, backup_array));
    let mut primary = header(1, last, 2);
    primary.extend(array);
    vec![
        Write { what: "the backup GPT".into(), offset: at(backup_array), bytes: backup },
        Write { what: "the primary GPT".into(), offset: at(1), bytes: primary },
        Write {
            what: "the protective MBR".into(),
            offset: DiskOffset(0),
            bytes: protective(sectors, sector),
        },
    ]
}

fn gpt_entries(entries: u32, partitions: &[Partition], sector: SectorSize) -> Vec<u8> {
    let bytes = gpt_entry_sectors(entries, sector) * u64::from(sector.get());
    let mut array = vec![0u8; usize::try_from(bytes).unwrap_or(0)];
    for p in partitions {
        let Entry::Gpt { kind, guid, attributes, name } = &p.entry else { continue };
        let slot = p.number.saturating_sub(1) as usize * GPT_ENTRY_BYTES as usize;
        let Some(entry) = array.get_mut(slot..slot + GPT_ENTRY_BYTES as usize) else { continue };
        let last = p.first.0 + p.size / u64::from(sector.get()) - 1;
        entry[..16].copy_from_slice(&kind.to_bytes_le());
        entry[16..32].copy_from_slice(&guid.to_bytes_le());
        entry[32..40].copy_from_slice(&p.first.0.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        entry[48..56].copy_from_slice(&attributes.to_le_bytes());
        for (unit, place) in name.encode_utf16().zip(entry[56..].chunks_exact_mut(2)) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    array
}

/// One entry of type 0xEE over the whole disk (UEFI 2.10 §5.2.3).
fn protective(sectors: u64, sector: SectorSize) -> Vec<u8> {
    let size = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut bytes = vec![0u8; sector.get() as usize];
    let entry = &mut bytes[446..462];
    entry[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
    entry[4] = 0xee;
    // The last sector, or all ones where it cannot be said.
    let last = chs(sectors.saturating_sub(1));
    entry[5..8].copy_from_slice(if last == CHS_BEYOND { &[0xff; 3] } else { &last });
    entry[8..12].copy_from_slice(&1u32.to_le_bytes());
    entry[12..16].copy_from_slice(&size.to_le_bytes());
    bytes[510..512].copy_from_slice(&MBR_MARK);
    bytes
}

/// An MBR: the first sector, then the records of logical partitions. All places fit 32 bits, and logical
/// partitions are there in the order of their numbers (`layout::plan` sees to both).
pub fn mbr(
    signature: [u8; 4],
    extended: &[Extended],
    partitions: &[Partition],
    sector: SectorSize,
) -> Vec<Write> {
    let mut head = vec![0u8; sector.get() as usize];
    head[440..444].copy_from_slice(&signature);
    for one in extended {
        put_entry(&mut head, one.number, false, one.kind, one.first.0, one.first.0, one.sectors);
    }
    let mut logical: Vec<(&Partition, Lba)> = Vec::new();
    for p in partitions {
        let sectors = p.size / u64::from(sector.get());
        match p.entry {
            Entry::Mbr { ebr: Some(ebr), .. } => logical.push((p, ebr)),
            Entry::Mbr { kind, active, ebr: None } => {
                put_entry(&mut head, p.number, active, kind, p.first.0, p.first.0, sectors);
            }
            Entry::Gpt { .. } | Entry::None => {}
        }
    }
    head[510..512].copy_from_slice(&MBR_MARK);
    let mut writes = vec![Write { what: "the MBR".into(), offset: DiskOffset(0), bytes: head }];
    logical.sort_by_key(|(p, _)| p.number);
    let base = extended.first().map_or(0, |one| one.first.0);
    for (i, (p, ebr)) in logical.iter().enumerate() {
        let mut record = vec![0u8; sector.get() as usize];
        let Entry::Mbr { kind, active, .. } = p.entry else { continue };
        let sectors = p.size / u64::from(sector.get());
        put_entry(&mut record, 1, active, kind, p.first.0, p.first.0.saturating_sub(ebr.0), sectors);
        if let Some((next, next_ebr)) = logical.get(i + 1) {
            let end = next.first.0 + next.size / u64::from(sector.get());
            let length = end.saturating_sub(next_ebr.0);
            put_entry(
                &mut record,
                2,
                false,
                EXTENDED_LINK,
                next_ebr.0,
                next_ebr.0.saturating_sub(base),
                length,
            );
        }
        record[510..512].copy_from_slice(&MBR_MARK);
        let offset = DiskOffset(ebr.0.saturating_mul(u64::from(sector.get())));
        writes.push(Write {
            what: format!("the record of logical partition {}", p.number),
            offset,
            bytes: record,
        });
    }
    writes
}

/// Writes entry `number` (1 to 4): `first` is the absolute sector (for cylinder, head and sector), `relative` the
/// one that is written.
fn put_entry(head: &mut [u8], number: u32, active: bool, kind: u8, first: u64, relative: u64, sectors: u64) {
    let at = 446 + 16 * (number.saturating_sub(1) as usize).min(3);
    let entry = &mut head[at..at + 16];
    entry[0] = if active { 0x80 } else { 0 };
    entry[1..4].copy_from_slice(&chs(first));
    entry[4] = kind;
    entry[5..8].copy_from_slice(&chs(first + sectors.saturating_sub(1)));
    entry[8..12].copy_from_slice(&u32::try_from(relative).unwrap_or(u32::MAX).to_le_bytes());
    entry[12..16].copy_from_slice(&u32::try_from(sectors).unwrap_or(u32::MAX).to_le_bytes());
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

/// CRC-32 (ISO 3309, reflected), as GPT wants it. Tables are small, so bit by bit is fast enough.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let lowest = crc & 1;
            crc = (crc >> 1) ^ (0xedb8_8320 * lowest);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_one_everybody_means() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn cylinder_head_and_sector_are_those_of_other_tools() {
        assert_eq!(chs(0), [0, 1, 0]);
        assert_eq!(chs(2048), [0x20, 0x21, 0x00]);
        assert_eq!(chs(1023 * 255 * 63 + 254 * 63 + 62), [0xfe, 0xff, 0xff]);
        assert_eq!(chs(u64::MAX / 2), CHS_BEYOND);
    }
}
