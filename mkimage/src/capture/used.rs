//! The parts of each partition that are in use: what its filesystem uses (`blocks`), or the filesystems in
//! its logical volumes (`volumes`).

use flashmob::event::Failure;
use flashmob::manifest::Policy;

use super::backing::Backing;
use super::plan::{PartitionPlan, Plan};
use super::ranges::Used;
use super::{blocks, soundness, volumes};
use crate::source::Source;

/// Finds the used ranges of each partition to capture, except `raw` ones. Adds a remark for each.
pub(crate) fn look(source: &Source, plan: &mut Plan, raw: &[u32]) -> Result<(), Failure> {
    let known = |number: &u32| plan.partitions.iter().any(|p| p.number == *number);
    if let Some(number) = raw.iter().find(|number| !known(number)) {
        return Err(Failure::usage(
            format!("there is no partition {number} to take as it is on {}", source.path.display()),
            "List the partitions with `fdisk -l`.",
        ));
    }
    soundness::check_disk(source, plan, raw)?;
    soundness::check_asleep(source, plan, raw)?;
    plan.remarks.extend(soundness::firmware_raid(source).map(String::from));
    let mut found = Vec::new();
    for partition in &plan.partitions {
        if partition.policy == Policy::Keep {
            found.push(None);
            continue;
        }
        if raw.contains(&partition.number) {
            plan.remarks.push(format!("partition {} is taken as it is: all but zeros", partition.number));
            found.push(None);
            continue;
        }
        soundness::check(source, plan, partition)?;
        if partition.filesystem == Some("lvm") {
            volumes::check(source, partition)?;
        }
        match used_of(source, partition)? {
            Ok((used, remarks)) => {
                plan.remarks.extend(remarks);
                found.push(Some(used));
            }
            Err(why) => {
                plan.remarks.push(volumes::all_but_zeros(&format!("partition {}", partition.number), &why));
                found.push(None);
            }
        }
    }
    plan.used = found;
    Ok(())
}

/// The used ranges of each partition of a disk, by number; partitions without a known map are left out.
pub(crate) fn known(source: &Source) -> Vec<(u32, Used)> {
    let Ok(plan) = super::plan::make(source, &[]) else { return Vec::new() };
    let used = |partition: &PartitionPlan| Some((partition.number, used_of(source, partition).ok()?.ok()?.0));
    plan.partitions.iter().filter_map(used).collect()
}

/// What a partition's filesystem or volumes use, with remarks. The inner error says why it cannot be known,
/// where that is no reason to refuse.
fn used_of(
    source: &Source,
    partition: &PartitionPlan,
) -> Result<Result<(Used, Vec<String>), String>, Failure> {
    if partition.filesystem == Some("lvm") {
        return volumes::used(source, partition);
    }
    let used = blocks::used(&Backing::partition(source, partition))?;
    Ok(used.map(|used| (used, Vec::new())))
}
