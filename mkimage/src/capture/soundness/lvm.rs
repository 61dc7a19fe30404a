//! Is the whole volume group on this disk?
//!
//! Its volumes are captured whole, without looking into them (LVM2, lib/format_text/layout.h and
//! doc/lvm2-raid.txt).

use super::volume::Volume;
use flashmob::layout::traces::number;

const SECTOR: usize = 512;
const ID: usize = 32;
/// Bytes of the header before the ring with the text.
const RING: u64 = 512;
/// More text than this no group has.
const LONGEST: u64 = 64 << 20;

/// The physical volume's header: in one of the first four sectors, behind the label.
fn header<'a>(volume: &Volume<'a>) -> Option<&'a [u8]> {
    let labels = volume.start.chunks_exact(SECTOR).take(4);
    let mut found = labels.filter(|s| s.starts_with(b"LABELONE") && s[24..].starts_with(b"LVM2 001"));
    let label = found.next()?;
    label.get(usize::try_from(number(label, 20, 4)?).ok()?..)
}

/// Bytes of the device that was made a physical volume.
pub(super) fn device_size(volume: &Volume) -> Option<u64> {
    number(header(volume)?, ID, 8)
}

/// Its identity, without the dashes that people see.
pub(super) fn id(volume: &Volume) -> Option<Vec<u8>> {
    Some(header(volume)?.get(..ID)?.to_vec())
}

/// The identities of all physical volumes of its group: none if it belongs to no group. `None`: this one does
/// not know.
pub(super) fn members(volume: &Volume) -> Option<Vec<Vec<u8>>> {
    let text = String::from_utf8_lossy(&metadata(volume)?).into_owned();
    let Some((_, rest)) = text.split_once("physical_volumes {") else { return Some(Vec::new()) };
    let (mut depth, mut found) = (1u32, Vec::new());
    for line in rest.lines().map(str::trim) {
        if depth == 2
            && let Some(id) = line.strip_prefix("id = \"").and_then(|id| id.strip_suffix('"'))
        {
            found.push(id.bytes().filter(|byte| *byte != b'-').collect());
        }
        depth += u32::from(line.ends_with('{'));
        depth -= u32::from(line == "}");
        if depth == 0 {
            break;
        }
    }
    Some(found)
}

/// The group's text; nothing if there is no group yet.
fn metadata(volume: &Volume) -> Option<Vec<u8>> {
    let header = header(volume)?;
    // Data areas end with an empty one, and places of the text follow.
    let areas = header.get(ID + 8..)?.chunks_exact(16);
    let mut areas =
        areas.map(|area| number(area, 0, 8).unwrap_or_default()).skip_while(|at| *at != 0).skip(1);
    let area = areas.next().filter(|at| *at != 0)?;
    let head = volume.bytes(area, SECTOR)?;
    if head.get(4..20)? != b"\x20LVM2\x20x[5A%r0N*>" {
        return None;
    }
    let size = number(&head, 32, 8)?;
    let (start, len) = (number(&head, 40, 8)?, number(&head, 48, 8)?);
    // RAW_LOCN_IGNORED: the group keeps its text on other devices.
    if number(&head, 60, 4)? & 1 != 0 {
        return None;
    }
    if len == 0 {
        return Some(Vec::new());
    }
    if len > LONGEST || start < RING || start >= size {
        return None;
    }
    let first = len.min(size - start);
    let mut text = volume.bytes(area.checked_add(start)?, usize::try_from(first).ok()?)?;
    text.extend(volume.bytes(area + RING, usize::try_from(len - first).ok()?)?);
    Some(text)
}
