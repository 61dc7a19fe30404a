//! FAT and exFAT: a write shows in the cluster table, in the allocation bitmap, or in the root folder.
//!
//! A mount alone leaves no trace, because unmounting clears the flag that it sets.

use super::untouched::{Doubt, Untouched, clear, number, prove_at_most};

/// Type of the entry in exFAT's root folder that gives the place of the allocation bitmap.
const EXFAT_MAP: u64 = 0x81;
const ENTRY: usize = 32;

/// FAT12, FAT16, FAT32.
pub(super) fn look(volume: &mut dyn Untouched, boot: &[u8]) -> Result<(), Doubt> {
    let of = |at: usize, len: usize| clear(number(boot, at, len));
    let sector = of(11, 2)?;
    let short = of(22, 2)?;
    let table = if short == 0 { of(36, 4)? } else { short };
    if sector < 512 || table == 0 {
        return Err(Doubt::Unclear);
    }
    let start = of(14, 2)? * sector;
    prove_at_most(volume, 0, start)?;
    prove_at_most(volume, start, table * sector)?;
    let root = of(16, 1)?.saturating_mul(table).saturating_mul(sector).saturating_add(start);
    if short != 0 {
        return prove_at_most(volume, root, of(17, 2)? * ENTRY as u64);
    }
    let cluster = of(13, 1)? * sector;
    let first = of(44, 4)?.saturating_sub(2);
    prove_at_most(volume, root.saturating_add(first.saturating_mul(cluster)), cluster)
}

/// exFAT, whose table has no entries of contiguous files; its bitmap has.
pub(super) fn look_exfat(volume: &mut dyn Untouched, boot: &[u8]) -> Result<(), Doubt> {
    let of = |at: usize, len: usize| clear(number(boot, at, len));
    let (sector, cluster) = (of(108, 1)?, of(108, 1)? + of(109, 1)?);
    if !(9..=12).contains(&sector) || cluster > 25 {
        return Err(Doubt::Unclear);
    }
    let (sector, cluster) = (1u64 << sector, 1u64 << cluster);
    prove_at_most(volume, of(80, 4)? * sector, of(84, 4)? * sector)?;
    let heap = of(88, 4)? * sector;
    let place = |number: u64| heap.saturating_add(number.saturating_sub(2).saturating_mul(cluster));
    let root = place(of(96, 4)?);
    prove_at_most(volume, root, cluster)?;
    let entries = volume.bytes(root, usize::try_from(cluster.min(64 << 10)).unwrap_or(ENTRY))?;
    let map = entries.chunks_exact(ENTRY).find(|entry| number(entry, 0, 1) == Some(EXFAT_MAP));
    let map = clear(map)?;
    prove_at_most(volume, place(clear(number(map, 20, 4))?), clear(number(map, 24, 8))?)
}
