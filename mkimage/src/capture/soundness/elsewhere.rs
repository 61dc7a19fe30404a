//! Refuses filesystems and volumes with a part on another device, or with metadata outside of partitions,
//! because an image has neither.
//!
//! Volumes over several partitions of the captured disk are complete, and not refused.

use flashmob::event::Failure;
use flashmob::manifest::{Entry, Policy};
use uuid::{Uuid, uuid};

use super::volume::{Unsound, Volume, unsound, with_volume};
use super::{btrfs, lvm};
use crate::capture::backing::Backing;
use crate::capture::plan::{PartitionPlan, Plan};
use crate::source::Source;
use flashmob::layout::traces::number;

/// Windows' dynamic disks: the type of all partitions of an MBR, and partition types of a GPT.
const DYNAMIC: u8 = 0x42;
const LDM: [Uuid; 2] =
    [uuid!("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"), uuid!("af9b60a0-1431-4f62-bc68-3311714a69ad")];
const STORAGE_SPACES: Uuid = uuid!("e75caf8f-f680-4cee-afa3-b001e56efc2d");

const MAKE_BASIC: &str = "Make it a basic disk on the golden machine: Disk Management converts an empty \
    one; others are copied to a basic disk.";

/// Checks the disk outside of its partitions' content. `raw` partitions are not checked.
pub(crate) fn check_disk(source: &Source, plan: &Plan, raw: &[u32]) -> Result<(), Failure> {
    let path = source.path.display();
    let refused = |message, advice: String| Err(Failure::refused(message, advice));
    for partition in plan.partitions.iter().filter(|p| p.policy == Policy::Replace) {
        let number = partition.number;
        let force = format!("To take the partition as it is, with everything but zeros: --raw {number}.");
        match &partition.entry {
            Entry::Mbr { kind: DYNAMIC, .. } => {
                return refused(
                    format!(
                        "{path} is a Windows dynamic disk (partition {number} has type 42): the database of \
                         its volumes lies behind all partitions, and Windows finds no volumes without it"
                    ),
                    MAKE_BASIC.into(),
                );
            }
            Entry::Gpt { kind, .. } if LDM.contains(kind) && !raw.contains(&number) => {
                return refused(
                    format!(
                        "{path} is a Windows dynamic disk (partition {number} belongs to its volume \
                         manager): its volumes are known by this very disk, and may lie on several"
                    ),
                    format!("{MAKE_BASIC} {force}"),
                );
            }
            Entry::Gpt { kind: STORAGE_SPACES, .. } if !raw.contains(&number) => {
                return refused(
                    format!(
                        "partition {number} of {path} belongs to a pool of Windows' Storage Spaces, which \
                         lies on several disks"
                    ),
                    format!("Capture a disk that is not in a pool. {force}"),
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// Names a filesystem's other device that is not on this disk either.
pub(super) fn other_device(
    source: &Source,
    plan: &Plan,
    partition: &PartitionPlan,
    volume: &Volume,
) -> Option<Unsound> {
    match partition.filesystem {
        Some("btrfs") => {
            let (devices, id) = btrfs::devices(volume);
            let here = facts(source, plan, "btrfs", |volume| Some(btrfs::devices(volume).1));
            let here = here.iter().filter(|other| **other == id).count() as u64;
            (devices > here.max(1)).then(|| {
                unsound(
                    format!(
                        "this btrfs lies on several devices ({devices}), and an image has only {here} of them"
                    ),
                    "Remove the others from it (btrfs device remove).",
                )
            })
        }
        Some("lvm") => {
            let advice = "Move all to this disk (pvmove), and take the others out of the group (vgreduce).";
            let Some(members) = lvm::members(volume) else {
                return Some(unsound(
                    "it is a physical volume of LVM without its group's metadata, so the rest may lie \
                     elsewhere",
                    advice,
                ));
            };
            let here = facts(source, plan, "lvm", lvm::id);
            let missing = members.iter().filter(|id| !here.contains(id)).count();
            (missing > 0).then(|| {
                unsound(
                    format!(
                        "its LVM volume group lies on several devices, and {missing} of {} are not on this \
                         disk",
                        members.len()
                    ),
                    advice,
                )
            })
        }
        _ => None,
    }
}

/// Something of each partition with this filesystem that is taken.
fn facts<T>(source: &Source, plan: &Plan, filesystem: &str, fact: impl Fn(&Volume) -> Option<T>) -> Vec<T> {
    let alike = plan.partitions.iter().filter(|p| p.policy == Policy::Replace);
    let alike = alike.filter(|p| p.filesystem == Some(filesystem));
    let fact = |partition| with_volume(&Backing::partition(source, partition), &fact).ok().flatten();
    alike.filter_map(fact).collect()
}

/// Linux' software RAID (Linux, include/uapi/linux/raid/md_p.h): its superblock may lie before or after
/// something that looks like a filesystem.
pub(super) fn raid_member(volume: &Volume) -> Option<Unsound> {
    const MAGIC: u64 = 0xa92b_4efc;
    let sectors = volume.size / 512;
    let last = sectors.checked_sub(16).map(|sector| sector & !7);
    let version_1 = |sector: u64| {
        let Some(block) = volume.bytes(sector * 512, 256) else { return false };
        // It names its own place.
        number(&block, 0, 4) == Some(MAGIC)
            && number(&block, 4, 4) == Some(1)
            && number(&block, 144, 8) == Some(sector)
    };
    let version_0 = |at: u64| {
        let block = volume.bytes(at, 12);
        block.is_some_and(|b| number(&b, 0, 4) == Some(MAGIC) && number(&b, 4, 8) == Some(90 << 32))
    };
    let old = (volume.size & !0xffff).checked_sub(0x10000);
    let found = [Some(0), Some(8), last].into_iter().flatten().any(version_1) || old.is_some_and(version_0);
    found.then(|| {
        unsound(
            "it is a member of a Linux RAID (md), of which the rest lies on other devices",
            "Capture the array itself (/dev/md0); or, if it is no longer part of an array, remove its mark: \
             mdadm --zero-superblock.",
        )
    })
}

/// A ZFS pool says in its labels how many devices it is made of (OpenZFS, module/zfs/vdev_label.c): names and
/// numbers as XDR writes them, the other way round.
pub(super) fn zfs_pool(volume: &Volume) -> Option<Unsound> {
    let label = volume.start.get(16 << 10..)?;
    let find = |text: &[u8]| label.windows(text.len()).position(|window| window == text);
    // The name, padded to four bytes; type and count of the value; the value.
    let at = find(b"\0\0\0\x0dvdev_children\0\0\0")? + 20;
    let value = label.get(at + 8..at + 16)?;
    let children = u64::from_be_bytes(value.try_into().ok()?);
    let kinds: [&[u8]; 3] = [b"\0\0\0\x06mirror", b"\0\0\0\x05raidz", b"\0\0\0\x05draid"];
    (children > 1 || kinds.into_iter().any(|kind| find(kind).is_some())).then(|| {
        unsound(
            "it belongs to a ZFS pool that lies on several devices",
            "Make the pool of one device (zpool detach), or capture another disk.",
        )
    })
}

/// Firmware RAID keeps its metadata in the last sectors of a disk, which no image has. Returns a remark.
pub(crate) fn firmware_raid(source: &Source) -> Option<&'static str> {
    let sector = u64::from(source.sector_size.get());
    let is = |from_end: u64, mark: &[u8]| {
        let mut start = vec![0; mark.len()];
        let at = source.size.checked_sub(from_end * sector);
        at.is_some_and(|at| source.read(at, &mut start).is_ok() && start == mark)
    };
    // Intel's (two sectors from the end) and SNIA's (Common RAID Disk Data Format, section 3.2).
    (is(2, b"Intel Raid ISM Cfg Sig. ") || is(1, b"\xde\x11\xde\x11")).then_some(
        "the disk's last sectors say that it is a member of a firmware RAID; they are in no partition and \
         not taken",
    )
}
