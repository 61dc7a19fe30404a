//! Where a table stays: whether the image finds its disk and partitions by the identities in this table.
//!
//! Invariant: a difference on which the image certainly depends is a refusal; one on which it may depend
//! (`/etc/fstab`, `/etc/crypttab`, an unread boot loader configuration) is a warning.
//!
//! Certain dependencies, known from the capture:
//! - Windows names disk and partitions in its boot configuration (BCD) and in its list of drive letters: on a
//!   GPT by the GUIDs of disk and partition, on an MBR by signature and place. It counts as Windows if the
//!   ESP has Microsoft's loader, or if there is an NTFS and no loader of another system, and an NTFS or the
//!   ESP is written.
//! - Linux names partitions on the kernel's command line by `PARTUUID=` and `PARTLABEL=`.
//! - Boot code starts the partition with the active flag (MBR) or the attribute for BIOS (GPT).

use super::facts::{Existing, ExistingPartition, Place};
use crate::event::Failure;
use crate::layout::identity::show_signature;
use crate::manifest::{Entry, Manifest, Partition, Role, Table};

/// The attribute "legacy BIOS bootable" (UEFI 2.10 §5.3.3).
const BIOS_BOOTABLE: u64 = 1 << 2;

/// Something that is called otherwise on the disk.
struct Difference {
    /// The partition; `None`: the disk.
    number: Option<u32>,
    /// Its value of `PARTUUID=` on a command line, in the image.
    partuuid: Option<String>,
    text: String,
}

/// Compares the image's identities of disk and partitions with those in `existing`, the table of `disk`.
/// Returns warnings.
pub(super) fn check(
    manifest: &Manifest,
    existing: &Existing,
    places: &[Place],
    disk: &str,
) -> Result<Vec<String>, Failure> {
    check_flags(manifest, existing, places, disk)?;
    check_labels(manifest, existing, places, disk)?;
    let differences = differences(manifest, existing);
    if differences.is_empty() {
        return Ok(Vec::new());
    }
    let all: Vec<&str> = differences.iter().map(|difference| difference.text.as_str()).collect();
    let all = all.join("; ");
    if windows_is_written(manifest, places) {
        return Err(Failure::refused(
            format!("on {disk} {all}: the Windows of {} would not find its partitions", manifest.id()),
            advice(&differences),
        ));
    }
    let named = named_on_command_line(manifest, places, "PARTUUID=");
    let is_named = |difference: &&Difference| match &difference.partuuid {
        Some(partuuid) => named.iter().any(|name| name.eq_ignore_ascii_case(partuuid)),
        None => false,
    };
    if let Some(difference) = differences.iter().find(is_named) {
        return Err(Failure::refused(
            format!(
                "on {disk} {}, and the kernel of {} is told to find it by PARTUUID",
                difference.text,
                manifest.id()
            ),
            advice(&differences),
        ));
    }
    Ok(vec![format!(
        "on {disk} {all}: what the image refers to by these (/etc/fstab, a boot loader's configuration) is \
         not found"
    )])
}

fn advice(differences: &[Difference]) -> String {
    let how = if differences.iter().any(|difference| difference.number.is_some()) {
        "sgdisk --disk-guid=GUID --partition-guid=NUMBER:GUID"
    } else {
        "sgdisk --disk-guid=GUID or sfdisk --disk-id"
    };
    format!(
        "Give the terminal's table the image's identity ({how}), or set the job's layout to 'whole-disk'."
    )
}

fn differences(manifest: &Manifest, existing: &Existing) -> Vec<Difference> {
    let mut found = Vec::new();
    match (&manifest.disk.table, &existing.table) {
        (Table::Gpt { guid: want, .. }, Table::Gpt { guid: have, .. }) if want != have => {
            let text = format!("the disk GUID is {have} and not {want}");
            found.push(Difference { number: None, partuuid: None, text });
        }
        (Table::Mbr { signature: want, .. }, Table::Mbr { signature: have, .. }) if want != have => {
            let [have, want] = [*have, *want].map(show_signature);
            let text = format!("the MBR signature is {have} and not {want}");
            found.push(Difference { number: None, partuuid: Some(want), text });
        }
        _ => {}
    }
    for (p, there) in pairs(manifest, existing) {
        if let (Entry::Gpt { guid: want, .. }, Entry::Gpt { guid: have, .. }) = (&p.entry, &there.entry)
            && want != have
        {
            let text = format!("partition {} has the GUID {have} and not {want}", p.number);
            found.push(Difference { number: Some(p.number), partuuid: Some(want.to_string()), text });
        }
    }
    found
}

fn pairs<'a>(
    manifest: &'a Manifest,
    existing: &'a Existing,
) -> impl Iterator<Item = (&'a Partition, &'a ExistingPartition)> {
    manifest.partitions.iter().filter_map(|p| {
        let there = existing.partitions.iter().find(|there| there.number == p.number)?;
        Some((p, there))
    })
}

fn is_replaced(places: &[Place], number: u32) -> bool {
    places.iter().any(|place| place.number == number && place.replaced)
}

/// Is a partition written that Windows starts from or lies on?
fn windows_is_written(manifest: &Manifest, places: &[Place]) -> bool {
    let is_ntfs = |p: &Partition| p.filesystem.as_deref() == Some("ntfs");
    let paths: Vec<String> = manifest.boot.uefi.iter().map(|l| l.path.to_ascii_lowercase()).collect();
    let has_loader = paths.iter().any(|path| path.contains("/microsoft/"));
    // The fallback's path does not tell its system.
    let has_other = paths.iter().any(|path| !path.starts_with("/efi/boot/"));
    let is_windows = has_loader || (!has_other && manifest.partitions.iter().any(is_ntfs));
    let holds = |p: &&Partition| is_ntfs(p) || p.role == Role::Esp;
    is_windows && manifest.partitions.iter().filter(holds).any(|p| is_replaced(places, p.number))
}

/// The partitions that the kernel's command line names by `key`, if the kernel's partition is written. MBR
/// partitions are named by signature and number: their signatures.
fn named_on_command_line(manifest: &Manifest, places: &[Place], key: &str) -> Vec<String> {
    let Some(linux) = manifest.boot.linux.as_ref().filter(|linux| is_replaced(places, linux.partition))
    else {
        return Vec::new();
    };
    let is_mbr = matches!(manifest.disk.table, Table::Mbr { .. });
    let name = |word: &str| {
        let (_, rest) = word.split_once(key)?;
        let name = rest.split(['/', ',', ':', '"', '\'']).next()?;
        let name = if is_mbr { name.split('-').next()? } else { name };
        Some(name.to_string())
    };
    linux.cmdline.split_whitespace().filter_map(name).collect()
}

/// Checks that the partitions' names in the table are those of the command line.
fn check_labels(
    manifest: &Manifest,
    existing: &Existing,
    places: &[Place],
    disk: &str,
) -> Result<(), Failure> {
    let named = named_on_command_line(manifest, places, "PARTLABEL=");
    for (p, there) in pairs(manifest, existing) {
        if let (Entry::Gpt { name: want, .. }, Entry::Gpt { name: have, .. }) = (&p.entry, &there.entry)
            && want != have
            && named.contains(want)
        {
            let n = p.number;
            return Err(Failure::refused(
                format!(
                    "partition {n} of {disk} is named '{have}' and not '{want}', and the kernel of {} is \
                     told to find it by PARTLABEL",
                    manifest.id()
                ),
                format!(
                    "Name it so (sgdisk --change-name={n}:'{want}'), or set the job's layout to 'whole-disk'."
                ),
            ));
        }
    }
    Ok(())
}

/// Checks that boot code starts the same partition.
fn check_flags(
    manifest: &Manifest,
    existing: &Existing,
    places: &[Place],
    disk: &str,
) -> Result<(), Failure> {
    let starts = |entry: &Entry| match entry {
        Entry::Mbr { active, .. } => *active,
        Entry::Gpt { attributes, .. } => attributes & BIOS_BOOTABLE != 0,
        Entry::None => false,
    };
    if !manifest.boot.bios {
        return Ok(());
    }
    let flagged =
        |(p, _): &(&Partition, &ExistingPartition)| starts(&p.entry) && is_replaced(places, p.number);
    let Some((p, _)) = pairs(manifest, existing).filter(flagged).find(|(_, there)| !starts(&there.entry))
    else {
        return Ok(());
    };
    let n = p.number;
    let (what, how) = match p.entry {
        Entry::Gpt { .. } => ("attribute for BIOS", format!("sgdisk --attributes={n}:set:2")),
        Entry::Mbr { .. } | Entry::None => ("active flag", format!("sfdisk --activate … {n}")),
    };
    Err(Failure::refused(
        format!(
            "partition {n} of {disk} does not have the {what}, and the boot code of {} looks for it",
            manifest.id()
        ),
        format!("Set it ({how}), or set the job's layout to 'whole-disk'."),
    ))
}
