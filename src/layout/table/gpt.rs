//! A GUID partition table (UEFI 2.10 §5.3) and the boot record that protects it.
//!
//! Invariant: checksums are right for the bytes that are written; the backup lies at the disk's own end, with
//! the entries directly before its header, and has all that the primary has.

use std::ops::Range;

use uuid::Uuid;

use super::described::{CHS_BEYOND, Described, ENTRIES_AT, MARK_AT, MBR_MARK, Write, chs};
use super::verbatim::{Patch, Region, apply, behind_mark, entry_fields};
use crate::manifest::Entry;
use crate::units::{DiskOffset, Lba, SectorSize};

/// Bytes of a GPT entry (UEFI 2.10 §5.3.3).
pub const GPT_ENTRY_BYTES: u32 = 128;
const HEADER_BYTES: usize = 92;
const REVISION: u32 = 0x0001_0000;
/// Type of the entry that protects a GPT.
const PROTECTIVE: u8 = 0xee;
/// The default sector of the entries.
const ENTRIES_LBA: u64 = 2;

/// Fields of the header.
const OWN_SUM: Range<usize> = 16..20;
const RESERVED: Range<usize> = 20..24;
const THIS_LBA: Range<usize> = 24..32;
const OTHER_LBA: Range<usize> = 32..40;
const LAST_USABLE: Range<usize> = 48..56;
const ARRAY_LBA: Range<usize> = 72..80;
const ARRAY_SUM: Range<usize> = 88..92;

/// A table's own fields, and the disk that it is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gpt {
    pub(super) guid: Uuid,
    pub(super) entries: u32,
    pub(super) first_usable: Lba,
    pub(super) sectors: u64,
}

/// Sectors that the entries of a GPT take.
pub fn gpt_entry_sectors(entries: u32, sector: SectorSize) -> u64 {
    (u64::from(entries) * u64::from(GPT_ENTRY_BYTES)).div_ceil(u64::from(sector.get()))
}

/// The table in the order in which it is written: backup at the disk's own end, primary, and the protective
/// MBR last, without which the others are not looked at.
pub(super) fn writes(described: &Described<'_>, gpt: Gpt, patches: &[Patch]) -> Result<Vec<Write>, String> {
    let size = u64::from(described.sector.get());
    let mut heads = heads(described, gpt);
    let rest = apply(&mut heads, &patches.iter().collect::<Vec<_>>())?;
    let at = entries_lba(described.sector, patches);
    let mut array = [array(described, gpt, at)];
    if let Some(stray) = apply(&mut array, &rest)?.first() {
        return Err(format!("byte {} is not in the table", stray.offset));
    }
    let ([protective, mut primary], [array]) = (heads, array);
    if !protects(&protective.bytes) {
        return Err("its first sector would not protect a GPT".into());
    }
    let array_sectors = gpt_entry_sectors(gpt.entries, described.sector);
    if at < ENTRIES_LBA || gpt.first_usable.0 < at.saturating_add(array_sectors) {
        return Err(format!(
            "sector {} may not be used by partitions, the table lies there",
            gpt.first_usable.0
        ));
    }
    let last = gpt.sectors.saturating_sub(1);
    bound_last_usable(described, gpt, &mut primary.bytes);
    let sum = crc32(&array.bytes[..(gpt.entries * GPT_ENTRY_BYTES) as usize]);
    put(&mut primary.bytes, ARRAY_SUM, &sum.to_le_bytes());
    let mut backup = primary.bytes.clone();
    let backup_array = last.saturating_sub(array_sectors);
    put(&mut backup, THIS_LBA, &last.to_le_bytes());
    put(&mut backup, OTHER_LBA, &1u64.to_le_bytes());
    put(&mut backup, ARRAY_LBA, &backup_array.to_le_bytes());
    seal(&mut backup);
    seal(&mut primary.bytes);
    let write = |what: &str, lba: u64, bytes: Vec<u8>| Write {
        what: what.into(),
        offset: DiskOffset(lba.saturating_mul(size)),
        bytes,
    };
    let mut writes = vec![write("the backup GPT", backup_array, [array.bytes.clone(), backup].concat())];
    if at == ENTRIES_LBA {
        writes.push(write("the primary GPT", 1, [primary.bytes, array.bytes].concat()));
    } else {
        writes.push(write("the primary GPT's entries", at, array.bytes));
        writes.push(write("the primary GPT", 1, primary.bytes));
    }
    writes.push(write("the protective MBR", 0, protective.bytes));
    Ok(writes)
}

/// The protective MBR and the primary header, still without checksums.
pub(super) fn heads(described: &Described<'_>, gpt: Gpt) -> [Region; 2] {
    let size = described.sector.get() as usize;
    let mut fields = vec![440..444, 444..446];
    fields.extend((0..4).flat_map(entry_fields));
    fields.extend(behind_mark(size));
    let header = vec![RESERVED, LAST_USABLE, ARRAY_LBA, HEADER_BYTES..size];
    [
        Region {
            what: "the protective MBR".into(),
            offset: 0,
            bytes: protective(gpt.sectors, size),
            free: fields,
        },
        Region {
            what: "the primary GPT".into(),
            offset: u64::from(described.sector.get()),
            bytes: header_of(described, gpt),
            free: header,
        },
    ]
}

/// The sector where the primary's entries begin: a field of its header, which may be patched.
pub(super) fn entries_lba(sector: SectorSize, patches: &[Patch]) -> u64 {
    let at = u64::from(sector.get()) + ARRAY_LBA.start as u64;
    let patch = patches.iter().find(|patch| patch.offset == at);
    let bytes = patch.and_then(|patch| patch.bytes.first_chunk::<8>());
    bytes.map_or(ENTRIES_LBA, |bytes| u64::from_le_bytes(*bytes))
}

fn header_of(described: &Described<'_>, gpt: Gpt) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(described.sector.get() as usize);
    bytes.extend_from_slice(b"EFI PART");
    bytes.extend_from_slice(&REVISION.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(HEADER_BYTES).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&[0; 8]); // its own sum, made at the end, and a reserved field
    let last = gpt.sectors.saturating_sub(1);
    for lba in [1, last, gpt.first_usable.0, last_usable(described, gpt)] {
        bytes.extend_from_slice(&lba.to_le_bytes());
    }
    bytes.extend_from_slice(&gpt.guid.to_bytes_le());
    bytes.extend_from_slice(&ENTRIES_LBA.to_le_bytes());
    for number in [gpt.entries, GPT_ENTRY_BYTES, 0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.resize(described.sector.get() as usize, 0);
    bytes
}

/// The last sector before the backup's entries.
fn last_usable(described: &Described<'_>, gpt: Gpt) -> u64 {
    gpt.sectors.saturating_sub(2).saturating_sub(gpt_entry_sectors(gpt.entries, described.sector))
}

/// A golden disk may leave room behind its partitions. A smaller disk may not have it.
fn bound_last_usable(described: &Described<'_>, gpt: Gpt, header: &mut [u8]) {
    let default = last_usable(described, gpt);
    let said = header[LAST_USABLE].first_chunk::<8>().map_or(default, |bytes| u64::from_le_bytes(*bytes));
    let sector = u64::from(described.sector.get());
    let needed = described.slots.iter().map(|slot| slot.first.0 + slot.size / sector - 1).max().unwrap_or(0);
    if said > default || said < needed {
        put(header, LAST_USABLE, &default.to_le_bytes());
    }
}

/// The entries of the primary, at sector `at`.
pub(super) fn array(described: &Described<'_>, gpt: Gpt, at: u64) -> Region {
    let sector = u64::from(described.sector.get());
    let length = usize::try_from(gpt_entry_sectors(gpt.entries, described.sector) * sector).unwrap_or(0);
    let entry_bytes = GPT_ENTRY_BYTES as usize;
    let mut bytes = vec![0u8; length];
    let mut free = Vec::new();
    for index in 0..gpt.entries as usize {
        let (start, end) = (index * entry_bytes, (index + 1) * entry_bytes);
        let slot = described.slots.iter().find(|slot| slot.number as usize == index + 1);
        let used = slot.zip(bytes.get_mut(start..end)).is_some_and(|(slot, entry)| {
            put_entry(entry, slot.entry, slot.first.0, slot.first.0 + slot.size / sector - 1)
        });
        // An entry without a type is unused, regardless of its other bytes.
        free.push(if used { start + 56..end } else { start + 16..end });
    }
    free.push(gpt.entries as usize * entry_bytes..length);
    Region { what: "the primary GPT's entries".into(), offset: at.saturating_mul(sector), bytes, free }
}

fn put_entry(into: &mut [u8], entry: &Entry, first: u64, last: u64) -> bool {
    let Entry::Gpt { kind, guid, attributes, name } = entry else { return false };
    into[..16].copy_from_slice(&kind.to_bytes_le());
    into[16..32].copy_from_slice(&guid.to_bytes_le());
    into[32..40].copy_from_slice(&first.to_le_bytes());
    into[40..48].copy_from_slice(&last.to_le_bytes());
    into[48..56].copy_from_slice(&attributes.to_le_bytes());
    for (unit, place) in name.encode_utf16().zip(into[56..].chunks_exact_mut(2)) {
        place.copy_from_slice(&unit.to_le_bytes());
    }
    true
}

fn put(bytes: &mut [u8], field: Range<usize>, value: &[u8]) {
    bytes[field].copy_from_slice(value);
}

/// Makes a header's own sum.
fn seal(header: &mut [u8]) {
    put(header, OWN_SUM, &[0; 4]);
    let sum = crc32(&header[..HEADER_BYTES]);
    put(header, OWN_SUM, &sum.to_le_bytes());
}

/// One entry of type 0xEE over the whole disk (UEFI 2.10 §5.2.3).
fn protective(sectors: u64, sector: usize) -> Vec<u8> {
    let size = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut bytes = vec![0u8; sector];
    let entry = &mut bytes[ENTRIES_AT..ENTRIES_AT + 16];
    entry[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
    entry[4] = PROTECTIVE;
    // The last sector, or all ones where it cannot be said.
    let last = chs(sectors.saturating_sub(1));
    entry[5..8].copy_from_slice(if last == CHS_BEYOND { &[0xff; 3] } else { &last });
    entry[8..12].copy_from_slice(&1u32.to_le_bytes());
    entry[12..16].copy_from_slice(&size.to_le_bytes());
    bytes[MARK_AT..MARK_AT + 2].copy_from_slice(&MBR_MARK);
    bytes
}

/// Linux and firmware take a disk for one with a GPT if an entry of type 0xEE begins in sector 1.
fn protects(record: &[u8]) -> bool {
    record[ENTRIES_AT..MARK_AT].chunks_exact(16).any(|e| e[4] == PROTECTIVE && e[8..12] == 1u32.to_le_bytes())
}

/// CRC-32 (ISO 3309, reflected), as GPT wants it.
pub fn crc32(bytes: &[u8]) -> u32 {
    static CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    CRC32.checksum(bytes)
}
