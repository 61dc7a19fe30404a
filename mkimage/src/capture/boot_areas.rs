//! Bytes outside of partitions that a BIOS system starts from.
//!
//! Invariant: only what is not zero is recorded, in whole sectors except the boot code, which ends where the
//! disk signature begins.

use flashmob::event::Failure;
use flashmob::manifest::{BootArea, BootAreaKind, Table};
use flashmob::units::{DiskOffset, show_bytes};

use super::plan::Plan;
use crate::source::Source;

/// Bytes of boot code in a master boot record (UEFI 2.10 §5.2.1).
const BOOT_CODE: usize = 440;
/// GRUB's core image has up to some hundred KiB; of a larger gap only this much is looked at.
const MAX_GAP: u64 = 16 << 20;

/// The areas and their bytes.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of the disk.
    pub areas: Vec<BootArea>,
    /// What goes to `boot.bin`.
    pub bytes: Vec<u8>,
    /// There is boot code, so the disk can start by BIOS.
    pub boot_code: bool,
    /// For people.
    pub remarks: Vec<String>,
}

impl Found {
    fn add(&mut self, kind: BootAreaKind, offset: u64, bytes: &[u8]) {
        let (length, at) = (bytes.len() as u64, self.bytes.len() as u64);
        self.areas.push(BootArea { kind, offset: DiskOffset(offset), length, at });
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads them. A single partition has none: its first sector is its own.
pub fn read(source: &Source, plan: &Plan) -> Result<Found, Failure> {
    let mut found = Found::default();
    let sector = u64::from(source.sector_size.get());
    let starts = plan.partitions.iter().map(|p| p.start);
    let (table_end, boxes) = match &plan.table {
        Table::None => return Ok(found),
        Table::Gpt { first_usable, .. } => (first_usable.0 * sector, &[][..]),
        Table::Mbr { extended, .. } => (sector, extended.as_slice()),
    };
    let mut code = [0; BOOT_CODE];
    source.read(0, &mut code)?;
    if code.iter().any(|byte| *byte != 0) {
        found.add(BootAreaKind::BootCode, 0, &code);
        found.boot_code = true;
    }
    let first = starts.chain(boxes.iter().map(|one| one.first.0 * sector)).min().unwrap_or(0);
    let gap = first.saturating_sub(table_end);
    if gap > MAX_GAP {
        found.remarks.push(format!(
            "of the {} before the first partition only the first {} are looked at for boot code",
            show_bytes(gap),
            show_bytes(MAX_GAP)
        ));
    }
    let mut bytes = vec![0; usize::try_from(gap.min(MAX_GAP)).unwrap_or(0)];
    source.read(table_end, &mut bytes)?;
    let used = |sector: &[u8]| sector.iter().any(|byte| *byte != 0);
    let size = usize::try_from(sector).unwrap_or(512);
    let mut sectors = bytes.chunks(size);
    if let Some(from) = sectors.position(used) {
        let to = bytes.chunks(size).rposition(used).map_or(bytes.len(), |last| (last + 1) * size);
        found.add(BootAreaKind::Gap, table_end + from as u64 * sector, &bytes[from * size..to]);
    }
    Ok(found)
}
