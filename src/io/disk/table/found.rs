//! A table that was found on a disk, and why one cannot be used.
//!
//! Invariant: reading a sector is complete or an error.

use crate::event::{Class, Failure};
use crate::manifest::{Entry, Table};
use crate::units::{Lba, SectorSize};
use std::io::{self, Read, Seek, SeekFrom};
use uuid::{Uuid, uuid};

/// EFI system partition (UEFI 2.10 §5.3.3).
pub const GPT_ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");

/// BIOS boot partition (GRUB manual, "BIOS installation").
pub const GPT_BIOS_BOOT: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");

/// Linux swap.
pub const GPT_LINUX_SWAP: Uuid = uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");

/// A disk's table and partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskTable {
    /// Bytes of the unit of LBAs.
    pub sector_size: SectorSize,
    /// Bytes of the disk it was read from.
    pub disk_size: u64,
    /// The table's own fields; never `Table::None`.
    pub table: Table,
    /// Partitions in the order of their first byte.
    pub partitions: Vec<TablePartition>,
    /// Sectors of the disk that the table was made for: a GPT ends with its backup.
    pub sectors: u64,
    /// Sectors of the chain of extended boot records, also of those without a partition.
    pub records: Vec<Lba>,
    /// Oddities that do not keep the table from being used.
    pub remarks: Vec<Remark>,
}

/// One partition of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePartition {
    /// Its number as Linux counts: logical ones from 5.
    pub number: u32,
    /// First sector.
    pub first: Lba,
    /// Bytes.
    pub size: u64,
    /// Everything else that the table says.
    pub entry: Entry,
}

/// Something a person may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    /// The MBR of a GPT disk has real entries too.
    HybridMbr,
    /// Behind an MBR that is in force lies a GPT that was in force once.
    StaleGpt,
    /// The backup GPT is not in the last sector: the disk is larger than when it was partitioned.
    BackupNotAtEnd,
}

impl Remark {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Remark::HybridMbr => {
                "the MBR is a hybrid one with entries of its own; they are kept as they are, beside the GPT"
            }
            Remark::StaleGpt => {
                "behind the MBR lies an old GPT that is not in force; the MBR is taken, as Linux and \
                 firmware do (wipefs or `sgdisk --zap` removes the old one for good)"
            }
            Remark::BackupNotAtEnd => {
                "the backup GPT is not at the end of the disk; the image will put it there"
            }
        }
    }
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The medium did not answer.
    #[error("reading the partition table at byte {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// The kernel's error.
        source: io::Error,
    },
    /// Checksums or structure are wrong.
    #[error("the partition table is damaged: {0}")]
    Damaged(String),
    /// A partition or the table's end is beyond the end of the disk.
    #[error("{what} ends at byte {end}, but there are only {size} bytes")]
    Truncated {
        /// The partition or structure.
        what: String,
        /// Where it ends.
        end: u64,
        /// The disk's size in bytes.
        size: u64,
    },
    /// Two partitions share sectors.
    #[error("{0} and {1} overlap")]
    Overlap(String, String),
    /// Sound, but not supported by this program.
    #[error("the partition table is not supported: {0}")]
    Unsupported(String),
}

impl TableError {
    pub(super) fn read(offset: u64) -> impl FnOnce(io::Error) -> TableError {
        move |source| TableError::Read { offset, source }
    }
}

/// 512 bytes at `offset`.
pub(super) fn read_sector<D: Read + Seek>(disk: &mut D, offset: u64) -> Result<[u8; 512], TableError> {
    let mut sector = [0; 512];
    disk.seek(SeekFrom::Start(offset)).map_err(TableError::read(offset))?;
    disk.read_exact(&mut sector).map_err(TableError::read(offset))?;
    Ok(sector)
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        let (class, advice) = match &error {
            TableError::Read { .. } => (Class::Disk, "Check the disk and its cable; `dmesg` may say more."),
            TableError::Damaged(_) => (
                Class::Refused,
                "Repair the table first (gdisk: `v`, `r`, `w`; or sgdisk -e, sfdisk --dump).",
            ),
            TableError::Truncated { .. } => (
                Class::Refused,
                "The source is not complete: copy it again, or shrink the last partition to the disk.",
            ),
            TableError::Overlap(..) => (Class::Refused, "Correct the table first with sfdisk or gdisk."),
            TableError::Unsupported(_) => (Class::Refused, "Change the table with sfdisk or gdisk."),
        };
        Failure::new(class, error.to_string(), advice)
    }
}
