//! Refuses filesystems that would not be whole on a terminal: not unmounted, hibernated, damaged, encrypted.
//!
//! Invariant: only reads; what is refused is named with what to do about it. A partition that is taken as it is (`--raw`)
//! is not looked at.

use flashmob::event::{Class, Failure};

use super::plan::PartitionPlan;
use super::{windows, xfs};
use crate::source::Source;

/// Checks one partition.
pub fn check(source: &Source, partition: &PartitionPlan) -> Result<(), Failure> {
    let mut start = vec![0; usize::try_from(partition.size.min(128 << 10)).unwrap_or(0)];
    source.read(partition.start, &mut start)?;
    let read = |offset: u64, into: &mut [u8]| {
        let fits = offset.checked_add(into.len() as u64).is_some_and(|end| end <= partition.size);
        fits && source.read(partition.start + offset, into).is_ok()
    };
    let hibernated = || {
        let found = partition.filesystem == Some("ntfs") && windows::look(source, partition).hibernated;
        found.then_some(HIBERNATED)
    };
    let found = problem_of(partition.filesystem, &start, read).or_else(hibernated);
    let Some(Unsound { problem, advice }) = found else {
        return Ok(());
    };
    Err(Failure::new(
        Class::Refused,
        format!("partition {} of {}: {problem}", partition.number, source.path.display()),
        format!("{advice} To take it as it is, with everything but zeros: --raw {}.", partition.number),
    ))
}

/// What is wrong with a filesystem, and what to do.
#[derive(Debug, PartialEq, Eq)]
struct Unsound {
    problem: &'static str,
    advice: &'static str,
}

const HIBERNATED: Unsound = Unsound {
    problem: "Windows is hibernated in it (hiberfil.sys is in use), perhaps by fast startup",
    advice: "Start Windows, run `powercfg /h off` and shut down, or once hold Shift while choosing Shut down.",
};

fn problem_of(
    filesystem: Option<&str>,
    start: &[u8],
    read: impl Fn(u64, &mut [u8]) -> bool,
) -> Option<Unsound> {
    let unsound = |problem, advice| Some(Unsound { problem, advice });
    let repair = "Mount and unmount it, or run fsck, on the golden machine.";
    let windows = "Start Windows, run chkdsk, switch fast startup off (powercfg /h off) and shut down.";
    let byte = |at: usize| start.get(at).copied().unwrap_or_default();
    let word = |at: usize| u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    match filesystem {
        // Superblock at 1024: s_feature_incompat with RECOVER, s_state (Linux, fs/ext4/ext4.h).
        Some("ext2" | "ext3" | "ext4") if word(1024 + 96) & 0x4 != 0 => {
            unsound("the journal was not carried out: it was not unmounted", repair)
        }
        Some("ext2" | "ext3" | "ext4") if byte(1024 + 58) & 0x2 != 0 => {
            unsound("it is marked as damaged", repair)
        }
        Some("ext2") if byte(1024 + 58) & 0x1 == 0 => unsound("it was not unmounted", repair),
        Some("xfs") => xfs::problem(start, read).and_then(|problem| match problem {
            xfs::Problem::Log => unsound("its log was not carried out: it was not unmounted", repair),
            xfs::Problem::Elsewhere => unsound(
                "its log or its realtime part lies on another device, which an image does not have",
                "Make it anew with an internal log.",
            ),
            xfs::Problem::Damaged => unsound("it is damaged", "Run xfs_repair."),
        }),
        Some("ntfs") => ntfs(start, read).and_then(|state| match state {
            Ntfs::Dirty => unsound("it is marked as dirty", windows),
            Ntfs::Unreadable => unsound("its file table cannot be read", windows),
        }),
        // BS_Reserved1 of FAT12/16 and of FAT32: bit 0 is set while it is mounted by Windows or Linux.
        Some("vfat") if start.get(82..87) == Some(b"FAT32") && byte(0x41) & 1 != 0 => {
            unsound("it was not unmounted", repair)
        }
        Some("vfat") if start.get(82..87) != Some(b"FAT32") && byte(0x25) & 1 != 0 => {
            unsound("it was not unmounted", repair)
        }
        // VolumeFlags with VolumeDirty (exFAT specification, section 3.1.13).
        Some("exfat") if byte(106) & 0x2 != 0 => unsound("it was not unmounted", repair),
        // The superblock's log_root: something was written that only a mount carries out.
        Some("btrfs") if start.get(0x10060..0x10068).is_some_and(|root| root != [0; 8]) => {
            unsound("its log was not carried out: it was not unmounted", repair)
        }
        Some("bitlocker") => unsound(
            "it is encrypted by BitLocker",
            "Switch BitLocker off, or pause it until all is decrypted.",
        ),
        Some("luks") => unsound("it is encrypted by LUKS", "Open it and capture what is inside."),
        _ if [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND"].iter().any(|m| start.get(4086..4095) == Some(*m)) => {
            unsound("a Linux system is hibernated in it", "Start that system and shut it down.")
        }
        _ => None,
    }
}

enum Ntfs {
    Dirty,
    Unreadable,
}

/// Looks at the flags of $Volume, the fourth record of the file table ($VOLUME_INFORMATION, attribute 0x70).
fn ntfs(start: &[u8], read: impl Fn(u64, &mut [u8]) -> bool) -> Option<Ntfs> {
    let byte = |at: usize| start.get(at).copied().unwrap_or_default();
    let bytes_of = |sectors: u8, unit: u64| match sectors {
        // Above 128 it is a negative power of two.
        129.. => 1u64.checked_shl(u32::from(sectors.wrapping_neg())),
        count => u64::from(count).checked_mul(unit),
    };
    let sector = u64::from(u16::from_le_bytes([byte(11), byte(12)]));
    let table = start.get(48..56).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    let place = || {
        let cluster = bytes_of(byte(13), sector)?;
        let record = bytes_of(byte(64), cluster)?;
        let at = table?.checked_mul(cluster)?.checked_add(record.checked_mul(3)?)?;
        (512..=65536).contains(&record).then_some((at, usize::try_from(record).ok()?))
    };
    let Some((at, len)) = place() else { return Some(Ntfs::Unreadable) };
    let mut record = vec![0; len];
    if !read(at, &mut record) || !record.starts_with(b"FILE") {
        return Some(Ntfs::Unreadable);
    }
    let number = |at: usize, len: usize| {
        let bytes = record.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte)))
    };
    let mut attribute = number(20, 2)?;
    while let (Some(kind), Some(len)) = (number(attribute, 4), number(attribute + 4, 4)) {
        if kind == 0x70 {
            let flags = number(attribute + 20, 2).and_then(|content| number(attribute + content + 10, 2))?;
            return (flags & 1 != 0).then_some(Ntfs::Dirty);
        }
        if kind == 0xffff_ffff || len < 16 {
            break;
        }
        attribute += len;
    }
    Some(Ntfs::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(filesystem: &str, marks: &[(usize, u8)]) -> Option<&'static str> {
        let mut start = vec![0; 128 << 10];
        marks.iter().for_each(|(at, byte)| start[*at] = *byte);
        problem_of(Some(filesystem), &start, |_, _| false).map(|unsound| unsound.problem)
    }

    #[test]
    fn marks_of_filesystems_that_are_not_whole_are_seen() {
        assert_eq!(problem("ext4", &[(1024 + 58, 1)]), None);
        assert!(problem("ext4", &[(1024 + 96, 4)]).is_some_and(|what| what.contains("journal")));
        assert!(problem("ext4", &[(1024 + 58, 3)]).is_some_and(|what| what.contains("damaged")));
        assert!(problem("ext2", &[]).is_some());
        assert!(problem("exfat", &[(106, 2)]).is_some() && problem("exfat", &[(106, 4)]).is_none());
        assert!(problem("vfat", &[(0x25, 1)]).is_some() && problem("vfat", &[(0x41, 1)]).is_none());
        assert!(problem("btrfs", &[(0x10060, 9)]).is_some() && problem("btrfs", &[]).is_none());
        assert!(problem("bitlocker", &[]).is_some() && problem("luks", &[]).is_some());
        let suspended: Vec<_> = (4086..).zip(*b"S1SUSPEND").collect();
        assert!(problem("swap", &suspended).is_some_and(|what| what.contains("hibernated")));
    }

    #[test]
    fn an_ntfs_whose_table_is_not_there_is_refused_and_garbage_does_no_harm() {
        assert!(problem("ntfs", &[]).is_some_and(|what| what.contains("cannot be read")));
        let mut state = 7u64;
        for _ in 0..2000 {
            let mut start = vec![0u8; 512];
            start.iter_mut().for_each(|byte| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = state.to_be_bytes()[0];
            });
            let noise = start.clone();
            let read = |_: u64, into: &mut [u8]| {
                into.iter_mut().zip(noise.iter().cycle()).for_each(|(to, from)| *to = *from);
                into[..4].copy_from_slice(b"FILE");
                true
            };
            let _ = problem_of(Some("ntfs"), &start, read);
        }
    }
}
