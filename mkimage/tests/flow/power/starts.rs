//! The system that a machine would start from a disk, and whether it is complete.
//!
//! Reads the disk as firmware and loaders do, independent of the code that writes it: boot code in the first
//! sector, a GPT with right checksums in either place, an ESP with a filesystem that `blkid` finds.

use std::io::Write;
use std::ops::Range;
use std::process::Command;

use flashmob::io::disk::table::{self, TablePartition};
use flashmob::io::hash::sha256;
use flashmob::io::image::folder::ImageFolder;
use flashmob::layout::grid::Cell;
use flashmob::manifest::{Entry, Policy, Role};
use flashmob::units::SectorSize;

const SECTOR: usize = 512;
const BOOT_CODE: usize = 440;
/// An EFI system partition's type, as it lies on the disk.
const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// The systems that may start from a disk: the old one, or the image.
pub(super) struct Truth<'a> {
    pub old: &'a [u8],
    pub image: &'a ImageFolder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Starts {
    Nothing,
    Old,
    New,
}

/// A way to start from a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By boot code in the first sector.
    Bios,
    /// By a loader on an ESP.
    Uefi,
}

impl Truth<'_> {
    /// The system that starts from `disk`; an error if it is neither the old system nor the new one.
    pub(super) fn starts(&self, disk: &[u8]) -> Result<Starts, String> {
        let mut found = Starts::Nothing;
        let bios = boot_code(disk).then_some(Way::Bios);
        for way in bios.into_iter().chain(self.has_loader(disk).then_some(Way::Uefi)) {
            let is_new = self.is_new(disk, way);
            if self.is_old(disk, way) {
                found = found.max(Starts::Old);
            } else if let Err(why) = is_new {
                return Err(format!(
                    "by {way:?} something starts that is not the old system and not the new one: {why}"
                ));
            } else {
                found = Starts::New;
            }
        }
        self.found_are_whole(disk)?;
        Ok(found)
    }

    /// The partitions that the image does not keep have their old content; by BIOS, the whole disk has.
    fn is_old(&self, disk: &[u8], way: Way) -> bool {
        if way == Way::Bios {
            return disk == self.old;
        }
        // UEFI does not read GRUB's core image for BIOS.
        let needed = |p: &&TablePartition| table::role(&p.entry) != Role::BiosBoot;
        let old = table_of(self.old);
        old.iter().filter(needed).map(place).all(|range| disk[range.clone()] == self.old[range])
    }

    /// The partitions that the image replaces have its content; by BIOS, the boot areas have too.
    fn is_new(&self, disk: &[u8], way: Way) -> Result<(), String> {
        let image = self.image;
        let replaced = image.manifest().partitions.iter().filter(|p| p.policy == Policy::Replace);
        for p in replaced.filter(|p| way == Way::Bios || p.role != Role::BiosBoot) {
            self.has_new(disk, p.number)?;
        }
        let areas = &image.manifest().disk.boot_areas;
        for area in areas.iter().filter(|_| way == Way::Bios) {
            let (offset, at, length) = (small(area.offset.0), small(area.at), small(area.length));
            if disk[offset..offset + length] != image.boot_bytes()[at..at + length] {
                return Err(format!("boot area {:?} is not the image's", area.kind));
            }
        }
        Ok(())
    }

    /// All that the image says of this partition is there.
    fn has_new(&self, disk: &[u8], number: u32) -> Result<(), String> {
        let (image, grid) = (self.image, self.image.grid());
        let index = image.manifest().partitions.iter().position(|p| p.number == number).expect("it is there");
        let start = small(image.manifest().partitions[index].first.0) * SECTOR;
        for (span, cell) in grid.cells(index) {
            let at = start + small(span.offset);
            let bytes = &disk[at..at + span.len as usize];
            let right = match cell {
                Cell::Free => true,
                Cell::Zero => bytes.iter().all(|byte| *byte == 0),
                Cell::Data => {
                    let piece = grid.piece_at(index, span.offset).expect("a piece");
                    let mut whole = bytes.to_vec();
                    whole.resize(small(grid.piece_length().bytes()), 0);
                    sha256(&whole) == image.piece_hashes()[piece.get()]
                }
            };
            if !right {
                return Err(format!("partition {number} is not the image's at its byte {}", span.offset));
            }
        }
        Ok(())
    }

    /// Firmware finds a loader: on an ESP that is there, and if the image keeps that, the system that it
    /// loads is found too.
    fn has_loader(&self, disk: &[u8]) -> bool {
        let manifest = self.image.manifest();
        let kept = manifest.partitions.iter().any(|p| p.role == Role::Esp && p.policy == Policy::Keep);
        let root = manifest.boot.linux.as_ref().and_then(|linux| manifest.partition(linux.partition));
        let root_is_found = || {
            root.is_some_and(|p| {
                let start = small(p.first.0) * SECTOR;
                is_found(&disk[start..start + small(p.size)])
            })
        };
        esps(disk).into_iter().any(|esp| is_found(&disk[esp])) && (!kept || root_is_found())
    }

    /// Each partition that something starts from, and in which a filesystem is found, is the old or the new
    /// one, whether or not the rest of the system is there.
    fn found_are_whole(&self, disk: &[u8]) -> Result<(), String> {
        let mut cursor = std::io::Cursor::new(disk);
        let Ok(Some(there)) = table::read(&mut cursor, disk.len() as u64, SectorSize::DEFAULT) else {
            return Ok(());
        };
        let manifest = self.image.manifest();
        let starting = |entry: &Entry, number: u32| {
            let root = manifest.boot.linux.as_ref().is_some_and(|linux| linux.partition == number);
            root || table::role(entry) == Role::Esp || matches!(entry, Entry::Mbr { active: true, .. })
        };
        for p in there.partitions.iter().filter(|p| starting(&p.entry, p.number)) {
            let range = place(p);
            let is_old = disk[range.clone()] == self.old[range.clone()];
            let same = manifest.partition(p.number).filter(|new| (new.first, new.size) == (p.first, p.size));
            if !is_old && is_found(&disk[range]) {
                let new = same.ok_or_else(|| format!("partition {} is not the image's", p.number));
                new.and_then(|new| self.has_new(disk, new.number))
                    .map_err(|why| format!("a filesystem is found that is neither old nor new: {why}"))?;
            }
        }
        Ok(())
    }
}

fn small(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

/// Whether a BIOS would start the first sector.
fn boot_code(disk: &[u8]) -> bool {
    disk[510..512] == [0x55, 0xaa] && disk[..BOOT_CODE].iter().any(|byte| *byte != 0)
}

/// Whether a loader would find a filesystem in this partition.
fn is_found(partition: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(partition).expect("written");
    let said = Command::new("blkid").args(["-p", "-o", "value", "-s", "TYPE"]).arg(file.path()).output();
    let said = said.expect("blkid of package util-linux");
    // 2: nothing. 8: several.
    said.status.code() == Some(8) || !said.stdout.is_empty()
}

/// Where the partitions of a sound disk are.
pub(super) fn partitions(disk: &[u8]) -> Vec<Range<usize>> {
    table_of(disk).iter().map(place).collect()
}

fn table_of(disk: &[u8]) -> Vec<TablePartition> {
    let mut cursor = std::io::Cursor::new(disk);
    let found = table::read(&mut cursor, disk.len() as u64, SectorSize::DEFAULT).expect("sound");
    found.expect("a table").partitions
}

fn place(p: &TablePartition) -> Range<usize> {
    small(p.first.0) * SECTOR..small(p.first.0) * SECTOR + small(p.size)
}

/// The ESPs of each GPT with right checksums, in either place.
fn esps(disk: &[u8]) -> Vec<Range<usize>> {
    let crc = |bytes: &[u8]| crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes);
    let mut found = Vec::new();
    for at in (SECTOR..disk.len()).step_by(SECTOR) {
        let header = &disk[at..at + SECTOR];
        if !header.starts_with(b"EFI PART") {
            continue;
        }
        let four = |from: usize| u32::from_le_bytes(header[from..from + 4].try_into().expect("four"));
        let eight = |from: usize| u64::from_le_bytes(header[from..from + 8].try_into().expect("eight"));
        let mut blank = header[..92].to_vec();
        blank[16..20].fill(0);
        let (from, count, size) = (small(eight(72)) * SECTOR, four(80) as usize, four(84) as usize);
        if crc(&blank) != four(16) || small(eight(24)) * SECTOR != at || from + count * size > disk.len() {
            continue;
        }
        let entries = &disk[from..from + count * size];
        if crc(entries) != four(88) {
            continue;
        }
        for entry in entries.chunks(size).filter(|entry| entry[..16] == ESP) {
            let lba = |at: usize| small(u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight")));
            found.push(lba(32) * SECTOR..(lba(40) + 1) * SECTOR);
        }
    }
    found
}
