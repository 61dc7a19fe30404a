//! Disks that a controller keeps to itself, and what to change in the firmware.
//!
//! Invariant: pure. Disks are called hidden only where a controller in RAID mode is and the kind of disk that
//! it hides is not.

use crate::api::{DeviceInfo, DiskInfo};
use crate::event::{Class, Failure};

/// PCI base class and subclass of a RAID controller. Intel's VMD has them as well.
const RAID: &str = "0104";
/// The same of an NVMe disk.
const NVME: &str = "0108";
const INTEL: &str = "8086:";
/// The kernel's driver for Intel's VMD, which shows all disks behind it.
const VMD: &str = "vmd";
/// Devices that are VMD (`vmd_ids` of the kernel's driver).
const VMDS: [&str; 12] =
    ["201d", "28c0", "467f", "4c3d", "7d0b", "9a0b", "a77f", "ad0b", "b06f", "b07f", "b60b", "b60f"];

const INTEL_ADVICE: &str = "In the firmware's setup set the SATA/NVMe mode to AHCI, or turn off VMD (Intel \
     Volume Management Device, RST). A Windows that is on the disk starts after that only if it was prepared \
     (safe mode).";
const OTHER_ADVICE: &str = "In the controller's setup make a volume, or set it to HBA mode.";

/// A storage controller in RAID mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controller {
    /// The fact for people.
    pub(crate) title: String,
    /// What is wrong and what to do, where it may hide disks.
    pub(crate) hides: Option<(String, &'static str)>,
}

/// The controllers in RAID mode among `devices`, on a machine with these disks.
pub(crate) fn controllers(devices: &[DeviceInfo], disks: &[DiskInfo]) -> Vec<Controller> {
    let nvme =
        devices.iter().any(|device| is_pci(device, NVME)) || disks.iter().any(|disk| disk.bus == "nvme");
    let internal = disks.iter().any(|disk| !disk.removable && disk.bus != "usb");
    let of_one = |device: &DeviceInfo| {
        let vmd = is_vmd(device);
        let (intel, served) = (device.id.starts_with(INTEL), device.driver.is_some());
        let hides = match (intel, vmd) {
            // What its driver shows is all that is there.
            (_, true) => !served,
            (true, false) => !nvme,
            (false, false) => !internal,
        };
        let what = match (vmd, served) {
            (true, _) => format!("Intel's VMD hides disks, because no driver serves it ({device})"),
            (false, _) => format!("a storage controller in RAID mode may hide disks ({device})"),
        };
        let advice = if intel { INTEL_ADVICE } else { OTHER_ADVICE };
        Controller { title: format!("{device}, in RAID mode"), hides: hides.then_some((what, advice)) }
    };
    devices.iter().filter(|device| is_pci(device, RAID)).map(of_one).collect()
}

fn is_pci(device: &DeviceInfo, class: &str) -> bool {
    device.bus == "pci" && device.class.starts_with(class)
}

fn is_vmd(device: &DeviceInfo) -> bool {
    let known = device.id.strip_prefix(INTEL).is_some_and(|id| VMDS.contains(&id));
    known || device.driver.as_deref() == Some(VMD)
}

/// `failure` to choose a disk, with the controllers that may be the reason.
pub(crate) fn explain(failure: Failure, devices: &[DeviceInfo], disks: &[DiskInfo]) -> Failure {
    let hiding: Vec<(String, &str)> =
        controllers(devices, disks).into_iter().filter_map(|controller| controller.hides).collect();
    let Some((_, advice)) = hiding.first().filter(|_| failure.class == Class::Refused) else {
        return failure;
    };
    let what: Vec<&str> = hiding.iter().map(|(what, _)| what.as_str()).collect();
    let message = format!("{}; {}", failure.message, what.join("; "));
    Failure::refused(message, format!("{advice} {}", failure.advice).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, class: &str, driver: Option<&str>) -> DeviceInfo {
        DeviceInfo {
            bus: "pci".into(),
            address: "0000:00:0e.0".into(),
            id: id.into(),
            class: class.into(),
            driver: driver.map(Into::into),
            modalias: String::new(),
        }
    }

    fn disk(bus: &str) -> DiskInfo {
        DiskInfo { bus: bus.into(), ..DiskInfo::default() }
    }

    fn hides(devices: &[DeviceInfo], disks: &[DiskInfo]) -> Option<(String, &'static str)> {
        controllers(devices, disks)[0].hides.clone()
    }

    #[test]
    fn a_controller_in_raid_mode_is_a_warning_where_it_may_hide_disks() {
        let sata = device("8086:2822", "010400", Some("ahci"));
        let (what, advice) = hides(std::slice::from_ref(&sata), &[disk("ata")]).expect("NVMe is hidden");
        assert!(
            what.contains("8086:2822 at pci 0000:00:0e.0, driver ahci") && advice.contains("to AHCI"),
            "{what}"
        );
        assert!(advice.contains("Windows"), "{advice}");
        assert_eq!(hides(&[sata.clone(), device("144d:a808", "010802", None)], &[]), None);
        assert_eq!(hides(&[sata], &[disk("nvme")]), None);
        let other = device("1000:005d", "010400", Some("megaraid_sas"));
        assert_eq!(hides(std::slice::from_ref(&other), &[disk("scsi")]), None, "a server's volume");
        assert!(hides(&[other], &[disk("usb")]).expect("no volume").1.contains("HBA"));
        assert!(controllers(&[device("8086:a352", "010601", None)], &[]).is_empty());
    }

    #[test]
    fn vmd_hides_disks_only_without_its_driver() {
        let (what, advice) = hides(&[device("8086:9a0b", "010400", None)], &[disk("ata")]).expect("hidden");
        assert!(what.contains("VMD hides disks") && what.contains("8086:9a0b"), "{what}");
        assert!(advice.contains("turn off VMD"), "{advice}");
        assert_eq!(hides(&[device("8086:9a0b", "010400", Some("vmd"))], &[]), None);
    }

    #[test]
    fn a_disk_that_is_not_there_is_explained_by_the_controller_that_hides_it() {
        let failure = Failure::refused("no disk fits", "Look at the rule.");
        let hiding = [device("8086:9a0b", "010400", None)];
        let said = explain(failure.clone(), &hiding, &[]);
        assert!(said.message.starts_with("no disk fits; Intel's VMD hides"), "{said:?}");
        assert!(said.advice.contains("AHCI") && said.advice.ends_with("Look at the rule."), "{said:?}");
        assert_eq!(explain(failure.clone(), &[], &[]), failure);
        let busy = Failure::retry("listing failed", "");
        assert_eq!(explain(busy.clone(), &hiding, &[]), busy);
    }
}
