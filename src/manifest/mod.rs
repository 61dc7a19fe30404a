//! The signed description of an image, and the only way to trust one.
//!
//! Invariant: a `TrustedManifest` exists only if one of the terminal's keys signed exactly these bytes (or
//! the administrator's initramfs allows unsigned ones), and if `Manifest::check` accepted it. `check` holds
//! the rules of consistency, `trust` the keys, `layout::extents` the ranges; `layout::plan` decides whether
//! it fits a disk.

pub mod after;
mod check;
pub mod model;
pub mod reference;
mod trust;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::image_id::ImageId;
use crate::units::{DiskOffset, InfoHash, Lba, PieceLength, SectorSize, Sha256};

pub use trust::{KeyError, TrustedKeys, TrustedManifest};

/// The format this code writes and reads.
pub const FORMAT: u32 = 1;
/// A manifest is smaller than this, so that anybody may read one into memory before trusting it.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;
/// The most pieces of an image; its hashes and torrent stay below the sizes that terminals accept.
pub const MAX_PIECES: u32 = 2_000_000;

/// Bytes of a blank for the terminal's own file ([`Partition::blank`]), and what its place is a multiple of.
/// They belong to one cluster of its file, because clusters of a Windows have at least as many.
pub const BLANK_LENGTH: u16 = 4096;

/// File names inside a version's folder.
pub mod names {
    pub const MANIFEST: &str = "manifest.json";
    pub const SIGNATURE: &str = "manifest.json.minisig";
    /// Ranges of each partition (`layout::extents`).
    pub const EXTENTS: &str = "extents.bin";
    /// SHA-256 of each piece of the payload, 32 bytes each, in payload order.
    pub const PIECES: &str = "pieces.sha256";
    /// Boot areas outside partitions, one after another.
    pub const BOOT: &str = "boot.bin";
    /// The torrent of the payload.
    pub const TORRENT: &str = "image.torrent";
    /// The folder of virtual files `0000.bin`, `0001.bin`, ….
    pub const PAYLOAD: &str = "payload";
    /// Where the payload lies when it is not there (`manifest::reference`).
    pub const REFERENCE: &str = "payload.reference";
    /// The folder with files of pieces that versions share.
    pub const PARTS: &str = "parts";
    /// The list of the administrator's files for terminals (`manifest::after`), and the folder of their
    /// contents, each under its SHA-256.
    pub const AFTER_LIST: &str = "after.json";
    pub const AFTER: &str = "after";
}

/// Everything a terminal must know about one version of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `FORMAT`.
    pub format: u32,
    /// The image's name: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// The version: as the name.
    pub version: String,
    /// Grows with every version of an image.
    pub sequence: u64,
    /// When it was captured, RFC 3339, UTC.
    pub created: String,
    /// Length of every piece.
    pub piece_length: PieceLength,
    /// The disk it came from.
    pub disk: Disk,
    /// Its partitions, in the order of their first byte.
    pub partitions: Vec<Partition>,
    /// How the system starts.
    pub boot: Boot,
    /// The bytes that travel.
    pub payload: Payload,
    /// SHA-256 of each sidecar file by its name (`extents.bin`, `pieces.sha256`, `boot.bin`,
    /// `image.torrent`, `after.json`).
    pub sidecars: BTreeMap<String, Sha256>,
    /// Ranges that could not be read at the capture and are zeros instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
}

/// The disk that an image came from, and its demands on other disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Bytes of a logical sector: the unit of all LBAs below.
    pub sector_size: SectorSize,
    /// Bytes of the smallest disk that takes the image.
    pub minimum_size: u64,
    pub table: Table,
    /// Areas outside partitions, in the order of their offset.
    pub boot_areas: Vec<BootArea>,
}

/// A partition table's own fields; its entries are in [`Partition`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "lowercase", deny_unknown_fields)]
pub enum Table {
    /// GUID partition table (UEFI 2.10 §5).
    Gpt {
        guid: Uuid,
        /// Number of entries the table has room for (128 nearly always).
        entries: u32,
        /// First LBA that partitions may use.
        first_usable: Lba,
    },
    Mbr {
        /// The disk signature at byte 440, which Windows uses to find its partitions.
        signature: [u8; 4],
        /// Extended partitions; their records are written last.
        extended: Vec<Extended>,
    },
    /// A single partition was captured: it lies on a bare device or replaces a partition there.
    None,
}

/// An extended partition of an MBR disk: a box for logical partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extended {
    /// Number of the primary entry, 1 to 4.
    pub number: u32,
    /// Its type byte (05, 0f, 85).
    pub kind: u8,
    pub first: Lba,
    pub sectors: u64,
}

/// Bytes outside all partitions that the system needs to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootArea {
    pub kind: BootAreaKind,
    /// Where it lies on the disk.
    pub offset: DiskOffset,
    /// Its length in bytes.
    pub length: u64,
    /// Where its bytes begin in `boot.bin`.
    pub at: u64,
}

/// Kinds of boot areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootAreaKind {
    /// The first 440 bytes of the disk.
    BootCode,
    /// Sectors between the table and the first partition, where BIOS GRUB keeps its core image, or behind an
    /// extended boot record with boot code.
    Gap,
    /// Bytes of the table itself that are not those that follow from the manifest (`layout::table`).
    Table,
}

/// A range of the golden disk that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// Where it lies on the source.
    pub offset: DiskOffset,
    /// Its length in bytes.
    pub length: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Its number in the table, from 1 (logical ones from 5); 1 without a table.
    pub number: u32,
    pub first: Lba,
    /// Size in bytes.
    pub size: u64,
    /// Its table entry's other fields, verbatim.
    pub entry: Entry,
    /// Its purpose, as far as its type and content tell.
    pub role: Role,
    /// The filesystem found, for people (`ext4`, `vfat`, `ntfs`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// How a terminal treats it.
    pub policy: Policy,
    /// It and its filesystem grow to the end of a larger disk, and partitions behind it move there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grow: bool,
    /// Where the blank for the terminal's own file begins, from the partition's first byte (`layout::blank`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blank: Option<u64>,
    /// Pieces of its grid that travel, are zeros, are free.
    pub pieces: PieceCount,
    /// SHA-256 over the SHA-256s of its travelling pieces, in order; `None` while unhashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

/// A partition's entry in its table, without place and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "lowercase", deny_unknown_fields)]
pub enum Entry {
    Gpt {
        kind: Uuid,
        guid: Uuid,
        attributes: u64,
        /// Name, up to 36 UTF-16 units.
        name: String,
    },
    Mbr {
        kind: u8,
        active: bool,
        /// For a logical partition: where its own record (EBR) lies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ebr: Option<Lba>,
    },
    None,
}

/// The purpose of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// EFI system partition: committed after the table, so that nothing half-written starts.
    Esp,
    /// BIOS boot partition (GRUB's core image on GPT).
    BiosBoot,
    Swap,
    /// Everything else.
    Data,
}

/// How a terminal treats a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Written.
    Replace,
    /// Not touched; must exist already, with the same number, start, size and type.
    Keep,
}

/// Pieces of a partition's grid by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PieceCount {
    /// Travel.
    pub data: u32,
    /// Written as zeros.
    pub zero: u32,
    /// Left alone.
    pub free: u32,
}

/// How the installed system starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The disk starts by BIOS.
    pub bios: bool,
    /// UEFI loaders on the ESP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uefi: Vec<UefiLoader>,
    /// A Linux kernel that kexec can start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux: Option<LinuxBoot>,
}

/// A loader on the EFI system partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UefiLoader {
    /// Number of the partition it lies on.
    pub partition: u32,
    /// Path with slashes, for example `/EFI/debian/shimx64.efi`.
    pub path: String,
    /// Label for the firmware's boot menu.
    pub label: String,
}

/// The files for kexec, as paths on a partition with an ext2/3/4 filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinuxBoot {
    /// Number of the partition the files lie on.
    pub partition: u32,
    /// Path of the kernel there.
    pub kernel: String,
    /// Path of its initrd there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// The bytes that travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// How many pieces travel.
    pub pieces: u32,
    /// Bytes of each virtual file (the last may be shorter): a multiple of the piece length.
    pub file_size: u64,
    /// Name of the swarm.
    pub info_hash: InfoHash,
    /// SHA-256 over all of `pieces.sha256`; `None` for an image published without hashing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

impl Payload {
    /// Bytes of the whole payload.
    pub fn length(&self, piece_length: PieceLength) -> u64 {
        u64::from(self.pieces) * piece_length.bytes()
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than any manifest may be.
    #[error("manifest has {0} bytes; at most {MAX_MANIFEST_BYTES} are read")]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("manifest is not readable: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Written for another program version.
    #[error("manifest has format {0}, this program reads format {FORMAT}")]
    Format(u32),
    /// A field contradicts another or is out of bounds.
    #[error("manifest is inconsistent: {0}")]
    Inconsistent(String),
    /// No signature by a known key.
    #[error("manifest is not signed by any of the {keys} known keys: {why}")]
    Untrusted {
        /// How many keys were tried.
        keys: usize,
        why: String,
    },
}

impl Manifest {
    /// Reads and checks a manifest. Says nothing about its origin: see [`TrustedManifest`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes)?;
        if head.format != FORMAT {
            return Err(ManifestError::Format(head.format));
        }
        let manifest: Manifest = serde_json::from_slice(bytes)?;
        manifest.check().map_err(ManifestError::Inconsistent)?;
        Ok(manifest)
    }

    /// The canonical bytes: JSON in the order of the fields above, two spaces of indent, a final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    pub fn id(&self) -> ImageId {
        ImageId::new(&self.name, &self.version)
    }

    /// The partition with this number.
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.number == number)
    }
}

#[cfg(test)]
mod tests;
