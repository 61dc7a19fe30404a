//! ext2, ext3 and ext4 (Linux, fs/ext4/ext4.h).
//!
//! Each mount counts itself in the superblock and writes the time there; the first transaction writes the
//! head of the journal; an allocation changes the descriptors of its group.

use super::untouched::{Doubt, Untouched, clear, number, prove_at_most};

const HAS_JOURNAL: u64 = 0x4;
const WIDE: u64 = 0x80;
/// Flag of an inode with an extent tree.
const EXTENTS: u64 = 0x8_0000;
const EXTENT_MAGIC: u64 = 0xf30a;
/// A tree is not deeper.
const DEPTH: u64 = 5;

pub(super) fn look(volume: &mut dyn Untouched, superblock: &[u8]) -> Result<(), Doubt> {
    let of = |at: usize, len: usize| clear(number(superblock, at, len));
    let shift = of(24, 4)?;
    if shift > 6 {
        return Err(Doubt::Unclear);
    }
    let block = 1024u64 << shift;
    let wide = of(96, 4)? & WIDE != 0;
    let descriptor = if wide { of(254, 2)?.max(32) } else { 32 };
    let table = of(20, 4)?.saturating_add(1).saturating_mul(block);
    let (blocks, per_group) = (of(4, 4)?, of(32, 4)?.max(1));
    prove_at_most(volume, table, blocks.div_ceil(per_group).saturating_mul(descriptor))?;
    let inode = of(224, 4)?;
    // Without a number the journal is on another device.
    if of(92, 4)? & HAS_JOURNAL == 0 || inode == 0 {
        return Ok(());
    }
    // The journal's inode is one of the first, so it is in the first group.
    let inode_size = if of(76, 4)? == 0 { 128 } else { of(88, 2)? };
    let first = volume.bytes(table, 64)?;
    let low = clear(number(&first, 8, 4))?;
    let high = if wide && descriptor >= 64 { clear(number(&first, 40, 4))? } else { 0 };
    let at = (high << 32 | low).saturating_mul(block).saturating_add((inode - 1).saturating_mul(inode_size));
    let inode = volume.bytes(at, 128)?;
    let start = match clear(number(&inode, 32, 4))? & EXTENTS {
        0 => clear(number(&inode, 40, 4))?,
        _ => first_of_extents(volume, &inode[40..100], block)?,
    };
    if start == 0 {
        return Err(Doubt::Unclear);
    }
    volume.prove(start.saturating_mul(block), block)
}

/// The block where a file with this root of its extents begins.
fn first_of_extents(volume: &mut dyn Untouched, root: &[u8], block: u64) -> Result<u64, Doubt> {
    let mut node = root.to_vec();
    for _ in 0..=DEPTH {
        let of = |at: usize, len: usize| clear(number(&node, at, len));
        if of(0, 2)? != EXTENT_MAGIC || of(2, 2)? == 0 {
            return Err(Doubt::Unclear);
        }
        if of(6, 2)? == 0 {
            return Ok(of(18, 2)? << 32 | of(20, 4)?);
        }
        let below = of(20, 2)? << 32 | of(16, 4)?;
        node = volume.bytes(below.saturating_mul(block), 64)?;
    }
    Err(Doubt::Unclear)
}
