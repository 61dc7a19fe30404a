//! Moves a partition behind a shrunk one towards the beginning of the overlay.
//!
//! Invariant: a partition moves only if nothing finds it by its place: partitions with data or swap of a GPT,
//! as on larger disks (`layout::plan::growth`). A Windows that starts from an MBR finds its partitions by
//! their places.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use flashmob::layout::traces::number;

use crate::capture::plan::PartitionPlan;

/// Bytes that are copied at once.
const STEP: usize = 1 << 20;
/// The field "hidden sectors" of a boot sector: the sectors before its partition.
const HIDDEN: usize = 28;

pub(super) fn named(partition: &PartitionPlan) -> String {
    format!("partition {}, which lies behind it, cannot be moved", partition.number)
}

/// Copies a partition to `by` bytes before its place. The error is for people.
pub(super) fn advance(disk: &File, partition: &PartitionPlan, by: u64, sector: u32) -> Result<(), String> {
    let cannot = |e: io::Error| e.to_string();
    let to = partition.start.checked_sub(by).ok_or("there is nothing before it")?;
    let mut buffer = vec![0; STEP];
    let mut done = 0;
    // Forwards, because the two places may overlap.
    while done < partition.size {
        let length = usize::try_from(partition.size - done).unwrap_or(STEP).min(STEP);
        let part = &mut buffer[..length];
        disk.read_exact_at(part, partition.start + done).map_err(cannot)?;
        disk.write_all_at(part, to + done).map_err(cannot)?;
        done += length as u64;
    }
    if partition.filesystem == Some("ntfs") {
        let last = partition.size - u64::from(sector);
        for at in [to, to + last] {
            correct_hidden(disk, at, partition.first.0, to / u64::from(sector)).map_err(cannot)?;
        }
    }
    Ok(())
}

/// Lets an NTFS's boot sector at `at` name its new place if it named the old one. Boot code for BIOS finds
/// the volume by it.
fn correct_hidden(disk: &File, at: u64, old: u64, new: u64) -> io::Result<()> {
    let mut boot = [0; 512];
    disk.read_exact_at(&mut boot, at)?;
    let is_ntfs = boot.get(3..11) == Some(b"NTFS    ");
    if is_ntfs
        && number(&boot, HIDDEN, 4) == Some(old)
        && let Ok(new) = u32::try_from(new)
    {
        boot[HIDDEN..HIDDEN + 4].copy_from_slice(&new.to_le_bytes());
        disk.write_all_at(&boot, at)?;
    }
    Ok(())
}
