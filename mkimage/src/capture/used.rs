//! The parts of a partition that its filesystem uses, from partclone or from its own trees (`btrfs`).
//!
//! Invariant: ranges that a map does not name count as used, so none that a filesystem needs is left out. A
//! filesystem that cannot be read is refused, never guessed at. Pages of memory in swap areas and paging
//! files count as unused. `soundness` checks filesystems, because partclone reads many unsound ones.

use std::process::{Command, Stdio};

use flashmob::event::Failure;
use flashmob::manifest::Policy;

use super::btrfs::{self, Extents};
use super::plan::{PartitionPlan, Plan};
use super::ranges::Used;
use super::{soundness, windows};
use crate::loop_device::LoopDevice;
use crate::source::Source;

/// The header of a swap area: its page size is 4 KiB on x86.
const SWAP_HEADER: u64 = 4096;

/// Finds the used ranges of each partition to capture, except `raw` ones. Adds a remark for each.
pub(crate) fn look(source: &Source, plan: &mut Plan, raw: &[u32]) -> Result<(), Failure> {
    let known = |number: &u32| plan.partitions.iter().any(|p| p.number == *number);
    if let Some(number) = raw.iter().find(|number| !known(number)) {
        return Err(Failure::usage(
            format!("there is no partition {number} to take as it is on {}", source.path.display()),
            "List the partitions with `fdisk -l`.",
        ));
    }
    soundness::check_disk(source, plan, raw)?;
    plan.remarks.extend(soundness::firmware_raid(source).map(String::from));
    let mut found = Vec::new();
    for partition in &plan.partitions {
        if partition.policy == Policy::Keep {
            found.push(None);
            continue;
        }
        if raw.contains(&partition.number) {
            plan.remarks.push(format!("partition {} is taken as it is: all but zeros", partition.number));
            found.push(None);
            continue;
        }
        soundness::check(source, plan, partition)?;
        let used = used_of(source, partition)?;
        plan.remarks.extend(used.as_ref().err().map(|why| {
            format!("partition {}: {why}; all but zeros is taken, also deleted files", partition.number)
        }));
        found.push(used.ok());
    }
    plan.used = found;
    Ok(())
}

/// The used ranges of each partition of a disk, by number; partitions without a known map are left out.
pub(crate) fn known(source: &Source) -> Vec<(u32, Used)> {
    let Ok(plan) = super::plan::make(source, &[]) else { return Vec::new() };
    let used = |partition: &PartitionPlan| Some((partition.number, used_of(source, partition).ok()?.ok()?));
    plan.partitions.iter().filter_map(used).collect()
}

/// The inner error says why it cannot be known, where that is no reason to refuse.
fn used_of(source: &Source, partition: &PartitionPlan) -> Result<Result<Used, String>, Failure> {
    match partition.filesystem {
        Some("ext4") if has_clusters(source, partition)? => {
            Ok(Err("partclone does not know the clusters of this ext4 (bigalloc)".into()))
        }
        Some("ext2" | "ext3" | "ext4") => by_partclone("partclone.extfs", source, partition),
        Some("ntfs") => {
            let used = by_partclone("partclone.ntfs", source, partition)?;
            let pages = windows::look(source, partition).pages;
            Ok(used.map(|used| used.without(&pages, partition.size)))
        }
        Some("vfat") => by_partclone("partclone.fat", source, partition),
        Some("exfat") => by_partclone("partclone.exfat", source, partition),
        Some("xfs") => by_partclone("partclone.xfs", source, partition),
        Some("f2fs") => by_partclone("partclone.f2fs", source, partition),
        Some("btrfs") => by_btrfs(source, partition),
        Some("swap") => {
            let header = 0..SWAP_HEADER.min(partition.size);
            Ok(Ok(Used::only(header)))
        }
        Some(other) => Ok(Err(format!("which blocks {other} uses cannot be known"))),
        None => Ok(Err("there is no known filesystem".into())),
    }
}

fn has_clusters(source: &Source, partition: &PartitionPlan) -> Result<bool, Failure> {
    let mut start = vec![0; usize::try_from(partition.size.min(2048)).unwrap_or(0)];
    source.read(partition.start, &mut start)?;
    Ok(soundness::has_clusters(&start))
}

/// The refusal when a filesystem cannot be read.
fn cannot(partition: &PartitionPlan, what: &str) -> Failure {
    let number = partition.number;
    let advice = format!(
        "Check the filesystem (fsck, chkdsk) and capture again, or take the partition as it is with --raw \
         {number}."
    );
    Failure::refused(format!("partition {number}: {what}"), advice)
}

fn by_btrfs(source: &Source, partition: &PartitionPlan) -> Result<Result<Used, String>, Failure> {
    let read = |offset: u64, into: &mut [u8]| {
        let fits = offset.checked_add(into.len() as u64).is_some_and(|end| end <= partition.size);
        fits && source.read(partition.start + offset, into).is_ok()
    };
    match btrfs::extents(partition.size, read) {
        Ok(Extents::Known(ranges)) => Ok(Ok(Used::of(ranges, partition.size))),
        Ok(Extents::Unknown(why)) => Ok(Err(format!("which blocks this btrfs uses is not known: {why}"))),
        Err(why) => Err(cannot(partition, &format!("this btrfs cannot be read: {why}"))),
    }
}

fn by_partclone(
    program: &str,
    source: &Source,
    partition: &PartitionPlan,
) -> Result<Result<Used, String>, Failure> {
    let device = match LoopDevice::attach(&source.data(), partition.start, partition.size) {
        Ok(device) => device,
        Err(why) => return Ok(Err(format!("free blocks are not known ({why})"))),
    };
    let cannot = |what: String| cannot(partition, &format!("{program} {what}"));
    // A new folder each time: partclone adds to a map that is there.
    let folder = tempfile::tempdir().map_err(|e| cannot(format!("has no room for its map: {e}")))?;
    let (map, log) = (folder.path().join("map"), folder.path().join("log"));
    // Without `-f 0` partclone sleeps until its next line of progress is due, two seconds for each partition.
    let ran = Command::new(program)
        .args(["-D", "-q", "-f", "0"])
        .arg("-s")
        .arg(device.path())
        .arg("-o")
        .arg(&map)
        .arg("-L")
        .arg(&log)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let ran = match ran {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(format!("{program} is not installed (package partclone)")));
        }
        ran => ran.map_err(|e| cannot(format!("cannot be run: {e}")))?,
    };
    if !ran.success() {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        return Err(cannot(format!("cannot read the filesystem, it says: {}", last.trim())));
    }
    // Seen with partclone 0.3.23: clusters of files are missing from its map of a FAT12.
    if std::fs::read_to_string(&log).unwrap_or_default().contains("FAT12") {
        return Ok(Err("partclone's maps of FAT12 cannot be relied on".into()));
    }
    let text = std::fs::read_to_string(&map).map_err(|e| cannot(format!("left no map: {e}")))?;
    Used::from_map(&text, partition.size).map(Ok).map_err(|e| cannot(format!("wrote an unreadable map: {e}")))
}
