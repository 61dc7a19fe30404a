//! The identity by which other programs recognise a disk, even if its table is damaged.
//!
//! Invariant: firmware, kernel and Windows accept damaged tables, so they count here: either of two GPT
//! headers is enough, and checksums are ignored. This identity never decides what is written.

use std::io::{self, Read, Seek, SeekFrom};

use uuid::Uuid;

use super::mbr;
use crate::layout::identity::Identity;
use crate::units::SectorSize;

/// Bytes of an entry, and more entries than any table has.
const ENTRY: usize = 128;
const MAX_ENTRIES: u32 = 1024;

/// The identity of a disk of `disk_size` bytes.
pub fn identity<D: Read + Seek>(disk: &mut D, disk_size: u64, sector: SectorSize) -> io::Result<Identity> {
    let size = u64::from(sector.get());
    if disk_size < 3 * size {
        return Ok(Identity::default());
    }
    let mut first = [0; 512];
    read_at(disk, 0, &mut first)?;
    let Some(head) = mbr::Head::parse(&first) else { return Ok(Identity::default()) };
    if !head.protects_gpt() {
        let signature =
            Some(head.signature()).filter(|signature| *signature != [0; 4] && head.has_partitions());
        return Ok(Identity { signature, ..Identity::default() });
    }
    for at in [size, (disk_size / size - 1) * size] {
        let mut header = [0; 92];
        read_at(disk, at, &mut header)?;
        if header.starts_with(b"EFI PART") {
            return of_header(disk, disk_size, sector, &header);
        }
    }
    Ok(Identity::default())
}

fn of_header<D: Read + Seek>(
    disk: &mut D,
    disk_size: u64,
    sector: SectorSize,
    header: &[u8; 92],
) -> io::Result<Identity> {
    let guid = guid_at(header, 56);
    let lba = header[72..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let count =
        header[80..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes)).min(MAX_ENTRIES);
    let mut array = vec![0; count as usize * ENTRY];
    let at = lba.checked_mul(sector.get().into());
    let mut partitions = Vec::new();
    if let Some(at) = at.filter(|at| at.checked_add(array.len() as u64).is_some_and(|end| end <= disk_size)) {
        read_at(disk, at, &mut array)?;
        let used = array.chunks_exact(ENTRY).filter(|entry| entry[..16] != [0; 16]);
        partitions = used.filter_map(|entry| guid_at(entry, 16)).collect();
    }
    Ok(Identity { disk: guid, partitions, signature: None })
}

fn guid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    let bytes = bytes.get(at..)?.first_chunk::<16>()?;
    Some(Uuid::from_bytes_le(*bytes)).filter(|guid| !guid.is_nil())
}

fn read_at<D: Read + Seek>(disk: &mut D, at: u64, into: &mut [u8]) -> io::Result<()> {
    disk.seek(SeekFrom::Start(at))?;
    disk.read_exact(into)
}
