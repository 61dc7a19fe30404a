//! The plan for a disk, or the refusal: the only place where an image is compared with the facts of a disk.
//!
//! Invariant: a [`LayoutPlan`] exists only if all of its places lie on the disk, none overlaps another, kept
//! partitions are there as the manifest describes them, and the table can be written as described. Every
//! refusal is made here, before the first write. `io` writes.

mod demands;
mod fits;
mod growth;
mod references;

use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use crate::api::LayoutMode;
use crate::event::Failure;
use crate::layout::grid::Span;
use crate::layout::identity::Identity;
use crate::layout::table::Write;
use crate::manifest::{Entry, Manifest, Partition, Policy, Role, Table, TrustedManifest};
use crate::units::{DiskOffset, SectorSize};
pub use demands::Demands;
pub use facts::{AreaWrite, DiskFacts, Existing, ExistingPartition, Place};
use growth::Growth;
pub use growth::could_be;

/// Bytes at the head of each replaced partition that are wiped before the first piece, and written again at
/// the commit only. Every filesystem and boot loader is found by something in there.
pub(crate) const HEAD: u64 = 1 << 20;

/// Bytes at the tail of each replaced partition that are wiped too, and that read as zero afterwards where
/// the image has nothing. Labels that would make another kind of the partition lie there: md 1.0 in the last
/// 8 KiB, md 0.90 in the last 128 KiB, two of ZFS in the last 512 KiB, those of BIOS RAIDs in the last
/// sectors. A system that finds one does not mount the fresh filesystem before it.
pub(crate) const TAIL: u64 = 1 << 20;

/// Everything that will be written to one disk, and where.
#[derive(Debug, Clone)]
pub struct LayoutPlan {
    manifest: Arc<Manifest>,
    mode: LayoutMode,
    disk_size: u64,
    sector: SectorSize,
    places: Vec<Place>,
    wipes: Vec<Range<u64>>,
    gpt_headers: Vec<u64>,
    table: Vec<Write>,
    areas: Vec<AreaWrite>,
    identity: Identity,
    warnings: Vec<String>,
}

impl LayoutPlan {
    /// Plans an image onto a disk. `boot` is the content of `boot.bin`. With `only`, just the partitions with
    /// these numbers are written, and the others must exist like kept ones.
    pub fn new(
        image: &TrustedManifest,
        boot: &[u8],
        disk: &DiskFacts,
        mode: LayoutMode,
        only: Option<&[u32]>,
    ) -> Result<Self, Failure> {
        let manifest = image.manifest();
        fits::check_choice(manifest, mode, only)?;
        fits::check_size(manifest, disk)?;
        let (growth, unused) = match mode {
            LayoutMode::WholeDisk => match Growth::on(manifest, disk) {
                Ok(growth) => (growth, None),
                Err(why) => (None, Some(why)),
            },
            LayoutMode::Keep => (None, None),
        };
        let mut places = match mode {
            LayoutMode::WholeDisk => whole_disk(manifest, disk, growth)?,
            LayoutMode::Keep => kept_table(manifest, disk)?,
        };
        for place in &mut places {
            place.replaced &= only.is_none_or(|only| only.contains(&place.number));
            place.held = if place.replaced { HEAD.min(place.size) } else { 0 };
        }
        if !places.iter().any(|place| place.replaced) {
            return Err(Failure::refused(
                "the image replaces no partition",
                "Capture it again with a partition to write.",
            ));
        }
        let table = match mode {
            LayoutMode::WholeDisk => fits::table_writes(manifest, boot, disk, growth)?,
            LayoutMode::Keep => Vec::new(),
        };
        let mut areas = fits::boot_areas(manifest, boot, &places, &table, disk, mode)?;
        if !boots_from(manifest, &places) {
            areas.clear();
        }
        fits::check_places(&places, &table, disk)?;
        let (identity, mut warnings) = identity(manifest, &places, disk, mode)?;
        warnings.extend(unused);
        let gpt_headers = gpt_headers(disk);
        let wipes = wipes(&places, disk, mode, &gpt_headers);
        Ok(LayoutPlan {
            manifest: image.shared(),
            mode,
            disk_size: disk.size,
            sector: disk.sector,
            places,
            wipes,
            gpt_headers,
            table,
            areas,
            identity,
            warnings,
        })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the disk gets the image's table.
    pub fn mode(&self) -> LayoutMode {
        self.mode
    }

    /// Bytes of the disk that this was planned for.
    pub fn disk_size(&self) -> u64 {
        self.disk_size
    }

    /// Sector size of that disk.
    pub fn sector(&self) -> SectorSize {
        self.sector
    }

    /// Does this table have the plan's identity, and all of its partitions where the plan has them?
    pub(crate) fn is_on(&self, existing: &Existing) -> bool {
        let entries = existing.partitions.iter().map(|p| &p.entry);
        let there = |place: &Place| {
            existing.partitions.iter().any(|p| {
                let start = self.sector.offset_of(p.first);
                p.number == place.number && start == Some(place.start) && p.size == place.room
            })
        };
        Identity::of(&existing.table, entries) == self.identity && self.places.iter().all(there)
    }

    /// The partitions, in the manifest's order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The place of the partition with this number.
    pub fn place(&self, number: u32) -> Option<&Place> {
        self.places.iter().find(|place| place.number == number)
    }

    /// Is the partition at this position of the manifest's list written?
    pub fn replaces(&self, partition: usize) -> bool {
        self.places.get(partition).is_some_and(|place| place.replaced)
    }

    /// The bytes of the disk that `span` is.
    pub(crate) fn range_of(&self, span: &Span) -> Option<Range<u64>> {
        let start = self.places.get(span.partition)?.start.0.checked_add(span.offset)?;
        Some(start..start.checked_add(u64::from(span.len))?)
    }

    /// Byte ranges of the disk that are wiped before the first piece, in order, not touching each other.
    pub(crate) fn wipes(&self) -> &[Range<u64>] {
        &self.wipes
    }

    /// Where headers of a GPT are or may be: byte offsets of whole sectors.
    pub(crate) fn gpt_headers(&self) -> &[u64] {
        &self.gpt_headers
    }

    /// The table's bytes in the order in which they are written; empty when the table stays.
    pub fn table(&self) -> &[Write] {
        &self.table
    }

    /// The future identity of the disk and its partitions.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Problems that do not prevent the attempt, for people.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Boot areas in the order in which they are written: boot code last.
    pub fn areas(&self) -> &[AreaWrite] {
        &self.areas
    }
}

fn place_of(p: &Partition, sector: SectorSize, guid: Option<Uuid>) -> Result<Place, Failure> {
    let start = sector.offset_of(p.first).ok_or_else(|| {
        Failure::refused(format!("partition {} begins beyond 2^64", p.number), "Capture the image again.")
    })?;
    let replaced = p.policy == Policy::Replace;
    let (number, size, role) = (p.number, p.size, p.role);
    Ok(Place { number, start, size, room: size, role, replaced, held: 0, guid })
}

/// The image's own table is written.
fn whole_disk(manifest: &Manifest, disk: &DiskFacts, growth: Option<Growth>) -> Result<Vec<Place>, Failure> {
    if let Some(p) = manifest.partitions.iter().find(|p| p.policy == Policy::Keep) {
        // An interrupted attempt would leave a kept partition that is in no table.
        return Err(Failure::refused(
            format!("{} keeps partition {}, and the job writes a new table", manifest.id(), p.number),
            "Set the job's layout to 'keep', so that the table and the partition stay.",
        ));
    }
    let grown = |p: &Partition| {
        let mut place = place_of(p, disk.sector, guid_of(&p.entry))?;
        if let Some(growth) = growth {
            place.start = DiskOffset(growth.start(place.start.0));
            place.room = growth.size(p.number, p.size);
        }
        Ok(place)
    };
    manifest.partitions.iter().map(grown).collect()
}

/// The disk's table stays, and must contain every partition of the image.
fn kept_table(manifest: &Manifest, disk: &DiskFacts) -> Result<Vec<Place>, Failure> {
    let advice = "Partition the terminal as the image's disk is, or set the job's layout to 'whole-disk'.";
    let existing = disk.table.as_ref().map_err(|why| {
        Failure::refused(format!("the partitions of {} cannot be kept: {why}", disk.name), advice)
    })?;
    if matches!(manifest.disk.table, Table::None) {
        return Err(Failure::refused(
            format!("{} is a single partition without a table, so it matches no table", manifest.id()),
            "Name the partition itself as the job's disk (/dev/…) with the layout 'whole-disk'.",
        ));
    }
    let mut places = Vec::new();
    for p in &manifest.partitions {
        let n = p.number;
        let differs = |what: String| {
            Failure::refused(
                format!("partition {n} of {} does not match the image's: {what}", disk.name),
                advice,
            )
        };
        let there = existing.partitions.iter().find(|there| there.number == n);
        let there = there.ok_or_else(|| differs("it is not there".into()))?;
        let grown = could_be(manifest, p, there.first, there.size);
        if there.first != p.first && !grown {
            return Err(differs(format!("it begins at sector {}, not {}", there.first.0, p.first.0)));
        }
        if there.size != p.size && !grown {
            return Err(differs(format!("it has {} bytes, not {}", there.size, p.size)));
        }
        let size = there.size;
        if !same_type(&there.entry, &p.entry) {
            let (have, want) = (show_type(&there.entry), show_type(&p.entry));
            return Err(differs(format!("its type is {have}, not {want}")));
        }
        let there = Partition { first: there.first, entry: there.entry.clone(), ..p.clone() };
        places.push(Place { room: size, ..place_of(&there, disk.sector, guid_of(&there.entry))? });
    }
    Ok(places)
}

/// The future identity of the disk, and warnings where the image's differs.
fn identity(
    manifest: &Manifest,
    places: &[Place],
    disk: &DiskFacts,
    mode: LayoutMode,
) -> Result<(Identity, Vec<String>), Failure> {
    match (mode, &disk.table) {
        (LayoutMode::Keep, Ok(existing)) => {
            let warnings = references::check(manifest, existing, places, &disk.name)?;
            let entries = existing.partitions.iter().map(|p| &p.entry);
            Ok((Identity::of(&existing.table, entries), warnings))
        }
        _ => {
            let entries = manifest.partitions.iter().map(|p| &p.entry);
            Ok((Identity::of(&manifest.disk.table, entries), Vec::new()))
        }
    }
}

/// Whether the partition to which the boot areas lead is written. Both are of one version: GRUB's core image
/// lies on the BIOS boot partition, or in the gap and looks for its other parts; other boot code starts the
/// active partition.
fn boots_from(manifest: &Manifest, places: &[Place]) -> bool {
    let named = manifest.boot.linux.as_ref().map(|linux| linux.partition);
    let booted: Vec<u32> =
        manifest.partitions.iter().filter(|p| is_booted(p)).map(|p| p.number).chain(named).collect();
    let written = |place: &Place| place.replaced && (booted.is_empty() || booted.contains(&place.number));
    places.iter().any(written)
}

/// Does boot code in the first sector start this partition?
pub(crate) fn is_booted(p: &Partition) -> bool {
    match p.entry {
        Entry::Mbr { active, .. } => active,
        Entry::Gpt { .. } | Entry::None => p.role == Role::BiosBoot,
    }
}

fn guid_of(entry: &Entry) -> Option<Uuid> {
    match entry {
        Entry::Gpt { guid, .. } => Some(*guid),
        Entry::Mbr { .. } | Entry::None => None,
    }
}

/// Are two entries of the same scheme and partition type?
pub(crate) fn same_type(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (Entry::Gpt { kind: one, .. }, Entry::Gpt { kind: other, .. }) => one == other,
        (Entry::Mbr { kind: one, .. }, Entry::Mbr { kind: other, .. }) => one == other,
        _ => false,
    }
}

fn show_type(entry: &Entry) -> String {
    match entry {
        Entry::Gpt { kind, .. } => kind.to_string(),
        Entry::Mbr { kind, .. } => format!("{kind:02x} (MBR)"),
        Entry::None => "none".into(),
    }
}

/// Where a disk has headers of a GPT: the primary one, the backup that this one names, and the last sector.
fn gpt_headers(disk: &DiskFacts) -> Vec<u64> {
    let sector = u64::from(disk.sector.get());
    let old = disk.backup_gpt.and_then(|lba| lba.0.checked_mul(sector));
    let mut headers: Vec<u64> = [Some(sector), old, disk.size.checked_sub(sector)]
        .into_iter()
        .flatten()
        .filter(|at| at.checked_add(sector).is_some_and(|end| end <= disk.size))
        .collect();
    headers.sort_unstable();
    headers.dedup();
    headers
}

/// The ranges to wipe: everything by which the old system, a half-written new one, or a mixture could start.
fn wipes(places: &[Place], disk: &DiskFacts, mode: LayoutMode, gpt_headers: &[u64]) -> Vec<Range<u64>> {
    let replaced = places.iter().filter(|place| place.replaced);
    let mut ranges: Vec<Range<u64>> = replaced
        .flat_map(|place| {
            let (start, end) = (place.start.0, place.end());
            let room = place.room_end();
            // A filesystem that grows has two tails: labels at either would make another kind of it.
            let tail = (room > end).then(|| room - TAIL.min(place.room)..room);
            let own = [start..start + HEAD.min(place.size), end - TAIL.min(place.size)..end];
            own.into_iter().chain(tail)
        })
        .collect();
    if mode == LayoutMode::WholeDisk {
        // Boot code, MBR, primary GPT (of either sector size), the gap; backup GPT.
        ranges.push(0..HEAD.min(disk.size));
        ranges.push(disk.size.saturating_sub(HEAD)..disk.size);
        ranges.extend(gpt_headers.iter().map(|at| *at..at + u64::from(disk.sector.get())));
    }
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

mod facts;
#[cfg(test)]
mod tests;
