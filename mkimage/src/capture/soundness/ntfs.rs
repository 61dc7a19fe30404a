//! Is an NTFS whole: not marked as dirty, and its journal ($LogFile) carried out?
//!
//! Windows replays the journal when it mounts; until then the map of free clusters is out of date. A power
//! cut leaves a journal to replay without setting the dirty flag. Invariant: only reads; an unknown structure
//! is reported as such.

use flashmob::layout::traces::ntfs::{Table, find, put_back};

use super::volume::{Unsound, Volume, unsound};
use flashmob::layout::traces::number;

/// Records of the file table.
const LOG_FILE: u64 = 2;
const VOLUME: u64 = 3;
/// Attributes of a record.
const VOLUME_INFORMATION: u64 = 0x70;
const DATA: u64 = 0x80;
/// Where a copy of the journal's restart page may begin: at 0, and at each power of two from here on, as
/// pages are that large.
const SMALLEST_PAGE: u64 = 512;
const LARGEST_PAGE: u64 = 64 << 10;
/// In a restart area.
const NO_CLIENT: u64 = 0xffff;
const VOLUME_IS_CLEAN: u64 = 0x2;

const SHUT_DOWN: &str = "Start Windows, run chkdsk, switch fast startup off (powercfg /h off) and shut down.";

/// Why it is unsound.
pub(super) fn problem(volume: &Volume) -> Option<Unsound> {
    let unreadable = || Some(unsound("its file table cannot be read", SHUT_DOWN));
    let Some(table) = Table::of(volume.start) else { return unreadable() };
    match is_dirty(volume, &table) {
        None => return unreadable(),
        Some(true) => return Some(unsound("it is marked as dirty", SHUT_DOWN)),
        Some(false) => {}
    }
    match is_carried_out(volume, &table) {
        None => Some(unsound("its journal ($LogFile) cannot be read", SHUT_DOWN)),
        Some(false) => {
            Some(unsound("its journal ($LogFile) was not carried out: it was not unmounted", SHUT_DOWN))
        }
        Some(true) => None,
    }
}

/// One of the first records of the file table.
fn record(volume: &Volume, table: &Table, number: u64) -> Option<Vec<u8>> {
    let at = table.start.checked_add((table.record as u64).checked_mul(number)?)?;
    put_back(volume.bytes(at, table.record)?)
}

fn is_dirty(volume: &Volume, table: &Table) -> Option<bool> {
    let record = record(volume, table, VOLUME)?;
    let attribute = find(&record, VOLUME_INFORMATION)?;
    let content = usize::try_from(number(attribute, 20, 2)?).ok()?;
    Some(number(attribute, content.checked_add(10)?, 2)? & 1 != 0)
}

/// The journal's first bytes, as far as its first run of clusters has them and no further than restart pages
/// may lie.
fn log_start(volume: &Volume, table: &Table) -> Option<Vec<u8>> {
    let record = record(volume, table, LOG_FILE)?;
    let data = find(&record, DATA)?;
    // It is never inside the record; bytes of a run's length and place, then these.
    let runs = data.get(usize::try_from(number(data, 32, 2)?).ok()?..)?;
    let (len, place) = (usize::from(runs.first()? & 15), usize::from(runs.first()? >> 4));
    if number(data, 8, 1)? != 1 || !(1..=8).contains(&len) || !(1..=8).contains(&place) {
        return None;
    }
    let clusters = number(runs, 1, len)?;
    let start = number(runs, 1 + len, place)?.checked_mul(table.cluster)?;
    let wanted = clusters.checked_mul(table.cluster)?.min(number(data, 48, 8)?).min(2 * LARGEST_PAGE);
    volume.bytes(start, usize::try_from(wanted).ok()?)
}

/// True if the newest restart page says that nothing has to be carried out, or if there is nothing in the
/// journal at all.
fn is_carried_out(volume: &Volume, table: &Table) -> Option<bool> {
    let log = log_start(volume, table)?;
    let sizes = std::iter::successors(Some(SMALLEST_PAGE), |size| Some(size * 2));
    let places = std::iter::once(0).chain(sizes.take_while(|size| *size <= LARGEST_PAGE));
    let pages = places.filter_map(|at| log.get(usize::try_from(at).ok()?..)).filter(|page| !page.is_empty());
    let (mut empty, mut newest) = (true, None);
    for page in pages {
        empty &= page.starts_with(&[0xff; 4]);
        // chkdsk leaves its own mark, from which Windows continues.
        if page.starts_with(b"CHKD") {
            return Some(false);
        }
        if page.starts_with(b"RSTR") {
            let area = page.get(usize::try_from(number(page, 24, 2)?).ok()?..)?;
            let clean = number(area, 12, 2)? == NO_CLIENT || number(area, 14, 2)? & VOLUME_IS_CLEAN != 0;
            newest = newest.max(Some((number(area, 0, 8)?, clean)));
        }
    }
    // mkfs and programs that empty the journal fill it with ones.
    newest.map(|(_, clean)| clean).or(empty.then_some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: usize = 4096;
    const LOG: usize = 8 * CLUSTER;

    /// A restart page: its log sequence number, clients in use, flags.
    fn page(number: u64, clients: u16, flags: u16) -> Vec<u8> {
        let mut page = vec![0; CLUSTER];
        page[..4].copy_from_slice(b"RSTR");
        page[24] = 0x40;
        page[0x40..0x48].copy_from_slice(&number.to_le_bytes());
        page[0x4c..0x4e].copy_from_slice(&clients.to_le_bytes());
        page[0x4e..0x50].copy_from_slice(&flags.to_le_bytes());
        page
    }

    /// A record of the file table with one attribute of this kind.
    fn record(kind: u8, attribute: &[(usize, u8)]) -> Vec<u8> {
        let mut record = vec![0; 1024];
        record[..4].copy_from_slice(b"FILE");
        (record[4], record[6], record[20]) = (48, 3, 56);
        (record[56], record[60]) = (kind, 0x60);
        attribute.iter().for_each(|(at, byte)| record[56 + at] = *byte);
        record[56 + 0x60..][..4].copy_from_slice(&[0xff; 4]);
        record
    }

    /// Clusters of 4 KiB, said to be so in the two ways; the table in the first one, the journal of 16 KiB in
    /// the eighth.
    fn volume(sector: u16, sectors_per_cluster: u8, log: &[Vec<u8>], dirty: bool) -> Vec<u8> {
        let mut bytes = vec![0; LOG];
        bytes[11..13].copy_from_slice(&sector.to_le_bytes());
        (bytes[13], bytes[48], bytes[64]) = (sectors_per_cluster, 1, 0xf6);
        let log_file = record(0x80, &[(8, 1), (32, 0x40), (49, 0x40), (0x40, 0x11), (0x41, 4), (0x42, 8)]);
        bytes[CLUSTER + 2048..][..1024].copy_from_slice(&log_file);
        let flags = u8::from(dirty);
        bytes[CLUSTER + 3072..][..1024].copy_from_slice(&record(0x70, &[(20, 24), (24 + 10, flags)]));
        bytes.extend(log.concat());
        bytes.resize(LOG + 4 * CLUSTER, 0xff);
        bytes
    }

    fn said(bytes: &[u8]) -> String {
        let read = |at: u64, into: &mut [u8]| {
            let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.get(..into.len()));
            from.map(|from| into.copy_from_slice(from)).is_some()
        };
        let found = problem(&Volume { start: bytes, size: bytes.len() as u64, read: &read });
        found.map(|found| found.problem).unwrap_or_default()
    }

    #[test]
    fn a_journal_that_windows_would_carry_out_is_told_from_one_that_is_done() {
        let of = |log: &[Vec<u8>]| said(&volume(512, 8, log, false));
        let (used, clean, idle) = (page(5, 0, 0), page(6, 0, 2), page(6, 0xffff, 0));
        assert_eq!(of(&[]), "", "never written to");
        assert_eq!(of(&[clean.clone(), used.clone()]), "", "the newer page counts");
        assert_eq!(of(&[used.clone(), idle]), "", "nobody uses it");
        assert!(of(&[used.clone(), used.clone()]).contains("($LogFile) was not carried out"));
        assert!(of(&[clean, page(7, 0, 0)]).contains("($LogFile) was not carried out"));
        assert!(of(&[b"CHKD".to_vec()]).contains("($LogFile) was not carried out"));
        assert!(of(&[vec![0; 4 * CLUSTER]]).contains("($LogFile) cannot be read"));
        assert!(said(&volume(512, 8, &[], true)).contains("dirty"));
        assert!(said(&[0; 4096]).contains("file table cannot be read"));
    }

    #[test]
    fn clusters_are_counted_in_sectors_also_where_they_are_a_power_of_two() {
        for (sector, code) in [(512, 8), (512, 0xfd), (1024, 4), (1024, 0xfe), (4096, 1)] {
            assert_eq!(said(&volume(sector, code, &[], false)), "", "{sector} {code:#x}");
        }
        let mut bytes = vec![0; 512];
        for (code, size) in [(0xf8, 128 << 10), (0xf4, 2 << 20)] {
            (bytes[12], bytes[13], bytes[48], bytes[64]) = (2, code, 1, 0xf6);
            let table = Table::of(&bytes);
            assert_eq!(table.map(|table| table.cluster), Some(size));
        }
    }
}
