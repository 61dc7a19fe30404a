//! Finds disks of this machine with the target's identity, before the first write.
//!
//! Invariant: an internal disk with the same GUIDs or signature is a refusal. Firmware, kernel and Windows
//! take one of the two without asking, so the machine might start the other one, and the job would be "done"
//! on an unused disk. A disk that can be pulled is a warning, because it is not there when the machine is
//! used. The target itself may have the identity from its last imaging, and other disks of the job are judged
//! by their future identity.

use super::context::blocking;
use crate::api::DiskInfo;
use crate::event::Failure;
use crate::io::disk::list;
use crate::layout::identity::Identity;
use crate::layout::rule::{describe, is_external};

/// A disk with its identity.
struct Known {
    info: DiskInfo,
    identity: Identity,
}

/// Compares all disks of the machine with those of the job, which come with their future identities. Returns
/// warnings.
pub(super) async fn look(planned: Vec<(DiskInfo, Identity)>) -> Result<Vec<String>, Failure> {
    let planned: Vec<Known> = planned.into_iter().map(|(info, identity)| Known { info, identity }).collect();
    blocking(move || {
        let below: Vec<String> = planned.iter().flat_map(|known| list::made_of(&known.info.name)).collect();
        // If the disks cannot be listed, only the named one is known.
        let all = list::all().unwrap_or_default();
        let others = all.into_iter().filter(|disk| !below.contains(&disk.name)).map(|info| {
            let identity = list::identity(&info);
            Known { info, identity }
        });
        judge(&planned, &others.collect::<Vec<_>>())
    })
    .await
}

/// Finds identities that `planned` disks share with each other or with `others`.
fn judge(planned: &[Known], others: &[Known]) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    for (i, one) in planned.iter().enumerate() {
        let is_planned = |disk: &DiskInfo| planned.iter().any(|known| is_same(&known.info, disk));
        let rest = others.iter().filter(|other| !is_planned(&other.info));
        for other in planned[i + 1..].iter().chain(rest) {
            let shared = one.identity.shared(&other.identity);
            if shared.is_empty() {
                continue;
            }
            let text = format!(
                "{} has the same identity as {} will have ({})",
                describe(&other.info),
                describe(&one.info),
                shared.join(", ")
            );
            if is_external(&other.info) {
                warnings.push(format!("{text}: pull it before the machine starts"));
                continue;
            }
            return Err(Failure::refused(
                format!("{text}: the machine might start or use the wrong one of the two"),
                "Give the other disk an identity of its own (sgdisk -G, or sfdisk --disk-id), erase its \
                 table (wipefs -a), or take it out.",
            ));
        }
    }
    Ok(warnings)
}

/// One disk, even if it is reached in two ways.
fn is_same(one: &DiskInfo, other: &DiskInfo) -> bool {
    one.name == other.name || (one.wwn.is_some() && one.wwn == other.wwn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;
    use uuid::Uuid;

    fn known(name: &str, guid: u128, removable: bool) -> Known {
        let info = DiskInfo { name: name.into(), removable, ..DiskInfo::default() };
        Known { info, identity: Identity { disk: Some(Uuid::from_u128(guid)), ..Identity::default() } }
    }

    #[test]
    fn a_second_internal_disk_with_the_same_identity_is_refused_by_name_before_the_first_write() {
        let refusal = judge(&[known("sda", 7, false)], &[known("sda", 7, false), known("sdb", 7, false)]);
        let refusal = refusal.expect_err("a refusal");
        assert_eq!(refusal.class, Class::Refused);
        assert!(
            refusal.message.contains("sdb") && refusal.message.contains("disk GUID"),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn the_target_itself_and_disks_of_their_own_identity_are_no_twins() {
        let others = [known("sda", 7, false), known("sdb", 8, false)];
        assert_eq!(judge(&[known("sda", 7, false)], &others), Ok(Vec::new()));
        // The other disk of the job has the old image's identity, and gets another one.
        let others = [known("sda", 1, false), known("sdb", 7, false)];
        assert_eq!(judge(&[known("sda", 7, false), known("sdb", 8, false)], &others), Ok(Vec::new()));
        assert!(judge(&[known("sda", 7, false), known("sdb", 7, false)], &[]).is_err());
    }

    #[test]
    fn another_path_to_the_target_is_no_twin() {
        let path = |name: &str| {
            let mut known = known(name, 7, false);
            known.info.wwn = Some("naa.5000".into());
            known
        };
        assert_eq!(judge(&[path("sda")], &[path("sda"), path("sdb")]), Ok(Vec::new()));
    }

    #[test]
    fn a_disk_that_can_be_pulled_is_a_warning() {
        let warnings = judge(&[known("sda", 7, false)], &[known("sdb", 7, true)]).expect("no refusal");
        assert!(warnings.len() == 1 && warnings[0].contains("sdb"), "{warnings:?}");
    }
}
