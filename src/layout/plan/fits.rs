//! The checks behind a plan: whether the image's table, partitions and boot areas fit this disk.
//!
//! Invariant: an image that passes can be written without further checks. Each refusal names the disk's
//! state, the image's demand and a remedy.

use super::demands::Demands;
use super::facts::{AreaWrite, DiskFacts, Existing, Place};
use super::growth::Growth;
use crate::api::LayoutMode;
use crate::event::Failure;
use crate::layout::table::{self, Described, Patch, Write};
use crate::manifest::{BootArea, BootAreaKind, Entry, Extended, Manifest, Partition, Table};
use crate::units::{Lba, SectorSize, show_bytes};

/// Boot code in the first sector ends where the table's signature begins.
const BOOT_CODE_BYTES: u64 = 440;
/// More entries than any table has.
const MAX_GPT_ENTRIES: u32 = 1024;
/// UTF-16 units of a name in a GPT.
const GPT_NAME_UNITS: usize = 36;

pub(super) fn check_size(manifest: &Manifest, disk: &DiskFacts) -> Result<(), Failure> {
    Demands::of(manifest).check_sectors(&manifest.id(), &disk.name, disk.sector.get())?;
    if disk.size < manifest.disk.minimum_size {
        return Err(Failure::refused(
            format!(
                "{} needs a disk of {} bytes ({}), and {} has {} bytes: {} bytes too few",
                manifest.id(),
                manifest.disk.minimum_size,
                show_bytes(manifest.disk.minimum_size),
                disk.name,
                disk.size,
                manifest.disk.minimum_size - disk.size
            ),
            "Use a larger disk, or capture an image whose partitions end earlier.",
        ));
    }
    Ok(())
}

/// Checks that the job's partitions can be written, and that the choice does not lose the others.
pub(super) fn check_choice(
    manifest: &Manifest,
    mode: LayoutMode,
    only: Option<&[u32]>,
) -> Result<(), Failure> {
    let Some(only) = only else { return Ok(()) };
    if mode != LayoutMode::Keep {
        return Err(Failure::refused(
            format!("only some partitions of {} are to be written, and a new table as well", manifest.id()),
            "Set the job's layout to 'keep', or let it write all partitions.",
        ));
    }
    Demands::of(manifest).check_choice(&manifest.id(), only)
}

pub(super) fn table_writes(
    manifest: &Manifest,
    boot: &[u8],
    disk: &DiskFacts,
    growth: Option<Growth>,
) -> Result<Vec<Write>, Failure> {
    let sectors = disk.size / u64::from(disk.sector.get());
    let broken = |what: String| {
        Failure::refused(
            format!("the table of {} cannot be written: {what}", manifest.id()),
            "Capture the image again.",
        )
    };
    match &manifest.disk.table {
        Table::None => return Ok(Vec::new()),
        Table::Gpt { entries, first_usable, .. } => check_gpt(manifest, *entries, *first_usable, disk),
        Table::Mbr { extended, .. } => check_mbr(extended, &manifest.partitions, disk.sector),
    }
    .map_err(broken)?;
    let mut patches = Vec::new();
    for area in manifest.disk.boot_areas.iter().filter(|area| area.kind == BootAreaKind::Table) {
        patches.push(Patch { offset: area.offset.0, bytes: bytes_of(area, boot)? });
    }
    let described = Described::of(manifest);
    let described = match growth {
        Some(growth) => growth.describe(described),
        None => described,
    };
    described.writes(sectors, &patches).map_err(broken)
}

/// The bytes of a boot area.
fn bytes_of(area: &BootArea, boot: &[u8]) -> Result<Vec<u8>, Failure> {
    let from = usize::try_from(area.at).ok();
    let to = area.at.checked_add(area.length).and_then(|end| usize::try_from(end).ok());
    let bytes = from.zip(to).and_then(|(from, to)| boot.get(from..to));
    let short = || Failure::refused("boot.bin is shorter than the manifest says", "Capture the image again.");
    bytes.map(<[u8]>::to_vec).ok_or_else(short)
}

fn check_gpt(manifest: &Manifest, entries: u32, first_usable: Lba, disk: &DiskFacts) -> Result<(), String> {
    if entries == 0 || entries > MAX_GPT_ENTRIES {
        return Err(format!("a GPT of {entries} entries"));
    }
    let array = table::gpt_entry_sectors(entries, disk.sector);
    if first_usable.0 < 2 + array {
        return Err(format!("sector {} may not be used by partitions, the table lies there", first_usable.0));
    }
    for p in &manifest.partitions {
        let n = p.number;
        if n == 0 || n > entries {
            return Err(format!("partition {n} in a table of {entries} entries"));
        }
        if p.first < first_usable {
            return Err(format!("partition {n} begins before sector {}", first_usable.0));
        }
        match &p.entry {
            Entry::Gpt { name, .. } if name.encode_utf16().count() <= GPT_NAME_UNITS => {}
            Entry::Gpt { .. } => return Err(format!("the name of partition {n} is too long")),
            Entry::Mbr { .. } | Entry::None => return Err(format!("partition {n} is not one of a GPT")),
        }
    }
    Ok(())
}

fn check_mbr(extended: &[Extended], partitions: &[Partition], sector: SectorSize) -> Result<(), String> {
    let fits = |first: u64, sectors: u64| {
        first >= 1
            && sectors >= 1
            && first.checked_add(sectors).is_some_and(|end| end <= u64::from(u32::MAX) + 1)
    };
    if extended.len() > 1 {
        return Err("more than one extended partition".into());
    }
    let mut slots: Vec<u32> = Vec::new();
    for one in extended {
        slots.push(one.number);
        if !fits(one.first.0, one.sectors) {
            return Err("the extended partition lies beyond what an MBR can say".into());
        }
    }
    let mut logical = Vec::new();
    for p in partitions {
        let n = p.number;
        let sectors = p.size / u64::from(sector.get());
        if !fits(p.first.0, sectors) {
            return Err(format!("partition {n} lies beyond what an MBR can say"));
        }
        match p.entry {
            Entry::Mbr { ebr: Some(ebr), .. } => {
                let inside = extended.first().is_some_and(|one| {
                    one.first <= ebr && ebr < p.first && p.first.0 + sectors <= one.first.0 + one.sectors
                });
                if !inside {
                    return Err(format!("logical partition {n} is outside the extended one"));
                }
                logical.push((n, ebr));
            }
            Entry::Mbr { ebr: None, .. } => slots.push(n),
            Entry::Gpt { .. } | Entry::None => return Err(format!("partition {n} is not one of an MBR")),
        }
    }
    slots.sort_unstable();
    if slots.iter().any(|n| !(1..=4).contains(n)) || slots.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("primary partitions with the numbers {slots:?}"));
    }
    logical.sort_unstable();
    if (5u32..).zip(&logical).any(|(expected, (n, _))| expected != *n) {
        return Err("logical partitions whose numbers do not count up from 5".into());
    }
    Ok(())
}

/// Checks that no two writes overlap and that all lie on the disk.
pub(super) fn check_places(places: &[Place], table: &[Write], disk: &DiskFacts) -> Result<(), Failure> {
    let mut taken: Vec<(u64, u64, String)> =
        places.iter().map(|p| (p.start.0, p.room_end(), format!("partition {}", p.number))).collect();
    taken.extend(table.iter().map(|write| (write.offset.0, write.end(), write.what.clone())));
    taken.sort();
    for pair in taken.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Err(Failure::refused(
                format!("{} and {} would overlap on {}", pair[0].2, pair[1].2, disk.name),
                "Use a larger disk, or capture the image again.",
            ));
        }
    }
    match taken.into_iter().find(|(_, end, _)| *end > disk.size) {
        Some((_, end, what)) => Err(Failure::refused(
            format!(
                "{what} would end at byte {end}, and {} has {} bytes: {} bytes too few",
                disk.name,
                disk.size,
                end - disk.size
            ),
            "Use a larger disk.",
        )),
        None => Ok(()),
    }
}

pub(super) fn boot_areas(
    manifest: &Manifest,
    boot: &[u8],
    places: &[Place],
    table: &[Write],
    disk: &DiskFacts,
    mode: LayoutMode,
) -> Result<Vec<AreaWrite>, Failure> {
    let advice = "Capture the image again, or repartition the terminal.";
    let mut occupied: Vec<(u64, u64, String)> =
        places.iter().map(|p| (p.start.0, p.room_end(), format!("partition {}", p.number))).collect();
    occupied.extend(table.iter().map(|write| (write.offset.0, write.end(), write.what.clone())));
    if let (LayoutMode::Keep, Ok(existing)) = (mode, &disk.table) {
        occupied.extend(existing_places(existing, disk));
    }
    let sector = u64::from(disk.sector.get());
    let mut areas = Vec::new();
    for area in &manifest.disk.boot_areas {
        let bytes = bytes_of(area, boot)?;
        let (start, end) = (area.offset.0, area.offset.0.saturating_add(area.length));
        match area.kind {
            BootAreaKind::BootCode if start != 0 || area.length > BOOT_CODE_BYTES => {
                return Err(Failure::refused(
                    format!("boot code of {} bytes at byte {start}", area.length),
                    advice,
                ));
            }
            BootAreaKind::BootCode => {}
            // They are in the table's own writes.
            BootAreaKind::Table => continue,
            BootAreaKind::Gap => {
                if !start.is_multiple_of(sector)
                    || !end.is_multiple_of(sector)
                    || start < sector
                    || end > disk.size
                {
                    return Err(Failure::refused(
                        format!("a boot area lies at bytes {start} to {end}"),
                        advice,
                    ));
                }
                if let Some((_, _, what)) = occupied.iter().find(|(from, to, _)| start < *to && *from < end) {
                    return Err(Failure::refused(
                        format!("a boot area at byte {start} overlaps {what}"),
                        advice,
                    ));
                }
            }
        }
        areas.push(AreaWrite { kind: area.kind, offset: area.offset, bytes });
    }
    // A BIOS starts nothing without boot code, so it comes last.
    areas.sort_by_key(|area| area.kind == BootAreaKind::BootCode);
    Ok(areas)
}

/// Everything that a table which stays occupies on its disk.
fn existing_places(existing: &Existing, disk: &DiskFacts) -> Vec<(u64, u64, String)> {
    let sector = u64::from(disk.sector.get());
    let mut places = Vec::new();
    for p in &existing.partitions {
        let start = p.first.0.saturating_mul(sector);
        places.push((start, start.saturating_add(p.size), format!("partition {}", p.number)));
        if let Entry::Mbr { ebr: Some(ebr), .. } = p.entry {
            let at = ebr.0.saturating_mul(sector);
            places.push((at, at.saturating_add(sector), format!("the record of partition {}", p.number)));
        }
    }
    if let Table::Gpt { entries, .. } = existing.table {
        let array = table::gpt_entry_sectors(entries, disk.sector);
        places.push((0, (2 + array) * sector, "the primary GPT".into()));
        let backup = disk.backup_gpt.map_or(disk.size, |lba| (lba.0 + 1).saturating_mul(sector));
        places.push((backup.saturating_sub((1 + array) * sector), backup, "the backup GPT".into()));
    }
    places
}
