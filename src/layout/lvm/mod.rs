//! Physical volumes of LVM, without LVM's tools: the group's metadata and the places of its logical volumes.
//!
//! - `metadata`: label, header, metadata areas
//! - `text`: the format of the metadata
//! - `group`: volumes and extents
//!
//! Invariant: what this module does not know is an error or [`Content::Opaque`], never a guess. Any bytes do
//! no harm.

mod group;
mod metadata;
mod text;

pub use group::{Content, Group};
#[cfg(test)]
pub(crate) use metadata::tests::volume_of as physical_volume;
pub use metadata::{Label, Metadata, Read};

/// The group on a physical volume of `size` bytes that begins with `start`. The error says why its volumes
/// are not known.
pub fn group(start: &[u8], size: u64, read: Read<'_>) -> Result<Group, String> {
    let label = Label::find(start).ok_or("its label is damaged")?;
    if !label.is_sound() {
        return Err("its label is damaged: its checksum is wrong".into());
    }
    match label.newest(read) {
        Metadata::Missing => Err("its metadata cannot be read".into()),
        Metadata::Damaged(_, why) => Err(format!("its metadata is damaged: {why}")),
        Metadata::NoGroup => Err("it belongs to no volume group".into()),
        Metadata::Group(group, _) => Group::of(&group.0, &group.1, &label.id, size.min(label.device_size)),
    }
}
