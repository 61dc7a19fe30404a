//! What makes the system on a disk its terminal's own: the file for the system, where it goes, and the lines
//! that hold a host name.
//!
//! Invariant: pure. Only partitions that an attempt has written are changed. `io::disk::personal` does it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::api::{Assignment, DiskInfo, LayoutMode, Personal};
use crate::layout::plan::{LayoutPlan, Place};
use crate::manifest::after::System;
use crate::manifest::{Manifest, Role, Table};
use crate::units::Sha256;

/// Where the file lies on an EFI system partition.
pub const ON_ESP: [&str; 3] = ["EFI", "flashmob", "terminal.json"];
/// Where files wait for the helper of a system that the agent cannot write, and the list of them.
pub const WAITING: [&str; 3] = ["EFI", "flashmob", "after"];
pub const WAITING_LIST: &str = "files.txt";
/// Where it lies on a root filesystem, if there is no EFI system partition.
pub const ON_ROOT: [&str; 3] = ["etc", "flashmob", "terminal.json"];
/// Where it lies on a filesystem for `/boot` of its own, if there is neither; files that wait lie beside it.
pub const ON_BOOT: [&str; 2] = ["flashmob", "terminal.json"];
pub const WAITING_ON_BOOT: &str = "flashmob/after";
/// What a Linux system may lie in that the agent does not open.
const CLOSED: [&str; 4] = ["lvm", "luks", "raid", "bcache"];
/// A physical volume of LVM, as manifests name it.
pub const LVM: &str = "lvm";
/// Filesystems that the kernel mounts to change a Linux system.
const LINUX: [&str; 5] = ["ext4", "ext3", "ext2", "xfs", "btrfs"];
/// The version of the file.
const FORMAT: u32 = 1;

/// What the installed system reads of its terminal. One member on each line, so that a shell can read it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnFile {
    pub format: u32,
    /// By the job's rule; empty: the system keeps its name.
    pub hostname: String,
    pub label: String,
    pub room: String,
    pub seat: String,
    pub job: String,
    pub attempt: u64,
    /// `name@version`.
    pub image: String,
    /// Where the system calls back.
    pub server: String,
    /// For that call.
    pub ticket: String,
    /// The number of the partition that the image lets grow and in which something may be left to the helper;
    /// empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub grow: String,
}

impl OwnFile {
    /// The file of an attempt that has something to personalise.
    pub fn of(assignment: &Assignment, server: &str) -> Option<Self> {
        let Personal { hostname, label, room, seat, ticket, .. } = assignment.personal.clone()?;
        Some(OwnFile {
            format: FORMAT,
            hostname: hostname.unwrap_or_default(),
            label: label.unwrap_or_default(),
            room: room.unwrap_or_default(),
            seat: seat.unwrap_or_default(),
            job: assignment.job.clone(),
            attempt: assignment.attempt,
            image: assignment.task.id.to_string(),
            server: server.into(),
            ticket,
            grow: String::new(),
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Was this the last write of the same attempt? A file that a power cut has torn was not.
    pub fn is_complete(&self, there: &[u8]) -> bool {
        serde_json::from_slice::<OwnFile>(there).is_ok_and(|there| {
            (there.attempt, &there.job, &there.image) == (self.attempt, &self.job, &self.image)
        })
    }
}

/// What happened, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// This is done.
    Step(String),
    /// This could not be done, and why.
    Problem(String),
}

/// A partition that an attempt has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub number: u32,
    /// Bytes from the disk's first one.
    pub start: u64,
    /// Bytes that the image has of it.
    pub size: u64,
    /// Bytes that the disk's table gives it.
    pub room: u64,
    pub filesystem: String,
    pub role: Role,
}

/// Where the blank of an imaged disk lies (`layout::blank`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blank {
    /// The number of its partition.
    pub partition: u32,
    /// Its first byte, from the disk's.
    pub at: u64,
}

/// One of the administrator's files for this terminal, with the content that the signed list names.
#[derive(Clone, PartialEq, Eq)]
pub struct GivenFile {
    /// `None`: the root filesystem of the system.
    pub partition: Option<u32>,
    /// The system that it is for; `None`: the disk's Linux if it has one, else its Windows.
    pub system: Option<System>,
    /// From that filesystem's root, without a slash at the beginning (`manifest::after::check_path`).
    pub path: String,
    pub mode: u32,
    pub sha256: Sha256,
    pub content: Arc<Vec<u8>>,
}

impl std::fmt::Debug for GivenFile {
    /// Without the content, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{} ({} bytes, mode {:04o})", self.path, self.content.len(), self.mode)
    }
}

/// An imaged disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    pub info: DiskInfo,
    pub layout: LayoutMode,
    /// The partitions that were written.
    pub parts: Vec<Part>,
    /// The EFI system partition, if the attempt left it as it was.
    pub kept_esp: Option<Part>,
    /// The blank in a Windows that was written.
    pub blank: Option<Blank>,
    /// The disk has no table: the one part is the disk itself.
    pub bare: bool,
    /// The loader that the firmware has no entry for, although it needs one.
    pub loader: Option<String>,
    /// What the administrator has for the system there.
    pub files: Vec<GivenFile>,
    /// This attempt has read all of the image from the disk, so no system has been started there since.
    pub proved: bool,
}

impl Places {
    pub(crate) fn of(plan: &LayoutPlan, info: &DiskInfo) -> Self {
        let manifest = plan.manifest();
        let part = |place: &Place| {
            let partition = manifest.partition(place.number)?;
            let filesystem = partition.filesystem.clone().unwrap_or_default();
            let Place { number, start, size, room, role, .. } = *place;
            Some(Part { number, start: start.0, size, room, filesystem, role })
        };
        let blank = |place: &Place| {
            let offset = manifest.partition(place.number)?.blank?;
            Some(Blank { partition: place.number, at: place.start.0.checked_add(offset)? })
        };
        let written = plan.places().iter().filter(|place| place.replaced);
        let kept = plan.places().iter().filter(|place| !place.replaced && place.role == Role::Esp);
        Places {
            info: info.clone(),
            layout: plan.mode(),
            blank: written.clone().find_map(blank),
            parts: written.filter_map(part).collect(),
            kept_esp: kept.filter_map(part).next(),
            bare: matches!(manifest.disk.table, Table::None),
            loader: None,
            files: Vec::new(),
            proved: true,
        }
    }

    /// Partitions that are larger than the image's.
    pub(crate) fn growing(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.room > part.size)
    }

    /// The number of the partition whose growth a helper in a Linux may have to finish; empty: none.
    pub fn for_helper(&self) -> String {
        let is_linux = |part: &&Part| part.filesystem == LVM || LINUX.contains(&part.filesystem.as_str());
        self.growing().find(is_linux).map(|part| part.number.to_string()).unwrap_or_default()
    }

    /// The EFI system partition.
    pub fn esp(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.role == Role::Esp && part.filesystem == "vfat")
    }

    /// Partitions that may hold a Linux system and that the kernel can mount.
    pub fn linux(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| LINUX.contains(&part.filesystem.as_str()))
    }

    /// Is there a Windows, which names itself?
    pub fn has_windows(&self) -> bool {
        self.parts.iter().any(|part| System::is_windows(&part.filesystem))
    }

    /// The system of files whose rules name none. `has_root`: a Linux was found that the agent can write.
    pub fn usual_system(&self, has_root: bool) -> System {
        let is_closed = self.parts.iter().any(|part| CLOSED.contains(&part.filesystem.as_str()));
        match self.has_windows() && !has_root && !is_closed {
            true => System::Windows,
            false => System::Linux,
        }
    }
}

/// Is there no partition in an image that can hold the file? A Windows that starts by BIOS needs a blank.
pub fn is_nameless(manifest: &Manifest) -> bool {
    !manifest.partitions.iter().any(|partition| {
        let kind = partition.filesystem.as_deref().unwrap_or_default();
        let is_esp = partition.role == Role::Esp && kind == "vfat";
        LINUX.contains(&kind) || is_esp || partition.blank.is_some()
    })
}

/// `/etc/hosts` with the line that Debian keeps for the machine's own name; `None` if it has no such line or
/// is right already.
pub fn hosts(text: &str, hostname: &str) -> Option<String> {
    let is_own = |line: &str| line.split_whitespace().next() == Some("127.0.1.1");
    let short = hostname.split('.').next().unwrap_or(hostname);
    let own = match short == hostname {
        true => format!("127.0.1.1\t{hostname}"),
        false => format!("127.0.1.1\t{hostname} {short}"),
    };
    let mut lines = Vec::new();
    for line in text.lines() {
        match is_own(line) {
            // A second one would say the old name.
            true if lines.contains(&own.as_str()) => {}
            true => lines.push(&own),
            false => lines.push(line),
        }
    }
    let new = lines.join("\n") + "\n";
    (lines.contains(&own.as_str()) && new != text).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::plan::LayoutPlan;
    use crate::manifest::TrustedManifest;
    use crate::testkit::manifests::{gpt_manifest, same_disk};

    #[test]
    fn an_image_of_a_windows_that_starts_by_bios_has_no_place_for_the_file() {
        let with = |first: &str, role| {
            let mut manifest = gpt_manifest();
            manifest.partitions[0].role = role;
            for (partition, kind) in manifest.partitions.iter_mut().zip([first, "ntfs"]) {
                partition.filesystem = Some(kind.into());
            }
            is_nameless(&manifest)
        };
        assert!(with("ntfs", Role::Data) && with("vfat", Role::Data));
        assert!(!with("vfat", Role::Esp) && !with("ext4", Role::Data));
        let mut manifest = gpt_manifest();
        manifest.partitions[0].blank = Some(4096);
        assert!(!is_nameless(&manifest), "it has a blank");
    }

    #[test]
    fn a_blank_is_known_where_its_partition_is_written_and_nowhere_else() {
        let mut manifest = gpt_manifest();
        let (number, first) = (manifest.partitions[0].number, manifest.partitions[0].first);
        manifest.partitions[0].filesystem = Some("ntfs".into());
        manifest.partitions[0].blank = Some(8192);
        let trusted = TrustedManifest::insecure(&manifest.to_bytes()).expect("a consistent manifest");
        let facts = same_disk(&manifest, 64 << 20);
        let blank = |only: &[u32]| {
            let plan = LayoutPlan::new(&trusted, &[0x11; 4096], &facts, LayoutMode::Keep, Some(only));
            Places::of(&plan.expect("it fits"), &crate::testkit::attempts::system().info).blank
        };
        let at = first.0 * u64::from(manifest.disk.sector_size.get()) + 8192;
        assert_eq!(blank(&[number]), Some(Blank { partition: number, at }));
        assert_eq!(blank(&[3]), None);
    }

    #[test]
    fn an_esp_that_is_not_chosen_is_known_and_not_among_the_parts() {
        let mut manifest = gpt_manifest();
        manifest.partitions[0].role = Role::Esp;
        manifest.partitions[0].filesystem = Some("vfat".into());
        let trusted = TrustedManifest::insecure(&manifest.to_bytes()).expect("a consistent manifest");
        let facts = same_disk(&manifest, 64 << 20);
        let places = |only: &[u32]| {
            let plan = LayoutPlan::new(&trusted, &[0x11; 4096], &facts, LayoutMode::Keep, Some(only));
            let places = Places::of(&plan.expect("it fits"), &crate::testkit::attempts::system().info);
            let parts: Vec<u32> = places.parts.iter().map(|part| part.number).collect();
            (parts, places.kept_esp.map(|part| part.number))
        };
        assert_eq!(places(&[3]), (vec![3], Some(1)));
        assert_eq!(places(&[1, 3]), (vec![1, 3], None));
    }

    #[test]
    fn the_line_of_the_own_name_is_replaced_and_no_other() {
        let golden = "127.0.0.1\tlocalhost\n127.0.1.1\tgolden.lab golden\n\n# 127.0.1.1 x\n::1 localhost\n";
        let now = hosts(golden, "lab-01").expect("changed");
        assert_eq!(now, golden.replace("golden.lab golden", "lab-01"));
        assert_eq!(hosts(&now, "lab-01"), None, "a second time changes nothing");
        assert!(hosts(golden, "pc.lab").expect("changed").contains("127.0.1.1\tpc.lab pc\n"));
        assert_eq!(hosts("127.0.0.1 localhost\n", "lab-01"), None);
        let twice = "127.0.1.1 a\n127.0.1.1 b\n";
        assert_eq!(hosts(twice, "c").as_deref(), Some("127.0.1.1\tc\n"));
    }

    #[test]
    fn a_file_of_another_attempt_or_a_torn_one_is_written_again() {
        let file = OwnFile { attempt: 7, job: "1".into(), ticket: "t".into(), ..OwnFile::default() };
        let bytes = file.to_bytes();
        // The ticket of a second run is another one, and the first is as good.
        assert!(OwnFile { ticket: "u".into(), ..file.clone() }.is_complete(&bytes));
        assert!(!OwnFile { attempt: 8, ..file.clone() }.is_complete(&bytes));
        assert!(!file.is_complete(&bytes[..bytes.len() - 5]) && !file.is_complete(b""));
    }
}
