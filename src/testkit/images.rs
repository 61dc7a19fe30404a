//! For tests of disks: private loop devices, disks with partitions and known content, and images of such
//! disks.
//!
//! Invariant: a loop device is made by and for one test, and is detached when its value is dropped, even
//! after a panic.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sha1::Digest;

use crate::io::disk::table;
use crate::io::hash::{sha256, sha256_of_hashes};
use crate::layout::extents::{Extents, RangeKind, Run, RunBuilder};
use crate::layout::grid::{Grid, classify, count};
use crate::layout::image::payload_files;
use crate::manifest::{BootArea, BootAreaKind, Disk, Manifest, Partition, Policy, Table, names};
use crate::metainfo::{Metainfo, MetainfoBuilder, Pieces};
use crate::testkit::disks::{LoopDisk, MIB, noise};
use crate::testkit::manifests::manifest_with;
use crate::testkit::programs::run;
use crate::units::{DiskOffset, PieceIndex, PieceLength, SectorSize, Sha1, Sha256};

/// A GPT disk of 24 MiB: 1 BIOS boot, 2 ESP, 4 data with a hole of zeros and a short last piece; boot code.
pub(crate) fn gpt_source(sector: u32) -> Vec<u8> {
    let disk = LoopDisk::of(&vec![0; 24 << 20], sector);
    let at = |mib: u64, less: u64| (mib * MIB / u64::from(sector) - less).to_string();
    let part = |n: u32, from: String, to: String| format!("--new={n}:{from}:{to}");
    run(
        "sgdisk",
        &[
            "--set-alignment=1",
            &part(1, at(1, 0), at(2, 1)),
            "--typecode=1:ef02",
            &part(2, at(2, 0), at(6, 1)),
            "--typecode=2:ef00",
            "--change-name=2:EFI System",
            &part(4, at(6, 0), at(23, 3)),
            "--typecode=4:8300",
            "--attributes=4:set:60",
            &disk.path,
        ],
    );
    run("blockdev", &["--flushbufs", &disk.path]);
    let mut bytes = disk.bytes();
    bytes[..440].copy_from_slice(&noise(1, 440));
    let mut fill = |at: u64, seed: u64, len: u64| {
        let (at, len) = (usize::try_from(at).expect("small"), usize::try_from(len).expect("small"));
        bytes[at..at + len].copy_from_slice(&noise(seed, len));
    };
    fill(MIB, 2, 30_000);
    fill(2 * MIB, 3, 3 * MIB);
    fill(6 * MIB, 4, 5 * MIB / 2);
    fill(14 * MIB + 8192, 5, 4096);
    fill(20 * MIB, 6, 3 * MIB - 3 * u64::from(sector));
    bytes
}

/// An MBR disk of 24 MiB: 1 active, 2 extended with 5 and 6; boot code and a gap of GRUB's.
pub(crate) fn mbr_source() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("mbr.img");
    fs::write(&path, vec![0; 24 << 20]).expect("written");
    let script = "label: dos\nlabel-id: 0xa1b2c3d4\nstart=2048, size=8192, type=7, bootable\n\
                  start=12288, size=36864, type=f\nstart=14336, size=8192, type=83\nstart=24576, \
                  size=16384, type=83\n";
    let mut child = Command::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), script.as_bytes())
        .expect("the script");
    assert!(child.wait().expect("it ends").success());
    let mut bytes = fs::read(&path).expect("its bytes");
    bytes[..440].copy_from_slice(&noise(7, 440));
    bytes[512..512 + 20_480].copy_from_slice(&noise(8, 20_480));
    for (lba, seed, len) in [(2048usize, 9, 3 << 20), (14336, 10, 700_000), (24576, 11, 8 << 20)] {
        bytes[lba * 512..lba * 512 + len].copy_from_slice(&noise(seed, len));
    }
    bytes
}

/// An image made of a disk in memory.
pub(crate) struct TestImage {
    pub(crate) manifest: Manifest,
    pub(crate) grid: Arc<Grid>,
    pub(crate) boot: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) hashes: Vec<Sha256>,
    pub(crate) torrent: Metainfo,
    pub(crate) sidecars: Vec<(&'static str, Vec<u8>)>,
}

/// Captures `disk`, zeros being zeros; `change` may alter the manifest before it is hashed into the rest.
pub(crate) fn image_of(
    disk: &[u8],
    sector: u32,
    piece_length: u32,
    change: impl FnOnce(&mut Manifest),
) -> TestImage {
    let sector_size = SectorSize::new(sector).expect("a size");
    let piece_length = PieceLength::new(piece_length).expect("a length");
    let mut cursor = std::io::Cursor::new(disk);
    let found = table::read(&mut cursor, disk.len() as u64, sector_size).expect("sound").expect("a table");
    let part = |p: &table::TablePartition| {
        let start = usize::try_from(p.first.0 * u64::from(sector)).expect("small");
        &disk[start..start + usize::try_from(p.size).expect("small")]
    };
    let runs: Vec<Vec<Run>> = found.partitions.iter().map(|p| runs_of(part(p))).collect();
    let partitions: Vec<Partition> = found
        .partitions
        .iter()
        .zip(&runs)
        .map(|(p, runs)| Partition {
            number: p.number,
            first: p.first,
            size: p.size,
            entry: p.entry.clone(),
            role: table::role(&p.entry),
            filesystem: None,
            policy: Policy::Replace,
            grow: false,
            blank: None,
            pieces: count(&classify(runs, p.size, piece_length)),
            sha256: None,
        })
        .collect();
    let (boot, boot_areas) = boot_areas(disk, &found.table);
    let mut manifest = manifest_with(piece_length, disk.len() as u64, partitions);
    manifest.disk = Disk { sector_size, table: found.table.clone(), boot_areas, ..manifest.disk };
    manifest.payload.file_size = 4 * piece_length.bytes();
    change(&mut manifest);
    manifest.payload.pieces =
        manifest.partitions.iter().filter(|p| p.policy == Policy::Replace).map(|p| p.pieces.data).sum();
    let extents = Extents { partitions: runs };
    let encoded = extents.encode();
    let grid = Arc::new(Grid::new(&manifest, extents).expect("they agree"));
    let mut payload = Vec::new();
    for span in (0..grid.pieces()).filter_map(|i| grid.span(PieceIndex(i))) {
        let bytes = part(&found.partitions[span.partition]);
        let from = usize::try_from(span.offset).expect("small");
        payload.extend_from_slice(&bytes[from..from + span.len as usize]);
        payload.resize(payload.len().next_multiple_of(piece_length.get() as usize), 0);
    }
    let pieces: Vec<&[u8]> = payload.chunks(piece_length.get() as usize).collect();
    let hashes: Vec<Sha256> = pieces.iter().map(|piece| sha256(piece)).collect();
    let torrent = MetainfoBuilder {
        name: manifest.version.clone(),
        piece_length: piece_length.get(),
        files: payload_files(payload.len() as u64, manifest.payload.file_size),
        pieces: Pieces::Hashed(pieces.iter().map(|piece| Sha1(sha1::Sha1::digest(piece).into())).collect()),
        private: true,
    };
    let torrent = torrent.build().expect("a torrent");
    manifest.payload.info_hash = torrent.info_hash;
    manifest.payload.sha256 = Some(sha256_of_hashes(&hashes));
    let sidecars = vec![
        (names::EXTENTS, encoded),
        (names::PIECES, hashes.iter().flat_map(|hash| hash.0).collect()),
        (names::BOOT, boot.clone()),
        (names::TORRENT, torrent.to_bytes()),
    ];
    manifest.sidecars = sidecars.iter().map(|(name, bytes)| ((*name).to_string(), sha256(bytes))).collect();
    TestImage { manifest, grid, boot, payload, hashes, torrent, sidecars }
}

impl TestImage {
    /// Asserts that the disk has the image's data, and zeros in zero ranges.
    pub(crate) fn assert_on(&self, disk: &[u8], source: &[u8]) {
        let sector = u64::from(self.manifest.disk.sector_size.get());
        for p in self.manifest.partitions.iter().filter(|p| p.policy == Policy::Replace) {
            let from = usize::try_from(p.first.0 * sector).expect("small");
            let to = from + usize::try_from(p.size).expect("small");
            let differs = (from..to).find(|at| disk[*at] != source[*at]);
            assert_eq!(differs, None, "partition {} differs at this byte of the disk", p.number);
        }
        for area in &self.manifest.disk.boot_areas {
            let (at, from) =
                (usize::try_from(area.offset.0).expect("small"), usize::try_from(area.at).expect("small"));
            let len = usize::try_from(area.length).expect("small");
            assert_eq!(disk[at..at + len], self.boot[from..from + len], "{:?}", area.kind);
        }
    }

    /// Puts the image folder at `folder`.
    pub(crate) fn write(&self, folder: &Path) {
        fs::create_dir_all(folder.join(names::PAYLOAD)).expect("a folder");
        fs::write(folder.join(names::MANIFEST), self.manifest.to_bytes()).expect("written");
        for (name, bytes) in &self.sidecars {
            fs::write(folder.join(name), bytes).expect("written");
        }
        let file_size = usize::try_from(self.manifest.payload.file_size).expect("small");
        for (i, part) in self.payload.chunks(file_size).enumerate() {
            fs::write(folder.join(names::PAYLOAD).join(format!("{i:04}.bin")), part).expect("written");
        }
    }
}

fn runs_of(partition: &[u8]) -> Vec<Run> {
    let mut builder = RunBuilder::default();
    for unit in partition.chunks(4096) {
        let zero = unit.iter().all(|byte| *byte == 0);
        builder.push(if zero { RangeKind::Zero } else { RangeKind::Data }, unit.len() as u64);
    }
    builder.finish()
}

/// Boot code, and on MBR disks 40 sectors behind it.
fn boot_areas(disk: &[u8], table: &Table) -> (Vec<u8>, Vec<BootArea>) {
    let code = BootArea { kind: BootAreaKind::BootCode, offset: DiskOffset(0), length: 440, at: 0 };
    let mut boot = disk[..440].to_vec();
    let mut areas = vec![code];
    if matches!(table, Table::Mbr { .. }) {
        boot.extend_from_slice(&disk[512..512 + 20_480]);
        areas.push(BootArea { kind: BootAreaKind::Gap, offset: DiskOffset(512), length: 20_480, at: 440 });
    }
    (boot, areas)
}
