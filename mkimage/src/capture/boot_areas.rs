//! Bytes outside of partitions: the code that a BIOS starts, and the bytes of the table that its description
//! lacks.
//!
//! Invariant: only bytes that are not zero (in the table: not generated) are recorded, in whole sectors,
//! except fields of the table and the boot code, which ends where the disk signature begins. A gap to which
//! no boot code leads is not recorded, because it may hold deleted data.

use flashmob::event::Failure;
use flashmob::layout::table::{Described, Slot, gpt_entry_sectors};
use flashmob::manifest::{BootArea, BootAreaKind, Entry, Table};
use flashmob::units::{DiskOffset, show_bytes};

use super::plan::Plan;
use crate::source::Source;

/// Bytes of boot code in a master boot record (UEFI 2.10 §5.2.1).
const BOOT_CODE: usize = 440;
/// Bytes to read of a gap; GRUB's core image has at most some hundred KiB.
const MAX_GAP: u64 = 16 << 20;
/// Where a header of a GPT says in which sector its entries begin.
const GPT_ARRAY_LBA: u64 = 72;

/// The areas and their bytes.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of the disk.
    pub areas: Vec<BootArea>,
    /// The content of `boot.bin`.
    pub bytes: Vec<u8>,
    /// There is boot code, so the disk can start by BIOS.
    pub boot_code: bool,
    pub remarks: Vec<String>,
}

impl Found {
    fn add(&mut self, kind: BootAreaKind, offset: u64, bytes: &[u8]) {
        let (length, at) = (bytes.len() as u64, self.bytes.len() as u64);
        self.areas.push(BootArea { kind, offset: DiskOffset(offset), length, at });
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads them. A single partition has none: its first sector is its own.
pub(super) fn read(source: &Source, plan: &Plan) -> Result<Found, Failure> {
    let mut found = Found::default();
    if plan.table == Table::None {
        return Ok(found);
    }
    let mut code = [0; BOOT_CODE];
    source.read(0, &mut code)?;
    if code.iter().any(|byte| *byte != 0) {
        found.add(BootAreaKind::BootCode, 0, &code);
        found.boot_code = true;
    }
    read_table(source, plan, &mut found)?;
    for (from, to) in gaps(source, plan)? {
        read_gap(source, from, to, &mut found)?;
    }
    found.areas.sort_by_key(|area| area.offset);
    Ok(found)
}

/// The table's bytes that terminals could not make up themselves.
fn read_table(source: &Source, plan: &Plan, found: &mut Found) -> Result<(), Failure> {
    let slots = plan.partitions.iter();
    let slots = slots.map(|p| Slot { number: p.number, first: p.first, size: p.size, entry: &p.entry });
    let described = Described { table: &plan.table, slots: slots.collect(), sector: source.sector_size };
    let patches = described.patches(plan.sectors, &plan.records, |at, into| source.read(at, into))?;
    for patch in patches {
        found.add(BootAreaKind::Table, patch.offset, &patch.bytes);
    }
    Ok(())
}

/// Ranges outside of table and partitions where a boot loader may lie: before the first partition, and behind
/// extended boot records that have code.
fn gaps(source: &Source, plan: &Plan) -> Result<Vec<(u64, u64)>, Failure> {
    let sector = u64::from(source.sector_size.get());
    let starts = plan.partitions.iter().map(|p| p.start);
    let boxes = match &plan.table {
        Table::Mbr { extended, .. } => extended.as_slice(),
        Table::Gpt { .. } | Table::None => &[],
    };
    let first = starts.chain(boxes.iter().map(|one| one.first.0 * sector)).min().unwrap_or(0);
    let mut gaps = Vec::new();
    match &plan.table {
        Table::Gpt { entries, .. } => {
            let mut lba = [0; 8];
            source.read(sector + GPT_ARRAY_LBA, &mut lba)?;
            let array = u64::from_le_bytes(lba);
            let end = array.saturating_add(gpt_entry_sectors(*entries, source.sector_size));
            gaps.push((2 * sector, array.saturating_mul(sector)));
            gaps.push((end.saturating_mul(sector), first));
        }
        Table::Mbr { .. } | Table::None => gaps.push((sector, first)),
    }
    for p in &plan.partitions {
        let Entry::Mbr { ebr: Some(ebr), .. } = p.entry else { continue };
        let mut code = [0; BOOT_CODE];
        source.read(ebr.0 * sector, &mut code)?;
        if code.iter().any(|byte| *byte != 0) {
            gaps.push(((ebr.0 + 1) * sector, p.start));
        }
    }
    Ok(gaps)
}

/// Takes the sectors from the first to the last one that is used.
fn read_gap(source: &Source, from: u64, to: u64, found: &mut Found) -> Result<(), Failure> {
    let gap = to.saturating_sub(from);
    if gap > MAX_GAP {
        found.remarks.push(format!(
            "of the {} without a partition from byte {from} on only the first {} are looked at for boot code",
            show_bytes(gap),
            show_bytes(MAX_GAP)
        ));
    }
    let mut bytes = vec![0; usize::try_from(gap.min(MAX_GAP)).unwrap_or(0)];
    source.read(from, &mut bytes)?;
    let used = |sector: &[u8]| sector.iter().any(|byte| *byte != 0);
    let size = source.sector_size.get() as usize;
    if let Some(first) = bytes.chunks(size).position(used) {
        let last = bytes.chunks(size).rposition(used).map_or(bytes.len(), |last| (last + 1) * size);
        found.add(BootAreaKind::Gap, from + (first * size) as u64, &bytes[first * size..last]);
    }
    Ok(())
}
