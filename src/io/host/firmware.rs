//! The firmware's choices that matter for imaging: UEFI, Secure Boot, and controllers that hide disks.
//!
//! Invariant: only facts, and an unreadable one is absent, never guessed.

use std::fs;
use std::path::Path;

use crate::io::sysfs::text;

/// `SecureBoot` of `EFI_GLOBAL_VARIABLE` (UEFI 2.10 §3.3): four bytes of attributes, then one byte.
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// PCI base class and subclass of a RAID controller. Intel's VMD has them as well.
const RAID: &str = "0x0104";
/// The same of an NVMe disk.
const NVME: &str = "0x0108";
const INTEL: &str = "0x8086";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Firmware {
    pub(crate) uefi: bool,
    /// `None` on BIOS, and where the variables are not shown.
    pub(crate) secure_boot: Option<bool>,
    /// Storage controllers in RAID mode.
    pub(crate) raid: Vec<Raid>,
    /// The kernel sees an NVMe disk on the PCI bus.
    pub(crate) nvme: bool,
}

/// A storage controller in RAID mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raid {
    /// Its place, for example `0000:00:0e.0`.
    pub(crate) address: String,
    /// It may keep NVMe disks to itself (VMD, RST).
    pub(crate) intel: bool,
}

/// Reads the facts below `root`.
pub(crate) fn read(root: &Path) -> Firmware {
    let variable = fs::read(root.join(SECURE_BOOT)).ok();
    let secure_boot = variable.and_then(|data| data.get(4).map(|byte| *byte == 1));
    let uefi = root.join("sys/firmware/efi").exists();
    let mut firmware = Firmware { uefi, secure_boot, ..Firmware::default() };
    for entry in fs::read_dir(root.join("sys/bus/pci/devices")).into_iter().flatten().flatten() {
        let folder = entry.path();
        let class = text(&folder.join("class")).unwrap_or_default();
        firmware.nvme |= class.starts_with(NVME);
        if class.starts_with(RAID) {
            firmware.raid.push(Raid {
                address: entry.file_name().to_string_lossy().into_owned(),
                intel: text(&folder.join("vendor")).as_deref() == Some(INTEL),
            });
        }
    }
    firmware.raid.sort_by(|a, b| a.address.cmp(&b.address));
    firmware
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secure_boot_and_controllers_in_raid_mode_are_seen() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |path: &str, content: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, content).expect("written");
        };
        assert_eq!(read(root.path()), Firmware::default());
        put(SECURE_BOOT, &[6, 0, 0, 0, 1]);
        put("sys/bus/pci/devices/0000:00:0e.0/class", b"0x010400\n");
        put("sys/bus/pci/devices/0000:00:0e.0/vendor", b"0x8086\n");
        put("sys/bus/pci/devices/0000:00:1f.6/class", b"0x020000\n");
        let raid = vec![Raid { address: "0000:00:0e.0".into(), intel: true }];
        assert_eq!(read(root.path()), Firmware { uefi: true, secure_boot: Some(true), raid, nvme: false });
        put(SECURE_BOOT, &[6, 0, 0, 0, 0]);
        put("sys/bus/pci/devices/10000:e1:00.0/class", b"0x010802\n");
        let seen = read(root.path());
        assert!(seen.secure_boot == Some(false) && seen.nvme);
    }
}
