//! The parts of a partition that its filesystem uses, from partclone or from its own trees (`btrfs`).
//!
//! Invariant: ranges that a map does not name count as used, so none that a filesystem needs is left out. A
//! filesystem that cannot be read is refused, never guessed at. Pages of memory in swap areas and paging
//! files count as unused. `soundness` checks filesystems, because partclone reads many unsound ones.

use std::ops::Range;
use std::process::{Command, Stdio};

use flashmob::event::{Class, Failure};
use flashmob::manifest::Policy;

use super::btrfs::{self, Extents};
use super::plan::{PartitionPlan, Plan};
use super::{soundness, windows};
use crate::loop_device::LoopDevice;
use crate::source::Source;

/// Boot loaders live here, although filesystems do not mark it as used (Btrfs leaves 64 KiB to them).
const BOOT_AREA: u64 = 64 << 10;
/// The header of a swap area: its page size is 4 KiB on x86.
const SWAP_HEADER: u64 = 4096;

/// Ranges of a partition that are used, in order, not touching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    ranges: Vec<Range<u64>>,
}

impl Used {
    /// Reads a ddrescue map of a partition of `size` bytes: lines `0xPOS 0xSIZE STATUS`, where `?` is free.
    fn from_map(text: &str, size: u64) -> Result<Self, String> {
        let mut free: Vec<Range<u64>> = Vec::new();
        let mut entries = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // One line says where a rescue stands; it has two fields.
            let &[start, len, status] = fields.as_slice() else { continue };
            let number = |text: &str| {
                let digits = text.strip_prefix("0x").unwrap_or_default();
                u64::from_str_radix(digits, 16).map_err(|_| format!("'{line}' is no line of a map"))
            };
            let (start, len) = (number(start)?, number(len)?);
            let end = start.checked_add(len).ok_or_else(|| format!("'{line}' ends beyond 2^64"))?;
            entries += 1;
            if status == "?" {
                free.push(start..end.min(size));
            }
        }
        if entries == 0 {
            return Err("the map is empty".into());
        }
        Ok(Used::all_but(free, size))
    }

    fn all_but(mut free: Vec<Range<u64>>, size: u64) -> Self {
        free.sort_unstable_by_key(|range| range.start);
        let (mut ranges, mut at) = (Vec::new(), 0);
        for range in free {
            let start = range.start.max(BOOT_AREA);
            if start > at && start < range.end {
                ranges.push(at..start);
            }
            if start < range.end {
                at = at.max(range.end);
            }
        }
        if at < size {
            ranges.push(at..size);
        }
        Used { ranges }
    }

    /// These ranges, in any order, and the boot area.
    fn of(mut used: Vec<Range<u64>>, size: u64) -> Self {
        used.push(0..BOOT_AREA.min(size));
        used.sort_unstable_by_key(|range| range.start);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in used {
            match ranges.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        Used { ranges }
    }

    /// The same without `unused`.
    fn without(&self, unused: &[Range<u64>], size: u64) -> Self {
        let mut free = unused.to_vec();
        let mut at = 0;
        for range in &self.ranges {
            free.push(at..range.start);
            at = range.end;
        }
        free.push(at..size);
        Used::all_but(free, size)
    }

    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Is nothing of `start..start + len` used?
    pub fn is_free(&self, start: u64, len: u64) -> bool {
        let first = self.ranges.partition_point(|range| range.end <= start);
        self.ranges.get(first).is_none_or(|range| range.start >= start + len)
    }

    /// The unused ranges inside units of `unit` bytes that are partly used, in order, not touching.
    pub fn edges(&self, unit: u64, size: u64) -> Vec<Range<u64>> {
        let ends = std::iter::once(0).chain(self.ranges.iter().map(|range| range.end));
        let starts = self.ranges.iter().map(|range| range.start).chain(std::iter::once(size));
        let mut edges = Vec::new();
        for (gap_start, gap_end) in ends.zip(starts) {
            let first = gap_start.next_multiple_of(unit).min(gap_end);
            let last = if gap_end == size { gap_end } else { gap_end - gap_end % unit };
            if first >= last {
                edges.push(gap_start..gap_end);
            } else {
                edges.extend([gap_start..first, last..gap_end]);
            }
        }
        edges.retain(|edge| edge.start < edge.end);
        edges
    }

    /// Fills the unused ranges of `bytes`, which begin at `start`, with zeros.
    pub fn mask(&self, start: u64, bytes: &mut [u8]) {
        let end = start + bytes.len() as u64;
        let first = self.ranges.partition_point(|range| range.end <= start);
        let mut clean = start;
        let inside = |at: u64| usize::try_from(at.clamp(start, end) - start).unwrap_or(bytes.len());
        let mut gaps = Vec::new();
        for range in self.ranges[first..].iter().take_while(|range| range.start < end) {
            gaps.push(inside(clean)..inside(range.start));
            clean = range.end;
        }
        gaps.push(inside(clean)..inside(end));
        gaps.into_iter().filter(|gap| gap.start < gap.end).for_each(|gap| bytes[gap].fill(0));
    }
}

/// Finds the used ranges of each partition to capture, except `raw` ones. Adds a remark for each.
pub fn look(source: &Source, plan: &mut Plan, raw: &[u32]) -> Result<(), Failure> {
    let known = |number: &u32| plan.partitions.iter().any(|p| p.number == *number);
    if let Some(number) = raw.iter().find(|number| !known(number)) {
        return Err(Failure::new(
            Class::Usage,
            format!("there is no partition {number} to take as it is on {}", source.path.display()),
            "See with `fdisk -l` what partitions there are.",
        ));
    }
    soundness::check_disk(source, plan, raw)?;
    plan.remarks.extend(soundness::firmware_raid(source).map(String::from));
    let mut found = Vec::new();
    for partition in &plan.partitions {
        if partition.policy == Policy::Keep {
            found.push(None);
            continue;
        }
        if raw.contains(&partition.number) {
            plan.remarks.push(format!("partition {} is taken as it is: all but zeros", partition.number));
            found.push(None);
            continue;
        }
        soundness::check(source, plan, partition)?;
        let used = used_of(source, partition)?;
        plan.remarks.extend(used.as_ref().err().map(|why| {
            format!("partition {}: {why}; all but zeros is taken, also deleted files", partition.number)
        }));
        found.push(used.ok());
    }
    plan.used = found;
    Ok(())
}

/// The used ranges of each partition of a disk, by number; partitions without a known map are left out.
pub fn known(source: &Source) -> Vec<(u32, Used)> {
    let Ok(plan) = super::plan::make(source, &[]) else { return Vec::new() };
    let used = |partition: &PartitionPlan| Some((partition.number, used_of(source, partition).ok()?.ok()?));
    plan.partitions.iter().filter_map(used).collect()
}

/// The inner error says why it cannot be known, where that is no reason to refuse.
fn used_of(source: &Source, partition: &PartitionPlan) -> Result<Result<Used, String>, Failure> {
    match partition.filesystem {
        Some("ext4") if has_clusters(source, partition)? => {
            Ok(Err("partclone does not know the clusters of this ext4 (bigalloc)".into()))
        }
        Some("ext2" | "ext3" | "ext4") => by_partclone("partclone.extfs", source, partition),
        Some("ntfs") => {
            let used = by_partclone("partclone.ntfs", source, partition)?;
            let pages = windows::look(source, partition).pages;
            Ok(used.map(|used| used.without(&pages, partition.size)))
        }
        Some("vfat") => by_partclone("partclone.fat", source, partition),
        Some("exfat") => by_partclone("partclone.exfat", source, partition),
        Some("xfs") => by_partclone("partclone.xfs", source, partition),
        Some("f2fs") => by_partclone("partclone.f2fs", source, partition),
        Some("btrfs") => by_btrfs(source, partition),
        Some("swap") => {
            let header = 0..SWAP_HEADER.min(partition.size);
            Ok(Ok(Used { ranges: std::iter::once(header).collect() }))
        }
        Some(other) => Ok(Err(format!("which blocks {other} uses cannot be known"))),
        None => Ok(Err("there is no known filesystem".into())),
    }
}

fn has_clusters(source: &Source, partition: &PartitionPlan) -> Result<bool, Failure> {
    let mut start = vec![0; usize::try_from(partition.size.min(2048)).unwrap_or(0)];
    source.read(partition.start, &mut start)?;
    Ok(soundness::has_clusters(&start))
}

/// The refusal when a filesystem cannot be read.
fn cannot(partition: &PartitionPlan, what: &str) -> Failure {
    let number = partition.number;
    let advice = format!(
        "Check the filesystem (fsck, chkdsk) and capture again, or take the partition as it is with --raw {number}."
    );
    Failure::new(Class::Refused, format!("partition {number}: {what}"), advice)
}

fn by_btrfs(source: &Source, partition: &PartitionPlan) -> Result<Result<Used, String>, Failure> {
    let read = |offset: u64, into: &mut [u8]| {
        let fits = offset.checked_add(into.len() as u64).is_some_and(|end| end <= partition.size);
        fits && source.read(partition.start + offset, into).is_ok()
    };
    match btrfs::extents(partition.size, read) {
        Ok(Extents::Known(ranges)) => Ok(Ok(Used::of(ranges, partition.size))),
        Ok(Extents::Unknown(why)) => Ok(Err(format!("which blocks this btrfs uses is not known: {why}"))),
        Err(why) => Err(cannot(partition, &format!("this btrfs cannot be read: {why}"))),
    }
}

fn by_partclone(
    program: &str,
    source: &Source,
    partition: &PartitionPlan,
) -> Result<Result<Used, String>, Failure> {
    let device = match LoopDevice::attach(&source.data(), partition.start, partition.size) {
        Ok(device) => device,
        Err(why) => return Ok(Err(format!("free blocks are not known ({why})"))),
    };
    let cannot = |what: String| cannot(partition, &format!("{program} {what}"));
    // A new folder each time: partclone adds to a map that is there.
    let folder = tempfile::tempdir().map_err(|e| cannot(format!("has no room for its map: {e}")))?;
    let (map, log) = (folder.path().join("map"), folder.path().join("log"));
    // Without `-f 0` partclone sleeps until its next line of progress is due, two seconds for each partition.
    let ran = Command::new(program)
        .args(["-D", "-q", "-f", "0"])
        .arg("-s")
        .arg(device.path())
        .arg("-o")
        .arg(&map)
        .arg("-L")
        .arg(&log)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let ran = match ran {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(format!("{program} is not installed (package partclone)")));
        }
        ran => ran.map_err(|e| cannot(format!("cannot be run: {e}")))?,
    };
    if !ran.success() {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        return Err(cannot(format!("cannot read the filesystem, it says: {}", last.trim())));
    }
    // Seen with partclone 0.3.23: clusters of files are missing from its map of a FAT12.
    if std::fs::read_to_string(&log).unwrap_or_default().contains("FAT12") {
        return Ok(Err("partclone's maps of FAT12 cannot be relied on".into()));
    }
    let text = std::fs::read_to_string(&map).map_err(|e| cannot(format!("left no map: {e}")))?;
    Used::from_map(&text, partition.size).map(Ok).map_err(|e| cannot(format!("wrote an unreadable map: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "# Domain logfile\n0x03FFF000     ?\n#      pos        size  status\n\
        0x00000000  0x00014000  +\n0x00014000  0x00004800  ?\n0x00018800  0x00001000  +\n0x00019800 0x6800 ?\n";

    #[test]
    fn what_a_map_does_not_name_is_used() {
        let used = Used::from_map(MAP, 0x30000).expect("a map");
        assert_eq!(used.ranges, [0..0x14000, 0x18800..0x19800, 0x20000..0x30000]);
        assert_eq!(used.bytes(), 0x14000 + 0x1000 + 0x10000);
        assert!(used.is_free(0x14000, 0x4800) && !used.is_free(0x14000, 0x4801) && !used.is_free(0, 1));
        assert!(Used::from_map("# nothing\n", 4096).is_err());
        assert!(Used::from_map("0xZZ 0x10 +\n", 4096).is_err());
        assert!(Used::from_map("0xffffffffffffffff 0xff ?\n", 4096).is_err());
    }

    #[test]
    fn named_ranges_are_put_in_order_and_pages_of_memory_are_taken_out() {
        let used =
            Used::of(vec![0x40000..0x50000, 0x20000..0x30000, 0x2f000..0x40000, 0x60000..0x61000], 1 << 20);
        assert_eq!(used.ranges, [0..BOOT_AREA, 0x20000..0x50000, 0x60000..0x61000]);
        let without = used.without(&[0x48000..0x60800, 0x21000..0x22000, 0..0x1000], 1 << 20);
        assert_eq!(without.ranges, [0..BOOT_AREA, 0x20000..0x21000, 0x22000..0x48000, 0x60800..0x61000]);
    }

    #[test]
    fn the_boot_area_is_always_used() {
        let used = Used::from_map("0x0 0x20000 ?\n0x20000 0x1000 +", 0x21000).expect("a map");
        assert_eq!(used.ranges, [0..BOOT_AREA, 0x20000..0x21000]);
        let used = Used::from_map("0x0 0x8000 ?\n0x8000 0x1000 +", 0x9000).expect("a map");
        assert_eq!(used.ranges, std::slice::from_ref(&(0..0x9000)));
    }

    #[test]
    fn edges_are_what_is_free_of_units_that_are_used_in_part() {
        let (unit, size) = (0x1000, 0x5800);
        let used = Used { ranges: vec![0..0x800, 0xa00..0x1200, 0x4100..0x4200] };
        let edges = used.edges(unit, size);
        assert_eq!(edges, [0x800..0xa00, 0x1200..0x2000, 0x4000..0x4100, 0x4200..0x5000]);
        let mut bytes = vec![1; 0x5800];
        used.mask(0, &mut bytes);
        for (number, unit) in bytes.chunks(0x1000).enumerate() {
            for (at, byte) in (number as u64 * 0x1000..).zip(unit) {
                let edge = edges.iter().any(|edge| edge.contains(&at));
                assert_eq!(edge, *byte == 0 && unit.contains(&1), "{at:#x}");
            }
        }
    }

    #[test]
    fn what_is_free_is_masked_wherever_a_read_begins() {
        let used = Used::from_map(MAP, 0x30000).expect("a map");
        for (start, len) in
            [(0u64, 0x30000usize), (0x14000, 0x4000), (0x13fff, 2), (0x17fff, 0x2002), (0x19fff, 2)]
        {
            let mut bytes = vec![1u8; len];
            used.mask(start, &mut bytes);
            for (at, byte) in (start..).zip(&bytes) {
                let is_used = used.ranges.iter().any(|range| range.contains(&at));
                assert_eq!(*byte == 1, is_used, "{at:#x} of {start:#x}");
            }
        }
    }
}
