//! Filesystems by their signatures, for messages and for code that reads them.
//!
//! Invariant: only names; `boot` reads the content.

/// Bytes of a partition or volume that are enough to know its filesystem.
pub(super) const START: u64 = 128 << 10;

/// The filesystem that a partition's first bytes belong to. `start` has its first 128 KiB, or less if it is
/// smaller.
pub(super) fn name(start: &[u8]) -> Option<&'static str> {
    let is = |at: usize, text: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(text));
    // The ext superblock's features tell the three apart (Linux, fs/ext4/ext4.h).
    if is(1024 + 56, &[0x53, 0xef]) {
        let word = |at: usize| {
            let bytes = start.get(1024 + at..1024 + at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        };
        let (compatible, incompatible, read_only) = (word(92), word(96), word(100));
        // Extents, 64 bit, flexible groups; huge files, checksums of groups, many links, large inodes.
        if incompatible & (0x40 | 0x80 | 0x200) != 0 || read_only & (0x8 | 0x10 | 0x20 | 0x40 | 0x400) != 0 {
            return Some("ext4");
        }
        return Some(if compatible & 0x4 != 0 { "ext3" } else { "ext2" });
    }
    let known: [(usize, &[u8], &str); 19] = [
        (3, b"NTFS    ", "ntfs"),
        (3, b"EXFAT   ", "exfat"),
        (3, b"-FVE-FS-", "bitlocker"),
        (0, b"LUKS\xba\xbe", "luks"),
        (0, b"XFSB", "xfs"),
        (0x10040, b"_BHRfS_M", "btrfs"),
        (4086, b"SWAPSPACE2", "swap"),
        (0x18, b"LVM2 001", "lvm"),
        (0x218, b"LVM2 001", "lvm"),
        (0x418, b"LVM2 001", "lvm"),
        (0x618, b"LVM2 001", "lvm"),
        (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"),
        // BitLocker To Go, which looks like a FAT32 otherwise.
        (0x1a8, b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01", "bitlocker"),
        (1024, b"\x10\x20\xf5\xf2", "f2fs"),
        (0x8001, b"CD001", "iso9660"),
        (82, b"FAT32", "vfat"),
        (54, b"FAT1", "vfat"),
        (0, b"hsqs", "squashfs"),
        // A member of a Linux RAID, version 1.2 (Linux, include/uapi/linux/raid/md_p.h). Last, because one
        // that was formatted otherwise since may still have it.
        (4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0", "raid"),
    ];
    known.iter().find(|(at, text, _)| is(*at, text)).map(|(_, _, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_are_told_by_their_marks_and_short_starts_do_no_harm() {
        let mut start = vec![0u8; 128 << 10];
        assert_eq!(name(&start), None);
        assert_eq!(name(&start[..10]), None);
        start[4096..4104].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
        assert_eq!(name(&start), Some("raid"));
        start[4086..4096].copy_from_slice(b"SWAPSPACE2");
        assert_eq!(name(&start), Some("swap"), "what was written since");
        assert_eq!(name(&start[..4090]), None);
        start[0x10040..0x10048].copy_from_slice(b"_BHRfS_M");
        assert_eq!(name(&start), Some("btrfs"));
        start[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(name(&start), Some("ext2"));
        start[1024 + 92] = 4;
        assert_eq!(name(&start), Some("ext3"));
        start[1024 + 96] = 0x44;
        assert_eq!(name(&start), Some("ext4"));
    }
}
