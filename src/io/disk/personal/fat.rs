//! One file on a FAT filesystem, written through the disk's handle: no mount, no driver.
//!
//! Invariant: all writes are collected in memory first, so that a full or broken filesystem is left as it
//! was. Then the allocation tables are written, and after them new clusters and the folders that name them,
//! sector by sector from the end, each synced. A folder mostly lies before the new clusters, and then a power
//! cut leaves unused clusters at worst. On a fragmented filesystem it may name a file that is not there yet,
//! so a reader checks that the file is complete (`OwnFile::is_complete`). The file is read back from the
//! device.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{FileSystem, FsOptions};

use crate::io::disk::personal::power;
use crate::io::storage::device::Disk;

/// Bytes that are read at a time.
const BLOCK: u64 = 64 << 10;
/// Bytes of a folder's entry, the attributes of one that is part of a long name, and the mark of a free one.
const ENTRY: usize = 32;
const LONG_NAME: u8 = 0x0f;
const DELETED: u8 = 0xe5;
/// Largest file that is read.
const MOST: u64 = 64 << 10;

/// The file at `path` on the partition at `start`; `None` if there is none.
pub(super) fn read(disk: &Disk, (start, size): (u64, u64), path: &[&str]) -> io::Result<Option<Vec<u8>>> {
    read_at_most(disk, (start, size), path, MOST)
}

/// The same of a file of which `most` bytes are read.
pub(super) fn read_at_most(
    disk: &Disk,
    (start, size): (u64, u64),
    path: &[&str],
    most: u64,
) -> io::Result<Option<Vec<u8>>> {
    let mut window = Window::new(disk, start, size);
    let found = {
        let fs = FileSystem::new(&mut window, FsOptions::new())?;
        let root = fs.root_dir();
        match root.open_file(&path.join("/")) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(most).read_to_end(&mut bytes)?;
                Some(bytes)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        }
    };
    Ok(found)
}

/// Writes the file at `path` and proves it from the device.
pub(super) fn write(disk: &Disk, (start, size): (u64, u64), path: &[&str], content: &[u8]) -> io::Result<()> {
    power::change()?;
    let mut window = Window::new(disk, start, size);
    {
        let fs = FileSystem::new(&mut window, FsOptions::new())?;
        let mut folder = fs.root_dir();
        let Some((name, folders)) = path.split_last() else { return Ok(()) };
        for name in folders {
            folder = folder.create_dir(name)?;
        }
        let mut file = folder.create_file(name)?;
        file.truncate()?;
        file.write_all(content)?;
        file.flush()?;
        drop((file, folder));
        fs.unmount()?;
    }
    window.write_out(Order::TablesFirst)?;
    match read_at_most(disk, (start, size), path, content.len() as u64 + 1)? {
        Some(there) if there == content => Ok(()),
        _ => Err(io::Error::other("the file reads back otherwise than it was written")),
    }
}

/// Removes the folder at `path` and the files in it, the file `first` before the others. False: there is
/// none.
pub(super) fn remove(disk: &Disk, (start, size): (u64, u64), path: &[&str], first: &str) -> io::Result<bool> {
    let mut found = false;
    for only in [Some(first), None] {
        let mut window = Window::new(disk, start, size);
        {
            let fs = FileSystem::new(&mut window, FsOptions::new())?;
            let folder = match fs.root_dir().open_dir(&path.join("/")) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
                folder => folder?,
            };
            found = true;
            let mut names = Vec::new();
            for entry in folder.iter() {
                names.push(entry?.file_name());
            }
            names.retain(|name| ![".", ".."].contains(&name.as_str()));
            names.retain(|name| only.is_none_or(|only| only.eq_ignore_ascii_case(name)));
            for name in names {
                folder.remove(&name)?;
            }
            drop(folder);
            if only.is_none() {
                fs.root_dir().remove(&path.join("/"))?;
            }
            fs.unmount()?;
        }
        if !window.changed.is_empty() {
            power::change()?;
            window.write_out(Order::FoldersFirst)?;
        }
    }
    Ok(found)
}

/// Whether allocation tables or the folders that name their clusters are written first: whatever leaves
/// unused clusters if the power fails between, and never used ones that count as free.
#[derive(PartialEq, Eq)]
enum Order {
    TablesFirst,
    FoldersFirst,
}

/// A partition of the disk, with the changes in memory.
struct Window<'a> {
    disk: &'a Disk,
    start: u64,
    size: u64,
    at: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
    /// Changed sectors, by their offset in the partition.
    changed: BTreeSet<u64>,
}

impl<'a> Window<'a> {
    fn new(disk: &'a Disk, start: u64, size: u64) -> Self {
        Window { disk, start, size, at: 0, blocks: BTreeMap::new(), changed: BTreeSet::new() }
    }

    fn sector(&self) -> u64 {
        u64::from(self.disk.sector().get())
    }

    /// The block that holds `offset`, and the place of `offset` in it.
    fn block(&mut self, offset: u64) -> io::Result<(&mut Vec<u8>, usize)> {
        let first = offset - offset % BLOCK;
        if !self.blocks.contains_key(&first) {
            let length = usize::try_from(BLOCK.min(self.size - first)).unwrap_or(0);
            let mut bytes = vec![0; length];
            self.disk.read_at(self.start + first, &mut bytes).map_err(io::Error::other)?;
            self.blocks.insert(first, bytes);
        }
        let block = self.blocks.get_mut(&first).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((block, usize::try_from(offset - first).unwrap_or(0)))
    }

    /// Where the clusters begin: behind the allocation tables (FAT specification, section 3).
    fn clusters(&mut self) -> io::Result<u64> {
        let (boot, _) = self.block(0)?;
        let boot = boot.get(..512).ok_or(io::ErrorKind::UnexpectedEof)?;
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = u64::from(u32::from_le_bytes([boot[36], boot[37], boot[38], boot[39]]));
        let table = if word(22) == 0 { long } else { word(22) };
        Ok((word(14) + u64::from(boot[16]) * table) * word(11))
    }

    /// The first two entries of a folder name itself and its parent, without long names (FAT specification,
    /// section 6.5). `fatfs` 0.3 writes a long name before each, which checkers refuse.
    fn mend_new_folders(&mut self) -> io::Result<()> {
        let (boot, _) = self.block(0)?;
        let word = |at: usize| boot.get(at..at + 4).and_then(|four| four.first_chunk().copied());
        // Only FAT32 has a cluster for its root, and no size of the tables here.
        let is_fat32 = boot.get(22..24) == Some(&[0, 0]);
        let root = word(44).filter(|_| is_fat32).map(u32::from_le_bytes);
        for at in self.changed.clone() {
            let (block, place) = self.block(at)?;
            let Some(entries) = block.get_mut(place..place + 4 * ENTRY) else { continue };
            let is = |n: usize, name: &[u8; 11]| entries[n * ENTRY..].starts_with(name);
            let is_long = |n: usize| entries[n * ENTRY + 11] == LONG_NAME;
            if !(is_long(0) && is(1, b".          ") && is_long(2) && is(3, b"..         ")) {
                continue;
            }
            entries.copy_within(ENTRY..2 * ENTRY, 0);
            entries.copy_within(3 * ENTRY..4 * ENTRY, ENTRY);
            [entries[2 * ENTRY], entries[3 * ENTRY]] = [DELETED; 2];
            let parent = &mut entries[ENTRY..2 * ENTRY];
            let cluster = u32::from_le_bytes([parent[26], parent[27], parent[20], parent[21]]);
            if Some(cluster) == root {
                // The root has no number here.
                [parent[20], parent[21], parent[26], parent[27]] = [0; 4];
            }
        }
        Ok(())
    }

    fn write_out(mut self, order: Order) -> io::Result<()> {
        self.mend_new_folders()?;
        let clusters = self.clusters()?;
        let changed = std::mem::take(&mut self.changed);
        let (tables, rest): (Vec<u64>, Vec<u64>) = changed.into_iter().partition(|at| *at < clusters);
        if order == Order::TablesFirst {
            self.write_sectors(&tables)?;
        }
        // New clusters mostly lie behind those of the folders that name them.
        for at in rest.into_iter().rev() {
            self.write_sectors(&[at])?;
        }
        if order == Order::FoldersFirst {
            self.write_sectors(&tables)?;
        }
        Ok(())
    }

    fn write_sectors(&mut self, sectors: &[u64]) -> io::Result<()> {
        let (start, length) = (self.start, usize::try_from(self.sector()).unwrap_or(0));
        let disk = self.disk;
        for at in sectors {
            let (block, place) = self.block(*at)?;
            let bytes = block.get(place..place + length).ok_or(io::ErrorKind::UnexpectedEof)?;
            disk.write_at(start + at, bytes).map_err(io::Error::other)?;
        }
        disk.sync().map_err(io::Error::other)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size {
            return Ok(0);
        }
        let (block, place) = self.block(self.at)?;
        let length = into.len().min(block.len() - place);
        into[..length].copy_from_slice(&block[place..place + length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        if self.at >= self.size {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let (at, sector) = (self.at, self.sector());
        let (block, place) = self.block(at)?;
        let length = from.len().min(block.len() - place);
        let there = &mut block[place..place + length];
        if there != &from[..length] {
            there.copy_from_slice(&from[..length]);
            let first = at - at % sector;
            let end = at + length as u64;
            self.changed.extend((first..end).step_by(usize::try_from(sector).unwrap_or(512)));
        }
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::disks::{LoopDisk, MIB};
    use crate::testkit::programs::run;

    const PATH: [&str; 3] = ["EFI", "flashmob", "terminal.json"];
    /// Where the filesystem begins on the disk.
    const START: u64 = MIB;

    /// A disk with a FAT filesystem of `bits` in its middle, with `EFI/BOOT/BOOTX64.EFI`.
    fn disk(bits: &str, size: u64, sector: u32) -> LoopDisk {
        let dir = tempfile::tempdir().expect("a folder");
        let part = dir.path().join("part.img");
        let name = part.to_str().expect("text");
        std::fs::File::create(&part).and_then(|file| file.set_len(size)).expect("a file");
        run("mkfs.vfat", &["-F", bits, "-S", &sector.to_string(), name]);
        let loader = dir.path().join("BOOTX64.EFI");
        std::fs::write(&loader, vec![7; 300_000]).expect("written");
        run("mmd", &["-i", name, "::EFI", "::EFI/BOOT"]);
        run("mcopy", &["-i", name, loader.to_str().expect("text"), "::EFI/BOOT/"]);
        let mut bytes = vec![0xaa; usize::try_from(START).expect("small")];
        bytes.extend(std::fs::read(&part).expect("read"));
        bytes.extend(vec![0xbb; 1 << 20]);
        LoopDisk::of(&bytes, sector)
    }

    /// The filesystem, checked by dosfstools and read by mtools.
    fn check(disk: &LoopDisk, size: u64) -> Vec<u8> {
        let bytes = disk.bytes();
        let [from, to] = [START, START + size].map(|at| usize::try_from(at).expect("small"));
        assert!(bytes[..from].iter().all(|b| *b == 0xaa) && bytes[to..].iter().all(|b| *b == 0xbb));
        let dir = tempfile::tempdir().expect("a folder");
        let part = dir.path().join("part.img");
        std::fs::write(&part, &bytes[from..to]).expect("written");
        let name = part.to_str().expect("text");
        run("fsck.vfat", &["-n", name]);
        let out = dir.path().join("out");
        run("mcopy", &["-i", name, "::EFI/BOOT/BOOTX64.EFI", out.to_str().expect("text")]);
        assert_eq!(std::fs::read(&out).expect("there"), vec![7; 300_000], "the loader is whole");
        run("mtype", &["-i", name, "::EFI/flashmob/terminal.json"]).into_bytes()
    }

    #[test]
    fn a_file_is_written_to_each_kind_of_fat_and_written_again() {
        for (bits, size, sector) in [("12", 4 * MIB, 512), ("16", 32 * MIB, 512), ("32", 300 * MIB, 4096)] {
            let loop_disk = disk(bits, size, sector);
            let open = Disk::open(&loop_disk.path, false).expect("open");
            assert_eq!(read(&open, (START, size), &PATH).expect("read"), None, "FAT{bits}");
            for text in ["{\n  \"a\": 1\n}\n".to_string(), "x".repeat(9000), "short".into()] {
                write(&open, (START, size), &PATH, text.as_bytes()).expect("written");
                assert_eq!(check(&loop_disk, size), text.as_bytes(), "FAT{bits}");
                assert_eq!(read(&open, (START, size), &PATH).expect("read"), Some(text.into_bytes()));
            }
        }
    }

    #[test]
    fn a_folder_is_removed_with_its_files_from_each_kind_of_fat() {
        for (bits, size, sector) in [("12", 4 * MIB, 512), ("16", 32 * MIB, 512), ("32", 300 * MIB, 4096)] {
            let loop_disk = disk(bits, size, sector);
            let open = Disk::open(&loop_disk.path, false).expect("open");
            write(&open, (START, size), &PATH, b"{}").expect("written");
            let folder = ["EFI", "flashmob", "after"];
            let remove = || remove(&open, (START, size), &folder, "files.txt").expect("possible");
            let before = loop_disk.bytes();
            assert!(!remove() && loop_disk.bytes() == before, "FAT{bits}: nothing is there");
            for name in ["windows-0000.bin", "a name that is long.bin", "files.txt"] {
                let path = [&folder[..], &[name]].concat();
                write(&open, (START, size), &path, &[7; 20_000]).expect("written");
            }
            assert!(remove());
            assert_eq!(check(&loop_disk, size), b"{}", "FAT{bits}");
            let listed = read(&open, (START, size), &["EFI", "flashmob", "after", "files.txt"]);
            assert_eq!(listed.expect("read"), None, "FAT{bits}");
        }
    }

    #[test]
    fn a_folder_in_the_root_names_it_as_its_parent() {
        let size = 300 * MIB;
        let loop_disk = disk("32", size, 512);
        let open = Disk::open(&loop_disk.path, false).expect("open");
        write(&open, (START, size), &["new", "folder", "file.txt"], b"x").expect("written");
        write(&open, (START, size), &PATH, b"y").expect("written");
        check(&loop_disk, size);
    }

    #[test]
    fn a_full_or_broken_filesystem_is_left_as_it_was() {
        let size = 4 * MIB;
        let loop_disk = disk("12", size, 512);
        let open = Disk::open(&loop_disk.path, false).expect("open");
        let before = loop_disk.bytes();
        assert!(write(&open, (START, size), &PATH, &vec![1; 5 << 20]).is_err(), "more than fits");
        assert!(write(&open, (0, START), &PATH, b"x").is_err(), "no filesystem");
        assert!(loop_disk.bytes() == before);
    }
}
