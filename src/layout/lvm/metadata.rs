//! Where a physical volume keeps its group's metadata: label, header, metadata areas (LVM2,
//! lib/format_text/layout.h).
//!
//! Invariant: any bytes do no harm, and no text is longer than [`LONGEST`].

use crate::layout::traces::number;

use super::text::{self, Section};

const SECTOR: usize = 512;
/// The label is in one of these sectors.
const LABEL_SECTORS: usize = 4;
const ID: usize = 32;
/// Bytes of a metadata area's header, before the ring with the texts.
const RING: u64 = 512;
/// More text than this no group has: LVM makes areas of 1 MiB. A terminal with 512 MB reads it too, and a
/// section takes 20 times its text.
const LONGEST: u64 = 4 << 20;
/// A physical volume has one or two.
const MOST_AREAS: usize = 16;
const MAGIC: &[u8] = b"\x20LVM2\x20x[5A%r0N*>";
/// RAW_LOCN_IGNORED: the group keeps its text on other devices.
const IGNORED: u64 = 1;

/// LVM's checksum: CRC-32 from a start of its own, not inverted.
static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::Algorithm {
    width: 32,
    poly: 0x04c1_1db7,
    init: 0xf597_a6cf_u32.reverse_bits(),
    refin: true,
    refout: true,
    xorout: 0,
    check: 0,
    residue: 0,
});

/// Reads bytes of the physical volume; false where it cannot.
pub type Read<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

/// A physical volume's label and header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its identity, without the dashes that people see.
    pub id: Vec<u8>,
    /// Bytes of the device that was made a physical volume.
    pub device_size: u64,
    /// Bytes at which its metadata areas begin.
    areas: Vec<u64>,
    sound: bool,
}

impl Label {
    /// Looks for it in the first sectors.
    pub fn find(start: &[u8]) -> Option<Label> {
        let mut sectors = start.chunks_exact(SECTOR).take(LABEL_SECTORS).enumerate();
        let (place, label) =
            sectors.find(|(_, s)| s.starts_with(b"LABELONE") && s[24..].starts_with(b"LVM2 001"))?;
        let header = label.get(usize::try_from(number(label, 20, 4)?).ok()?..)?;
        let mut places = header.get(ID + 8..)?.chunks_exact(16).map(|p| number(p, 0, 8).unwrap_or_default());
        // Data areas end with an empty one, and metadata areas follow, which end likewise.
        places.by_ref().find(|at| *at == 0)?;
        let areas = places.take_while(|at| *at != 0).take(MOST_AREAS).collect();
        let sound = number(label, 8, 8) == Some(place as u64)
            && number(label, 16, 4) == Some(u64::from(CRC.checksum(&label[20..])));
        Some(Label { id: header.get(..ID)?.to_vec(), device_size: number(header, ID, 8)?, areas, sound })
    }

    /// Whether its checksum is right.
    pub(super) fn is_sound(&self) -> bool {
        self.sound
    }

    /// The newest copy of the group's metadata.
    pub fn newest(&self, read: Read<'_>) -> Metadata {
        let mut best = Metadata::Missing;
        for copy in self.areas.iter().map(|area| metadata_of(*area, read)) {
            let better = match (&best, &copy) {
                (Metadata::Group(best, _), Metadata::Group(copy, _)) => seqno(copy) > seqno(best),
                _ => copy.worth() > best.worth(),
            };
            if better {
                best = copy;
            }
        }
        best
    }
}

/// What a physical volume knows about its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// Nothing: it has no area, an area that is not used, or one that cannot be read.
    Missing,
    /// A text whose checksum or form is wrong.
    Damaged(Vec<u8>, &'static str),
    /// It belongs to no group.
    NoGroup,
    /// The group's name and section, the text itself.
    Group(Box<(String, Section)>, Vec<u8>),
}

impl Metadata {
    fn worth(&self) -> u8 {
        match self {
            Metadata::Missing => 0,
            Metadata::NoGroup => 1,
            Metadata::Damaged(..) => 2,
            Metadata::Group(..) => 3,
        }
    }
}

fn seqno(group: &(String, Section)) -> Option<u64> {
    group.1.number("seqno")
}

/// The metadata in the area that begins at byte `area`.
fn metadata_of(area: u64, read: Read<'_>) -> Metadata {
    let Some((bytes, sound)) = bytes_of(area, read) else { return Metadata::Missing };
    if bytes.is_empty() {
        return Metadata::NoGroup;
    }
    if !sound {
        return Metadata::Damaged(bytes, "its checksum is wrong");
    }
    match text::parse(&bytes) {
        Ok(text) => match text.sections().next() {
            Some((name, section)) => Metadata::Group(Box::new((name.into(), section.clone())), bytes),
            None => Metadata::Damaged(bytes, "no group is in it"),
        },
        Err(why) => Metadata::Damaged(bytes, why),
    }
}

/// The text that is in force, and whether the checksums are right; no bytes if there is no group yet.
fn bytes_of(area: u64, read: Read<'_>) -> Option<(Vec<u8>, bool)> {
    let bytes = |at: u64, len: u64| {
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        read(at, &mut bytes).then_some(bytes)
    };
    let head = bytes(area, RING)?;
    if !head.get(4..)?.starts_with(MAGIC) {
        return None;
    }
    let (size, start, len) = (number(&head, 32, 8)?, number(&head, 40, 8)?, number(&head, 48, 8)?);
    if number(&head, 60, 4)? & IGNORED != 0 {
        return None;
    }
    let header_is_sound = number(&head, 0, 4)? == u64::from(CRC.checksum(&head[4..]))
        && number(&head, 20, 4)? == 1
        && number(&head, 24, 8)? == area;
    if start == 0 || len == 0 {
        return Some((Vec::new(), header_is_sound));
    }
    if len > LONGEST || start < RING || start >= size || len > size - RING {
        return None;
    }
    // The texts lie in a ring: one that begins before its end goes on at its beginning.
    let first = len.min(size - start);
    let mut text = bytes(area.checked_add(start)?, first)?;
    text.extend(bytes(area.checked_add(RING)?, len - first)?);
    let sound = header_is_sound && number(&head, 56, 4)? == u64::from(CRC.checksum(&text));
    Some((text, sound))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const AREA: usize = 4096;
    const SIZE: usize = 4096;

    fn le(bytes: &mut [u8], at: usize, value: u64, len: usize) {
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    /// A metadata area whose ring has `text` from `start` on.
    fn put_area(volume: &mut [u8], at: usize, start: usize, text: &[u8]) {
        for (i, byte) in text.iter().enumerate() {
            let inside = start + i;
            let inside = if inside < SIZE { inside } else { inside - SIZE + 512 };
            volume[at + inside] = *byte;
        }
        let mut head = [0; SECTOR];
        head[4..20].copy_from_slice(MAGIC);
        le(&mut head, 20, 1, 4);
        le(&mut head, 24, at as u64, 8);
        le(&mut head, 32, SIZE as u64, 8);
        le(&mut head, 40, start as u64, 8);
        le(&mut head, 48, text.len() as u64, 8);
        le(&mut head, 56, u64::from(CRC.checksum(text)), 4);
        let sum = u64::from(CRC.checksum(&head[4..]));
        le(&mut head, 0, sum, 4);
        volume[at..at + SECTOR].copy_from_slice(&head);
    }

    /// A physical volume with two metadata areas.
    fn volume(first: (usize, &[u8]), second: (usize, &[u8])) -> Vec<u8> {
        volume_of(16 << 10, first, second)
    }

    /// The same of `size` bytes. Each area has 3584 bytes for a text.
    pub(crate) fn volume_of(size: usize, first: (usize, &[u8]), second: (usize, &[u8])) -> Vec<u8> {
        let mut volume = vec![0; size];
        let label = &mut volume[SECTOR..2 * SECTOR];
        label[..8].copy_from_slice(b"LABELONE");
        le(label, 8, 1, 8);
        le(label, 20, 32, 4);
        label[24..32].copy_from_slice(b"LVM2 001");
        label[32..64].copy_from_slice(&[b'i'; 32]);
        le(label, 64, size as u64, 8);
        for (i, value) in [12288, 0, 0, 0, AREA, SIZE, 2 * AREA, SIZE, 0, 0].into_iter().enumerate() {
            le(label, 72 + 8 * i, value as u64, 8);
        }
        let sum = u64::from(CRC.checksum(&label[20..]));
        le(label, 16, sum, 4);
        put_area(&mut volume, AREA, first.0, first.1);
        put_area(&mut volume, 2 * AREA, second.0, second.1);
        volume
    }

    fn newest(volume: &[u8]) -> Option<Metadata> {
        let read = |at: u64, into: &mut [u8]| {
            let from = usize::try_from(at).ok().and_then(|at| volume.get(at..at.checked_add(into.len())?));
            from.map(|from| into.copy_from_slice(from)).is_some()
        };
        Some(Label::find(volume)?.newest(&read))
    }

    fn seqno_of(volume: &[u8]) -> Option<u64> {
        match newest(volume)? {
            Metadata::Group(group, _) => seqno(&group),
            _ => None,
        }
    }

    #[test]
    fn the_newest_copy_with_a_right_checksum_counts_also_where_it_wraps_around() {
        let (old, new) = (b"lab { seqno = 7 }\n".as_slice(), b"lab { seqno = 8 }\n".as_slice());
        let good = volume((SIZE - 5, new), (512, old));
        assert!(Label::find(&good).is_some_and(|label| label.sound && label.device_size == 16 << 10));
        assert_eq!(seqno_of(&good), Some(8));
        assert_eq!(seqno_of(&volume((512, old), (SIZE - 1, new))), Some(8));
        // A changed byte behind the wrap, and one in the header.
        for at in [AREA + 513, AREA + 500] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(seqno_of(&bad), Some(7), "{at}");
            bad[2 * AREA + 512] ^= 1;
            assert!(matches!(newest(&bad), Some(Metadata::Damaged(..))), "{at}");
        }
        assert_eq!(newest(&volume((512, b""), (512, b""))), Some(Metadata::NoGroup));
        assert_eq!(seqno_of(&volume((512, b""), (512, old))), Some(7));
        assert!(matches!(newest(&volume((512, b"lab {"), (512, b""))), Some(Metadata::Damaged(..))));
    }

    #[test]
    fn no_byte_of_label_and_headers_makes_it_panic_or_read_without_bound() {
        let good = volume((SIZE - 5, b"lab { seqno = 7 }\n"), (512, b"lab { seqno = 8 }\n"));
        for at in (SECTOR..2 * SECTOR).chain(AREA..AREA + 80) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = newest(&bad);
                bad[at..at + 8].fill(value);
                let _ = newest(&bad);
            }
        }
        for end in 0..1024 {
            let _ = newest(&good[..end]);
        }
    }
}
