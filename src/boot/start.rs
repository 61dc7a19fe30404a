//! How a terminal that boots from the network first goes on to the imaged disk, and to no other.
//!
//! ```text
//!  agent: `of(plan)` ──Installed.starts──► server: `checked`, kept with the attempt
//!  iPXE: set netX/root-path flashmob:PARTUUID[:/LOADER], chain localboot ──► GRUB looks for that partition
//! ```
//!
//! iPXE copies its setting `root-path` into the DHCP answer that it shows to the program it chains (DHCP
//! option 17), which is the one thing it can tell a GRUB under BIOS and UEFI alike.
//!
//! Invariant: [`by_bios`] and [`by_uefi`] are made of characters that neither iPXE nor GRUB interprets, and
//! fit the option's 255 bytes.

use uuid::Uuid;

use crate::event::{Loader, Starts};
use crate::layout::plan::{LayoutPlan, Place};
use crate::manifest::Table;

/// The beginning of a root path from flashmob's server; no DHCP server sets one like it.
pub const PREFIX: &str = "flashmob:";

/// Longest path of a loader. The DHCP option has 255 bytes.
const MAX_PATH: usize = 200;

/// How the system starts from the disk that `plan` writes it to.
pub fn of(plan: &LayoutPlan) -> Starts {
    let boot = &plan.manifest().boot;
    let bios = boot.bios.then(|| plan.places().iter().find_map(|place| partuuid(plan, place))).flatten();
    let uefi = boot.uefi.iter().find_map(|loader| {
        let partition = partuuid(plan, plan.place(loader.partition)?)?;
        is_plain_path(&loader.path).then(|| Loader { partition, path: loader.path.clone() })
    });
    Starts { bios, uefi }
}

/// The value of Linux' `PARTUUID=`, as GRUB's `probe --part-uuid` prints it.
fn partuuid(plan: &LayoutPlan, place: &Place) -> Option<String> {
    match (&plan.manifest().disk.table, place.guid) {
        (Table::Gpt { .. }, Some(guid)) if !guid.is_nil() => Some(guid.to_string()),
        (Table::Mbr { .. }, _) => {
            let signature = u32::from_le_bytes(plan.identity().signature?);
            Some(format!("{signature:08x}-{:02x}", place.number))
        }
        _ => None,
    }
}

/// A terminal's report `starts`, without malformed values.
pub fn checked(starts: Starts) -> Starts {
    let bios = starts.bios.filter(|partition| is_partuuid(partition));
    let is_fine = |loader: &Loader| is_partuuid(&loader.partition) && is_plain_path(&loader.path);
    Starts { bios, uefi: starts.uefi.filter(is_fine) }
}

/// The root path that makes `localboot.0` start the disk.
pub(crate) fn by_bios(starts: &Starts) -> Option<String> {
    let partition = starts.bios.as_ref().filter(|partition| is_partuuid(partition))?;
    Some(format!("{PREFIX}{partition}"))
}

/// The root path that makes `localboot.efi` start the loader.
pub(crate) fn by_uefi(starts: &Starts) -> Option<String> {
    let Loader { partition, path } = starts.uefi.as_ref()?;
    (is_partuuid(partition) && is_plain_path(path)).then(|| format!("{PREFIX}{partition}:{path}"))
}

fn is_partuuid(text: &str) -> bool {
    let is_hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let of_mbr = text.split_once('-').is_some_and(|(disk, number)| is_hex(disk, 8) && is_hex(number, 2));
    of_mbr || Uuid::try_parse(text).is_ok_and(|uuid| uuid.to_string() == text)
}

fn is_plain_path(path: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    path.starts_with('/') && path.len() <= MAX_PATH && path.bytes().all(is_plain) && !path.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LayoutMode;
    use crate::manifest::UefiLoader;
    use crate::testkit::manifests::{gpt_manifest, manifest, mbr_partition, plan, same_disk};

    const GUID: &str = "00000000-0000-0000-0000-000000000065";

    fn loader(path: &str) -> UefiLoader {
        UefiLoader { partition: 1, path: path.into(), label: "x".into() }
    }

    #[test]
    fn a_gpt_disk_starts_by_the_guid_that_its_partition_has_there() {
        let mut manifest = gpt_manifest();
        manifest.boot.bios = true;
        manifest.boot.uefi = vec![loader("/EFI/ä/grubx64.efi"), loader("/EFI/debian/shimx64.efi")];
        let disk = same_disk(&manifest, 40 << 20);
        let starts = of(&plan(&manifest, &disk, LayoutMode::WholeDisk).expect("a plan"));
        assert_eq!(by_bios(&starts), Some(format!("flashmob:{GUID}")));
        // GRUB would not be told a path with letters that iPXE's script cannot carry.
        assert_eq!(by_uefi(&starts), Some(format!("flashmob:{GUID}:/EFI/debian/shimx64.efi")));

        let mut kept = disk.clone();
        let guid = Uuid::from_u128(0xabc);
        if let Ok(existing) = &mut kept.table
            && let crate::manifest::Entry::Gpt { guid: there, .. } = &mut existing.partitions[0].entry
        {
            *there = guid;
        }
        let starts = of(&plan(&manifest, &kept, LayoutMode::Keep).expect("a plan"));
        assert_eq!(by_bios(&starts), Some(format!("flashmob:{guid}")), "the terminal's own table counts");
    }

    #[test]
    fn an_mbr_disk_starts_by_its_signature() {
        let table = Table::Mbr { signature: [0x78, 0x56, 0x34, 0x12], extended: Vec::new() };
        let mut manifest = manifest(table, vec![mbr_partition(1, 2048, 1 << 20, None)], 20 << 20, 512);
        manifest.boot.bios = true;
        let starts =
            of(&plan(&manifest, &same_disk(&manifest, 40 << 20), LayoutMode::WholeDisk).expect("a plan"));
        assert_eq!(starts, Starts { bios: Some("12345678-01".into()), uefi: None });
        assert_eq!(checked(starts.clone()), starts);
    }

    #[test]
    fn a_data_disk_starts_nothing() {
        let manifest = gpt_manifest();
        let starts =
            of(&plan(&manifest, &same_disk(&manifest, 40 << 20), LayoutMode::WholeDisk).expect("a plan"));
        assert_eq!(starts, Starts::default());
    }

    #[test]
    fn what_a_terminal_reports_cannot_become_a_command() {
        let report = |partition: &str, path: &str| Starts {
            bios: Some(partition.into()),
            uefi: Some(Loader { partition: partition.into(), path: path.into() }),
        };
        let mbr = report("1234abcd-0f", "/EFI/BOOT/BOOTX64.EFI");
        assert_eq!(checked(mbr.clone()), mbr);
        for partition in [
            "",
            "x",
            "${net0/ip}",
            &format!("{GUID} "),
            &GUID.to_uppercase().replace('0', "A"),
            "1234abcd-1",
            "*",
        ] {
            let starts = report(partition, "/EFI/BOOT/BOOTX64.EFI");
            assert_eq!(checked(starts.clone()), Starts::default(), "{partition}");
            assert_eq!((by_bios(&starts), by_uefi(&starts)), (None, None), "{partition}");
        }
        for path in [
            "",
            "EFI/x.efi",
            "/a b",
            "/a;b",
            "/${x}",
            "/a\nb",
            "/a\"",
            "/../x",
            &format!("/{}", "x".repeat(250)),
        ] {
            let starts = report(GUID, path);
            assert_eq!(checked(starts.clone()).uefi, None, "{path}");
            assert_eq!(by_uefi(&starts), None, "{path}");
        }
    }
}
