//! The description of a table, and the parts that both schemes share.
//!
//! Invariant: a [`Described`] borrows the manifest; no field is invented here.

use crate::manifest::{Entry, Manifest, Table};
use crate::units::{DiskOffset, Lba, SectorSize};

/// The mark at the end of a boot record.
pub(super) const MBR_MARK: [u8; 2] = [0x55, 0xaa];

/// Where the four entries of a boot record begin.
pub(super) const ENTRIES_AT: usize = 446;

/// Where the mark is.
pub(super) const MARK_AT: usize = 510;

/// The CHS value for places beyond its range.
pub(super) const CHS_BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];

/// Bytes that go to a place on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Its purpose, for people.
    pub what: String,
    /// First byte.
    pub offset: DiskOffset,
    /// Whole sectors.
    pub bytes: Vec<u8>,
}

impl Write {
    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.offset.0.saturating_add(self.bytes.len() as u64)
    }
}

/// A partition as its table describes it.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    pub number: u32,
    /// First sector.
    pub first: Lba,
    /// Bytes.
    pub size: u64,
    /// The rest of its entry.
    pub entry: &'a Entry,
}

/// Cylinder, head and sector as every partitioning tool of today writes them: 255 heads, 63 sectors.
pub fn chs(lba: u64) -> [u8; 3] {
    let (cylinder, rest) = (lba / (255 * 63), lba % (255 * 63));
    if cylinder > 1023 {
        return CHS_BEYOND;
    }
    let [low, high, ..] = cylinder.to_le_bytes();
    let [head, ..] = (rest / 63).to_le_bytes();
    let [sector, ..] = (rest % 63 + 1).to_le_bytes();
    [head, sector | (high << 6), low]
}

/// A table with its partitions.
#[derive(Debug, Clone)]
pub struct Described<'a> {
    /// The table's own fields.
    pub table: &'a Table,
    pub slots: Vec<Slot<'a>>,
    /// Bytes of the unit of LBAs.
    pub sector: SectorSize,
}

impl<'a> Described<'a> {
    /// The table of an image.
    pub fn of(manifest: &'a Manifest) -> Self {
        let slot = |p: &'a crate::manifest::Partition| Slot {
            number: p.number,
            first: p.first,
            size: p.size,
            entry: &p.entry,
        };
        let slots = manifest.partitions.iter().map(slot).collect();
        Described { table: &manifest.disk.table, slots, sector: manifest.disk.sector_size }
    }
}
