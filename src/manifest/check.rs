//! Contradictions in a manifest that need no disk and no sidecar to be seen.
//!
//! Invariant: after [`Manifest::check`] no place on the disk overflows, partitions neither overlap nor leave
//! the smallest disk, and the counts of pieces agree with sizes. `layout::plan` checks a given disk.

use super::{BLANK_LENGTH, Entry, Manifest, Partition, Policy, Table, names};
use crate::image_id::is_plain_name;

impl Manifest {
    /// Looks for contradictions that need no disk and no sidecar to be seen.
    pub(super) fn check(&self) -> Result<(), String> {
        for (what, text) in [("name", &self.name), ("version", &self.version)] {
            if !is_plain_name(text) {
                return Err(format!(
                    "{what} '{text}' may have only letters, digits, '.', '_' and '-', and not begin with '.'"
                ));
            }
        }
        let mut end = 0;
        for p in &self.partitions {
            end = self.check_partition(p, end)?;
        }
        if self.partitions.is_empty() {
            return Err("there is no partition".into());
        }
        let growing: Vec<_> = self.partitions.iter().filter(|p| p.grow).collect();
        if growing.len() > 1 {
            return Err("more than one partition grows".into());
        }
        if growing.iter().any(|p| p.policy == Policy::Keep || matches!(p.entry, Entry::None)) {
            return Err("a partition that grows must be written, with an entry in a table".into());
        }
        if self.partitions.iter().filter(|p| p.blank.is_some()).count() > 1 {
            return Err("more than one partition has a blank for the terminal's own file".into());
        }
        if matches!(self.disk.table, Table::None) && self.partitions.len() != 1 {
            return Err("without a table there can be one partition only".into());
        }
        self.check_disk(end)?;
        self.check_payload()?;
        // Without piece hashes until they are added (docs/formats.md).
        let hashes = self.payload.sha256.is_some().then_some(names::PIECES);
        let mut needed = [names::EXTENTS, names::BOOT, names::TORRENT].into_iter().chain(hashes);
        if let Some(missing) = needed.find(|name| !self.sidecars.contains_key(*name)) {
            return Err(format!("the hash of {missing} is missing"));
        }
        Ok(())
    }

    /// Checks a partition that must begin at byte `free` or after it. Returns the byte after its last.
    fn check_partition(&self, p: &Partition, free: u64) -> Result<u64, String> {
        let n = p.number;
        let start = self.disk.sector_size.offset_of(p.first);
        let start = start.ok_or(format!("partition {n} begins beyond 2^64"))?;
        if p.size == 0 || !p.size.is_multiple_of(u64::from(self.disk.sector_size.get())) {
            return Err(format!(
                "partition {n} has {} bytes, which is not a whole number of sectors",
                p.size
            ));
        }
        if start.0 < free {
            return Err(format!("partition {n} overlaps the one before it"));
        }
        let end = start.0.checked_add(p.size).ok_or(format!("partition {n} ends beyond 2^64"))?;
        let cells = p.size.div_ceil(self.piece_length.bytes());
        let counted = u64::from(p.pieces.data) + u64::from(p.pieces.zero) + u64::from(p.pieces.free);
        if cells != counted {
            return Err(format!("partition {n} has {cells} pieces on its grid, but {counted} are counted"));
        }
        if let Some(at) = p.blank {
            Self::check_blank(p, at)?;
        }
        let fits = matches!(
            (&self.disk.table, &p.entry),
            (Table::Gpt { .. }, Entry::Gpt { .. })
                | (Table::Mbr { .. }, Entry::Mbr { .. })
                | (Table::None, Entry::None)
        );
        if !fits {
            return Err(format!("partition {n} has an entry of another scheme than the table"));
        }
        if self.partitions.iter().filter(|other| other.number == n).count() > 1 {
            return Err(format!("partition number {n} is there twice"));
        }
        Ok(end)
    }

    /// Checks a blank for the terminal's own file that begins at byte `at` of partition `p`.
    fn check_blank(p: &Partition, at: u64) -> Result<(), String> {
        let length = u64::from(BLANK_LENGTH);
        let is_inside = at.checked_add(length).is_some_and(|end| end <= p.size);
        let is_ntfs = p.filesystem.as_deref() == Some("ntfs") && p.policy == Policy::Replace;
        if is_inside && at > 0 && at.is_multiple_of(length) && is_ntfs {
            return Ok(());
        }
        let n = p.number;
        Err(format!("the blank at byte {at} of partition {n} is no cluster of an NTFS that is replaced"))
    }

    /// Checks that partitions, the last of which ends at byte `end`, and boot areas lie on the smallest disk.
    fn check_disk(&self, end: u64) -> Result<(), String> {
        let size = self.disk.minimum_size;
        if end > size {
            return Err(format!("partitions end at byte {end}, beyond the smallest disk of {size}"));
        }
        let mut areas = self.disk.boot_areas.iter();
        if areas.any(|area| area.offset.0.checked_add(area.length).is_none_or(|end| end > size)) {
            return Err("a boot area lies beyond the smallest disk".into());
        }
        Ok(())
    }

    fn check_payload(&self) -> Result<(), String> {
        let replaced = self.partitions.iter().filter(|p| p.policy == Policy::Replace);
        let travelling: u64 = replaced.map(|p| u64::from(p.pieces.data)).sum();
        let (pieces, file_size) = (self.payload.pieces, self.payload.file_size);
        if travelling != u64::from(pieces) {
            return Err(format!("partitions have {travelling} travelling pieces, the payload {pieces}"));
        }
        if file_size == 0 || !file_size.is_multiple_of(self.piece_length.bytes()) {
            return Err(format!("virtual files of {file_size} bytes are not a multiple of the piece length"));
        }
        Ok(())
    }
}
