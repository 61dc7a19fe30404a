//! Is the whole volume group on this disk?

use super::volume::Volume;
use flashmob::layout::lvm::{Label, Metadata};

/// Bytes of the device that was made a physical volume.
pub(super) fn device_size(volume: &Volume) -> Option<u64> {
    Label::find(volume.start).map(|label| label.device_size)
}

/// Its identity, without the dashes that people see.
pub(super) fn id(volume: &Volume) -> Option<Vec<u8>> {
    Label::find(volume.start).map(|label| label.id)
}

/// The identities of all physical volumes of its group: none if it belongs to no group. `None`: this one does
/// not know.
pub(super) fn members(volume: &Volume) -> Option<Vec<Vec<u8>>> {
    let text = match Label::find(volume.start)?.newest(volume.read) {
        Metadata::Missing => return None,
        Metadata::NoGroup => return Some(Vec::new()),
        // Damaged ones are read as far as they go.
        Metadata::Damaged(text, _) | Metadata::Group(_, text) => text,
    };
    let text = String::from_utf8_lossy(&text).into_owned();
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
