//! Does a filesystem end with its partition, or did something cut it off?

use super::volume::{Unsound, Volume, unsound};
use flashmob::layout::traces::number;

/// Says how much is missing of a filesystem that is larger than its partition.
pub(super) fn missing(filesystem: Option<&str>, volume: &Volume) -> Option<Unsound> {
    let (needed, size) = (needed(filesystem?, volume)?, volume.size);
    (needed > size).then(|| {
        unsound(
            format!(
                "it has {needed} bytes, and its partition only {size}: {} bytes are missing",
                needed - size
            ),
            "Copy the whole source again, or make the partition as large as its filesystem.",
        )
    })
}

/// The bytes that a filesystem says it has; `None` where it does not say.
fn needed(filesystem: &str, volume: &Volume) -> Option<u64> {
    let le = |at, len| volume.number(at, len);
    let shifted = |value: u64, shift: u64| value.checked_mul(1u64.checked_shl(u32::try_from(shift).ok()?)?);
    match filesystem {
        // s_blocks_count_lo, its upper half where INCOMPAT_64BIT is set, s_log_block_size (Linux,
        // fs/ext4/ext4.h).
        "ext2" | "ext3" | "ext4" => {
            let upper = if le(1024 + 96, 4) & 0x80 != 0 { le(1024 + 336, 4) << 32 } else { 0 };
            shifted(upper | le(1024 + 4, 4), le(1024 + 24, 4).checked_add(10)?)
        }
        // sb_blocksize and sb_dblocks, which are big-endian.
        "xfs" => {
            let (block, blocks) = (volume.start.get(4..8)?, volume.start.get(8..16)?);
            let block = u64::from(u32::from_be_bytes(block.try_into().ok()?));
            u64::from_be_bytes(blocks.try_into().ok()?).checked_mul(block)
        }
        // dev_item.total_bytes: the bytes on this device.
        "btrfs" => Some(le(0x10000 + 0xd1, 8)),
        "ntfs" => le(40, 8).checked_mul(le(11, 2)),
        "vfat" => {
            let (few, many) = (le(19, 2), le(32, 4));
            if few != 0 { few } else { many }.checked_mul(le(11, 2))
        }
        // VolumeLength and BytesPerSectorShift.
        "exfat" => shifted(le(72, 8), le(108, 1)),
        // block_count and log_blocksize (Linux, include/linux/f2fs_fs.h). Of several devices it counts all.
        "f2fs" if !super::f2fs::has_other_devices(volume) => shifted(le(1024 + 36, 8), le(1024 + 16, 4)),
        // last_page of version 1; pages have 4 KiB where the mark is found.
        "swap" if le(1024, 4) == 1 => le(1028, 4).checked_add(1)?.checked_mul(4096),
        "lvm" => super::lvm::device_size(volume),
        // bytes_used.
        "squashfs" => number(volume.start, 40, 8),
        _ => None,
    }
}
