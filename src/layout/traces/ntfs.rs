//! NTFS: there is no counter of mounts.
//!
//! Windows writes the restart pages of $LogFile when it mounts, and the first records of $MFT hold NTFS' own
//! files. Other systems may leave the journal unchanged; their writes show in the bitmaps of clusters and of
//! records, and in the root folder's index.

use super::untouched::{Doubt, Untouched, clear, number, prove_at_most};

/// Numbers of records in the file table. Of each, its data, index or bitmap is read.
const MFT: u64 = 0;
const LOG_FILE: u64 = 2;
const ROOT: u64 = 5;
const BITMAP: u64 = 6;
/// So many records at the beginning are NTFS's own.
const OWN: u64 = 16;
/// Types of attributes.
const DATA: u64 = 0x80;
const INDEX: u64 = 0xa0;
const MAP: u64 = 0xb0;
const END: u64 = 0xffff_ffff;
/// Two restart pages lie at the beginning of $LogFile, of the largest size that there is.
const RESTART: u64 = 2 * (64 << 10);
/// Runs of one attribute that are followed.
const RUNS: usize = 64;

pub(super) fn look(volume: &mut dyn Untouched, boot: &[u8]) -> Result<(), Doubt> {
    let table = clear(Table::of(boot))?;
    prove_at_most(volume, table.start, table.record as u64 * OWN)?;
    let log = table.runs(volume, LOG_FILE, DATA)?;
    let (start, len) = *clear(log.first())?;
    volume.prove(start, len.min(RESTART))?;
    for (record, attribute) in [(BITMAP, DATA), (MFT, MAP), (ROOT, INDEX)] {
        // A small folder has its index in the record; a large table has its map elsewhere.
        let runs = table.runs(volume, record, attribute).or_else(|doubt| match doubt {
            Doubt::Unclear => Ok(Vec::new()),
            changed @ Doubt::Changed(_) => Err(changed),
        })?;
        for (start, len) in runs {
            prove_at_most(volume, start, len)?;
        }
    }
    Ok(())
}

/// Where the file table lies, in bytes of the partition.
pub struct Table {
    /// Bytes of a cluster.
    pub cluster: u64,
    /// First byte of the table.
    pub start: u64,
    /// Bytes of a record.
    pub record: usize,
}

impl Table {
    /// As the boot sector says; `None` where that makes no sense.
    pub fn of(boot: &[u8]) -> Option<Self> {
        // Above 128 the exponent of a power of two, negative. It counts sectors where clusters are meant,
        // bytes of records.
        let exponent = |code: u64| u32::try_from(256 - code).ok();
        let sector = number(boot, 11, 2)?;
        let cluster = match number(boot, 13, 1)? {
            code @ 129.. => sector.checked_mul(1u64.checked_shl(exponent(code)?)?)?,
            sectors => sectors.checked_mul(sector)?,
        };
        let record = match number(boot, 64, 1)? {
            code @ 129.. => 1u64.checked_shl(exponent(code)?)?,
            clusters => clusters.checked_mul(cluster)?,
        };
        let start = number(boot, 48, 8)?.checked_mul(cluster)?;
        let is_sound = cluster > 0 && start > 0 && (512..=65536).contains(&record);
        is_sound.then_some(Table { cluster, start, record: usize::try_from(record).ok()? })
    }

    /// The places of an attribute's content, from the partition's first byte: its first runs.
    fn runs(
        &self,
        volume: &mut dyn Untouched,
        record: u64,
        attribute: u64,
    ) -> Result<Vec<(u64, u64)>, Doubt> {
        let at = self.start.saturating_add((self.record as u64).saturating_mul(record));
        let record = clear(put_back(volume.bytes(at, self.record)?))?;
        clear(find(&record, attribute).and_then(|attribute| self.runs_of(attribute)))
    }

    fn runs_of(&self, attribute: &[u8]) -> Option<Vec<(u64, u64)>> {
        if number(attribute, 8, 1)? != 1 {
            return None;
        }
        let mut rest = attribute.get(usize::try_from(number(attribute, 32, 2)?).ok()?..)?;
        let (mut runs, mut place) = (Vec::new(), 0u64);
        while let Some(head) = rest.first().filter(|head| **head != 0 && runs.len() < RUNS) {
            let (len, from) = (usize::from(head & 15), usize::from(head >> 4));
            if !(1..=8).contains(&len) || from > 8 {
                return None;
            }
            let clusters = number(rest, 1, len)?;
            // Without a place it is a hole.
            if from > 0 {
                place = place.checked_add_signed(signed(rest, 1 + len, from)?)?;
                runs.push((place.checked_mul(self.cluster)?, clusters.checked_mul(self.cluster)?));
            }
            rest = rest.get(1 + len + from..)?;
        }
        Some(runs)
    }
}

/// A signed little-endian number.
fn signed(bytes: &[u8], at: usize, len: usize) -> Option<i64> {
    let unused = 64 - 8 * u32::try_from(len).ok()?;
    Some((number(bytes, at, len)? << unused).cast_signed() >> unused)
}

/// A record with its fixups applied: on the medium, the last two bytes of every 512 are kept in its head.
pub fn put_back(mut record: Vec<u8>) -> Option<Vec<u8>> {
    if !record.starts_with(b"FILE") {
        return None;
    }
    let at = usize::try_from(number(&record, 4, 2)?).ok()?;
    let count = usize::try_from(number(&record, 6, 2)?).ok()?;
    for sector in 1..count {
        let kept = [*record.get(at + 2 * sector)?, *record.get(at + 2 * sector + 1)?];
        record.get_mut(sector * 512 - 2..sector * 512)?.copy_from_slice(&kept);
    }
    Some(record)
}

/// The first attribute of a kind, from its own first byte on.
pub fn find(record: &[u8], kind: u64) -> Option<&[u8]> {
    let mut rest = record.get(usize::try_from(number(record, 20, 2)?).ok()?..)?;
    loop {
        let (found, len) = (number(rest, 0, 4)?, usize::try_from(number(rest, 4, 4)?).ok()?);
        if found == kind {
            return rest.get(..len);
        }
        if found == END || len < 16 {
            return None;
        }
        rest = rest.get(len..)?;
    }
}
