//! The parts of a partition or logical volume that its filesystem uses, from partclone or from its own trees
//! (`btrfs`).
//!
//! Invariant: ranges that a map does not name count as used, so none that a filesystem needs is left out. A
//! filesystem that cannot be read is refused, never guessed at. Pages of memory in swap areas and paging
//! files count as unused. `soundness` checks filesystems, because partclone reads many unsound ones.

use std::process::{Command, Stdio};

use flashmob::event::Failure;

use super::backing::Backing;
use super::btrfs::{self, Extents};
use super::ranges::Used;
use super::{soundness, windows};

/// The header of a swap area: its page size is 4 KiB on x86.
const SWAP_HEADER: u64 = 4096;

/// The used ranges of the filesystem on a partition or volume.
pub(super) fn used(backing: &Backing<'_>) -> Result<Result<Used, String>, Failure> {
    match backing.filesystem {
        Some("ext4") if soundness::has_clusters(&backing.start()?) => {
            Ok(Err("partclone does not know the clusters of this ext4 (bigalloc)".into()))
        }
        Some("ext2" | "ext3" | "ext4") => by_partclone("partclone.extfs", backing),
        Some("ntfs") => {
            let used = by_partclone("partclone.ntfs", backing)?;
            let pages = windows::look(backing).pages;
            Ok(used.map(|used| used.without(&pages, backing.size())))
        }
        Some("vfat") => by_partclone("partclone.fat", backing),
        Some("exfat") => by_partclone("partclone.exfat", backing),
        Some("xfs") => by_partclone("partclone.xfs", backing),
        Some("f2fs") => by_partclone("partclone.f2fs", backing),
        Some("btrfs") => by_btrfs(backing),
        Some("swap") => {
            let header = 0..SWAP_HEADER.min(backing.size());
            Ok(Ok(Used::only(header)))
        }
        Some(other) => Ok(Err(format!("which blocks {other} uses cannot be known"))),
        None => Ok(Err("there is no known filesystem".into())),
    }
}

/// The refusal when a filesystem cannot be read.
fn cannot(backing: &Backing<'_>, what: &str) -> Failure {
    let (name, number) = (&backing.name, backing.partition);
    let advice = format!(
        "Check the filesystem (fsck, chkdsk) and capture again, or take the partition as it is with --raw \
         {number}."
    );
    Failure::refused(format!("{name}: {what}"), advice)
}

fn by_btrfs(backing: &Backing<'_>) -> Result<Result<Used, String>, Failure> {
    match btrfs::extents(backing.size(), |offset, into| backing.read(offset, into)) {
        Ok(Extents::Known(ranges)) => Ok(Ok(Used::of(ranges, backing.size()))),
        Ok(Extents::Unknown(why)) => Ok(Err(format!("which blocks this btrfs uses is not known: {why}"))),
        Err(why) => Err(cannot(backing, &format!("this btrfs cannot be read: {why}"))),
    }
}

fn by_partclone(program: &str, backing: &Backing<'_>) -> Result<Result<Used, String>, Failure> {
    let device = match backing.device() {
        Ok(device) => device,
        Err(why) => return Ok(Err(format!("free blocks are not known ({why})"))),
    };
    let cannot = |what: String| cannot(backing, &format!("{program} {what}"));
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
    Used::from_map(&text, backing.size()).map(Ok).map_err(|e| cannot(format!("wrote an unreadable map: {e}")))
}
