//! A range of the payload, cut where one piece or one file ends and the next begins.
//!
//! Invariant: the cuts of a range follow one another without gaps and are together as long as it; none
//! crosses a multiple of the length at which it is cut.

use crate::storage::StorageError;

/// The part of a range between two multiples of a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Index of the part, from 0.
    pub(super) index: u64,
    /// Offset in the part.
    pub(super) inside: u64,
    pub(super) length: u64,
}

/// Cuts `offset..offset + length` at the multiples of `every`, which is not 0.
pub(super) fn cuts(every: u64, offset: u64, length: u64) -> impl Iterator<Item = Cut> {
    let end = offset.saturating_add(length);
    let mut at = offset;
    std::iter::from_fn(move || {
        let inside = at % every;
        let length = (every - inside).min(end - at);
        let cut = Cut { index: at / every, inside, length };
        at += length;
        (length > 0).then_some(cut)
    })
}

/// Reads `offset..offset + into.len()` cut by cut: `each` gets the index, the offset in it, and the buffer to
/// fill.
pub(super) fn read_cuts(
    every: u64,
    offset: u64,
    into: &mut [u8],
    mut each: impl FnMut(u64, u64, &mut [u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut rest = into;
    for cut in cuts(every, offset, rest.len() as u64) {
        // It lies in memory, so its length fits.
        let here = usize::try_from(cut.length).unwrap_or(rest.len());
        let (now, later) = rest.split_at_mut(here);
        each(cut.index, cut.inside, now)?;
        rest = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(every: u64, offset: u64, length: u64) -> Vec<(u64, u64, u64)> {
        cuts(every, offset, length).map(|cut| (cut.index, cut.inside, cut.length)).collect()
    }

    #[test]
    fn a_range_is_cut_at_each_multiple_and_nowhere_else() {
        assert_eq!(of(4, 6, 9), [(1, 2, 2), (2, 0, 4), (3, 0, 3)]);
        assert_eq!(of(4, 4, 4), [(1, 0, 4)]);
        assert_eq!(of(4, 5, 2), [(1, 1, 2)]);
        assert_eq!(of(4, 7, 0), []);
    }

    #[test]
    fn what_is_read_fills_the_memory_in_order() {
        let mut into = [0; 9];
        read_cuts(4, 6, &mut into, |index, _, part| {
            part.fill(u8::try_from(index).unwrap());
            Ok(())
        })
        .unwrap();
        assert_eq!(into, [1, 1, 2, 2, 2, 2, 3, 3, 3]);
    }
}
