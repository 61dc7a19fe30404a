//! The parts of a physical volume of LVM that its logical volumes use.
//!
//! Invariant: metadata areas, and volumes whose blocks are not known, count as used. Only extents that no
//! volume owns, and blocks that a volume's filesystem does not use, are left out.

use flashmob::event::Failure;
use flashmob::units::show_bytes;

use super::backing::Backing;
use super::plan::PartitionPlan;
use super::ranges::Used;
use super::{blocks, soundness};
use crate::source::Source;
use flashmob::layout::lvm::{self, Content, Group};

/// The remark about something whose used blocks are not known.
pub(super) fn all_but_zeros(name: &str, why: &str) -> String {
    format!("{name}: {why}; all but zeros is taken, also deleted files")
}

/// Refuses a physical volume if a volume on it has a filesystem that is not whole.
pub(super) fn check(source: &Source, partition: &PartitionPlan) -> Result<(), Failure> {
    let Ok(group) = group(source, partition)? else { return Ok(()) };
    for volume in &group.volumes {
        if let Content::Device(segments) = &volume.content {
            let name = format!("{}/{}", group.name, volume.name);
            soundness::check_volume(&Backing::volume(source, partition, &name, segments)?)?;
        }
    }
    Ok(())
}

/// What is in use, with a remark for each volume. The inner error says why it cannot be known.
pub(super) fn used(
    source: &Source,
    partition: &PartitionPlan,
) -> Result<Result<(Used, Vec<String>), String>, Failure> {
    let group = match group(source, partition)? {
        Ok(group) => group,
        Err(why) => return Ok(Err(format!("its logical volumes are not known: {why}"))),
    };
    let mut ranges = vec![0..group.extents.start, group.extents.end..partition.size];
    let mut remarks = Vec::new();
    for volume in &group.volumes {
        let name = format!("{}/{}", group.name, volume.name);
        match &volume.content {
            Content::Opaque(why, places) => {
                ranges.extend(places.iter().cloned());
                remarks.push(all_but_zeros(&format!("partition {}, volume {name}", partition.number), why));
            }
            Content::Device(segments) => {
                let backing = Backing::volume(source, partition, &name, segments)?;
                let used = blocks::used(&backing)?;
                remarks.push(match &used {
                    Ok(used) => in_use(&backing, used),
                    Err(why) => all_but_zeros(&backing.name, why),
                });
                let used = used.unwrap_or_else(|_| Used::only(0..segments.size()));
                ranges.extend(used.ranges().iter().flat_map(|range| segments.places(range)));
            }
        }
    }
    Ok(Ok((Used::of(ranges, partition.size), remarks)))
}

fn in_use(backing: &Backing<'_>, used: &Used) -> String {
    let (name, filesystem) = (&backing.name, backing.filesystem.unwrap_or("data"));
    format!("{name} ({filesystem}): {} of {} in use", show_bytes(used.bytes()), show_bytes(backing.size()))
}

fn group(source: &Source, partition: &PartitionPlan) -> Result<Result<Group, String>, Failure> {
    let backing = Backing::partition(source, partition);
    let start = backing.start()?;
    Ok(lvm::group(&start, partition.size, &|offset, into| backing.read(offset, into)))
}
