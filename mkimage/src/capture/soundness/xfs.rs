//! Is an XFS unmounted, complete on this partition, and not marked for repair?
//!
//! partclone maps an XFS with an unfinished log as if the log were replayed, so this check must find it.
//! Invariant: only reads.

/// Why it is unsound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// The log holds writes that are not yet in their place.
    Log,
    /// Log or realtime data lie on another device.
    Elsewhere,
    /// Marked as damaged, or unreadable.
    Damaged,
}

const LOG_MAGIC: u32 = 0xfeed_babe;
/// The log is counted in these.
const SECTOR: usize = 512;
/// Bytes of a record for each of its header sectors.
const HEADER_COVERS: u32 = 32 << 10;
const UNMOUNT: u8 = 0x20;
/// Bytes of one read.
const STEP: usize = 1 << 20;

/// Looks at the superblock in `start` and at the last record of the log (Linux, fs/xfs/libxfs/xfs_format.h
/// and xfs_log_format.h).
pub(super) fn problem(start: &[u8], read: impl Fn(u64, &mut [u8]) -> bool) -> Option<Problem> {
    let word = |at: usize| be32(start, at).map(u64::from);
    let long = |at: usize| Some(word(at)? << 32 | word(at + 4)?);
    let place = || {
        let (block, log_start, log_blocks) = (word(4)?, long(48)?, word(96)?);
        let (group_blocks, shift) = (word(84)?, u32::from(*start.get(124)?));
        let group = log_start.checked_shr(shift)?;
        let inside = log_start - group.checked_shl(shift)?;
        let at = group.checked_mul(group_blocks)?.checked_add(inside)?.checked_mul(block)?;
        Some((at, log_blocks.checked_mul(block)?))
    };
    let being_made = start.get(126).is_none_or(|byte| *byte != 0);
    // sb_features_incompat of version 5.
    let needs_repair =
        word(100).is_some_and(|v| v >> 16 & 0xf == 5) && word(216).is_some_and(|f| f & 0x10 != 0);
    if being_made || needs_repair {
        return Some(Problem::Damaged);
    }
    if long(48) == Some(0) || long(16) != Some(0) {
        return Some(Problem::Elsewhere);
    }
    let Some((at, len)) = place() else { return Some(Problem::Damaged) };
    match is_carried_out(at, len, read) {
        Some(true) => None,
        Some(false) => Some(Problem::Log),
        None => Some(Problem::Damaged),
    }
}

/// True if the log's last record is the one that unmounting writes. `None`: the log cannot be read.
fn is_carried_out(at: u64, len: u64, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<bool> {
    let mut step = vec![0; STEP];
    // Cycle, sector, operations, header sectors.
    let mut last: Option<(u32, u64, u32, u32)> = None;
    let mut done = 0;
    while done < len {
        let part = step.get_mut(..usize::try_from(len - done).map_or(STEP, |rest| rest.min(STEP)))?;
        if !read(at.checked_add(done)?, part) {
            return None;
        }
        for (sector, bytes) in (done / SECTOR as u64..).zip(part.chunks_exact(SECTOR)) {
            // A record names its own place, which tells it from data that looks like one.
            let is_here = be32(bytes, 20).map(u64::from) == Some(sector) && be32(bytes, 16) == be32(bytes, 4);
            if be32(bytes, 0) != Some(LOG_MAGIC) || !is_here {
                continue;
            }
            let (cycle, operations, size) = (be32(bytes, 4)?, be32(bytes, 40)?, be32(bytes, 320)?);
            if last.is_none_or(|(newest, newest_sector, ..)| (cycle, sector) > (newest, newest_sector)) {
                let headers = if be32(bytes, 8)? & 2 != 0 { size.div_ceil(HEADER_COVERS).max(1) } else { 1 };
                last = Some((cycle, sector, operations, headers));
            }
        }
        done += part.len() as u64;
    }
    // A log that was never written to.
    let Some((_, sector, operations, headers)) = last else { return Some(true) };
    let operation = (sector + u64::from(headers)) % (len / SECTOR as u64).max(1);
    let mut bytes = [0; SECTOR];
    read(at + operation * SECTOR as u64, &mut bytes).then_some(operations == 1 && bytes[9] & UNMOUNT != 0)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: u64 = 1 << 20;
    const LOG_LEN: usize = 64 << 10;

    fn superblock() -> Vec<u8> {
        let mut bytes = vec![0u8; 4096];
        for (at, value) in [(0, 0x5846_5342u32), (4, 4096), (52, 256), (84, 4096), (96, 16), (100, 5 << 16)] {
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        bytes[124] = 12;
        bytes
    }

    /// A log with records: sector, cycle, operations, flags of the first.
    fn log(records: &[(u32, u32, u32, u8)]) -> Vec<u8> {
        let mut log = vec![0u8; LOG_LEN];
        for (sector, cycle, operations, flags) in records {
            let start = *sector as usize * SECTOR;
            let fields = [
                (0, LOG_MAGIC),
                (4, *cycle),
                (8, 2),
                (16, *cycle),
                (20, *sector),
                (40, *operations),
                (320, 65536),
            ];
            for (at, value) in fields {
                log[start + at..start + at + 4].copy_from_slice(&value.to_be_bytes());
            }
            log[(start + 2 * SECTOR) % LOG_LEN + 9] = *flags;
        }
        log
    }

    fn found(superblock: &[u8], log: &[u8]) -> Option<Problem> {
        problem(superblock, |at, into| {
            let Some(start) = at.checked_sub(LOG).and_then(|start| usize::try_from(start).ok()) else {
                return false;
            };
            log.get(start..start + into.len()).is_some_and(|bytes| {
                into.copy_from_slice(bytes);
                true
            })
        })
    }

    #[test]
    fn only_a_log_that_ends_with_an_unmount_is_carried_out() {
        assert_eq!(found(&superblock(), &log(&[])), None);
        assert_eq!(found(&superblock(), &log(&[(0, 1, 1, UNMOUNT)])), None);
        assert_eq!(found(&superblock(), &log(&[(0, 1, 1, UNMOUNT), (8, 1, 5, 1)])), Some(Problem::Log));
        assert_eq!(found(&superblock(), &log(&[(0, 2, 5, 1), (8, 1, 1, UNMOUNT)])), Some(Problem::Log));
        // The last record lies at the end and wraps to the beginning.
        assert_eq!(found(&superblock(), &log(&[(8, 2, 5, 1), (126, 3, 1, UNMOUNT)])), None);
        // Data that looks like a record does not count.
        let mut looks = log(&[(0, 1, 1, UNMOUNT), (8, 9, 5, 1)]);
        looks[8 * SECTOR + 23] = 9;
        assert_eq!(found(&superblock(), &looks), None);
        assert_eq!(found(&superblock(), &[]), Some(Problem::Damaged));
    }

    #[test]
    fn what_lies_on_other_devices_or_wants_repair_is_told() {
        let with = |at: usize, value: u8| {
            let mut bytes = superblock();
            bytes[at] = value;
            found(&bytes, &log(&[]))
        };
        assert_eq!(with(54, 0), Some(Problem::Elsewhere));
        assert_eq!(with(23, 1), Some(Problem::Elsewhere));
        assert_eq!(with(126, 1), Some(Problem::Damaged));
        assert_eq!(with(219, 0x10), Some(Problem::Damaged));
        assert_eq!(found(&[], &[]), Some(Problem::Damaged));
    }
}
