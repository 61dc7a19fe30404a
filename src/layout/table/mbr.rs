//! A master boot record and the chain of extended boot records.
//!
//! Invariant: the written records describe exactly the manifest's partitions, with Linux' numbers: they are
//! read again as they will be on the disk. All places fit 32 bits, which `layout::plan` ensures.

use std::iter::once;

use super::described::{Described, ENTRIES_AT, MARK_AT, MBR_MARK, Slot, Write, chs};
use super::verbatim::{Patch, Region, apply, behind_mark, entry_fields};
use crate::manifest::{Entry, Extended};
use crate::units::{DiskOffset, Lba};

/// The link to the next record has this type in most systems.
const EXTENDED_LINK: u8 = 0x05;
/// Types of extended partitions, and of links to their records.
const EXTENDED: [u8; 5] = [0x05, 0x0f, 0x85, 0xc5, 0xd5];
const ACTIVE: u8 = 0x80;

/// The first sector, then the extended boot records, in the order in which they are written.
pub(super) fn writes(
    described: &Described<'_>,
    signature: [u8; 4],
    extended: &[Extended],
    patches: &[Patch],
) -> Result<Vec<Write>, String> {
    let mut regions = regions(described, signature, extended);
    let rest = apply(&mut regions, &patches.iter().collect::<Vec<_>>())?;
    let size = u64::from(described.sector.get());
    let whole =
        |region: Region| Write { what: region.what, offset: DiskOffset(region.offset), bytes: region.bytes };
    let mut writes: Vec<Write> = regions.into_iter().map(whole).collect();
    for patch in rest {
        if patch.bytes.len() as u64 != size || !patch.offset.is_multiple_of(size) {
            return Err(format!("byte {} is not in the table", patch.offset));
        }
        let what = format!("the extended boot record in sector {}", patch.offset / size);
        writes.push(Write { what, offset: DiskOffset(patch.offset), bytes: patch.bytes.clone() });
    }
    check(described, extended, &writes)?;
    Ok(writes)
}

/// The generated first sector and records.
pub(super) fn regions(described: &Described<'_>, signature: [u8; 4], extended: &[Extended]) -> Vec<Region> {
    let mut regions = vec![head(described, signature, extended)];
    let Some(one) = extended.first() else { return regions };
    let size = described.sector.get() as usize;
    let region = |what: String, at: Lba, bytes: Vec<u8>| {
        // The links say where records lie, and not where partitions do: `check` follows them.
        let entries = (0..4).map(|index| ENTRIES_AT + 16 * index..ENTRIES_AT + 16 * (index + 1));
        let free = once(0..ENTRIES_AT).chain(entries).chain(once(MARK_AT..MARK_AT + 2));
        let free = free.chain(behind_mark(size)).collect();
        Region { what, offset: at.0.saturating_mul(size as u64), bytes, free }
    };
    let logical = logical(described);
    let end = |slot: &Slot<'_>| slot.first.0 + slot.size / size as u64;
    let link_to = |record: &mut [u8], next: &(Slot<'_>, Lba)| {
        let (slot, ebr) = next;
        let (relative, length) = (ebr.0.saturating_sub(one.first.0), end(slot).saturating_sub(ebr.0));
        Written { active: false, kind: EXTENDED_LINK, first: ebr.0, relative, sectors: length }
            .put(record, 2);
    };
    // The chain begins in the extended partition's first sector, even where the first record has no
    // partition. Where there is no chain, an old one on the terminal's disk must not come to life.
    if logical.first().is_none_or(|(_, ebr)| *ebr != one.first) {
        let mut record = vec![0; size];
        if let Some(first) = logical.first() {
            link_to(&mut record, first);
            record[MARK_AT..MARK_AT + 2].copy_from_slice(&MBR_MARK);
        }
        regions.push(region("the first record of the extended partition".into(), one.first, record));
    }
    for (i, (slot, ebr)) in logical.iter().enumerate() {
        let Entry::Mbr { kind, active, .. } = slot.entry else { continue };
        let mut record = vec![0; size];
        let sectors = slot.size / size as u64;
        let relative = slot.first.0.saturating_sub(ebr.0);
        Written { active: *active, kind: *kind, first: slot.first.0, relative, sectors }.put(&mut record, 1);
        if let Some(next) = logical.get(i + 1) {
            link_to(&mut record, next);
        }
        record[MARK_AT..MARK_AT + 2].copy_from_slice(&MBR_MARK);
        regions.push(region(format!("the record of logical partition {}", slot.number), *ebr, record));
    }
    regions
}

/// Logical partitions in the order of their numbers, with the sectors of their records.
fn logical<'a>(described: &Described<'a>) -> Vec<(Slot<'a>, Lba)> {
    let ebr = |slot: &Slot<'_>| match slot.entry {
        Entry::Mbr { ebr, .. } => *ebr,
        Entry::Gpt { .. } | Entry::None => None,
    };
    let mut logical: Vec<_> = described.slots.iter().filter_map(|s| Some((*s, ebr(s)?))).collect();
    logical.sort_by_key(|(slot, _)| slot.number);
    logical
}

fn head(described: &Described<'_>, signature: [u8; 4], extended: &[Extended]) -> Region {
    let size = described.sector.get() as usize;
    let mut bytes = vec![0u8; size];
    bytes[440..444].copy_from_slice(&signature);
    for one in extended {
        let (kind, first, sectors) = (one.kind, one.first.0, one.sectors);
        Written { active: false, kind, first, relative: first, sectors }.put(&mut bytes, one.number);
    }
    for slot in &described.slots {
        if let Entry::Mbr { kind, active, ebr: None } = *slot.entry {
            let (first, sectors) = (slot.first.0, slot.size / size as u64);
            Written { active, kind, first, relative: first, sectors }.put(&mut bytes, slot.number);
        }
    }
    bytes[MARK_AT..MARK_AT + 2].copy_from_slice(&MBR_MARK);
    let mut free: Vec<_> = once(444..446).collect();
    for index in 0..4 {
        let [flag, first, kind, last, _, sectors] = entry_fields(index);
        if !is_used(&bytes[flag.start..sectors.end]) {
            free.push(flag.start..sectors.end);
            continue;
        }
        // An extended partition's flag is in no other field of the manifest.
        if EXTENDED.contains(&bytes[kind.start]) {
            free.push(flag);
        }
        free.extend([first, last]);
    }
    free.extend(behind_mark(size));
    Region { what: "the MBR".into(), offset: 0, bytes, free }
}

/// One of the four entries of a boot record.
struct Written {
    active: bool,
    kind: u8,
    /// The absolute first sector, for cylinder, head and sector.
    first: u64,
    /// The first sector counted from the record's own base; this number is written.
    relative: u64,
    sectors: u64,
}

impl Written {
    /// Writes it as entry `number` (1 to 4) of `record`.
    fn put(&self, record: &mut [u8], number: u32) {
        let at = ENTRIES_AT + 16 * (number.saturating_sub(1) as usize).min(3);
        let entry = &mut record[at..at + 16];
        entry[0] = if self.active { ACTIVE } else { 0 };
        entry[1..4].copy_from_slice(&chs(self.first));
        entry[4] = self.kind;
        entry[5..8].copy_from_slice(&chs(self.first + self.sectors.saturating_sub(1)));
        entry[8..12].copy_from_slice(&u32::try_from(self.relative).unwrap_or(u32::MAX).to_le_bytes());
        entry[12..16].copy_from_slice(&u32::try_from(self.sectors).unwrap_or(u32::MAX).to_le_bytes());
    }
}

/// Has the entry a type and sectors?
fn is_used(entry: &[u8]) -> bool {
    entry[4] != 0 && entry[12..16] != [0; 4]
}

fn number_at(entry: &[u8], at: usize) -> u64 {
    entry[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
}

/// Reads the writes as the kernel will, and compares the result with the description.
fn check(described: &Described<'_>, extended: &[Extended], writes: &[Write]) -> Result<(), String> {
    let size = u64::from(described.sector.get());
    let used = |record: &[u8]| -> Vec<(usize, Vec<u8>)> {
        let entries = record[ENTRIES_AT..MARK_AT].chunks_exact(16).enumerate();
        entries.filter(|(_, entry)| is_used(entry)).map(|(i, entry)| (i + 1, entry.to_vec())).collect()
    };
    let head = writes.first().map(|write| used(&write.bytes)).unwrap_or_default();
    let known = |number: usize| {
        let is = |n: u32| n as usize == number;
        extended.iter().any(|one| is(one.number)) || described.slots.iter().any(|slot| is(slot.number))
    };
    if let Some((number, _)) = head.iter().find(|(number, _)| !known(*number)) {
        return Err(format!("its entry {number} would be used"));
    }
    let mut wanted = logical(described).into_iter();
    let mut followed = 1;
    let mut next = extended.first().map(|one| one.first.0);
    while let Some(lba) = next.take() {
        let record = writes.iter().skip(1).find(|write| write.offset.0 == lba.saturating_mul(size));
        let record = record.ok_or_else(|| format!("there would be no record in sector {lba}"))?;
        followed += 1;
        if followed > writes.len() {
            return Err("the chain of its records would have no end".into());
        }
        if record.bytes[MARK_AT..MARK_AT + 2] != MBR_MARK {
            break;
        }
        for (_, entry) in used(&record.bytes) {
            let (start, sectors) = (number_at(&entry, 8), number_at(&entry, 12));
            if EXTENDED.contains(&entry[4]) {
                let base = extended.first().map_or(0, |one| one.first.0);
                if next.replace(base + start).is_some() {
                    return Err(format!("the record in sector {lba} would have two links"));
                }
                continue;
            }
            let slot = wanted.next().filter(|(slot, ebr)| {
                let Entry::Mbr { kind, active, .. } = slot.entry else { return false };
                (ebr.0, slot.first.0, slot.size / size) == (lba, lba + start, sectors)
                    && (*kind, *active) == (entry[4], entry[0] == ACTIVE)
            });
            slot.ok_or_else(|| format!("the record in sector {lba} would describe another partition"))?;
        }
    }
    if let Some((slot, _)) = wanted.next() {
        return Err(format!("no record would describe logical partition {}", slot.number));
    }
    if followed < writes.len() {
        return Err("it has records that nothing leads to".into());
    }
    Ok(())
}
