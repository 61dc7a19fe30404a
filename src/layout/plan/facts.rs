//! The facts of a disk before a plan is made, and the places of a plan.
//!
//! Invariant: plain values; `fits` and `references` compare them.

use crate::manifest::{BootAreaKind, Entry, Role, Table};
use crate::units::{DiskOffset, Lba, SectorSize};
use uuid::Uuid;

/// The facts about a disk that a plan needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFacts {
    /// For people.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Logical sector size.
    pub sector: SectorSize,
    /// The present table, or the reason why it cannot be kept.
    pub table: Result<Existing, String>,
    /// Where the header of the present primary GPT says that its backup is, even if the rest is damaged.
    pub backup_gpt: Option<Lba>,
}

/// The table that is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its own fields.
    pub table: Table,
    pub partitions: Vec<ExistingPartition>,
}

/// A partition that is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingPartition {
    pub number: u32,
    /// First sector.
    pub first: Lba,
    /// Bytes.
    pub size: u64,
    /// The rest of its entry.
    pub entry: Entry,
}

/// Where one partition of the image lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number in the table.
    pub number: u32,
    /// First byte on the disk.
    pub start: DiskOffset,
    /// Bytes that the image has of it.
    pub size: u64,
    /// Bytes that the table gives it: more than `size` if its filesystem is to grow.
    pub room: u64,
    /// Its purpose.
    pub role: Role,
    /// False: nothing is written there.
    pub replaced: bool,
    /// Bytes at its head that are held back until the commit; 0 if it is not replaced.
    pub held: u64,
    /// Unique GUID that it has on this disk (of a GPT).
    pub guid: Option<Uuid>,
}

impl Place {
    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.start.0.saturating_add(self.size)
    }

    /// The byte after the last that the table gives it.
    pub(crate) fn room_end(&self) -> u64 {
        self.start.0.saturating_add(self.room)
    }
}

/// A boot area with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaWrite {
    pub kind: BootAreaKind,
    /// Where it goes.
    pub offset: DiskOffset,
    pub bytes: Vec<u8>,
}
