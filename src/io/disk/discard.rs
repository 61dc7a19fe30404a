//! Tells a disk which ranges it no longer needs to keep.
//!
//! Invariant: only bytes of partitions that the plan replaces, and none that the disarm has wiped: a device
//! may return old content of a discarded range, and no system must start from it. A discarded range counts as
//! unknown, never as zero. A device that refuses is left alone; nothing depends on it.

use std::ops::Range;

use crate::io::disk::target::ImageStorage;

/// Bytes of one request; between requests the work may be stopped.
const STEP: u64 = 1 << 30;

/// The ranges to discard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// The replaced partitions completely: they hold no piece of the image yet.
    All,
    /// The free cells, because all others may have been found to be right.
    Free,
}

/// Discards; gives the bytes that the device took.
pub fn discard(storage: &ImageStorage, what: Discard, go_on: impl Fn() -> bool) -> u64 {
    let mut done = 0;
    for range in merged(ranges(storage, what), storage.plan().wipes()) {
        let mut at = range.start;
        while at < range.end && go_on() {
            let length = (range.end - at).min(STEP);
            if let Err(error) = storage.disk().discard(at, length) {
                log::info!("nothing more is discarded: {error}");
                return done;
            }
            at += length;
            done += length;
        }
    }
    done
}

fn ranges(storage: &ImageStorage, what: Discard) -> Vec<Range<u64>> {
    let plan = storage.plan();
    match what {
        Discard::All => {
            let replaced = plan.places().iter().filter(|place| place.replaced);
            replaced.map(|place| place.start.0..place.end()).collect()
        }
        Discard::Free => {
            let free = storage.grid().free_cells().filter(|span| plan.replaces(span.partition));
            free.filter_map(|span| plan.range_of(&span)).collect()
        }
    }
}

/// Merges neighbours, in order, and cuts out the ranges in `without` (in order too).
fn merged(ranges: Vec<Range<u64>>, without: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut together: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match together.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => together.push(range),
        }
    }
    let mut left = Vec::new();
    for range in together {
        let mut at = range.start;
        for hole in without.iter().filter(|hole| hole.start < range.end && range.start < hole.end) {
            left.push(at..hole.start.max(at));
            at = at.max(hole.end);
        }
        left.push(at..range.end.max(at));
    }
    left.retain(|range| !range.is_empty());
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_request_and_wiped_bytes_are_in_none() {
        let ranges = vec![0..10, 10..20, 30..40, 50..60];
        assert_eq!(merged(ranges.clone(), &[]), [0..20, 30..40, 50..60]);
        assert_eq!(merged(ranges, &[0..4, 12..32, 36..38, 50..60]), [4..12, 32..36, 38..40]);
    }
}
