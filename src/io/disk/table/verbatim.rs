//! Tables of partitioning tools come back byte for byte on an equal disk.
//!
//! Only these bytes must differ on an equal disk:
//! - If the golden disk's backup GPT is not in the last sector, the terminal's is, so the header's fields for
//!   the backup's place and the last usable sector, the protective entry's size, and the checksums differ.
//! - Bytes of the backup's header after its 92 bytes are the primary's.

use super::tests::{Image, run, sfdisk};
use super::*;
use crate::layout::table::{Described, Slot};

const MIB: u64 = 1 << 20;

/// Reads the table of `golden` and makes it again from its manifest and `boot.bin`, for a blank disk of
/// `size` bytes.
fn again(golden: &[u8], size: u64) -> Vec<u8> {
    let mut reader = std::io::Cursor::new(golden);
    let found = read(&mut reader, golden.len() as u64, SectorSize::DEFAULT).expect("sound").expect("a table");
    let slots = found.partitions.iter();
    let slots = slots.map(|p| Slot { number: p.number, first: p.first, size: p.size, entry: &p.entry });
    let described = Described { table: &found.table, slots: slots.collect(), sector: SectorSize::DEFAULT };
    let bytes = |at: u64, into: &mut [u8]| {
        let at = usize::try_from(at).expect("small");
        into.copy_from_slice(&golden[at..at + into.len()]);
        Ok::<(), ()>(())
    };
    let patches = described.patches(found.sectors, &found.records, bytes).expect("read");
    let mut disk = vec![0; usize::try_from(size).expect("small")];
    for write in described.writes(size / 512, &patches).expect("a table") {
        let at = usize::try_from(write.offset.0).expect("small");
        disk[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    disk
}

/// The disk has only its table and boot code (a boot area), so all other bytes must be equal.
fn assert_comes_back(golden: &[u8], what: &str) {
    let made = again(golden, golden.len() as u64);
    let sectors = made.chunks(512).zip(golden.chunks(512)).enumerate();
    let differs = |(i, (made, golden)): &(usize, (&[u8], &[u8]))| {
        let from = if *i == 0 { 440 } else { 0 };
        made[from..] != golden[from..]
    };
    let differs: Vec<usize> = sectors.filter(differs).map(|(i, _)| i).take(20).collect();
    assert_eq!(differs, [0usize; 0], "{what}: sectors that are not the golden disk's");
}

fn of_sfdisk(size: u64, script: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let image = Image::empty(size);
    sfdisk(&image.path, script);
    let mut golden = image.bytes();
    change(&mut golden);
    assert_comes_back(&golden, script);
}

fn of_tools(size: u64, commands: &[(&str, &[&str])]) {
    let image = Image::empty(size);
    for (program, arguments) in commands {
        if *program == "parted" {
            // The disk comes before the commands.
            let disk = image.path.to_str().expect("text");
            let said = Command::new("parted").args(["-s", disk]).args(*arguments).output().expect("parted");
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        } else {
            run(program, arguments, &image.path);
        }
    }
    assert_comes_back(&image.bytes(), &format!("{commands:?}"));
}

use std::process::Command;

#[test]
fn a_gpt_of_every_tool_comes_back_byte_for_byte() {
    of_sfdisk(
        64 * MIB,
        "label: gpt\nsize=8MiB, type=U, name=\"ESP\"\nsize=16MiB, attrs=\"LegacyBIOSBootable\"\n",
        |_| {},
    );
    of_sfdisk(40 * MIB + 512, "label: gpt\nfirst-lba: 4096\nlast-lba: 60000\nsize=8MiB\n", |_| {});
    of_sfdisk(64 * MIB, "label: gpt\ntable-length: 200\nstart=8192, size=8MiB\n", |_| {});
    let parted: &[&str] = &["mklabel", "gpt", "mkpart", "a", "1MiB", "9MiB", "mkpart", "b", "10MiB", "20MiB"];
    of_tools(64 * MIB, &[("parted", parted)]);
    of_tools(64 * MIB, &[("parted", parted), ("parted", &["disk_set", "pmbr_boot", "on"])]);
    let new: &[&str] = &["--new=1:2048:+4M", "--new=9:20480:+4M", "--change-name=9:x"];
    of_tools(64 * MIB, &[("sgdisk", new)]);
    of_tools(64 * MIB, &[("sgdisk", new), ("sgdisk", &["--hybrid=1:9"])]);
    of_tools(64 * MIB, &[("sgdisk", new), ("sgdisk", &["--hybrid=1:9:EE"])]);
    of_tools(64 * MIB, &[("sgdisk", &["--adjust-main-table=64"]), ("sgdisk", new)]);
    of_tools(64 * MIB, &[("sgdisk", &["--resize-table=56"]), ("sgdisk", new)]);
    // Deleted partitions, and a name that a longer one was under.
    of_tools(64 * MIB, &[("sgdisk", new), ("sgdisk", &["--delete=1", "--change-name=9:"])]);
}

#[test]
fn a_gpt_that_others_have_written_into_comes_back_byte_for_byte() {
    let windows = |bytes: &mut Vec<u8>| {
        bytes[440..446].copy_from_slice(&[0x11, 0x22, 0x33, 0x44, 0x5a, 0x5a]);
        bytes[451..454].fill(0xff);
        bytes[458..462].fill(0xff);
        bytes[700..720].fill(0x77); // behind the header's 92 bytes
        let last = bytes.len() - 512;
        bytes[last + 188..last + 208].fill(0x77);
    };
    of_sfdisk(64 * MIB, "label: gpt\nsize=8MiB, name=\"Basic data partition\"\n", windows);
}

#[test]
fn an_mbr_of_every_tool_and_geometry_comes_back_byte_for_byte() {
    let logical = "label: dos\nlabel-id: 0xa1b2c3d4\nstart=2048, size=8192, type=7, bootable\n\
                   start=12288, size=70000, type=f\nstart=14336, size=8192, type=83\n\
                   start=24576, size=16384, type=82\nstart=45056, size=8192, type=83\n";
    of_sfdisk(64 * MIB, logical, |_| {});
    // Entries that are not in the order of the disk, and one that is left free.
    of_sfdisk(
        64 * MIB,
        "label: dos\n2: start=40960, size=2048, type=83\n4: start=2048, size=2048, type=c, bootable\n",
        |_| {},
    );
    // Another geometry, an active extended partition, code in records, Windows' mark of copy protection.
    of_sfdisk(64 * MIB, logical, |bytes| {
        bytes[444..446].fill(0x5a);
        bytes[447..450].copy_from_slice(&[1, 1, 0]);
        bytes[451..454].copy_from_slice(&[0x0f, 0xd1, 0x33]);
        bytes[462] = 0x80;
        for record in [12288usize, 22528] {
            bytes[record * 512..record * 512 + 440].fill(0x90);
            bytes[record * 512 + 447..record * 512 + 450].copy_from_slice(&[9, 9, 9]);
        }
    });
    let parted: &[&str] = &[
        "mklabel", "msdos", "mkpart", "primary", "1MiB", "9MiB", "mkpart", "extended", "10MiB", "50MiB",
        "mkpart", "logical", "11MiB", "15MiB", "mkpart", "logical", "20MiB", "25MiB", "set", "1", "boot",
        "on",
    ];
    of_tools(64 * MIB, &[("parted", parted)]);
    of_tools(64 * MIB, &[("parted", &parted[..10])]);
}

#[test]
fn records_of_no_partition_come_back_wherever_they_are_in_the_chain() {
    use super::tests::put_record;
    let mut bytes = vec![0u8; 8 << 20];
    put_record(&mut bytes, 0, &[(0, 0x83, 64, 100), (0, 5, 1000, 8000)]);
    put_record(&mut bytes, 1000, &[(0, 0, 0, 0), (0, 5, 100, 50)]);
    put_record(&mut bytes, 1100, &[(0, 0x83, 8, 10), (0, 5, 200, 50)]);
    // The link in the first place, and of Windows' type.
    put_record(&mut bytes, 1200, &[(0, 0x0f, 300, 50)]);
    put_record(&mut bytes, 1300, &[(0x80, 0x83, 8, 10), (0, 0, 0, 0), (0, 0x05, 400, 1)]);
    put_record(&mut bytes, 1400, &[]);
    assert_comes_back(&bytes, "empty records");
    let table = read(&mut std::io::Cursor::new(&bytes), 8 << 20, SectorSize::DEFAULT);
    let found = table.expect("sound").expect("a table");
    let numbers: Vec<_> = found.partitions.iter().map(|p| (p.number, p.first.0)).collect();
    assert_eq!(numbers, [(1, 64), (5, 1108), (6, 1308)]);
}

#[test]
fn only_what_follows_from_the_size_differs_where_the_backup_was_not_at_the_end() {
    let image = Image::empty(32 * MIB);
    run("sgdisk", &["--new=1:2048:+4M"], &image.path);
    let mut golden = image.bytes();
    golden.resize(40 << 20, 0);
    let made = again(&golden, 40 * MIB);
    let head = 34 * 512;
    let differ: Vec<usize> = (0..head).filter(|at| made[*at] != golden[*at]).collect();
    let fields = [451..454, 458..462, 512 + 16..512 + 20, 512 + 32..512 + 40, 512 + 48..512 + 56];
    assert!(
        !differ.is_empty() && differ.iter().all(|at| fields.iter().any(|f| f.contains(at))),
        "{differ:?}"
    );
    let found = read(&mut std::io::Cursor::new(&made), 40 * MIB, SectorSize::DEFAULT);
    assert_eq!(found.expect("sound").expect("a table").remarks, []);
}
