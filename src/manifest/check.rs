//! Contradictions in a manifest that need no disk and no sidecar to be seen.
//!
//! Invariant: after [`Manifest::check`] no place on the disk overflows, partitions neither overlap nor leave
//! the smallest disk, and the counts of pieces agree with sizes. `layout::plan` checks a given disk.

use super::{Entry, Manifest, Policy, Table, names};
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
        let sector = u64::from(self.disk.sector_size.get());
        let mut end = 0u64;
        let mut travelling = 0u64;
        for p in &self.partitions {
            let n = p.number;
            let start = self
                .disk
                .sector_size
                .offset_of(p.first)
                .ok_or(format!("partition {n} begins beyond 2^64"))?;
            if p.size == 0 || !p.size.is_multiple_of(sector) {
                return Err(format!(
                    "partition {n} has {} bytes, which is not a whole number of sectors",
                    p.size
                ));
            }
            if start.0 < end {
                return Err(format!("partition {n} overlaps the one before it"));
            }
            end = start.0.checked_add(p.size).ok_or(format!("partition {n} ends beyond 2^64"))?;
            let cells = p.size.div_ceil(self.piece_length.bytes());
            let counted = u64::from(p.pieces.data) + u64::from(p.pieces.zero) + u64::from(p.pieces.free);
            if cells != counted {
                return Err(format!(
                    "partition {n} has {cells} pieces on its grid, but {counted} are counted"
                ));
            }
            if p.policy == Policy::Replace {
                travelling += u64::from(p.pieces.data);
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
        }
        if self.partitions.is_empty() {
            return Err("there is no partition".into());
        }
        if matches!(self.disk.table, Table::None) && self.partitions.len() != 1 {
            return Err("without a table there can be one partition only".into());
        }
        if end > self.disk.minimum_size {
            return Err(format!(
                "partitions end at byte {end}, beyond the smallest disk of {}",
                self.disk.minimum_size
            ));
        }
        if travelling != u64::from(self.payload.pieces) {
            return Err(format!(
                "partitions have {travelling} travelling pieces, the payload {}",
                self.payload.pieces
            ));
        }
        if self.payload.file_size == 0 || !self.payload.file_size.is_multiple_of(self.piece_length.bytes()) {
            return Err(format!(
                "virtual files of {} bytes are not a multiple of the piece length",
                self.payload.file_size
            ));
        }
        if self
            .disk
            .boot_areas
            .iter()
            .any(|area| area.offset.0.checked_add(area.length).is_none_or(|e| e > self.disk.minimum_size))
        {
            return Err("a boot area lies beyond the smallest disk".into());
        }
        // Without piece hashes until they are added (docs/formats.md).
        let hashes = self.payload.sha256.is_some().then_some(names::PIECES);
        let mut needed = [names::EXTENTS, names::BOOT, names::TORRENT].into_iter().chain(hashes);
        if let Some(missing) = needed.find(|name| !self.sidecars.contains_key(*name)) {
            return Err(format!("the hash of {missing} is missing"));
        }
        Ok(())
    }
}
