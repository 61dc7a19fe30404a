//! XFS (Linux, fs/xfs/libxfs/xfs_format.h and xfs_log_format.h).
//!
//! A mount that may write begins and ends with records in the log, which is a ring: the next record is
//! written at its head. An allocation changes the headers of its group.

use super::untouched::{Doubt, Untouched, clear, prove_at_most};

const LOG_MAGIC: u64 = 0xfeed_babe;
/// The log is counted in these. Each begins with the number of its round, or a mark and that number.
const SECTOR: u64 = 512;
/// Bytes of the largest record.
const RECORD: u64 = 256 << 10;
/// Groups whose headers are read.
const GROUPS: u64 = 64;
/// Sectors of headers at the beginning of a group.
const HEADERS: u64 = 4;

pub(super) fn look(volume: &mut dyn Untouched, superblock: &[u8]) -> Result<(), Doubt> {
    let block = big(superblock, 4, 4)?;
    let group_blocks = big(superblock, 84, 4)?;
    let bytes_of = |blocks: u64| blocks.checked_mul(block).ok_or(Doubt::Unclear);
    for group in 0..big(superblock, 88, 4)?.min(GROUPS) {
        let at = bytes_of(clear(group.checked_mul(group_blocks))?)?;
        prove_at_most(volume, at, HEADERS * big(superblock, 102, 2)?)?;
    }
    let start = big(superblock, 48, 8)?;
    let shift = u32::try_from(big(superblock, 124, 1)?).unwrap_or(u32::MAX);
    // Without a place the log is on another device.
    if start == 0 || shift > 31 {
        return Err(Doubt::Unclear);
    }
    let (group, inside) = (start >> shift, start & ((1 << shift) - 1));
    let log =
        bytes_of(clear(group.checked_mul(group_blocks).and_then(|blocks| blocks.checked_add(inside)))?)?;
    let sectors = bytes_of(big(superblock, 96, 4)?)? / SECTOR;
    if sectors == 0 || log.checked_add(sectors * SECTOR).is_none_or(|end| end > volume.size()) {
        return Err(Doubt::Unclear);
    }
    let head = head(volume, log, sectors)?;
    volume.prove(log + (head - 1) * SECTOR, SECTOR)?;
    let next = head % sectors;
    volume.prove(log + next * SECTOR, RECORD.min((sectors - next) * SECTOR))
}

/// The first sector of an older round than the log's first sector is of; how many there are if all are of
/// one.
fn head(volume: &mut dyn Untouched, log: u64, sectors: u64) -> Result<u64, Doubt> {
    let first = round(volume, log)?;
    let (mut same, mut other) = (0, sectors);
    while other - same > 1 {
        let middle = same + (other - same) / 2;
        if round(volume, log + middle * SECTOR)? == first {
            same = middle;
        } else {
            other = middle;
        }
    }
    Ok(other)
}

fn round(volume: &mut dyn Untouched, at: u64) -> Result<u64, Doubt> {
    let sector = volume.bytes(at, 8)?;
    match big(&sector, 0, 4)? {
        LOG_MAGIC => big(&sector, 4, 4),
        round => Ok(round),
    }
}

/// A big-endian number of up to 8 bytes.
fn big(bytes: &[u8], at: usize, len: usize) -> Result<u64, Doubt> {
    let bytes = clear(bytes.get(at..at + len))?;
    Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}
