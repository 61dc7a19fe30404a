//! Believing a record: the disk is said to have a version of an image, so that only the difference of two manifests has to
//! be fetched.
//!
//! Invariant: nothing is read but the first piece of each partition. These must be the record's: a system that was used
//! has changed at least one of them (mount counts, logs), one that a restore card has reset has not. What else was
//! changed on the disk behind flashmob's back is not seen here.

use std::ops::Range;

use crate::io::compare::cells::hash_of;
use crate::io::disk::{Aligned, Disk};
use crate::layout::grid::Grid;
use crate::layout::plan::{Existing, LayoutPlan};
use crate::layout::present::{Present, Version};
use crate::units::Sha256;

/// What of the image of `plan` and `grid` is on `disk`, if `old` is what it has; else why that cannot be believed.
pub fn believe(
    disk: &Disk,
    plan: &LayoutPlan,
    existing: &Result<Existing, String>,
    grid: &Grid,
    hashes: &[Sha256],
    old: &Version<'_>,
) -> Result<Present, String> {
    old.fits(existing, plan, grid)?;
    let length = grid.piece_length();
    let mut buffer = Aligned::zeroed(length.get() as usize);
    for (Range { start, end }, hash) in old.heads() {
        let len = usize::try_from(end - start).unwrap_or(usize::MAX).min(buffer.bytes().len());
        let bytes = &mut buffer.bytes_mut()[..len];
        disk.read_at(start, bytes).map_err(|error| error.to_string())?;
        if hash_of(bytes, length) != Some(hash) {
            return Err(format!("the disk was changed at byte {start}"));
        }
    }
    Ok(old.difference(plan, grid, hashes))
}
