//! Damage is found and named; sound images and disks verify.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flashmob::io::image::folder::ImageFolder;

use crate::disks::{self, MIB};
use crate::{capture, fail, mkimage, succeed};

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x20], at).expect("written");
}

#[test]
fn a_sound_folder_and_the_disk_it_came_from_are_all_right() {
    let dir = tempfile::tempdir().expect("a folder");
    for disk in [disks::gpt(dir.path()), disks::mbr(dir.path()), disks::ext4(dir.path())] {
        let folder = capture(dir.path(), &disk);
        assert!(succeed(&mkimage(&[&"verify", &folder])).contains("all right"));
        succeed(&mkimage(&[&"verify", &folder, &"--disk", &disk]));
        let shown = succeed(&mkimage(&[&"inspect", &folder]));
        assert!(shown.contains("lab@1 (sequence 1") && shown.contains("not signed"), "{shown}");
        let json = succeed(&mkimage(&[&"inspect", &folder, &"--json"]));
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["manifest"]["name"], "lab");
        assert_eq!(json["signature"], "missing");
        fs::remove_dir_all(folder).expect("removed");
    }
}

#[test]
fn a_flipped_byte_in_any_file_of_the_folder_is_found_and_the_file_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = capture(dir.path(), &disks::gpt(dir.path()));
    for name in ["extents.bin", "pieces.sha256", "boot.bin", "image.torrent", "manifest.json"] {
        let path = folder.join(name);
        let middle = fs::metadata(&path).expect("its size").len() / 2;
        flip(&path, middle);
        let complaint = fail(&mkimage(&[&"verify", &folder]), 4);
        // An unsigned manifest differs visibly from a damaged one only if it contradicts something.
        assert!(complaint.contains(name) || name == "manifest.json", "{complaint}");
        flip(&path, middle);
    }
    succeed(&mkimage(&[&"verify", &folder]));
    fs::remove_file(folder.join("boot.bin")).expect("removed");
    assert!(fail(&mkimage(&[&"verify", &folder]), 3).contains("boot.bin"));
}

#[test]
fn a_flipped_byte_in_the_payload_is_named_by_partition_piece_and_offset() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = capture(dir.path(), &disks::gpt(dir.path()));
    // Piece 0 is the only one of partition 1; piece 1 is the first of partition 2.
    flip(&folder.join("payload/0000.bin"), 65536 + 100);
    let complaint = fail(&mkimage(&[&"verify", &folder]), 4);
    assert!(complaint.contains("partition 2, piece 1, byte 0 of the partition"), "{complaint}");
    assert!(complaint.contains("1 mismatches"), "{complaint}");
    flip(&folder.join("payload/0000.bin"), 65536 + 100);
    let last = folder.join("payload/0000.bin");
    File::options().write(true).open(&last).and_then(|file| file.set_len(131_072)).expect("cut");
    assert!(fail(&mkimage(&[&"verify", &folder]), 4).contains("0000.bin has 131072 bytes"));
}

#[test]
fn a_disk_that_differs_is_named_by_place_whatever_differs() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(dir.path());
    let folder = capture(dir.path(), &disk);
    let differs = |at: u64, expected: &str| {
        flip(&disk, at);
        let complaint = fail(&mkimage(&[&"verify", &folder, &"--disk", &disk]), 4);
        assert!(complaint.contains(expected), "byte {at}: {complaint}");
        flip(&disk, at);
    };
    differs(100, "boot area BootCode");
    differs(MIB, "partition 1, piece 0, byte 0 of the partition (byte 1048576 of the disk)");
    differs(2 * MIB + 3, "partition 2, piece 1, byte 0");
    // Zeros in a partition without data (partition 4), and in the middle of one.
    differs(22 * MIB + 70_001, "partition 4, byte 70001 of the partition: should be zero");
    differs(MIB + 900_000, "partition 1, byte 900000 of the partition: should be zero");
    // The second sector of the table: the entries' checksum is wrong.
    let mut bytes = fs::read(&disk).expect("the disk");
    bytes[1024 + 56] ^= 1;
    let other = dir.path().join("other.img");
    fs::write(&other, bytes).expect("a file");
    assert!(fail(&mkimage(&[&"verify", &folder, &"--disk", &other]), 3).contains("damaged"));
    disks::run("sgdisk", &["--change-name=3:other", other.to_str().expect("a path")]);
    File::create(&other).and_then(|file| file.set_len(MIB)).expect("a small disk");
    assert!(
        fail(&mkimage(&[&"verify", &folder, &"--disk", &other]), 3)
            .contains("the image needs 26214400 (25.0 MiB): 25165824 too few")
    );
}

#[test]
fn a_changed_table_entry_is_a_mismatch() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = disks::gpt(dir.path());
    let folder = capture(dir.path(), &disk);
    disks::run("sgdisk", &["--change-name=3:other", disk.to_str().expect("a path")]);
    let complaint = fail(&mkimage(&[&"verify", &folder, &"--disk", &disk]), 4);
    assert!(complaint.contains("partition 3 is") && complaint.contains("1 mismatches"), "{complaint}");
}

#[test]
fn extents_that_hide_data_are_found_even_when_every_hash_is_right() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = capture(dir.path(), &disks::ext4(dir.path()));
    // Somebody makes other extents and a manifest that fits them: the piece with data at its beginning now
    // claims to begin with zeros.
    let image = ImageFolder::open(&folder).expect("an image");
    let mut manifest = image.manifest().clone();
    let mut runs = image.grid().runs(0).to_vec();
    use flashmob::layout::extents::{Extents, RangeKind, Run, UNIT};
    assert!(runs[0].kind == RangeKind::Data && runs[0].len > UNIT);
    runs[0] = Run { start: UNIT, len: runs[0].len - UNIT, ..runs[0] };
    runs.insert(0, Run { kind: RangeKind::Zero, start: 0, len: UNIT });
    let extents = Extents { partitions: vec![runs] }.encode();
    manifest.sidecars.insert("extents.bin".into(), flashmob::io::hash::sha256(&extents));
    fs::write(folder.join("extents.bin"), extents).expect("written");
    fs::write(folder.join("manifest.json"), manifest.to_bytes()).expect("written");
    let complaint = fail(&mkimage(&[&"verify", &folder]), 4);
    assert!(complaint.contains("data where extents.bin says zero"), "{complaint}");
}
