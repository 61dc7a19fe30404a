//! Swap files of an ext2, ext3 or ext4 (Linux, fs/ext4/ext4.h): those in its `/etc/fstab`, and those with
//! usual names.
//!
//! Invariant: pure, and any bytes do no harm: folders, the table and depths are read within bounds. The
//! journal is not carried out, so a file is not found whose names are in the journal alone. What is not known
//! (folders within their inode, descriptors spread over the groups) is not found.

use std::collections::BTreeSet;

use crate::layout::lvm::Read;
use crate::layout::traces::number;

/// What installers and guides call it.
const USUAL: [&str; 7] =
    ["swapfile", "swap.img", "swap", "swap/swapfile", "var/swap", "var/swapfile", "var/swap.img"];
const FSTAB: &str = "etc/fstab";
/// Of a folder, and of the table of filesystems.
const LONGEST: u64 = 1 << 20;
/// Files of one table.
const MOST_FILES: usize = 64;
/// A tree of extents is not deeper.
const DEEPEST: u32 = 5;
/// Nodes of one tree that are read for a folder.
const MOST_NODES: usize = 64;

const ROOT: u64 = 2;
const WIDE: u64 = 0x80;
const SPREAD_DESCRIPTORS: u64 = 0x10;
const KIND: u64 = 0xf000;
const FOLDER: u64 = 0x4000;
const FILE: u64 = 0x8000;
/// Flags of an inode.
const EXTENTS: u64 = 0x8_0000;
const IN_INODE: u64 = 0x1000_0000;
const EXTENT_MAGIC: u64 = 0xf30a;
/// An extent with more blocks is allocated and not written: its length is this less.
const UNWRITTEN: u64 = 32768;
/// Blocks that an inode without extents names itself.
const DIRECT: u64 = 12;

/// The path of each swap file that there is, and where its first byte lies.
pub(super) fn all(size: u64, read: Read<'_>) -> Vec<(String, u64)> {
    let Some(ext) = Ext::open(size, read) else { return Vec::new() };
    let table = ext.find(FSTAB).filter(|inode| inode.is(FILE)).and_then(|inode| ext.content(&inode));
    let named = table.map(|bytes| in_table(&String::from_utf8_lossy(&bytes))).unwrap_or_default();
    let paths: BTreeSet<String> = named.into_iter().chain(USUAL.map(str::to_owned)).collect();
    let place = |path: &String| {
        let inode = ext.find(path).filter(|inode| inode.is(FILE))?;
        Some((path.clone(), ext.runs(&inode)?.first().filter(|run| run.block == 0)?.at))
    };
    paths.iter().filter_map(place).collect()
}

/// Files that a table of filesystems names as swap, without the slash at the beginning.
fn in_table(text: &str) -> Vec<String> {
    let file = |line: &str| {
        let mut words = line.split_whitespace();
        let (what, kind) = (words.next()?, words.nth(1)?);
        let path = what.strip_prefix('/').filter(|path| !path.starts_with("dev/"))?;
        let is_short = path.len() <= LONGEST_PATH && path.split('/').count() <= MOST_PARTS;
        (kind == "swap" && is_short).then(|| path.to_owned())
    };
    text.lines().filter_map(file).take(MOST_FILES).collect()
}

/// The longest path of Linux, and more parts of it than a swap file's has: each is looked up in a folder.
const LONGEST_PATH: usize = 4096;
const MOST_PARTS: usize = 16;

struct Ext<'a> {
    read: Read<'a>,
    size: u64,
    block: u64,
    /// Where the descriptors of groups begin, and how long one is.
    groups: u64,
    descriptor: u64,
    inodes_in_group: u64,
    inodes: u64,
    inode: u64,
}

/// The first 128 bytes of an inode.
struct Inode(Vec<u8>);

impl Inode {
    fn of(&self, at: usize, len: usize) -> u64 {
        number(&self.0, at, len).unwrap_or_default()
    }

    fn is(&self, kind: u64) -> bool {
        self.of(0, 2) & KIND == kind
    }

    fn size(&self) -> u64 {
        self.of(4, 4) | self.of(108, 4) << 32
    }
}

/// Blocks of a file that lie one behind the other.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The number of the first one in the file.
    block: u64,
    count: u64,
    /// Its byte on the device.
    at: u64,
}

impl<'a> Ext<'a> {
    fn open(size: u64, read: Read<'a>) -> Option<Self> {
        let mut superblock = vec![0; 1024];
        let of = |bytes: &[u8], at, len| number(bytes, at, len).unwrap_or_default();
        if size < 2048 || !read(1024, &mut superblock) || of(&superblock, 56, 2) != 0xef53 {
            return None;
        }
        let of = |at, len| of(&superblock, at, len);
        let features = of(96, 4);
        if of(24, 4) > 6 || features & SPREAD_DESCRIPTORS != 0 {
            return None;
        }
        let block = 1024u64 << of(24, 4);
        let ext = Ext {
            read,
            size,
            block,
            groups: (of(20, 4) + 1) * block,
            descriptor: if features & WIDE != 0 { of(254, 2).max(32) } else { 32 },
            inodes_in_group: of(40, 4),
            inodes: of(0, 4),
            inode: if of(76, 4) == 0 { 128 } else { of(88, 2) },
        };
        (ext.inodes_in_group > 0 && ext.inode >= 128).then_some(ext)
    }

    fn bytes(&self, at: u64, len: u64) -> Option<Vec<u8>> {
        at.checked_add(len).filter(|end| *end <= self.size)?;
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        (self.read)(at, &mut bytes).then_some(bytes)
    }

    fn inode(&self, inode: u64) -> Option<Inode> {
        let index = inode.checked_sub(1).filter(|index| *index < self.inodes)?;
        let at = self.groups.checked_add(index / self.inodes_in_group * self.descriptor)?;
        let group = self.bytes(at, self.descriptor)?;
        let high = if self.descriptor >= 64 { number(&group, 40, 4)? } else { 0 };
        let table = (number(&group, 8, 4)? | high << 32).checked_mul(self.block)?;
        let at = table.checked_add(index % self.inodes_in_group * self.inode)?;
        self.bytes(at, 128).map(Inode)
    }

    /// What lies at `path` from the root. No link is followed.
    fn find(&self, path: &str) -> Option<Inode> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(self.inode(ROOT)?, |inode, name| {
            let content = self.content(&inode).filter(|_| inode.is(FOLDER))?;
            self.inode(entry(&content, self.block, name.as_bytes())?)
        })
    }

    /// The first [`LONGEST`] bytes of a file or folder.
    fn content(&self, inode: &Inode) -> Option<Vec<u8>> {
        let len = inode.size().min(LONGEST);
        let mut content = vec![0; usize::try_from(len).ok()?];
        let mut next = 0;
        for run in self.runs(inode)? {
            let from = run.block.saturating_mul(self.block).min(len);
            let until = run.block.saturating_add(run.count).saturating_mul(self.block).min(len);
            if from == until {
                continue;
            }
            if from < next {
                return None;
            }
            next = until;
            let part = content.get_mut(usize::try_from(from).ok()?..usize::try_from(until).ok()?)?;
            part.copy_from_slice(&self.bytes(run.at, until - from)?);
        }
        Some(content)
    }

    /// Where its first blocks lie, in their order.
    fn runs(&self, inode: &Inode) -> Option<Vec<Run>> {
        if inode.of(32, 4) & IN_INODE != 0 {
            return None;
        }
        let mut runs = Vec::new();
        match inode.of(32, 4) & EXTENTS {
            0 => runs.extend((0..DIRECT).zip(inode.0.get(40..)?.chunks_exact(4)).filter_map(
                |(block, place)| {
                    let at = number(place, 0, 4).filter(|place| *place != 0)? * self.block;
                    Some(Run { block, count: 1, at })
                },
            )),
            _ => {
                let mut left = MOST_NODES;
                self.extents(inode.0.get(40..100)?, DEEPEST, &mut left, &mut runs)?;
            }
        }
        Some(runs)
    }

    /// Adds the extents below `node`. `left`: how many further nodes may be read.
    fn extents(&self, node: &[u8], depth: u32, left: &mut usize, runs: &mut Vec<Run>) -> Option<()> {
        if number(node, 0, 2)? != EXTENT_MAGIC {
            return None;
        }
        let is_leaf = number(node, 6, 2)? == 0;
        for one in node.get(12..)?.chunks_exact(12).take(usize::try_from(number(node, 2, 2)?).ok()?) {
            let (block, of) = (number(one, 0, 4)?, |at, len| number(one, at, len));
            if is_leaf {
                let (count, at) = (of(4, 2)?, (of(6, 2)? << 32 | of(8, 4)?).checked_mul(self.block)?);
                let count = if count > UNWRITTEN { count - UNWRITTEN } else { count };
                runs.push(Run { block, count, at });
            } else if block.saturating_mul(self.block) < LONGEST {
                *left = left.checked_sub(1)?;
                let below = (of(8, 2)? << 32 | of(4, 4)?).checked_mul(self.block)?;
                self.extents(&self.bytes(below, self.block)?, depth.checked_sub(1)?, left, runs)?;
            }
        }
        Some(())
    }
}

/// The inode of `name` in a folder's blocks. Nodes of an index look like entries without an inode.
fn entry(content: &[u8], block: u64, name: &[u8]) -> Option<u64> {
    let inside = |block: &[u8]| {
        let mut rest = block;
        while let (Some(inode), Some(len)) = (number(rest, 0, 4), number(rest, 4, 2)) {
            let length = usize::from(*rest.get(6)?);
            if inode != 0 && rest.get(8..8 + length) == Some(name) {
                return Some(inode);
            }
            rest = rest.get(usize::try_from(len).ok().filter(|len| *len >= 8)?..)?;
        }
        None
    };
    content.chunks_exact(usize::try_from(block).ok()?).find_map(inside)
}
