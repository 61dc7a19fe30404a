//! The parts of a Btrfs on one device that are in use, according to its extent tree.
//!
//! partclone is not used, because its maps (0.3.23) leave out second copies of metadata and include much free
//! space.
//!
//! Invariant: the result has each copy of every allocated extent, or there is no result: an unreadable tree
//! is an error, and a layout that this file does not know is [`Extents::Unknown`]. `soundness` looks for
//! uncommitted writes.

use std::collections::HashSet;
use std::ops::Range;

use flashmob::io::hash::sha256;

/// The superblock and its copies, as far as the device has room for them.
const SUPERBLOCKS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const SUPERBLOCK_SIZE: u64 = 4096;
/// These flags do not change the meaning of the extent tree. Bits 12 to 15 do: zoned devices, the second
/// extent tree, striping by a tree. Bit 16 is simple quotas.
const KNOWN_INCOMPATIBLE: u64 = 0xfff | 1 << 16;
const EXTENT_TREE: u64 = 2;
const NODE_HEADER: usize = 101;
const NODE_POINTER: usize = 33;
const LEAF_ITEM: usize = 25;
const CHUNK_HEADER: usize = 48;
const STRIPE: usize = 32;
/// One place, or two on the same device.
const DUP: u64 = 1 << 5;
const PROFILES: u64 = 0x7f8;
static CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
/// Nodes are 4 to 64 KiB.
const LARGEST_NODE: u32 = 64 << 10;

mod kind {
    pub(super) const ROOT_ITEM: u8 = 132;
    pub(super) const EXTENT_ITEM: u8 = 168;
    pub(super) const METADATA_ITEM: u8 = 169;
    pub(super) const CHUNK_ITEM: u8 = 228;
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Extents {
    /// All that is in use, in no order.
    Known(Vec<Range<u64>>),
    /// Why it cannot be said.
    Unknown(&'static str),
}

/// Reads the trees of a Btrfs on a partition of `size` bytes. `read` is false where it cannot read.
pub(super) fn extents(size: u64, read: impl Fn(u64, &mut [u8]) -> bool) -> Result<Extents, String> {
    let mut superblock = vec![0; 4096];
    if !read(SUPERBLOCKS[0], &mut superblock) {
        return Err("its superblock cannot be read".into());
    }
    let at = |offset| number(&superblock, offset, 8).unwrap_or_default();
    if at(0xbc) & !KNOWN_INCOMPATIBLE != 0 {
        return Ok(Extents::Unknown("it has features that are not known"));
    }
    if at(0x88) != 1 {
        return Ok(Extents::Unknown("it lies on several devices"));
    }
    let node_size = u32::try_from(number(&superblock, 0x94, 4).unwrap_or_default()).unwrap_or_default();
    if !node_size.is_power_of_two() || !(4096..=LARGEST_NODE).contains(&node_size) {
        return Err(format!("nodes of {node_size} bytes are not possible"));
    }
    if at(0x70) > size {
        return Err(format!("it has {} bytes, more than its partition", at(0x70)));
    }
    let level = |offset: usize| superblock.get(offset).copied().unwrap_or_default();
    let mut reader = Reader {
        read,
        node_size,
        checksum: number(&superblock, 0xc4, 2).unwrap_or_default(),
        device: at(0xc9),
        chunks: Vec::new(),
        seen: HashSet::new(),
    };
    if !reader.bootstrap(&superblock)? {
        return Ok(Extents::Unknown("its chunks are striped or mirrored over devices"));
    }
    let mut known = true;
    let mut chunks = Vec::new();
    reader.walk(at(0x58), level(0xc7), &mut |key, item| {
        if key.kind == kind::CHUNK_ITEM {
            match Chunk::parse(key.offset, item)? {
                (chunk, true) => chunks.push(chunk),
                (_, false) => known = false,
            }
        }
        Some(())
    })?;
    if !known || chunks.iter().any(|chunk| chunk.stripes.iter().any(|(id, _)| *id != reader.device)) {
        return Ok(Extents::Unknown("its chunks are striped or mirrored over devices"));
    }
    chunks.sort_unstable_by_key(|chunk| chunk.logical);
    reader.chunks = chunks;
    let mut root = None;
    reader.walk(at(0x50), level(0xc6), &mut |key, item| {
        if key.kind == kind::ROOT_ITEM && key.object == EXTENT_TREE {
            root = Some((number(item, 176, 8)?, *item.get(238)?));
        }
        Some(())
    })?;
    let (root, level) = root.ok_or("it names no extent tree")?;
    let mut allocated = Vec::new();
    reader.walk(root, level, &mut |key, _| {
        match key.kind {
            kind::EXTENT_ITEM => allocated.push((key.object, key.offset)),
            kind::METADATA_ITEM => allocated.push((key.object, u64::from(node_size))),
            _ => {}
        }
        Some(())
    })?;
    // If the tree is right, it contains the nodes that were just read.
    allocated.extend(reader.seen.iter().map(|node| (*node, u64::from(node_size))));
    let mut found = Vec::new();
    for (start, len) in allocated {
        reader.places(start, len, &mut found)?;
    }
    if found.iter().any(|range| range.end > size) {
        return Err("its extents lie beyond its partition".into());
    }
    let copies = SUPERBLOCKS.iter().map(|start| *start..start + SUPERBLOCK_SIZE);
    found.extend(copies.filter(|range| range.end <= size));
    Ok(Extents::Known(found))
}

struct Key {
    object: u64,
    kind: u8,
    offset: u64,
}

impl Key {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Key { object: number(bytes, 0, 8)?, kind: *bytes.get(8)?, offset: number(bytes, 9, 8)? })
    }
}

/// Where a part of the logical space lies: device and offset of each copy.
struct Chunk {
    logical: u64,
    len: u64,
    stripes: Vec<(u64, u64)>,
}

impl Chunk {
    /// Also says whether each stripe is a whole copy.
    fn parse(logical: u64, item: &[u8]) -> Option<(Self, bool)> {
        let len = number(item, 0, 8)?;
        let profile = number(item, 24, 8)? & PROFILES;
        let count = usize::try_from(number(item, 44, 2)?).ok()?;
        let stripe = |i: usize| {
            let at = CHUNK_HEADER + i * STRIPE;
            Some((number(item, at, 8)?, number(item, at + 8, 8)?))
        };
        let stripes = (0..count).map(stripe).collect::<Option<Vec<_>>>()?;
        let copies = profile == DUP || (profile == 0 && count == 1);
        Some((Chunk { logical, len, stripes }, copies))
    }
}

struct Reader<R> {
    read: R,
    node_size: u32,
    checksum: u64,
    device: u64,
    /// In the order of the logical space.
    chunks: Vec<Chunk>,
    /// Nodes that were walked: none is visited twice, so a damaged tree ends.
    seen: HashSet<u64>,
}

impl<R: Fn(u64, &mut [u8]) -> bool> Reader<R> {
    /// The chunks that the superblock names, where the chunk tree lies. False if their layout is not known.
    fn bootstrap(&mut self, superblock: &[u8]) -> Result<bool, String> {
        let damaged = || "its superblock's chunks are damaged".to_string();
        let len = usize::try_from(number(superblock, 0xa0, 4).unwrap_or_default()).unwrap_or(usize::MAX);
        let mut rest = superblock.get(0x32b..).and_then(|array| array.get(..len)).ok_or_else(damaged)?;
        while !rest.is_empty() {
            let key = Key::parse(rest).ok_or_else(damaged)?;
            let item = rest.get(17..).ok_or_else(damaged)?;
            let (chunk, copies) = Chunk::parse(key.offset, item).ok_or_else(damaged)?;
            if !copies {
                return Ok(false);
            }
            rest = item.get(CHUNK_HEADER + chunk.stripes.len() * STRIPE..).ok_or_else(damaged)?;
            self.chunks.push(chunk);
        }
        self.chunks.sort_unstable_by_key(|chunk| chunk.logical);
        Ok(true)
    }

    /// Adds every place of a logical range.
    fn places(&self, start: u64, len: u64, found: &mut Vec<Range<u64>>) -> Result<(), String> {
        let nowhere = || format!("its extent at {start:#x} lies in no chunk");
        let end = start.checked_add(len).ok_or_else(nowhere)?;
        let inside = |chunk: &&Chunk| chunk.logical.checked_add(chunk.len).is_some_and(|last| end <= last);
        let after = self.chunks.partition_point(|chunk| chunk.logical <= start);
        let chunk =
            after.checked_sub(1).and_then(|at| self.chunks.get(at)).filter(inside).ok_or_else(nowhere)?;
        for (_, offset) in &chunk.stripes {
            let first = offset.checked_add(start - chunk.logical).ok_or_else(nowhere)?;
            found.push(first..first.checked_add(len).ok_or_else(nowhere)?);
        }
        Ok(())
    }

    /// The first copy of a node that is right.
    fn node(&self, logical: u64, level: u8) -> Result<Vec<u8>, String> {
        let mut places = Vec::new();
        self.places(logical, u64::from(self.node_size), &mut places)?;
        let mut node = vec![0; self.node_size as usize];
        let right = |node: &[u8]| {
            let sum = match self.checksum {
                0 => node.starts_with(&CRC32C.checksum(&node[32..]).to_le_bytes()),
                2 => node.starts_with(&sha256(&node[32..]).0),
                // xxhash and BLAKE2 are not computed; the checks below still find most damage.
                _ => true,
            };
            sum && number(node, 0x30, 8) == Some(logical) && node.get(0x64) == Some(&level)
        };
        let found = places.iter().any(|place| (self.read)(place.start, &mut node) && right(&node));
        if found { Ok(node) } else { Err(format!("its tree node at {logical:#x} is damaged")) }
    }

    /// Shows each item of a tree; `None` from `item` says that it is damaged.
    fn walk(
        &mut self,
        logical: u64,
        level: u8,
        item: &mut impl FnMut(Key, &[u8]) -> Option<()>,
    ) -> Result<(), String> {
        let damaged = || format!("its tree node at {logical:#x} is damaged");
        if !self.seen.insert(logical) {
            return Err(damaged());
        }
        let node = self.node(logical, level)?;
        let count = usize::try_from(number(&node, 0x60, 4).unwrap_or_default()).unwrap_or(usize::MAX);
        let entry = if level == 0 { LEAF_ITEM } else { NODE_POINTER };
        let entries = count.checked_mul(entry).and_then(|len| node.get(NODE_HEADER..)?.get(..len));
        for entry in entries.ok_or_else(damaged)?.chunks_exact(entry) {
            if level > 0 {
                self.walk(number(entry, 17, 8).ok_or_else(damaged)?, level - 1, item)?;
                continue;
            }
            let place = |at| number(entry, at, 4).and_then(|value| usize::try_from(value).ok());
            let data = place(17).zip(place(21)).and_then(|(offset, len)| {
                let start = NODE_HEADER.checked_add(offset)?;
                node.get(start..start.checked_add(len)?)
            });
            let key = Key::parse(entry).ok_or_else(damaged)?;
            item(key, data.ok_or_else(damaged)?).ok_or_else(damaged)?;
        }
        Ok(())
    }
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A superblock with these 8-byte numbers in it.
    fn superblock(marks: &[(usize, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[0x94..0x98].copy_from_slice(&16384u32.to_le_bytes());
        marks.iter().for_each(|(at, value)| bytes[*at..*at + 8].copy_from_slice(&value.to_le_bytes()));
        bytes
    }

    fn of(superblock: &[u8]) -> Result<Extents, String> {
        extents(1 << 30, |_, into| {
            into.iter_mut().zip(superblock).for_each(|(to, from)| *to = *from);
            true
        })
    }

    #[test]
    fn what_is_not_known_is_said_and_not_guessed() {
        assert!(
            matches!(of(&superblock(&[(0x88, 2)])), Ok(Extents::Unknown(why)) if why.contains("devices"))
        );
        let zoned = superblock(&[(0x88, 1), (0xbc, 1 << 12)]);
        assert!(matches!(of(&zoned), Ok(Extents::Unknown(why)) if why.contains("features")));
        let large = superblock(&[(0x88, 1), (0x70, 2 << 30)]);
        assert!(of(&large).is_err_and(|why| why.contains("more than its partition")));
        assert!(extents(1 << 30, |_, _| false).is_err());
    }

    #[test]
    fn stripes_that_are_no_copies_are_told_from_copies() {
        let item = |profile: u64, stripes: u16| {
            let mut item = vec![0u8; CHUNK_HEADER + usize::from(stripes) * STRIPE];
            item[24..32].copy_from_slice(&profile.to_le_bytes());
            item[44..46].copy_from_slice(&stripes.to_le_bytes());
            item
        };
        let copies = |profile, stripes| Chunk::parse(0, &item(profile, stripes)).map(|(_, copies)| copies);
        assert_eq!(copies(1, 1), Some(true));
        assert_eq!(copies(4 | DUP, 2), Some(true));
        assert_eq!(copies(1 | 1 << 3, 2), Some(false));
        assert_eq!(copies(1 | 1 << 4, 2), Some(false));
        assert!(Chunk::parse(0, &item(1, 3)[..100]).is_none());
    }

    #[test]
    fn garbage_does_no_harm() {
        let mut state = 5u64;
        for _ in 0..2000 {
            let mut noise = superblock(&[(0x88, 1), (0xa0, 97), (0x32b, 256), (0x333, 228), (0x334, 0)]);
            noise.iter_mut().skip(0x34c).for_each(|byte| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = state.to_be_bytes()[0];
            });
            let _ = of(&noise);
        }
    }
}
