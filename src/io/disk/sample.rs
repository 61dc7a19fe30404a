//! A sample of a disk's read speed.
//!
//! Invariant: reads only, past all caches, and ends after [`TIME`] and one more request.

use std::time::{Duration, Instant};

use crate::buf::AlignedBuf;
use crate::io::storage::device::Disk;
use crate::storage::StorageError;

/// Bytes of one read, large enough that a rotating disk reads more than it seeks.
const CHUNK: usize = 4 << 20;
/// Reads in all, spread over the disk, because a worn or failing area is slow in itself.
const READS: u64 = 64;
/// The sample ends after this time.
const TIME: Duration = Duration::from_secs(3);

/// Bytes a second that the disk delivers; `None` if it is too small to say.
pub(crate) fn read_speed(disk: &Disk) -> Result<Option<u64>, StorageError> {
    let length = CHUNK as u64;
    if disk.size() < 4 * length {
        return Ok(None);
    }
    let mut buffer = AlignedBuf::zeroed(CHUNK);
    let begun = Instant::now();
    let mut bytes = 0u64;
    for offset in places(disk.size()) {
        disk.read_at(offset, &mut buffer)?;
        bytes += length;
        if begun.elapsed() >= TIME {
            break;
        }
    }
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    Ok(Some(bytes.saturating_mul(1_000_000) / micros))
}

/// Where chunks are read on a disk of this size: from its beginning to its end, or each of them once.
fn places(size: u64) -> impl Iterator<Item = u64> {
    let chunks = size / CHUNK as u64;
    let reads = READS.min(chunks);
    (0..reads).map(move |i| (chunks - 1) * i / (reads - 1).max(1) * CHUNK as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_goes_from_the_beginning_to_the_end_of_the_disk() {
        let size = 1 << 40;
        let all: Vec<u64> = places(size).collect();
        assert_eq!((all.len(), all[0], all[63]), (64, 0, size - CHUNK as u64));
        assert!(all.is_sorted() && all.iter().all(|place| place.is_multiple_of(CHUNK as u64)));
        let few: Vec<u64> = places(20 << 20).collect();
        assert_eq!(few, [0, 4 << 20, 8 << 20, 12 << 20, 16 << 20]);
    }
}
