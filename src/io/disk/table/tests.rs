//! Tables as sgdisk and sfdisk make them, and malformed tables.

use super::*;
use crate::layout::table::crc32;
use crate::manifest::Extended;
use proptest::prelude::*;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use uuid::Uuid;

const MIB: u64 = 1 << 20;

pub(super) struct Image {
    _dir: tempfile::TempDir,
    pub(super) path: PathBuf,
}

impl Image {
    pub(super) fn empty(size: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("disk.img");
        std::fs::File::create(&path).and_then(|file| file.set_len(size)).expect("a file");
        Image { _dir: dir, path }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("its bytes")
    }
}

pub(super) fn run(program: &str, arguments: &[&str], disk: &Path) {
    let output = Command::new(program).args(arguments).arg(disk).output().expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(super) fn sfdisk(disk: &Path, script: &str) {
    use std::io::Write;
    let mut child = Command::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sfdisk");
    child.stdin.take().expect("its input").write_all(script.as_bytes()).expect("the script");
    assert!(child.wait().expect("sfdisk ends").success());
}

fn gpt_disk() -> Image {
    let image = Image::empty(16 * MIB);
    run(
        "sgdisk",
        &[
            "--disk-guid=3B0D2B9C-7E70-4A4D-9E8E-0B4C1F6A7711",
            "--new=1:2048:+1M",
            "--typecode=1:ef02",
            "--new=3:8192:+4M",
            "--typecode=3:8300",
            "--change-name=3:rööt",
            "--attributes=3:set:2",
            "--new=2:4096:+1M",
            "--typecode=2:ef00",
            "--partition-guid=3:0FC63DAF-0000-1111-2222-8E79F3F3F3F3",
        ],
        &image.path,
    );
    image
}

fn read_bytes(bytes: Vec<u8>) -> Result<Option<DiskTable>, TableError> {
    let size = bytes.len() as u64;
    read(&mut Cursor::new(bytes), size, SectorSize::DEFAULT)
}

#[test]
fn a_gpt_is_read_with_guids_names_and_attributes_in_the_order_of_the_disk() {
    let table = read_bytes(gpt_disk().bytes()).expect("sound").expect("a table");
    let uuid = |text: &str| text.parse::<Uuid>().expect("a GUID");
    assert_eq!(
        table.table,
        Table::Gpt {
            guid: uuid("3b0d2b9c-7e70-4a4d-9e8e-0b4c1f6a7711"),
            entries: 128,
            first_usable: Lba(34)
        }
    );
    let numbers: Vec<_> = table.partitions.iter().map(|p| (p.number, p.first, p.size)).collect();
    assert_eq!(numbers, [(1, Lba(2048), MIB), (2, Lba(4096), MIB), (3, Lba(8192), 4 * MIB)]);
    assert_eq!(
        table.partitions[2].entry,
        Entry::Gpt {
            kind: uuid("0fc63daf-8483-4772-8e79-3d69d8477de4"),
            guid: uuid("0fc63daf-0000-1111-2222-8e79f3f3f3f3"),
            attributes: 4,
            name: "rööt".into()
        }
    );
    let roles: Vec<_> = table.partitions.iter().map(|p| role(&p.entry)).collect();
    assert_eq!(roles, [Role::BiosBoot, Role::Esp, Role::Data]);
    assert_eq!(table.remarks, []);
}

#[test]
fn a_gpt_whose_headers_or_entries_are_damaged_is_refused() {
    let good = gpt_disk().bytes();
    let last = good.len() - 512;
    // Primary header, primary entries, backup header, backup entries.
    for at in [512 + 40, 1024 + 3, last + 60, last - 128 * 128 + 5] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let error = read_bytes(bytes).expect_err("damaged");
        assert!(matches!(error, TableError::Damaged(_)), "byte {at}: {error}");
    }
    let mut bytes = good.clone();
    bytes[512..1024].fill(0);
    assert!(matches!(read_bytes(bytes), Err(TableError::Damaged(_))));
}

#[test]
fn a_disk_image_that_was_cut_off_is_refused() {
    let mut bytes = gpt_disk().bytes();
    bytes.truncate(12 << 20);
    assert!(matches!(read_bytes(bytes), Err(TableError::Truncated { .. })));
}

#[test]
fn a_disk_that_grew_since_it_was_partitioned_is_read_with_a_remark() {
    let mut bytes = gpt_disk().bytes();
    bytes.resize(20 << 20, 0);
    assert_eq!(read_bytes(bytes).expect("sound").expect("a table").remarks, [Remark::BackupNotAtEnd]);
}

#[test]
fn a_4096_byte_sector_gpt_is_recognised_by_where_it_lies() {
    let mut bytes = vec![0u8; 64 << 10];
    put_record(&mut bytes, 0, &[(0, 0xee, 1, 15)]);
    bytes[4096..4104].copy_from_slice(b"EFI PART");
    let size = bytes.len() as u64;
    assert_eq!(guess_sector_size(&mut Cursor::new(bytes), size).expect("read").get(), 4096);
    let bytes = gpt_disk().bytes();
    let size = bytes.len() as u64;
    assert_eq!(guess_sector_size(&mut Cursor::new(bytes), size).expect("read").get(), 512);
}

#[test]
fn primary_and_logical_partitions_are_read_with_their_records() {
    let image = Image::empty(64 * MIB);
    sfdisk(
        &image.path,
        "label: dos\nlabel-id: 0x04030201\nstart=2048, size=8192, type=7, bootable\n\
         start=10240, size=100000, type=f\nstart=12288, size=4096, type=83\nstart=20480, size=8192, type=82\n\
         start=32768, size=2048, type=83\n",
    );
    let table = read_bytes(image.bytes()).expect("sound").expect("a table");
    assert_eq!(
        table.table,
        Table::Mbr {
            signature: [1, 2, 3, 4],
            extended: vec![Extended { number: 2, kind: 0x0f, first: Lba(10240), sectors: 100_000 }]
        }
    );
    let found: Vec<_> = table.partitions.iter().map(|p| (p.number, p.first.0, p.size / 512)).collect();
    assert_eq!(found, [(1, 2048, 8192), (5, 12288, 4096), (6, 20480, 8192), (7, 32768, 2048)]);
    assert_eq!(table.partitions[0].entry, Entry::Mbr { kind: 7, active: true, ebr: None });
    assert_eq!(table.partitions[1].entry, Entry::Mbr { kind: 0x83, active: false, ebr: Some(Lba(10240)) });
    assert!(
        matches!(table.partitions[2].entry, Entry::Mbr { kind: 0x82, ebr: Some(Lba(l)), .. } if l > 10240)
    );
}

/// An MBR with these entries: active, type, first, sectors.
fn mbr(entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut bytes = vec![0u8; 4 << 20];
    put_record(&mut bytes, 0, entries);
    bytes
}

pub(super) fn put_record(bytes: &mut [u8], sector: usize, entries: &[(u8, u8, u32, u32)]) {
    let record = &mut bytes[sector * 512..(sector + 1) * 512];
    for (i, (active, kind, first, sectors)) in entries.iter().enumerate() {
        let entry = &mut record[446 + 16 * i..462 + 16 * i];
        entry[0] = *active;
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    record[510..].copy_from_slice(&[0x55, 0xaa]);
}

#[test]
fn overlaps_and_partitions_beyond_the_end_are_refused() {
    let overlap = read_bytes(mbr(&[(0, 0x83, 64, 100), (0, 0x83, 163, 10)]));
    assert!(matches!(overlap, Err(TableError::Overlap(..))));
    let over_box = read_bytes(mbr(&[(0, 0x83, 64, 100), (0, 5, 163, 100)]));
    assert!(matches!(over_box, Err(TableError::Overlap(..))));
    assert!(matches!(read_bytes(mbr(&[(0, 0x83, 64, 8129)])), Err(TableError::Truncated { .. })));
    assert!(read_bytes(mbr(&[(0, 0x83, 64, 8128)])).expect("fits").is_some());
    assert!(matches!(read_bytes(mbr(&[(0, 0x83, 0, 64)])), Err(TableError::Damaged(_))));
}

#[test]
fn a_chain_of_logical_partitions_that_loops_or_leaves_its_box_is_refused() {
    let mut bytes = mbr(&[(0, 5, 64, 1000)]);
    put_record(&mut bytes, 64, &[(0, 0x83, 8, 10), (0, 5, 100, 50)]);
    put_record(&mut bytes, 164, &[(0, 0x83, 8, 10), (0, 5, 0, 50)]);
    assert!(matches!(read_bytes(bytes), Err(TableError::Damaged(_))));
    let mut bytes = mbr(&[(0, 5, 64, 100)]);
    put_record(&mut bytes, 64, &[(0, 0x83, 8, 200)]);
    assert!(matches!(read_bytes(bytes), Err(TableError::Damaged(_))));
    let mut bytes = mbr(&[(0, 5, 64, 1000)]);
    put_record(&mut bytes, 64, &[(0, 0x83, 8, 10), (0, 5, 100, 50)]);
    assert!(matches!(read_bytes(bytes), Err(TableError::Damaged(_))), "a link to nothing");
}

#[test]
fn records_without_a_partition_are_not_counted_as_linux_does() {
    let mut bytes = mbr(&[(0, 5, 64, 1000)]);
    put_record(&mut bytes, 64, &[(0, 0, 0, 0), (0, 5, 100, 50)]);
    put_record(&mut bytes, 164, &[(0, 0x83, 8, 10)]);
    let table = read_bytes(bytes).expect("sound").expect("a table");
    let found: Vec<_> = table.partitions.iter().map(|p| (p.number, p.first)).collect();
    assert_eq!(found, [(5, Lba(172))]);
}

/// A disk with a GPT whose first sector has these entries in place of the protective one.
fn gpt_behind(entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut bytes = gpt_disk().bytes();
    bytes[..512].fill(0);
    put_record(&mut bytes, 0, entries);
    bytes
}

#[test]
fn an_mbr_without_a_protective_entry_is_in_force_whatever_gpt_lies_behind_it() {
    let table = read_bytes(gpt_behind(&[(0x80, 0x83, 4096, 8192)])).expect("sound").expect("a table");
    assert!(matches!(table.table, Table::Mbr { .. }), "{:?}", table.table);
    assert_eq!(table.remarks, [Remark::StaleGpt]);
    assert_eq!(table.partitions.iter().map(|p| (p.number, p.first.0)).collect::<Vec<_>>(), [(1, 4096)]);
}

#[test]
fn a_gpt_that_nothing_protects_is_none() {
    for bytes in [gpt_behind(&[]), {
        let mut bytes = gpt_disk().bytes();
        bytes[..512].fill(0);
        bytes
    }] {
        let size = bytes.len() as u64;
        assert_eq!(read_bytes(bytes.clone()).expect("nothing"), None);
        let unprotected = has_unprotected_gpt(&mut Cursor::new(bytes), size, SectorSize::DEFAULT);
        assert!(unprotected.expect("read"));
    }
    let bytes = gpt_disk().bytes();
    let size = bytes.len() as u64;
    assert!(!has_unprotected_gpt(&mut Cursor::new(bytes), size, SectorSize::DEFAULT).expect("read"));
    // Linux takes the disk for neither an MBR nor a GPT one.
    let misplaced = read_bytes(gpt_behind(&[(0, 0x83, 2048, 2048), (0, 0xee, 4096, 8192)]));
    assert!(matches!(misplaced, Err(TableError::Damaged(_))), "{misplaced:?}");
}

#[test]
fn a_protective_entry_in_any_place_protects_the_gpt() {
    let hybrid = gpt_behind(&[(0x80, 0x83, 8192, 8192), (0, 0, 0, 0), (0, 0xee, 1, 2047)]);
    let table = read_bytes(hybrid).expect("sound").expect("a table");
    assert!(matches!(table.table, Table::Gpt { .. }));
    assert_eq!(table.remarks, [Remark::HybridMbr]);
}

#[test]
fn a_protective_mbr_is_refused_where_either_gpt_is_damaged() {
    let good = gpt_disk().bytes();
    let last = good.len() - 512;
    // The primary, the backup, both: Linux takes none of the first and third, firmware may take another one
    // than Linux.
    for damaged in [vec![512], vec![last], vec![512, last]] {
        let mut bytes = good.clone();
        damaged.iter().for_each(|at| bytes[at + 60] ^= 1);
        assert!(matches!(read_bytes(bytes), Err(TableError::Damaged(_))), "{damaged:?}");
    }
}

#[test]
fn a_disk_is_recognised_by_its_identity_also_where_its_table_is_damaged() {
    let of = |bytes: Vec<u8>| {
        let size = bytes.len() as u64;
        identity(&mut Cursor::new(bytes), size, SectorSize::DEFAULT).expect("read")
    };
    let good = gpt_disk().bytes();
    let whole = of(good.clone());
    assert_eq!(
        whole.disk.map(|guid| guid.to_string()).as_deref(),
        Some("3b0d2b9c-7e70-4a4d-9e8e-0b4c1f6a7711")
    );
    assert_eq!(whole.partitions.len(), 3);
    let mut without_primary = good.clone();
    without_primary[512..1024].fill(0);
    assert_eq!(of(without_primary), whole);
    let mut damaged = good;
    damaged[512 + 40] ^= 1;
    assert_eq!(of(damaged), whole);
    let mut mbr = mbr(&[(0, 0x83, 64, 100)]);
    mbr[440..444].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(of(mbr).signature, Some([1, 2, 3, 4]));
    assert_eq!(of(vec![0; 4096]), Default::default());
    assert_eq!(of(vec![0; 100]), Default::default());
}

#[test]
fn disks_without_a_table_are_told_from_disks_with_one() {
    assert_eq!(read_bytes(vec![]).expect("nothing"), None);
    assert_eq!(read_bytes(vec![0; 4096]).expect("zeros"), None);
    assert_eq!(read_bytes(mbr(&[])).expect("an empty table"), None);
    let mut fat = mbr(&[(0x80, 0x65, 0x6e6e_6f20, 17)]);
    fat[54..59].copy_from_slice(b"FAT16");
    assert_eq!(read_bytes(fat).expect("a filesystem"), None);
}

#[test]
fn a_gpt_that_asks_for_much_memory_is_refused() {
    // A sound header except for its size fields; its checksum is corrected.
    let mut bytes = gpt_disk().bytes();
    bytes[512 + 80..512 + 84].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes[512 + 16..512 + 20].fill(0);
    let sum = crc32(&bytes[512..512 + 92]);
    bytes[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
    assert!(matches!(read_bytes(bytes), Err(TableError::Unsupported(_))));
}

#[test]
fn a_hybrid_mbr_is_read_by_its_gpt_and_remarked_on() {
    let image = gpt_disk();
    let plain = read_bytes(image.bytes()).expect("sound").expect("a table");
    run("sgdisk", &["--hybrid=1:3"], &image.path);
    let hybrid = read_bytes(image.bytes()).expect("sound").expect("a table");
    assert_eq!(hybrid.remarks, [Remark::HybridMbr]);
    assert_eq!((hybrid.table, hybrid.partitions), (plain.table, plain.partitions));
}

#[test]
fn a_gpt_with_more_than_128_entries_is_read_with_all_of_them() {
    let image = gpt_disk();
    run("sgdisk", &["--resize-table=256", "--new=200:20480:+1M"], &image.path);
    let table = read_bytes(image.bytes()).expect("sound").expect("a table");
    let Table::Gpt { entries, first_usable, .. } = table.table else { panic!("no GPT") };
    assert_eq!((entries, first_usable), (256, Lba(66)));
    let numbers: Vec<_> = table.partitions.iter().map(|p| p.number).collect();
    assert_eq!(numbers, [1, 2, 3, 200]);
}

/// Makes the sums of header and entries of both tables of a disk with 128 entries right again.
fn mend(bytes: &mut [u8]) {
    let last = bytes.len() - 512;
    for (header, entries) in [(512, 1024), (last, last - 128 * 128)] {
        let sum = crc32(&bytes[entries..entries + 128 * 128]);
        bytes[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
        bytes[header + 16..header + 20].fill(0);
        let sum = crc32(&bytes[header..header + 92]);
        bytes[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

#[test]
fn gpt_entries_that_overlap_or_run_backwards_are_refused_whatever_their_sums_say() {
    let good = gpt_disk().bytes();
    let last = good.len() - 512;
    let with = |number: usize, at: usize, lba: u64| {
        let mut bytes = good.clone();
        for entries in [1024, last - 128 * 128] {
            let field = entries + (number - 1) * 128 + at;
            bytes[field..field + 8].copy_from_slice(&lba.to_le_bytes());
        }
        mend(&mut bytes);
        read_bytes(bytes)
    };
    assert!(with(2, 40, 6143).expect("as it was").is_some());
    // The last sector of the second one is the first of the third.
    assert!(matches!(with(2, 40, 8192), Err(TableError::Overlap(..))));
    assert!(matches!(with(2, 40, 4095), Err(TableError::Damaged(_))));
    assert!(matches!(with(2, 40, 32_768), Err(TableError::Damaged(_))), "beyond what may be used");
    assert!(matches!(with(2, 32, 20), Err(TableError::Damaged(_))), "on the table");
}

proptest! {
    #[test]
    fn garbage_in_place_of_records_never_panics(
        entries in proptest::collection::vec(
            (prop_oneof![Just(0u8), Just(0x80)], prop_oneof![any::<u8>(), Just(5u8), Just(0xee)],
             any::<u32>(), any::<u32>()), 0..5),
        inner in proptest::collection::vec(
            (Just(0u8), prop_oneof![any::<u8>(), Just(5u8)], 0u32..9000, any::<u32>()), 0..5),
        at in 1usize..8000,
    ) {
        let mut entries = entries;
        entries.truncate(3);
        entries.push((0, 5, u32::try_from(at).expect("small"), 8000));
        let mut bytes = mbr(&entries);
        put_record(&mut bytes, at, &inner[..inner.len().min(4)]);
        let _ = read_bytes(bytes);
    }

    #[test]
    fn garbage_in_a_gpt_header_with_a_right_checksum_never_panics(
        changes in proptest::collection::vec((8usize..92, any::<u8>()), 1..8)
    ) {
        let mut bytes = vec![0u8; 1 << 20];
        put_record(&mut bytes, 0, &[(0, 0xee, 1, 2047)]);
        bytes[512..520].copy_from_slice(b"EFI PART");
        for (lba, other, entries) in [(1u64, 2047u64, 2u64), (2047, 1, 2015)] {
            let header = &mut bytes[usize::try_from(lba).expect("small") * 512..][..92];
            header[..8].copy_from_slice(b"EFI PART");
            for (at, value) in [(24, lba), (32, other), (40, 34), (48, 2014), (72, entries)] {
                header[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            header[80..84].copy_from_slice(&128u32.to_le_bytes());
            header[84..88].copy_from_slice(&128u32.to_le_bytes());
            for (at, value) in &changes {
                header[*at] = *value;
            }
            header[16..20].fill(0);
            let sum = crc32(header);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
        }
        let _ = read_bytes(bytes);
    }
}
