//! Ranges of a partition that its filesystem uses: their algebra.
//!
//! Invariant: ranges are in order and do not touch; ranges that a map does not name count as used.

use std::ops::Range;

/// Boot loaders live here, although filesystems do not mark it as used (Btrfs leaves 64 KiB to them).
pub(super) const BOOT_AREA: u64 = 64 << 10;

/// Ranges of a partition that are used, in order, not touching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    ranges: Vec<Range<u64>>,
}

impl Used {
    /// Reads a ddrescue map of a partition of `size` bytes: lines `0xPOS 0xSIZE STATUS`, where `?` is free.
    pub(super) fn from_map(text: &str, size: u64) -> Result<Self, String> {
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

    /// This range and nothing else.
    pub(super) fn only(range: Range<u64>) -> Self {
        Used { ranges: std::iter::once(range).collect() }
    }

    pub(super) fn all_but(mut free: Vec<Range<u64>>, size: u64) -> Self {
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
    pub(super) fn of(mut used: Vec<Range<u64>>, size: u64) -> Self {
        used.push(0..BOOT_AREA.min(size));
        used.retain(|range| range.start < range.end);
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
    pub(super) fn without(&self, unused: &[Range<u64>], size: u64) -> Self {
        let mut free = unused.to_vec();
        let mut at = 0;
        for range in &self.ranges {
            free.push(at..range.start);
            at = range.end;
        }
        free.push(at..size);
        Used::all_but(free, size)
    }

    pub(super) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether `start..start + len` is unused.
    pub(crate) fn is_free(&self, start: u64, len: u64) -> bool {
        let first = self.ranges.partition_point(|range| range.end <= start);
        self.ranges.get(first).is_none_or(|range| range.start >= start + len)
    }

    /// The used ranges inside `start..start + len`, with the unused ones between them that are shorter than
    /// `gap`.
    pub(crate) fn inside(&self, start: u64, len: u64, gap: u64) -> Vec<Range<u64>> {
        let end = start + len;
        let first = self.ranges.partition_point(|range| range.end <= start);
        let mut inside: Vec<Range<u64>> = Vec::new();
        for range in self.ranges[first..].iter().take_while(|range| range.start < end) {
            let range = range.start.max(start)..range.end.min(end);
            match inside.last_mut() {
                Some(last) if range.start - last.end < gap => last.end = range.end,
                _ => inside.push(range),
            }
        }
        inside
    }

    /// The unused ranges inside units of `unit` bytes that are partly used, in order, not touching.
    pub(crate) fn edges(&self, unit: u64, size: u64) -> Vec<Range<u64>> {
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
    pub(crate) fn mask(&self, start: u64, bytes: &mut [u8]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "# Domain logfile\n0x03FFF000     ?\n#      pos        size  status\n\
        0x00000000  0x00014000  +\n0x00014000  0x00004800  ?\n0x00018800  0x00001000  +\n0x00019800 0x6800 \
        ?\n";

    #[test]
    fn used_ranges_inside_a_range_are_joined_over_small_gaps() {
        let used = Used::of(vec![0x20000..0x21000, 0x22000..0x23000, 0x40000..0x50000], 1 << 20);
        assert_eq!(
            used.inside(0, 1 << 20, 1),
            [0..0x10000, 0x20000..0x21000, 0x22000..0x23000, 0x40000..0x50000]
        );
        assert_eq!(used.inside(0, 1 << 20, 0x1001), [0..0x10000, 0x20000..0x23000, 0x40000..0x50000]);
        assert_eq!(used.inside(0x20800, 0x28000, 0x1001), [0x20800..0x23000, 0x40000..0x48800]);
        assert_eq!(used.inside(0x30000, 0x1000, 1), []);
    }

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
