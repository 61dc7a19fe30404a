//! `--grow`: the partition that takes the room of a larger disk.

use std::str::FromStr;

use flashmob::event::Failure;
use flashmob::manifest::{Entry, Policy, Role};
use uuid::Uuid;

use super::plan::{PartitionPlan, Plan};

/// Filesystems that the terminal's agent grows while they are mounted.
const BY_AGENT: [&str; 3] = ["ext4", "xfs", "btrfs"];
/// Grows at the first start of the system on it.
const BY_WINDOWS: &str = "ntfs";
/// Grows at the first start too, if flashmob's helper is in the system.
const BY_HELPER: &str = "lvm";

/// Which partition grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The last one whose filesystem can.
    Last,
    Number(u32),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "last" => Ok(Choice::Last),
            _ => text.parse().map(Choice::Number).map_err(|_| "'last' or the number of a partition".into()),
        }
    }
}

/// Marks the partition that grows.
pub(super) fn mark(plan: &mut Plan, choice: Option<Choice>) -> Result<(), Failure> {
    let Some(choice) = choice else { return Ok(()) };
    let known = format!("What grows is {}, {BY_WINDOWS} and {BY_HELPER}.", BY_AGENT.join(", "));
    let at = match choice {
        Choice::Number(number) => {
            plan.partitions.iter().position(|p| p.number == number).ok_or_else(|| {
                Failure::usage(
                    format!("there is no partition {number} to grow"),
                    "List the partitions with `fdisk -l`.",
                )
            })?
        }
        Choice::Last => plan.partitions.iter().rposition(|p| refusal(p).is_none()).ok_or_else(|| {
            Failure::usage("no partition of the source can grow", format!("{known} Leave out --grow."))
        })?,
    };
    let cannot = |why: String, advice: String| {
        let message = format!("partition {} cannot grow: {why}", plan.partitions[at].number);
        Err(Failure::usage(message, advice))
    };
    if let Some(why) = refusal(&plan.partitions[at]) {
        return cannot(why, known);
    }
    let from = plan.partitions[at].start;
    if let Some(fixed) = plan.partitions.iter().find(|p| p.start > from && !p.may_move()) {
        return cannot(
            format!("partition {}, which lies behind it, is found by its place", fixed.number),
            "Leave out --grow, or move that partition before it on the golden machine.".into(),
        );
    }
    let partition = &mut plan.partitions[at];
    partition.grow = true;
    let by = match partition.filesystem {
        Some(BY_HELPER) => "; the volume of its root filesystem grows where flashmob-helper is in the system",
        _ => "",
    };
    plan.remarks.push(format!("partition {} takes the room of larger disks{by}", partition.number));
    Ok(())
}

/// Windows keeps its recovery tools in partitions of their own, usually behind the one that should grow.
pub(super) fn is_recovery(entry: &Entry) -> bool {
    const GPT: Uuid = Uuid::from_u128(0xde94bba4_06d1_4d40_a16a_bfd50179d6ac);
    const MBR: u8 = 0x27;
    match entry {
        Entry::Gpt { kind, .. } => *kind == GPT,
        Entry::Mbr { kind, .. } => *kind == MBR,
        Entry::None => false,
    }
}

/// Why a partition cannot grow.
fn refusal(p: &PartitionPlan) -> Option<String> {
    let by = p.filesystem.unwrap_or_default();
    match &p.entry {
        _ if p.policy == Policy::Keep => Some("terminals keep theirs".into()),
        Entry::None => Some("it is in no table".into()),
        Entry::Mbr { ebr: Some(_), .. } => Some("it is a logical one".into()),
        _ if p.role != Role::Data => Some("it is not one for data".into()),
        entry if is_recovery(entry) => Some("it is a recovery partition".into()),
        _ if BY_AGENT.contains(&by) || [BY_WINDOWS, BY_HELPER].contains(&by) => None,
        _ if by.is_empty() => Some("no filesystem was found on it".into()),
        _ => Some(format!("it has {by}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::examples::{partition, plan};
    use super::*;

    #[test]
    fn the_last_filesystem_that_can_grow_is_marked_or_the_one_that_is_named() {
        for choice in ["last", "2"] {
            let mut plan = plan();
            mark(&mut plan, Some(choice.parse().expect("a choice"))).expect("can grow");
            assert_eq!(plan.partitions.iter().map(|p| p.grow).collect::<Vec<_>>(), [false, true, false]);
        }
        let mut none = plan();
        mark(&mut none, None).expect("nothing to do");
        assert!(none.partitions.iter().all(|p| !p.grow));
    }

    #[test]
    fn a_physical_volume_of_lvm_grows_and_the_remark_says_by_whom() {
        let mut plan = plan();
        plan.partitions[2] = partition(3, Some("lvm"), Role::Data);
        mark(&mut plan, Some(Choice::Last)).expect("can grow");
        assert!(plan.partitions[2].grow);
        assert!(plan.remarks[0].contains("flashmob-helper"), "{:?}", plan.remarks);
    }

    #[test]
    fn a_partition_before_one_that_is_found_by_its_place_does_not_grow() {
        let mut plan = plan();
        plan.partitions[2].entry = Entry::Mbr { kind: 0x82, active: false, ebr: None };
        let failure = mark(&mut plan, Some(Choice::Last)).expect_err("swap of an MBR stays");
        assert!(failure.message.contains("partition 2 cannot grow: partition 3"), "{failure:?}");
        assert!(plan.partitions.iter().all(|p| !p.grow) && plan.remarks.is_empty());
    }

    #[test]
    fn a_recovery_partition_is_not_what_grows() {
        let mut plan = plan();
        plan.partitions[2] = partition(3, Some("ntfs"), Role::Data);
        let Entry::Gpt { kind, .. } = &mut plan.partitions[2].entry else { panic!("a GPT") };
        *kind = "de94bba4-06d1-4d40-a16a-bfd50179d6ac".parse().expect("a GUID");
        mark(&mut plan, Some(Choice::Last)).expect("can grow");
        assert_eq!(plan.partitions.iter().map(|p| p.grow).collect::<Vec<_>>(), [false, true, false]);
        assert!(mark(&mut plan, Some(Choice::Number(3))).is_err());
    }

    #[test]
    fn a_partition_that_cannot_grow_is_refused_with_the_reason() {
        let refused = |choice| mark(&mut plan(), Some(choice)).expect_err("refused").message;
        assert!(refused(Choice::Number(9)).contains("no partition 9"));
        assert!(refused(Choice::Number(1)).contains("not one for data"));
        assert!("first".parse::<Choice>().is_err());
        let mut kept = plan();
        kept.partitions[1].policy = Policy::Keep;
        assert!(mark(&mut kept, Some(Choice::Last)).is_err());
    }
}
