//! `--shrink`: an image that fits smaller disks than the golden one.
//!
//! A partition's filesystem is shrunk by its own tools on a temporary overlay (`View::overlay`), what lies
//! behind it is moved there (`behind`), and the overlay is captured in place of the source. Invariant:
//! nothing is written to the source; it stays claimed, and is only read, as long as the overlay is there.

mod behind;
mod filesystems;
mod table;

use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use flashmob::event::Failure;
use flashmob::manifest::{Entry, Policy, Role, Table};
use flashmob::units::{parse_bytes, show_bytes};

use super::grow;
use super::plan::{self, PartitionPlan, Plan};
use super::soundness;
use crate::keys::file_failure;
use crate::loop_device::LoopDevice;
use crate::source::Source;
use crate::view::View;
use table::Moved;

/// A shrunk partition ends at a multiple of this behind its start.
const GRAIN: u64 = 1 << 20;
/// The least free room where the person names none.
const LEAST_ROOM: u64 = 64 << 20;
/// The name of the overlay in its folder.
const OVERLAY: &str = "overlay.qcow2";

/// Free bytes that a shrunk filesystem keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// A tenth of what is in use.
    Usual,
    Bytes(u64),
}

impl FromStr for Room {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Room::Usual),
            text => parse_bytes(text).map(Room::Bytes),
        }
    }
}

impl Room {
    fn beside(self, used: u64) -> u64 {
        match self {
            Room::Usual => (used / 10).max(LEAST_ROOM),
            Room::Bytes(bytes) => bytes,
        }
    }
}

/// A source whose last partition that can be is shrunk as far as `room` allows. `keep` and `raw` are the
/// partitions that nobody looks into.
pub(super) fn shrink(source: Source, room: Room, keep: &[u32], raw: &[u32]) -> Result<Source, Failure> {
    let before = plan::make(&source, keep)?;
    let (target, behind) = target(&source.path, &before, raw)?;
    soundness::check(&source, &before, target)?;
    let (overlay, folder) = overlay(&source)?;
    let shrunk = shrunk(&source, &overlay, target, room)?;
    if shrunk >= target.size {
        eprintln!(
            "note: partition {} is not shrunk: all of its {} are needed",
            target.number,
            show_bytes(target.size)
        );
        return Ok(source);
    }
    let path = overlay.path();
    let file = File::options().read(true).write(true).open(&path);
    let file = file.map_err(|e| file_failure("opening", &path, &e))?;
    // Whole mebibytes, so that what lies behind stays aligned.
    let gain = (target.size - shrunk) / GRAIN * GRAIN;
    let sector = source.sector_size.get();
    let mut moved = vec![Moved { partition: target, start: target.start, size: shrunk }];
    for partition in &behind {
        behind::advance(&file, partition, gain, sector)
            .map_err(|why| cannot(&source, target, &format!("{}: {why}", behind::named(partition))))?;
        moved.push(Moved { partition, start: partition.start - gain, size: partition.size });
    }
    table::rewrite(&file, sector, &before.table, &moved)
        .map_err(|why| cannot(&source, target, &format!("the partition table cannot be changed: {why}")))?;
    file.sync_all().map_err(|e| file_failure("writing", &path, &e))?;
    let (old, new) = (show_bytes(target.size), show_bytes(shrunk));
    let number = target.number;
    let numbers: Vec<String> = behind.iter().map(|p| p.number.to_string()).collect();
    if !numbers.is_empty() {
        eprintln!("note: partition {} behind it moves towards it in the image", numbers.join(", "));
    }
    let source = source.overlaid(overlay, folder)?;
    let after = plan::make(&source, keep)?;
    eprintln!(
        "note: partition {number} is shrunk from {old} to {new} in the image, which fits disks of {} and \
         more; the source stays as it is",
        show_bytes(after.minimum_size)
    );
    Ok(source)
}

/// The partition to shrink, and those behind it, by their places: the last one but for those that may move.
fn target<'a>(
    path: &Path,
    plan: &'a Plan,
    raw: &[u32],
) -> Result<(&'a PartitionPlan, Vec<&'a PartitionPlan>), Failure> {
    let refused = |message: String, advice: &str| Err(Failure::refused(message, advice));
    let path = path.display();
    if plan.table == Table::None {
        return refused(
            format!("{path} has no partition table, and --shrink makes its last partition smaller"),
            "Leave out --shrink, or capture the whole disk.",
        );
    }
    let mut partitions: Vec<&PartitionPlan> = plan.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.start);
    let Some(end) = partitions.last() else {
        return refused(format!("{path} has no partitions"), "Check that it is the disk that you mean.");
    };
    let can =
        |p: &PartitionPlan| !grow::is_recovery(&p.entry) && p.filesystem.is_some_and(filesystems::is_known);
    let at = partitions.iter().rposition(|p| can(p) || !p.may_move());
    let behind = at.map_or_else(Vec::new, |at| partitions[at + 1..].to_vec());
    // Recovery tools and swap move; data that is as large as the partition itself is what takes the room.
    let is_data = |p: &&&PartitionPlan| p.role == Role::Data && !grow::is_recovery(&p.entry);
    let data = behind.iter().filter(is_data).max_by_key(|p| p.size).copied();
    let (last, behind) = match (at.map(|at| partitions[at]), data) {
        (Some(at), Some(data)) if !can(at) || data.size > at.size => (data, Vec::new()),
        (Some(at), _) => (at, behind),
        (None, data) => (data.unwrap_or(end), Vec::new()),
    };
    let number = last.number;
    if last.policy == Policy::Keep || raw.contains(&number) {
        return refused(
            format!(
                "partition {number}, the last one of {path} that could be shrunk, is not looked into \
                 (--keep, --raw)"
            ),
            "Leave out --shrink, or that option.",
        );
    }
    if matches!(last.entry, Entry::Mbr { ebr: Some(_), .. }) {
        return refused(
            format!("partition {number}, the last one of {path}, is a logical partition"),
            "--shrink knows primary partitions and those of a GPT: leave it out.",
        );
    }
    if !can(last) {
        return refused(
            format!(
                "partition {number}, the last one of {path}, has {}; --shrink knows ext2, ext3, ext4, NTFS \
                 and Btrfs",
                last.filesystem.unwrap_or("no known filesystem")
            ),
            "Leave out --shrink, or move that partition before the others on the golden machine.",
        );
    }
    Ok((last, behind))
}

/// A view of the source that takes writes, and the folder that has them.
fn overlay(source: &Source) -> Result<(View, tempfile::TempDir), Failure> {
    let cannot = |what: String| {
        Failure::refused(
            format!("--shrink works on a temporary overlay of {}, and {what}", source.path.display()),
            "Install qemu-system-common and qemu-utils, run as root, and set TMPDIR to a folder with room \
             for what has to be moved.",
        )
    };
    let folder = tempfile::tempdir().map_err(|e| cannot(format!("there is no room for it: {e}")))?;
    let file = folder.path().join(OVERLAY);
    let size = source.size.to_string();
    let arguments = ["create", "-q", "-f", "qcow2"].map(str::to_owned);
    let arguments = arguments.into_iter().chain([file.to_string_lossy().into_owned(), size]);
    filesystems::run("qemu-img", "qemu-utils", arguments).map_err(cannot)?;
    let view = View::overlay(&source.data(), &file).map_err(cannot)?;
    Ok((view, folder))
}

/// Shrinks the filesystem on the overlay. Returns the bytes that its partition needs then: no less than
/// before if there is nothing to gain.
fn shrunk(source: &Source, overlay: &View, target: &PartitionPlan, room: Room) -> Result<u64, Failure> {
    let cannot = |what: String| cannot(source, target, &what);
    let (path, sector) = (overlay.path(), source.sector_size);
    let device = LoopDevice::attach_writable(&path, target.start, target.size, sector).map_err(cannot)?;
    let tools = filesystems::Tools::of(target.filesystem.unwrap_or_default(), device.path());
    let least = tools.least().map_err(cannot)?;
    let wanted = least.saturating_add(room.beside(least)).checked_next_multiple_of(GRAIN);
    let Some(wanted) = wanted.filter(|wanted| *wanted < target.size) else { return Ok(target.size) };
    tools.resize(wanted).map_err(cannot)?;
    Ok(wanted)
}

fn cannot(source: &Source, partition: &PartitionPlan, what: &str) -> Failure {
    let path = source.path.display();
    Failure::refused(
        format!("partition {} of {path} cannot be shrunk: {what}", partition.number),
        "Nothing was written to it. Give more free room (--shrink=2GiB), or leave out --shrink.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::plan::examples::{partition, plan};
    use super::*;

    #[test]
    fn what_is_shrunk_is_the_last_partition_but_for_recovery_and_swap() {
        let of = |kinds: &[(&'static str, Role, u64)]| {
            let mut plan = plan();
            plan.partitions.clear();
            let mut start = 1;
            for (n, (kind, role, size)) in (1..).zip(kinds) {
                let at = partition(n, Some(*kind), *role);
                plan.partitions.push(PartitionPlan { start: start << 20, size: size << 20, ..at });
                start += size;
            }
            let found = target(Path::new("disk"), &plan, &[]);
            found.map(|(shrunk, behind)| (shrunk.number, behind.len())).map_err(|failure| failure.message)
        };
        let (esp, boot, swap) = (("vfat", Role::Esp, 9), ("ext4", Role::Data, 9), ("swap", Role::Swap, 99));
        let data = |kind, size| (kind, Role::Data, size);
        assert_eq!(of(&[esp, boot, data("ext4", 50), swap]), Ok((3, 1)));
        assert_eq!(of(&[esp, data("btrfs", 50), data("xfs", 9)]), Ok((2, 1)), "a small one moves");
        for (kinds, named) in [
            (vec![esp, data("xfs", 50)], "partition 2, the last one of disk, has xfs"),
            (vec![esp, boot, data("lvm", 50)], "partition 3, the last one of disk, has lvm"),
            (vec![esp, boot, data("xfs", 50), swap], "partition 3"),
        ] {
            let message = of(&kinds).expect_err("what takes the room cannot be shrunk");
            assert!(message.starts_with(named), "{message}");
        }
    }

    #[test]
    fn room_is_what_the_person_says_or_a_tenth() {
        let room = |text: &str| text.parse::<Room>();
        assert_eq!(room("").map(|room| room.beside(20 << 30)), Ok(2 << 30));
        assert_eq!(room("").map(|room| room.beside(1 << 20)), Ok(LEAST_ROOM));
        assert_eq!(room("8MiB").map(|room| room.beside(20 << 30)), Ok(8 << 20));
        assert_eq!(room("0").map(|room| room.beside(20 << 30)), Ok(0));
        assert!(room("much").is_err());
    }
}
