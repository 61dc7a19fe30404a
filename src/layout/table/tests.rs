//! Handmade and random tables. `io::disk::table` tests tables of partitioning tools.

use super::described::{CHS_BEYOND, chs};
use super::*;
use crate::manifest::Entry;
use crate::manifest::Extended;
use crate::units::{Lba, SectorSize};
use proptest::prelude::*;
use uuid::Uuid;

const SECTORS: u64 = 65_536;
/// Of a disk that is made again and again.
const SMALL: u64 = 8192;

fn gpt_table() -> Table {
    Table::Gpt { guid: Uuid::from_u128(1), entries: 128, first_usable: Lba(34) }
}

fn gpt_entry() -> Entry {
    Entry::Gpt { kind: Uuid::from_u128(7), guid: Uuid::from_u128(8), attributes: 0, name: "root".into() }
}

fn described<'a>(table: &'a Table, parts: &[(u32, u64, u64, &'a Entry)]) -> Described<'a> {
    let slots = parts.iter().map(|(number, first, sectors, entry)| Slot {
        number: *number,
        first: Lba(*first),
        size: sectors * 512,
        entry,
    });
    Described { table, slots: slots.collect(), sector: SectorSize::DEFAULT }
}

fn disk_of(writes: &[Write], sectors: u64) -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(sectors * 512).expect("small")];
    for write in writes {
        let at = usize::try_from(write.offset.0).expect("small");
        disk[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    disk
}

fn patches_of(described: &Described<'_>, records: &[Lba], disk: &[u8]) -> Vec<Patch> {
    let read = |at: u64, into: &mut [u8]| {
        let at = usize::try_from(at).expect("small");
        into.copy_from_slice(&disk[at..at + into.len()]);
        Ok::<(), ()>(())
    };
    described.patches(disk.len() as u64 / 512, records, read).expect("read")
}

#[test]
fn the_crc_is_the_one_everybody_means() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn cylinder_head_and_sector_are_those_of_other_tools() {
    assert_eq!(chs(0), [0, 1, 0]);
    assert_eq!(chs(2048), [0x20, 0x21, 0x00]);
    assert_eq!(chs(1023 * 255 * 63 + 254 * 63 + 62), [0xfe, 0xff, 0xff]);
    assert_eq!(chs(u64::MAX / 2), CHS_BEYOND);
}

#[test]
fn what_follows_from_the_size_of_a_disk_follows_it_and_what_does_not_stays() {
    let (table, entry) = (gpt_table(), gpt_entry());
    let described = described(&table, &[(1, 2048, 8192, &entry)]);
    let mut golden = disk_of(&described.writes(SECTORS, &[]).expect("a table"), SECTORS);
    golden[446] = 0x80;
    let patches = patches_of(&described, &[], &golden);
    assert_eq!(patches, [Patch { offset: 446, bytes: vec![0x80] }]);
    let larger = disk_of(&described.writes(2 * SECTORS, &patches).expect("a table"), 2 * SECTORS);
    assert_eq!(larger[446], 0x80);
    assert_eq!(larger[458..462], (2 * u32::try_from(SECTORS).expect("small") - 1).to_le_bytes());
    let last_usable = |disk: &[u8]| u64::from_le_bytes(*disk[512 + 48..].first_chunk().expect("eight bytes"));
    assert_eq!(last_usable(&larger), 2 * SECTORS - 34);
    // Room that was left behind the partitions stays, unless the disk does not have it.
    let room = [Patch { offset: 512 + 48, bytes: 40_000u64.to_le_bytes().to_vec() }];
    let left = |sectors| last_usable(&disk_of(&described.writes(sectors, &room).expect("a table"), sectors));
    assert_eq!((left(2 * SECTORS), left(SECTORS), left(30_000)), (40_000, 40_000, 30_000 - 34));
}

#[test]
fn bytes_that_say_where_partitions_lie_are_never_patched() {
    let (table, entry) = (gpt_table(), gpt_entry());
    let gpt = described(&table, &[(1, 2048, 8192, &entry)]);
    // Mark of the first sector, header, type and place of an entry, a field that is left at its end, beyond
    // the table.
    for (offset, length) in
        [(510, 1), (512, 8), (512 + 40, 8), (1024, 16), (1024 + 32, 8), (512 + 20, 5), (1 << 20, 512)]
    {
        let patch = Patch { offset, bytes: vec![7; length] };
        assert!(gpt.writes(SECTORS, &[patch]).is_err(), "byte {offset}");
    }
    let unprotected = Patch { offset: 450, bytes: vec![0x83] };
    assert!(gpt.writes(SECTORS, &[unprotected]).is_err_and(|why| why.contains("protect")));
    let entries_at = |lba: u64| Patch { offset: 512 + 72, bytes: lba.to_le_bytes().to_vec() };
    assert!(gpt.writes(SECTORS, &[entries_at(3)]).is_err(), "onto what partitions may use");
    assert!(gpt.writes(SECTORS, &[entries_at(0)]).is_err());

    let table = Table::Mbr {
        signature: [1, 2, 3, 4],
        extended: vec![Extended { number: 2, kind: 5, first: Lba(20_000), sectors: 20_000 }],
    };
    let primary = Entry::Mbr { kind: 7, active: true, ebr: None };
    let logical = Entry::Mbr { kind: 0x83, active: false, ebr: Some(Lba(20_000)) };
    let mbr = described(&table, &[(1, 2048, 8192, &primary), (5, 22_048, 2048, &logical)]);
    assert!(mbr.writes(SECTORS, &[]).is_ok());
    let record = 20_000 * 512;
    let entry = |number: u64| 446 + 16 * (number - 1);
    let used = [0, 0, 0, 0, 0x83, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0];
    for (offset, bytes) in [
        (440, vec![9]),                      // the signature
        (entry(1), vec![0]),                 // the active flag
        (entry(1) + 8, vec![0; 4]),          // where it begins
        (entry(3), used.to_vec()),           // one more partition
        (record + entry(1) + 8, vec![1; 4]), // a logical one elsewhere
        (record + entry(2), used.to_vec()),  // one more logical one
        (record + 510, vec![0, 0]),          // no record at all
        (record + 1024, vec![1; 512]),       // a record that nothing leads to
    ] {
        assert!(mbr.writes(SECTORS, &[Patch { offset, bytes }]).is_err(), "byte {offset}");
    }
}

#[test]
fn a_chain_begins_at_the_head_of_its_extended_partition_also_without_a_partition_there() {
    let table = |first| Table::Mbr {
        signature: [1, 2, 3, 4],
        extended: vec![Extended { number: 2, kind: 5, first: Lba(first), sectors: 20_000 }],
    };
    let logical = Entry::Mbr { kind: 0x83, active: false, ebr: Some(Lba(24_096)) };
    let table_of_one = table(20_000);
    let one = described(&table_of_one, &[(5, 26_144, 2048, &logical)]);
    let writes = one.writes(SECTORS, &[]).expect("a table");
    let offsets: Vec<u64> = writes.iter().map(|write| write.offset.0 / 512).collect();
    assert_eq!(offsets, [0, 20_000, 24_096]);
    assert_eq!(writes[1].bytes[446..462], [0; 16]);
    assert_eq!(writes[1].bytes[462 + 8..462 + 12], 4096u32.to_le_bytes());
    // An extended partition without any: an old chain there is ended.
    let table_of_none = table(20_000);
    let none = described(&table_of_none, &[]);
    let writes = none.writes(SECTORS, &[]).expect("a table");
    assert_eq!(writes.len(), 2);
    assert!(writes[1].bytes.iter().all(|byte| *byte == 0));
}

proptest! {
    #[test]
    fn whatever_lies_between_a_tables_fields_comes_back_byte_for_byte(
        junk in proptest::collection::vec((0usize..34 * 512, any::<u8>()), 0..60), larger in 0u64..3,
    ) {
        let (table, entry) = (gpt_table(), gpt_entry());
        let described = described(&table, &[(1, 2048, 1024, &entry), (7, 4096, 1024, &entry)]);
        let plain = disk_of(&described.writes(SMALL, &[]).expect("a table"), SMALL);
        let mut golden = plain.clone();
        // Where its entries lie is a matter of the disk's table, which the reader has checked.
        for (at, byte) in junk.into_iter().filter(|(at, _)| !(584..592).contains(at)) {
            golden[at] = byte;
        }
        let patches = patches_of(&described, &[], &golden);
        let Ok(writes) = described.writes(SMALL + larger, &patches) else { return Ok(()) };
        let made = disk_of(&writes, SMALL + larger);
        // A field is the golden disk's or the one that follows from the manifest, never a mixture.
        for at in 440..34 * 512 {
            let sums = (528..532).contains(&at) || (600..604).contains(&at);
            let size = larger > 0
                && ((451..454).contains(&at) || (458..462).contains(&at) || (544..568).contains(&at));
            prop_assert!(sums || size || made[at] == golden[at] || made[at] == plain[at], "byte {at}");
        }
        prop_assert_eq!(crc32(&made[1024..1024 + 128 * 128]).to_le_bytes().to_vec(), made[600..604].to_vec());
        let mut header = made[512..604].to_vec();
        header[16..20].fill(0);
        prop_assert_eq!(crc32(&header).to_le_bytes().to_vec(), made[528..532].to_vec());
    }
}
