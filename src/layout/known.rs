//! The disks that a terminal had before, which show whether a vague rule still means the same disk.
//!
//! `internal` is safe while a terminal has one internal disk. It is not when the system's disk has died and
//! the data disk is the only one left, or when a driver finds one of two disks late. So the server remembers
//! each terminal's fixed disks, and a rule that any disk could fit holds only while all of them are there.
//!
//! Invariant: pure, and checked before the first write. A rule with a serial number or WWN needs no memory,
//! because no other disk fits it.

use crate::api::DiskInfo;
use crate::event::{Chosen, DiskIdentity, Failure};
use crate::layout::rule::{Rule, describe, is_external};

/// The disks worth remembering: those that are not plugged in and out.
pub fn fixed(disks: &[DiskInfo]) -> impl Iterator<Item = &DiskInfo> {
    disks.iter().filter(|disk| !is_external(disk))
}

/// The disks of `known` that are not among `present`.
pub fn missing<'a>(known: &'a [DiskInfo], present: &[DiskInfo]) -> Vec<&'a DiskInfo> {
    let is_there = |disk: &&DiskInfo| present.iter().any(|other| other.identity().same(&disk.identity()));
    known.iter().filter(|disk| !is_there(disk)).collect()
}

/// A terminal's disks after it was seen with `present`: those in their present state, and all others that it
/// ever had.
pub(crate) fn remember(known: &[DiskInfo], present: &[DiskInfo]) -> Vec<DiskInfo> {
    let gone = missing(known, present);
    fixed(present).chain(gone).cloned().collect()
}

/// Checks that `rule` still means `chosen`, on a terminal that had the disks `known` and where `before` was
/// chosen. A new rule must mean an earlier chosen disk, if there is one.
pub fn check(
    rule: &Rule,
    chosen: &DiskInfo,
    present: &[DiskInfo],
    known: &[DiskInfo],
    before: &[Chosen],
) -> Result<(), Failure> {
    if rule.identifies() {
        return Ok(());
    }
    let accept = "If that is as it should be, run on the server 'flashmob terminal retry TERMINAL \
        --accept-disks', or name the disk in the job's disk rule by serial=….";
    let gone = missing(known, present);
    if !gone.is_empty() {
        let gone: Vec<String> = gone.into_iter().map(describe).collect();
        return Err(Failure::refused(
            format!(
                "the rule '{rule}' may mean another disk than it did, because a disk that this terminal had \
                 is not there: {}; it would now be {}",
                gone.join("; "),
                describe(chosen)
            ),
            format!(
                "Look whether that disk is dead, unplugged, or hidden by a setting of the firmware. {accept}"
            ),
        ));
    }
    let by_this_rule: Vec<&Chosen> = before.iter().filter(|one| one.rule == rule.to_string()).collect();
    let candidates = if by_this_rule.is_empty() { before.iter().collect() } else { by_this_rule };
    if candidates.is_empty() || candidates.iter().any(|one| one.identity.same(&chosen.identity())) {
        return Ok(());
    }
    let meant: Vec<&str> = candidates.iter().map(|one| one.disk.as_str()).collect();
    Err(Failure::refused(
        format!(
            "this terminal was imaged on {} before, and the rule '{rule}' now means {}",
            meant.join(" and "),
            describe(chosen)
        ),
        format!("Look which of the disks the system belongs on. {accept}"),
    ))
}

/// The disks chosen on a terminal, after `new` was chosen there: each rule means its last disk.
pub(crate) fn choose_again(before: &[Chosen], new: &[Chosen]) -> Vec<Chosen> {
    let now = |old: &Chosen| new.iter().find(|new| new.rule == old.rule).unwrap_or(old).clone();
    let added = new.iter().filter(|new| !before.iter().any(|old| old.rule == new.rule)).cloned();
    before.iter().map(now).chain(added).collect()
}

/// Whether the device that was opened is still the disk that was chosen.
pub(crate) fn check_opened(chosen: &DiskInfo, opened: &DiskInfo) -> Result<(), Failure> {
    let identities: [DiskIdentity; 2] = [chosen.identity(), opened.identity()];
    if identities[0] == identities[1] && chosen.name == opened.name {
        return Ok(());
    }
    Err(Failure::refused(
        format!("{} was chosen, and the device that was opened is {}", describe(chosen), describe(opened)),
        "A disk was plugged in or pulled out at this moment. Run the job again.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;

    const GIB: u64 = 1 << 30;

    fn disk(name: &str, serial: Option<&str>, size: u64) -> DiskInfo {
        DiskInfo {
            name: name.into(),
            bus: "ata".into(),
            size,
            serial: serial.map(str::to_string),
            path: format!("pci/{name}"),
            ..DiskInfo::default()
        }
    }

    fn says(rule: &str, present: &[DiskInfo], known: &[DiskInfo], before: &[Chosen]) -> String {
        let rule: Rule = rule.parse().expect("a rule");
        let chosen = rule.choose(present, 0).expect("one disk");
        check(&rule, chosen, present, known, before).err().map_or_else(String::new, |failure| {
            assert_eq!(failure.class, Class::Refused);
            assert!(
                failure.advice.contains("flashmob terminal retry TERMINAL --accept-disks"),
                "{}",
                failure.advice
            );
            failure.message
        })
    }

    #[test]
    fn a_vague_rule_is_refused_when_a_disk_that_the_terminal_had_is_gone() {
        let (ssd, hdd) = (disk("nvme0n1", Some("SSD-1"), 256 * GIB), disk("sda", Some("HDD-1"), 2048 * GIB));
        let known = [ssd, hdd.clone()];
        for rule in ["internal", "bus=ata", "size=1TiB..", "/dev/sda", "path=pci/sda"] {
            let said = says(rule, std::slice::from_ref(&hdd), &known, &[]);
            assert!(said.contains("SSD-1") && said.contains("it would now be sda"), "{rule}: {said}");
        }
        assert_eq!(says("serial=HDD-1", std::slice::from_ref(&hdd), &known, &[]), "", "nothing else fits it");
        assert_eq!(says("internal", &[hdd], &[], &[]), "", "the first time");
    }

    #[test]
    fn a_disk_is_known_again_by_its_serial_number_or_else_by_its_place_and_size() {
        let known = [disk("sda", Some("A"), GIB), disk("sdb", None, GIB)];
        let moved = DiskInfo { path: "pci/elsewhere".into(), ..disk("sdc", Some("A"), GIB) };
        let same_place = DiskInfo { path: "pci/sdb".into(), ..disk("sdd", None, GIB) };
        assert!(missing(&known, &[moved.clone(), same_place.clone()]).is_empty());
        let replaced = DiskInfo { serial: Some("B".into()), ..moved.clone() };
        assert_eq!(missing(&known, &[replaced, same_place.clone()]).len(), 1);
        let larger = DiskInfo { size: 2 * GIB, ..same_place };
        assert_eq!(missing(&known, &[moved, larger]).len(), 1);
    }

    #[test]
    fn a_rule_that_means_another_disk_than_last_time_is_refused() {
        let (a, b) = (disk("sda", Some("A"), GIB), disk("sdb", Some("B"), 2 * GIB));
        let before = [Chosen { rule: "name=sda".into(), disk: describe(&a), identity: a.identity() }];
        let both = [a.clone(), b.clone()];
        assert_eq!(says("/dev/sda", &both, &both, &before), "");
        assert_eq!(says("path=pci/sda", &both, &both, &before), "", "another rule, the same disk");
        let swapped =
            [DiskInfo { name: "sdb".into(), ..a.clone() }, DiskInfo { name: "sda".into(), ..b.clone() }];
        for rule in ["/dev/sda", "name=sda,bus=ata", "size=2GiB"] {
            let said = says(rule, &swapped, &both, &before);
            assert!(
                said.contains("was imaged on sda, A") && said.contains("now means sda, B"),
                "{rule}: {said}"
            );
        }
        assert_eq!(says("serial=B", &swapped, &both, &before), "", "the administrator named the disk");
        let second =
            [Chosen { rule: "size=2147483648..".into(), disk: describe(&b), identity: b.identity() }];
        let before = choose_again(&before, &second);
        assert_eq!((says("size=2GiB..", &both, &both, &before), before.len()), (String::new(), 2));
    }

    #[test]
    fn sticks_are_not_remembered_and_new_disks_are() {
        let (old, new) = (disk("sda", Some("A"), GIB), disk("sdb", Some("B"), GIB));
        let stick = DiskInfo { removable: true, ..disk("sdc", Some("C"), GIB) };
        let known = remember(std::slice::from_ref(&old), &[new.clone(), stick]);
        let serials: Vec<_> = known.iter().filter_map(|disk| disk.serial.as_deref()).collect();
        assert_eq!(serials, ["B", "A"]);
        assert_eq!(remember(&known, &[old.clone(), new.clone()]), [old, new]);
    }

    #[test]
    fn a_name_that_moved_to_another_disk_before_it_was_opened_is_refused() {
        let (a, b) = (disk("sda", Some("A"), GIB), disk("sda", Some("B"), GIB));
        assert_eq!(check_opened(&a, &a.clone()), Ok(()));
        assert!(check_opened(&a, &b).expect_err("another disk").message.contains("was chosen"));
        assert!(check_opened(&a, &DiskInfo { size: 2 * GIB, ..a.clone() }).is_err());
    }
}
