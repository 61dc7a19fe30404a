//! The firmware's boot entries for an image, and their order.
//!
//! Invariant: foreign entries and their order stay. An existing entry is used again, so that imaging a
//! hundred times leaves one entry; entries for systems that were on the same disk go. A new one goes directly
//! after the entry that was started now. If that was the network, it becomes the first, so that a lab boots
//! from the network first even after firmware or an installer has put a disk before it. After a start from
//! a stick, or by hand from the firmware's menu, it goes behind the network's entries that lead the order.

use crate::api::LayoutMode;
use crate::boot::option::{LoadOption, PartitionId, firmware_path, is_network};
use crate::layout::identity::Identity;
use crate::layout::plan::{Existing, LayoutPlan};
use crate::manifest::{Entry, Table};

/// The loaders that firmware starts without any entry (UEFI 2.10 §3.5.1.1), in lower case.
const FALLBACK: &str = "/efi/boot/boot";

/// The firmware's present entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// Number and data of each `Boot####`.
    pub entries: Vec<(u16, Vec<u8>)>,
    /// `BootOrder`.
    pub order: Vec<u16>,
    /// `BootCurrent`: the entry that was started now.
    pub current: Option<u16>,
}

/// The variables to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub entries: Vec<(u16, Vec<u8>)>,
    /// The new `BootOrder`, if it changes. To be written after the entries.
    pub order: Option<Vec<u16>>,
    /// Entries to delete, after the order no longer names them.
    pub removed: Vec<u16>,
}

/// The entries that an image asks for on this disk: one for each of its loaders that is not the fallback,
/// which firmware finds by itself.
pub fn wanted(plan: &LayoutPlan) -> Vec<LoadOption> {
    let manifest = plan.manifest();
    let sector = u64::from(plan.sector().get());
    let loaders = manifest.boot.uefi.iter().filter(|loader| !is_fallback(&loader.path));
    loaders
        .filter_map(|loader| {
            // A partition that was not written has its own entries.
            let place = plan.place(loader.partition).filter(|place| place.replaced)?;
            let id = match (&manifest.disk.table, place.guid) {
                (_, Some(guid)) => PartitionId::Gpt(guid),
                // A table that stays has its own signature, which the image does not know.
                (Table::Mbr { signature, .. }, None) if plan.mode() == LayoutMode::WholeDisk => {
                    PartitionId::Mbr(*signature)
                }
                _ => return None,
            };
            Some(LoadOption {
                label: loader.label.clone(),
                partition: place.number,
                first: place.start.0 / sector,
                sectors: place.size / sector,
                id,
                path: firmware_path(&loader.path),
            })
        })
        .collect()
}

/// The partitions of the disk whose loaders are gone or are the image's now: those that were written, and
/// with the whole table all of the table before, `existing`.
pub fn replaced(plan: &LayoutPlan, existing: Option<&Existing>) -> Vec<PartitionId> {
    let mut ids: Vec<PartitionId> = plan
        .places()
        .iter()
        .filter(|place| place.replaced)
        .filter_map(|place| place.guid)
        .map(PartitionId::Gpt)
        .collect();
    if plan.mode() != LayoutMode::WholeDisk {
        return ids;
    }
    for table in [Some(&plan.manifest().disk.table), existing.map(|existing| &existing.table)] {
        if let Some(Table::Mbr { signature, .. }) = table {
            ids.push(PartitionId::Mbr(*signature));
        }
    }
    ids.extend(existing.iter().flat_map(|existing| &existing.partitions).filter_map(
        |there| match there.entry {
            Entry::Gpt { guid, .. } => Some(PartitionId::Gpt(guid)),
            _ => None,
        },
    ));
    // What has no identity could be anywhere.
    ids.retain(|id| {
        !matches!(id, PartitionId::Gpt(guid) if guid.is_nil()) && *id != PartitionId::Mbr([0; 4])
    });
    ids
}

/// The identities without those that another disk of the machine has as well. A copy of the disk (`dd`) has
/// the same GUIDs, and an entry names nothing but a GUID: it may be the one that starts the copy, so it
/// stays.
pub fn only_here(mut ids: Vec<PartitionId>, others: &[Identity]) -> Vec<PartitionId> {
    ids.retain(|id| {
        !others.iter().any(|other| match id {
            PartitionId::Gpt(guid) => other.partitions.contains(guid),
            PartitionId::Mbr(signature) => other.signature == Some(*signature),
        })
    });
    ids
}

/// The image's best loader on a partition that was written, unless firmware finds it without an entry.
pub fn loader(plan: &LayoutPlan) -> Option<&str> {
    let loaders = plan.manifest().boot.uefi.iter();
    let mut written = loaders.filter(|loader| plan.place(loader.partition).is_some_and(|it| it.replaced));
    written.next().map(|loader| loader.path.as_str()).filter(|path| !is_fallback(path))
}

fn is_fallback(path: &str) -> bool {
    let path = path.replace('\\', "/").to_ascii_lowercase();
    path.trim_start_matches('/').starts_with(FALLBACK.trim_start_matches('/'))
}

/// The changes after which the `wanted` entries exist in that order, each once, and no others for the
/// `replaced` partitions. They are directly after the entry that was started now, if that is the network's;
/// else after it (first, if it is not in the order) and the network's entries that follow.
pub fn plan(present: &Present, wanted: &[LoadOption], replaced: &[PartitionId]) -> Changes {
    let mut changes = Changes::default();
    let mut numbers = Vec::new();
    for option in wanted {
        // The firmware skips one that somebody switched off, so a new one takes its place.
        let same = |(_, data): &&(u16, Vec<u8>)| {
            is_active(data) && LoadOption::decode(data).is_some_and(|there| there.is_same_entry(option))
        };
        if let Some((number, _)) = present.entries.iter().find(same) {
            numbers.push(*number);
            continue;
        }
        let taken = |number: &u16| {
            present.entries.iter().chain(&changes.entries).any(|(n, _)| n == number)
                || present.order.contains(number)
        };
        let free = (0..=u16::MAX).find(|number| !taken(number));
        if let (Some(number), Some(data)) = (free, option.encode()) {
            changes.entries.push((number, data));
            numbers.push(number);
        }
    }
    // Firmware makes those for the fallback by itself, and again when they are gone.
    let is_old = |(number, data): &&(u16, Vec<u8>)| {
        !numbers.contains(number)
            && present.current != Some(*number)
            && LoadOption::decode(data)
                .is_some_and(|there| replaced.contains(&there.id) && !is_fallback(&there.path))
    };
    changes.removed = present.entries.iter().filter(is_old).map(|(number, _)| *number).collect();
    let stays = |number: &u16| !numbers.contains(number) && !changes.removed.contains(number);
    let mut order: Vec<u16> = present.order.iter().copied().filter(stays).collect();
    let network = present.entries.iter().find(|(number, data)| {
        Some(*number) == present.current && order.contains(number) && is_network(data)
    });
    if let Some((network, _)) = network {
        order.retain(|number| number != network);
        order.insert(0, *network);
    }
    let behind = present.current.and_then(|current| order.iter().position(|n| *n == current));
    let behind = behind.map_or(0, |at| at + 1);
    let is_networks =
        |number: &&u16| present.entries.iter().any(|(n, data)| n == *number && is_network(data));
    let networks = match network {
        // Its other entries (IPv6, HTTP) would cost minutes on each way to the disk.
        Some(_) => 0,
        None => order[behind..].iter().take_while(is_networks).count(),
    };
    let at = match present.current {
        // If a wanted entry itself was started, they stay at the place of the first of them.
        Some(current) if numbers.contains(&current) => {
            present.order.iter().position(|n| numbers.contains(n)).unwrap_or(0).min(order.len())
        }
        _ => behind + networks,
    };
    order.splice(at..at, numbers);
    if order != present.order {
        changes.order = Some(order);
    }
    changes
}

/// The entry of a disk that the firmware would try after the one that was started now; without that one in
/// the order, its first. Firmware has several entries for one network card (IPv4, IPv6, HTTP), and a start
/// that fails begins again with the first.
pub fn following(present: &Present) -> Option<u16> {
    let current = present.current.and_then(|current| present.order.iter().position(|n| *n == current));
    let others = &present.order[current.map_or(0, |at| at + 1)..];
    let is_there = |number: &&u16| {
        present.entries.iter().any(|(n, data)| n == *number && is_tried(data) && !is_network(data))
    };
    others.iter().find(is_there).copied()
}

/// The firmware tries no others by itself than active ones that are neither hidden nor applications such as
/// its own menu (UEFI 2.10 §3.1.3).
fn is_tried(data: &[u8]) -> bool {
    attributes(data) & 0x1f09 == 1
}

/// `LOAD_OPTION_ACTIVE`.
fn is_active(data: &[u8]) -> bool {
    attributes(data) & 1 == 1
}

fn attributes(data: &[u8]) -> u32 {
    data.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn option(label: &str) -> LoadOption {
        LoadOption {
            label: label.into(),
            partition: 1,
            first: 2048,
            sectors: 8,
            id: PartitionId::Gpt(Uuid::from_u128(5)),
            path: firmware_path("/EFI/debian/shimx64.efi"),
        }
    }

    fn present(order: &[u16], current: Option<u16>) -> Present {
        let entries = order.iter().map(|n| (*n, vec![1, 0, 0, 0])).collect();
        Present { entries, order: order.to_vec(), current }
    }

    #[test]
    fn a_new_entry_goes_behind_the_network_that_was_booted() {
        let changes = plan(&present(&[3, 0, 1], Some(3)), &[option("debian")], &[]);
        assert_eq!(changes.entries, [(2, option("debian").encode().expect("short"))]);
        assert_eq!(changes.order, Some(vec![3, 2, 0, 1]));
    }

    #[test]
    fn the_entry_after_the_started_one_is_the_next_active_one() {
        let mut now = present(&[3, 0, 1, 2], Some(3));
        assert_eq!(following(&now), Some(0));
        now.entries[1].1 = vec![0, 0, 0, 0];
        assert_eq!(following(&now), Some(1));
        now.entries.retain(|(number, _)| *number == 3);
        assert_eq!(following(&now), None);
        assert_eq!(following(&present(&[3, 0], Some(9))), Some(3));
        assert_eq!(following(&present(&[3, 0], Some(0))), None);
    }

    #[test]
    fn other_ways_of_the_network_and_the_firmwares_menu_are_not_the_next_entry() {
        let entry = |attributes: u32, nodes: &[[u8; 2]]| {
            let mut data = attributes.to_le_bytes().to_vec();
            data.extend(u16::try_from(6 * nodes.len()).expect("short").to_le_bytes());
            data.extend([b'n', 0, 0, 0]);
            // Each node has two bytes of its own.
            data.extend(nodes.iter().flat_map(|[kind, subtype]| [*kind, *subtype, 6, 0, 3, 11]));
            data
        };
        let mut now = present(&[1, 2, 3, 4, 5, 6], Some(1));
        for (at, attributes, nodes) in [
            (1, 1, &[[1, 1], [3, 11], [3, 13]][..]),
            (2, 1, &[[3, 24]]),
            (3, 0x109, &[[4, 6]]),
            (4, 9, &[[4, 1]]),
        ] {
            now.entries[at].1 = entry(attributes, nodes);
        }
        now.entries[5].1 = entry(1, &[[1, 1], [3, 23], [4, 1]]);
        assert_eq!(following(&now), Some(6));
        assert!(!is_network(&[]) && !is_network(&[1, 0, 0, 0, 4, 0, b'n']));
    }

    #[test]
    fn imaging_again_changes_nothing() {
        let mut now = present(&[3, 0, 1], Some(3));
        let first = plan(&now, &[option("debian")], &[]);
        now.entries.extend(first.entries);
        now.order = first.order.expect("a new order");
        assert_eq!(plan(&now, &[option("debian")], &[]), Changes::default());
    }

    /// An entry of a network card.
    fn network() -> Vec<u8> {
        let mut network = vec![1, 0, 0, 0, 49, 0, b'n', 0, 0, 0];
        network.extend([2, 1, 12, 0, 0xd0, 0x41, 3, 10, 0, 0, 0, 0]);
        network.extend([3, 11, 37, 0]);
        network.extend([0; 33]);
        network
    }

    #[test]
    fn after_a_start_from_a_stick_or_by_hand_the_network_stays_before_the_disk() {
        let mut now = present(&[7, 3, 4, 1], None);
        (now.entries[1].1, now.entries[2].1) = (network(), network());
        let order = |now: &Present| plan(now, &[option("debian")], &[]).order;
        let from_stick = Present { current: Some(7), ..now.clone() };
        assert_eq!(order(&from_stick), Some(vec![7, 3, 4, 0, 1]), "a stick that is in the order");
        let by_hand = Present { current: Some(9), order: vec![3, 4, 1], ..now.clone() };
        assert_eq!(order(&by_hand), Some(vec![3, 4, 0, 1]), "the firmware's menu");
        let by_network = Present { current: Some(3), ..now };
        assert_eq!(order(&by_network), Some(vec![3, 0, 7, 4, 1]), "its other entries would cost minutes");
    }

    #[test]
    fn an_entry_that_was_switched_off_is_replaced() {
        let mut off = option("debian").encode().expect("short");
        off[0] = 0;
        let now =
            Present { entries: vec![(3, vec![1, 0, 0, 0]), (5, off)], order: vec![3, 5], current: Some(3) };
        let changes = plan(&now, &[option("debian")], &[option("debian").id]);
        assert_eq!(changes.entries, [(0, option("debian").encode().expect("short"))]);
        assert_eq!((changes.removed, changes.order), (vec![5], Some(vec![3, 0])));
    }

    #[test]
    fn what_was_started_outside_of_an_order_without_network_puts_the_disk_first() {
        for current in [None, Some(9)] {
            assert_eq!(
                plan(&present(&[3], current), &[option("a")], &[]).order,
                Some(vec![0, 3]),
                "{current:?}"
            );
        }
        assert_eq!(plan(&Present::default(), &[], &[]), Changes::default());
    }

    #[test]
    fn entries_of_the_systems_that_were_on_the_disk_go_and_those_of_others_stay() {
        let on = |label: &str, guid: u128, path: &str| {
            let id = PartitionId::Gpt(Uuid::from_u128(guid));
            LoadOption { id, path: firmware_path(path), ..option(label) }.encode().expect("short")
        };
        let mut now = present(&[3, 0, 1, 2, 4, 5], Some(3));
        now.entries = vec![
            (0, on("old", 7, "/EFI/old/grubx64.efi")),
            (1, on("windows", 8, "/EFI/Microsoft/Boot/bootmgfw.efi")),
            (2, on("ubuntu", 5, "/EFI/ubuntu/shimx64.efi")),
            (3, vec![1, 2, 3]),
            (4, on("UEFI OS", 5, "/EFI/BOOT/BOOTX64.EFI")),
            (5, option("debian").encode().expect("short")),
            (6, option("debian").encode().expect("short")),
        ];
        let gone = [5, 7].map(|guid| PartitionId::Gpt(Uuid::from_u128(guid)));
        let changes = plan(&now, &[option("debian")], &gone);
        assert_eq!(
            changes.removed,
            [0, 2, 6],
            "of the disk: the old system, another one, and the second of two"
        );
        assert_eq!((changes.entries, changes.order), (vec![], Some(vec![3, 5, 1, 4])));
        // What was started now is never taken away below the running system.
        let from_disk = Present { current: Some(0), ..now };
        assert_eq!(plan(&from_disk, &[option("debian")], &gone).removed, [2, 6]);
    }

    #[test]
    fn the_network_that_was_booted_comes_first_even_if_it_was_chosen_by_hand() {
        let mut now = present(&[0, 1, 3], Some(3));
        assert_eq!(plan(&now, &[option("debian")], &[]).order, Some(vec![0, 1, 3, 2]), "no network");
        now.entries[2].1 = network();
        assert_eq!(plan(&now, &[option("debian")], &[]).order, Some(vec![3, 2, 0, 1]));
    }

    #[test]
    fn a_copy_of_the_disk_in_the_same_machine_keeps_its_entries() {
        let [one, two] = [5, 7].map(Uuid::from_u128);
        let ids = vec![PartitionId::Gpt(one), PartitionId::Gpt(two), PartitionId::Mbr([1; 4])];
        let copy = Identity { partitions: vec![two], ..Identity::default() };
        let old = Identity { signature: Some([1; 4]), ..Identity::default() };
        assert_eq!(only_here(ids.clone(), &[]), ids);
        assert_eq!(only_here(ids.clone(), &[copy, old]), [PartitionId::Gpt(one)]);
    }

    #[test]
    fn fallback_loaders_need_no_entry() {
        assert!(is_fallback("/EFI/BOOT/BOOTX64.EFI") && is_fallback("\\efi\\boot\\bootia32.efi"));
        assert!(!is_fallback("/EFI/debian/shimx64.efi"));
    }

    proptest! {
        #[test]
        fn others_keep_their_order_and_each_wanted_entry_is_there_once(
            order in proptest::sample::subsequence((0u16..20).collect::<Vec<_>>(), 0..20).prop_shuffle(),
            current in proptest::option::of(0u16..20), count in 0usize..3
        ) {
            let wanted: Vec<LoadOption> = ["a", "b", "c"][..count].iter().map(|l| option(l)).collect();
            let mut now = present(&order, current);
            let changes = plan(&now, &wanted, &[]);
            let new: Vec<u16> = changes.entries.iter().map(|(n, _)| *n).collect();
            prop_assert_eq!(new.len(), count);
            prop_assert!(new.iter().all(|n| !order.contains(n)));
            let result = changes.order.clone().unwrap_or(order.clone());
            prop_assert_eq!(result.iter().copied().filter(|n| !new.contains(n)).collect::<Vec<_>>(),
                order.clone());
            prop_assert_eq!(result.iter().copied().filter(|n| new.contains(n)).collect::<Vec<_>>(), new);
            now.entries.extend(changes.entries);
            now.order = result;
            prop_assert_eq!(plan(&now, &wanted, &[]), Changes::default());
        }
    }
}
