//! Reading partition tables from a disk, a device or a file into the manifest's types.
//!
//! Invariant: a [`DiskTable`] that exists is sound: its checksums are right, every partition lies on the
//! disk, none overlaps another, and the table could be written again as it is. It is the table that Linux and
//! firmware take: a GPT counts only behind a boot record with an entry of type 0xEE that begins in sector 1.
//! Whatever is doubtful is refused with what to do about it, because both of its users (capture, and a
//! terminal that keeps partitions) would otherwise act on a guess. Writing tables is left to `layout::table`
//! and `io::disk::commit`.

mod gpt;
mod identity;
mod mbr;

use std::io::{self, Read, Seek, SeekFrom};

use uuid::{Uuid, uuid};

use crate::event::{Class, Failure};
use crate::manifest::{Entry, Role, Table};
use crate::units::{Lba, SectorSize};

pub use identity::identity;

/// EFI system partition (UEFI 2.10 §5.3.3).
pub const GPT_ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// BIOS boot partition (GRUB manual, "BIOS installation").
pub const GPT_BIOS_BOOT: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
/// Linux swap.
pub const GPT_LINUX_SWAP: Uuid = uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");

/// A disk's table and partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskTable {
    /// What LBAs count.
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
    /// The MBR of a GPT disk has entries of its own.
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
                "behind the MBR lies an old GPT that is not in force; the MBR is taken, as Linux and firmware do \
                 (wipefs or `sgdisk --zap` removes the old one for good)"
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
        /// What the kernel said.
        source: io::Error,
    },
    /// Checksums or structure are wrong.
    #[error("the partition table is damaged: {0}")]
    Damaged(String),
    /// A partition or the table's end is beyond the end of the disk.
    #[error("{what} ends at byte {end}, but there are only {size} bytes")]
    Truncated {
        /// What it is.
        what: String,
        /// Where it ends.
        end: u64,
        /// What there is.
        size: u64,
    },
    /// Two partitions share sectors.
    #[error("{0} and {1} overlap")]
    Overlap(String, String),
    /// Sound, but outside of what this program handles.
    #[error("the partition table is not supported: {0}")]
    Unsupported(String),
}

impl TableError {
    fn read(offset: u64) -> impl FnOnce(io::Error) -> TableError {
        move |source| TableError::Read { offset, source }
    }
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

/// Reads the table of a disk of `disk_size` bytes; `None` if it has none (an empty disk, or a filesystem that
/// begins at its first byte).
pub fn read<D: Read + Seek>(
    disk: &mut D,
    disk_size: u64,
    sector_size: SectorSize,
) -> Result<Option<DiskTable>, TableError> {
    let Some(sector) = first_sector(disk, disk_size)? else { return Ok(None) };
    let has_gpt = gpt::is_there(disk, disk_size, sector_size)?;
    let found = match mbr::Head::parse(&sector) {
        Some(head) if head.protects_gpt() && has_gpt => Some(gpt::read(disk, disk_size, sector_size)?),
        Some(head) if head.protects_gpt() => {
            return Err(TableError::Damaged(format!(
                "there is a protective MBR, but no GPT in the second sector of {} bytes",
                sector_size.get()
            )));
        }
        Some(_) if is_filesystem(&sector) => None,
        Some(head) if head.has_misplaced_protection() => {
            return Err(TableError::Damaged(
                "the MBR's entry of type 0xEE does not begin in sector 1, so neither Linux nor firmware takes the \
                 disk for one with a GPT"
                    .into(),
            ));
        }
        Some(head) => mbr::read(disk, &head, disk_size, sector_size)?.map(|mut table| {
            table.remarks.extend(has_gpt.then_some(Remark::StaleGpt));
            table
        }),
        None => None,
    };
    if let Some(table) = &found {
        check_places(table)?;
    }
    Ok(found)
}

/// Is there a GPT that is not in force, because the first sector has no protective entry?
pub fn has_unprotected_gpt<D: Read + Seek>(
    disk: &mut D,
    disk_size: u64,
    sector_size: SectorSize,
) -> Result<bool, TableError> {
    let Some(sector) = first_sector(disk, disk_size)? else { return Ok(false) };
    let protected = mbr::Head::parse(&sector).is_some_and(|head| head.protects_gpt());
    Ok(!protected && gpt::is_there(disk, disk_size, sector_size)?)
}

/// The sector size that a disk image in a file was made for: where its GPT lies tells; 512 where there is
/// none.
pub fn guess_sector_size<D: Read + Seek>(disk: &mut D, disk_size: u64) -> Result<SectorSize, TableError> {
    let head = first_sector(disk, disk_size)?.and_then(|sector| mbr::Head::parse(&sector));
    if !head.is_some_and(|head| head.protects_gpt()) {
        return Ok(SectorSize::DEFAULT);
    }
    for bytes in [512, 4096] {
        if let Some(size) = SectorSize::new(bytes)
            && gpt::is_there(disk, disk_size, size)?
        {
            return Ok(size);
        }
    }
    Ok(SectorSize::DEFAULT)
}

/// What a partition is for, as far as its type tells.
pub fn role(entry: &Entry) -> Role {
    match entry {
        Entry::Gpt { kind, .. } if *kind == GPT_ESP => Role::Esp,
        Entry::Gpt { kind, .. } if *kind == GPT_BIOS_BOOT => Role::BiosBoot,
        Entry::Gpt { kind, .. } if *kind == GPT_LINUX_SWAP => Role::Swap,
        Entry::Mbr { kind: 0xef, .. } => Role::Esp,
        Entry::Mbr { kind: 0x82, .. } => Role::Swap,
        _ => Role::Data,
    }
}

/// The first 512 bytes, `None` on a smaller disk.
fn first_sector<D: Read + Seek>(disk: &mut D, disk_size: u64) -> Result<Option<[u8; 512]>, TableError> {
    if disk_size < 512 {
        return Ok(None);
    }
    read_sector(disk, 0).map(Some)
}

/// 512 bytes at `offset`.
fn read_sector<D: Read + Seek>(disk: &mut D, offset: u64) -> Result<[u8; 512], TableError> {
    let mut sector = [0; 512];
    disk.seek(SeekFrom::Start(offset)).map_err(TableError::read(offset))?;
    disk.read_exact(&mut sector).map_err(TableError::read(offset))?;
    Ok(sector)
}

/// Boot sectors of FAT, NTFS and exFAT end with the MBR's mark too.
fn is_filesystem(sector: &[u8; 512]) -> bool {
    let is = |at: usize, text: &[u8]| sector[at..].starts_with(text);
    is(3, b"NTFS    ") || is(3, b"EXFAT   ") || is(3, b"-FVE-FS-") || is(54, b"FAT") || is(82, b"FAT32")
}

/// Every partition is on the disk and none overlaps another.
fn check_places(table: &DiskTable) -> Result<(), TableError> {
    let mut taken: Vec<(u64, u64, String)> = Vec::new();
    let bytes = |lba: Lba, what: &str| {
        let offset = table.sector_size.offset_of(lba);
        offset.map(|o| o.0).ok_or_else(|| TableError::Damaged(format!("{what} begins beyond 2^64")))
    };
    let sector = u64::from(table.sector_size.get());
    let mut boxes = Vec::new();
    if let Table::Mbr { extended, .. } = &table.table {
        for one in extended {
            let what = format!("extended partition {}", one.number);
            let start = bytes(one.first, &what)?;
            boxes.push((start, start.saturating_add(one.sectors.saturating_mul(sector)), what));
        }
    }
    for p in &table.partitions {
        let what = format!("partition {}", p.number);
        let start = bytes(p.first, &what)?;
        let end = start.saturating_add(p.size);
        if p.size == 0 || start < sector {
            return Err(TableError::Damaged(format!("{what} is empty or lies on the table")));
        }
        if let Entry::Mbr { ebr: Some(ebr), .. } = p.entry {
            let at = bytes(ebr, &what)?;
            let inside =
                boxes.iter().any(|(from, to, _)| *from <= at && at < start && *from <= start && end <= *to);
            if !inside {
                return Err(TableError::Damaged(format!("logical {what} is outside its extended partition")));
            }
            taken.push((at, at.saturating_add(sector), format!("the record of {what}")));
        } else {
            let across = boxes.iter().find(|(from, to, _)| start < *to && *from < end);
            if let Some((_, _, other)) = across {
                return Err(TableError::Overlap(what, other.clone()));
            }
        }
        taken.push((start, end, what));
    }
    taken.sort();
    for pair in taken.windows(2) {
        if let [(_, end, one), (start, _, other)] = pair
            && start < end
        {
            return Err(TableError::Overlap(one.clone(), other.clone()));
        }
    }
    match taken.into_iter().chain(boxes).find(|(_, end, _)| *end > table.disk_size) {
        Some((_, end, what)) => Err(TableError::Truncated { what, end, size: table.disk_size }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod verbatim;
