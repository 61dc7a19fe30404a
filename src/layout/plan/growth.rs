//! The places of an image's partitions on a disk that is larger than the golden one: the partition that the
//! manifest lets grow takes the room, and those behind it move to the end of the disk.
//!
//! Invariant: a partition moves only if nothing finds it by its place: partitions with data or swap of a GPT.
//! Without a gain of [`STEP`] or more everything stays where the image has it.

use crate::layout::plan::DiskFacts;
use crate::layout::table::{Described, gpt_entry_sectors};
use crate::manifest::{Entry, Manifest, Partition, Policy, Role, Table};
use crate::units::{Lba, SectorSize};

/// Partitions move and grow by multiples of this, so that they stay aligned.
pub(super) const STEP: u64 = 1 << 20;

/// How the partitions lie on one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    /// The partition that grows.
    pub(super) number: u32,
    /// Its first byte.
    from: u64,
    /// Bytes by which it grows, and by which those behind it move.
    gain: u64,
}

impl Growth {
    /// The growth on `disk`: `None` if the image asks for none or the disk has no room; `Err` is the reason
    /// why room stays unused.
    pub(super) fn on(manifest: &Manifest, disk: &DiskFacts) -> Result<Option<Growth>, String> {
        let Some(growing) = manifest.partitions.iter().find(|p| p.grow) else { return Ok(None) };
        let at = |p: &Partition| disk.sector.offset_of(p.first).map_or(u64::MAX, |offset| offset.0);
        let from = at(growing);
        let ends = manifest.partitions.iter().map(|p| at(p).saturating_add(p.size));
        let gain = room_end(manifest, disk).saturating_sub(ends.max().unwrap_or(0)) / STEP * STEP;
        if gain == 0 {
            return Ok(None);
        }
        let stays = |why: String| {
            let size = crate::units::show_bytes(gain);
            format!("{size} at the end of {} stay unused, because {why}", disk.name)
        };
        if matches!(growing.entry, Entry::Mbr { ebr: Some(_), .. }) {
            return Err(stays(format!("partition {} is a logical one", growing.number)));
        }
        let behind = manifest.partitions.iter().filter(|p| at(p) > from);
        let fixed: Vec<String> = behind.filter(|p| !moves(p)).map(|p| p.number.to_string()).collect();
        if !fixed.is_empty() {
            return Err(stays(format!(
                "partition {}, behind the growing one, is found by its place",
                fixed.join(", ")
            )));
        }
        if let Table::Mbr { extended, .. } = &manifest.disk.table
            && extended.iter().any(|one| one.first > growing.first)
        {
            return Err(stays("the extended partition lies behind the growing one".into()));
        }
        Ok(Some(Growth { number: growing.number, from, gain }))
    }

    /// Where a partition that the image has at `start` begins.
    pub(super) fn start(&self, start: u64) -> u64 {
        if start > self.from { start.saturating_add(self.gain) } else { start }
    }

    /// The size that the table gives to a partition of `size` bytes.
    pub(super) fn size(&self, number: u32, size: u64) -> u64 {
        if number == self.number { size.saturating_add(self.gain) } else { size }
    }

    /// The image's table with these places.
    pub(super) fn describe<'a>(&self, mut table: Described<'a>) -> Described<'a> {
        for slot in &mut table.slots {
            let start = table.sector.offset_of(slot.first).map_or(u64::MAX, |offset| offset.0);
            slot.first = Lba(self.start(start) / u64::from(table.sector.get()));
            slot.size = self.size(slot.number, slot.size);
        }
        table
    }
}

/// The byte behind the last one that partitions may use.
fn room_end(manifest: &Manifest, disk: &DiskFacts) -> u64 {
    let sector = u64::from(disk.sector.get());
    let sectors = disk.size / sector;
    let end = match &manifest.disk.table {
        Table::Gpt { entries, .. } => sectors.saturating_sub(1 + gpt_entry_sectors(*entries, disk.sector)),
        Table::Mbr { .. } => sectors.min(u64::from(u32::MAX)),
        Table::None => 0,
    };
    end.saturating_mul(sector)
}

fn moves(p: &Partition) -> bool {
    let by_guid = matches!(p.entry, Entry::Gpt { .. });
    by_guid && p.policy == Policy::Replace && matches!(p.role, Role::Data | Role::Swap)
}

/// Does the partition of a table that stays fit, with `first` and `size`, one that an image of `manifest` has
/// grown or moved?
pub fn could_be(manifest: &Manifest, p: &Partition, first: Lba, size: u64) -> bool {
    let Some(growing) = manifest.partitions.iter().find(|p| p.grow) else { return false };
    if p.number == growing.number {
        return first == p.first && size >= p.size;
    }
    let same = moves(p) && p.first > growing.first && size == p.size;
    same && first.0 > p.first.0 && is_step(first.0 - p.first.0, manifest.disk.sector_size)
}

fn is_step(sectors: u64, sector: SectorSize) -> bool {
    sectors.saturating_mul(u64::from(sector.get())).is_multiple_of(STEP)
}
