//! Refuses filesystems that would be incomplete on a terminal: not unmounted, hibernated, damaged, encrypted,
//! with a part elsewhere, larger than their partition.
//!
//! Every check covers every filesystem; docs/capture.md names the exceptions. Invariant: only reads, and
//! each refusal names a remedy. `--raw` partitions are not checked.

mod btrfs;
mod elsewhere;
mod ext;
mod extent;
mod f2fs;
mod fat;
mod lvm;
mod ntfs;
mod volume;
mod xfs;

use flashmob::event::Failure;
use flashmob::layout::hibernation;
use flashmob::manifest::Policy;

use super::backing::Backing;
use super::plan::{PartitionPlan, Plan};
use super::windows;
use crate::source::Source;

pub(super) use elsewhere::{check_disk, firmware_raid};
pub(super) use ext::has_clusters;
use volume::{NOT_UNMOUNTED, REPAIR, Unsound, Volume, unsound, with_volume};

/// Refuses a disk on which a Linux system is hibernated. This comes before all other checks, because that
/// system's filesystems are not unmounted, and whoever repairs them destroys it.
pub(super) fn check_asleep(source: &Source, plan: &Plan, raw: &[u32]) -> Result<(), Failure> {
    let taken = plan.partitions.iter().filter(|one| one.policy != Policy::Keep && !raw.contains(&one.number));
    for partition in taken {
        let mut backing = Backing::partition(source, partition);
        let found = hibernation::find(partition.size, &|offset, into| backing.read(offset, into));
        let Some(place) = found else { continue };
        backing.name += &place;
        let problem = "a Linux system is hibernated in it";
        return Err(refused(&backing, unsound(problem, "Start that system and shut it down.")));
    }
    Ok(())
}

/// Checks one partition of a plan.
pub(super) fn check(source: &Source, plan: &Plan, partition: &PartitionPlan) -> Result<(), Failure> {
    let backing = Backing::partition(source, partition);
    let found = with_volume(&backing, |volume| {
        elsewhere::raid_member(volume)
            .or_else(|| problem_on(&backing, volume))
            .or_else(|| elsewhere::other_device(source, plan, partition, volume))
    })?;
    found.map_or(Ok(()), |problem| Err(refused(&backing, problem)))
}

/// Checks the filesystem in a logical volume. One that is encrypted, or a part of something else, is not
/// checked: all of its group is on the disk.
pub(super) fn check_volume(backing: &Backing<'_>) -> Result<(), Failure> {
    if matches!(backing.filesystem, Some("luks" | "bitlocker" | "bcache" | "lvm")) {
        return Ok(());
    }
    let found = with_volume(backing, |volume| problem_on(backing, volume))?;
    found.map_or(Ok(()), |problem| Err(refused(backing, problem)))
}

fn problem_on(backing: &Backing<'_>, volume: &Volume) -> Option<Unsound> {
    let hibernated = || backing.filesystem == Some("ntfs") && windows::look(backing).hibernated;
    problem_of(backing.filesystem, volume)
        .or_else(|| hibernated().then(|| unsound(HIBERNATED.0, HIBERNATED.1)))
}

fn refused(backing: &Backing<'_>, Unsound { problem, advice }: Unsound) -> Failure {
    let (name, number) = (&backing.name, backing.partition);
    Failure::refused(
        format!("{name} of {}: {problem}", backing.source.path.display()),
        format!("{advice} To take partition {number} as it is, with everything but zeros: --raw {number}."),
    )
}

const HIBERNATED: (&str, &str) = (
    "Windows is hibernated in it (hiberfil.sys is in use), perhaps by fast startup",
    "Start Windows, run `powercfg /h off` and shut down, or once hold Shift while choosing Shut down.",
);
fn problem_of(filesystem: Option<&str>, volume: &Volume) -> Option<Unsound> {
    if let Some(missing) = extent::missing(filesystem, volume) {
        return Some(missing);
    }
    match filesystem {
        Some("ext2" | "ext3" | "ext4") => ext::problem(volume),
        Some("xfs") => xfs::problem(volume.start, volume.read).map(|problem| match problem {
            xfs::Problem::Log => unsound("its log was not carried out: it was not unmounted", REPAIR),
            xfs::Problem::Elsewhere => unsound(
                "its log or its realtime part lies on another device, which an image does not have",
                "Make it anew with an internal log.",
            ),
            xfs::Problem::Damaged => unsound("it is damaged", "Run xfs_repair."),
        }),
        Some("ntfs") => ntfs::problem(volume),
        Some("vfat") => fat::problem(volume),
        // VolumeFlags with VolumeDirty and MediaFailure (exFAT specification, section 3.1.13).
        Some("exfat") if volume.number(106, 2) & 0x2 != 0 => Some(unsound(NOT_UNMOUNTED, REPAIR)),
        Some("btrfs") => btrfs::problem(volume),
        Some("f2fs") => f2fs::problem(volume),
        Some("bitlocker") => Some(unsound(
            "it is encrypted by BitLocker",
            "Switch BitLocker off, or pause it until all is decrypted.",
        )),
        Some("luks") => Some(unsound("it is encrypted by LUKS", "Open it and capture what is inside.")),
        Some("bcache") => Some(unsound(
            "it belongs to a bcache, of which another part lies on another device",
            "Detach the cache, or capture the bcache device itself.",
        )),
        None if elsewhere::zfs_pool(volume).is_some() => elsewhere::zfs_pool(volume),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message about a partition with these bytes.
    fn problem(filesystem: &str, marks: &[(usize, &[u8])]) -> Option<String> {
        said_of(Some(filesystem), marks)
    }

    fn said_of(filesystem: Option<&str>, marks: &[(usize, &[u8])]) -> Option<String> {
        let mut start = vec![0; 128 << 10];
        marks.iter().for_each(|(at, bytes)| start[*at..*at + bytes.len()].copy_from_slice(bytes));
        let read = |at: u64, into: &mut [u8]| {
            let from = usize::try_from(at).ok().and_then(|at| start.get(at..)?.get(..into.len()));
            from.map(|from| into.copy_from_slice(from)).is_some()
        };
        let volume = Volume { start: &start, size: 128 << 10, read: &read };
        problem_of(filesystem, &volume).map(|unsound| unsound.problem)
    }

    #[test]
    fn marks_of_filesystems_that_are_not_whole_are_seen() {
        let says = |filesystem: &str, marks: &[(usize, &[u8])], words: &str| {
            let said = problem(filesystem, marks).unwrap_or_default();
            assert!(
                said.contains(words) && said.is_empty() == words.is_empty(),
                "{filesystem}, {words}: {said}"
            );
        };
        let (valid, journal) = ((1024 + 58, &[1][..]), (1024 + 92, &[4][..]));
        says("ext4", &[valid], "");
        says("ext4", &[journal, (1024 + 224, &[8])], "");
        says("ext4", &[journal], "journal lies on another device");
        says("ext4", &[valid, (1024 + 96, &[8])], "the journal of a filesystem that lies elsewhere");
        says("ext4", &[valid, (1024 + 96, &[4])], "journal was not carried out");
        says("ext4", &[(1024 + 58, &[3])], "damaged");
        says("ext4", &[], "not unmounted");
        says("ext2", &[], "not unmounted");
        says("exfat", &[(106, &[2])], "not unmounted");
        says("exfat", &[(106, &[4])], "");
        // Sectors of 512 bytes, one before the table.
        let fat16: [(usize, &[u8]); 3] = [(11, &[0, 2]), (14, &[1, 0]), (54, b"FAT16")];
        let fat32: [(usize, &[u8]); 3] = [(11, &[0, 2]), (14, &[1, 0]), (82, b"FAT32")];
        let with = |marks: &[(usize, &'static [u8])], entry| [marks, &[(514, entry)]].concat();
        says("vfat", &with(&fat16, &[0xff, 0xff]), "");
        says("vfat", &with(&fat16, &[0xff, 0x7f]), "not unmounted");
        says("vfat", &with(&fat16, &[0xff, 0xbf]), "damaged");
        says("vfat", &[&with(&fat16, &[0xff, 0xff])[..], &[(0x25, &[1])]].concat(), "not unmounted");
        says("vfat", &with(&fat32, &[0, 0, 0xff, 0xff, 0xff, 0x0f]), "");
        says("vfat", &with(&fat32, &[0, 0, 0xff, 0xff, 0xff, 0x07]), "not unmounted");
        says(
            "vfat",
            &[&with(&fat32, &[0, 0, 0xff, 0xff, 0xff, 0x0f])[..], &[(0x41, &[1])]].concat(),
            "not unmounted",
        );
        says("btrfs", &[(0x10060, &[9])], "log was not carried out");
        says("btrfs", &[], "");
        says("f2fs", &[], "cannot be read");
        says("f2fs", &[(1024 + 2201 + 68, b"/dev/sdb")], "several devices");
        says("bitlocker", &[], "BitLocker");
        says("luks", &[], "LUKS");
        says("bcache", &[], "bcache");
        let zfs = |count: u8| {
            [&b"\0\0\0\x0dvdev_children\0\0\0\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0"[..], &[count]].concat()
        };
        for (count, words) in [(1, ""), (2, "ZFS pool that lies on several devices")] {
            let said = said_of(None, &[(17000, &zfs(count))]).unwrap_or_default();
            assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{count}: {said}");
        }
    }

    #[test]
    fn a_filesystem_that_ends_behind_its_partition_is_said_to_lack_bytes() {
        /// A filesystem, the offset of its size, a size that fits, one that does not, and further bytes.
        type Case = (&'static str, usize, [u8; 8], [u8; 8], &'static [(usize, &'static [u8])]);
        let le = |value: u64| value.to_le_bytes();
        // Partitions of 128 KiB; each has room for 128 KiB and not for 132.
        let cases: [Case; 9] = [
            ("ext4", 1024 + 4, le(128), le(132), &[(1024 + 58, &[1])]),
            ("xfs", 8, 32u64.to_be_bytes(), 33u64.to_be_bytes(), &[(4, &[0, 0, 16, 0])]),
            ("btrfs", 0x100d1, le(128 << 10), le(132 << 10), &[]),
            ("ntfs", 40, le(256), le(264), &[(11, &[0, 2])]),
            ("vfat", 32, le(256), le(264), &[(11, &[0, 2])]),
            ("exfat", 72, le(256), le(264), &[(108, &[9])]),
            ("f2fs", 1024 + 36, le(32), le(33), &[(1024 + 16, &[12])]),
            ("swap", 1028, le(31), le(32), &[(1024, &[1])]),
            ("squashfs", 40, le(128 << 10), le(132 << 10), &[]),
        ];
        for (filesystem, at, fits, larger, more) in cases {
            let said = |size: &[u8]| problem(filesystem, &[&[(at, size)], more].concat()).unwrap_or_default();
            assert!(!said(&fits).contains("missing"), "{filesystem}: {}", said(&fits));
            let words = "it has 135168 bytes, and its partition only 131072: 4096 bytes are missing";
            assert_eq!(said(&larger), words, "{filesystem}");
        }
    }

    #[test]
    fn garbage_does_no_harm() {
        let mut state = 7u64;
        let names = ["ext4", "xfs", "ntfs", "vfat", "exfat", "btrfs", "f2fs", "swap", "lvm", "squashfs"];
        for round in 0..2000 {
            let mut start = vec![0u8; 8192];
            start.iter_mut().for_each(|byte| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = state.to_be_bytes()[0];
            });
            start[512..520].copy_from_slice(b"LABELONE");
            start[536..544].copy_from_slice(b"LVM2 001");
            let noise = start.clone();
            let read = |_: u64, into: &mut [u8]| {
                into.iter_mut().zip(noise.iter().cycle()).for_each(|(to, from)| *to = *from);
                if let Some(mark) = into.get_mut(..4) {
                    mark.copy_from_slice(b"FILE");
                }
                into.len() < 1 << 20
            };
            let size = if round % 2 == 0 { u64::MAX } else { 128 << 10 };
            let volume = Volume { start: &start, size, read: &read };
            for name in names {
                let _ = problem_of(Some(name), &volume);
            }
            let _ = (lvm::members(&volume), lvm::id(&volume), elsewhere::raid_member(&volume));
        }
    }
}
