//! What a preflight makes of the facts of a terminal.
//!
//! Invariant: pure. A fact that could not be read is shown as not known, and is never a finding.
//! `imaging::preflight` reads the facts.

use crate::agent::hidden::{self, Controller};
use crate::api::{DiskInfo, Inventory, NicInfo};
use crate::event::{CheckFact, CheckFinding};
use crate::io::disk::health::{Health, NvmeHealth};
use crate::io::host::firmware::Firmware;
use crate::layout::rule::describe;
use crate::units::show_bytes;

/// Below this a link is the bottleneck of an image, in Mbit/s.
const LINK: u32 = 1000;
/// Seconds that the clock may differ from the server's.
const CLOCK: u64 = 5 * 60;
/// Below these speeds a disk is probably failing, in bytes a second.
const SSD: u64 = 50_000_000;
const ROTATING: u64 = 30_000_000;
/// A disk that has done this share of its expected writes, in percent, should be replaced.
const WORN: u8 = 100;
/// The agent needs 512 MB; firmware and graphics keep some of it from the kernel.
const MEMORY: u64 = 450_000_000;

/// The facts of a terminal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) inventory: Inventory,
    pub(crate) firmware: Firmware,
    /// Seconds by which its clock is ahead of the server's.
    pub(crate) ahead: Option<i64>,
    /// The disks that rules chose.
    pub(crate) disks: Vec<SeenDisk>,
}

/// The facts of a chosen disk.
#[derive(Debug, Clone)]
pub(crate) struct SeenDisk {
    pub(crate) info: DiskInfo,
    /// Bytes a second that it delivered.
    pub(crate) speed: Option<u64>,
    pub(crate) health: Health,
}

/// A fact for people, and the findings that follow from it.
type Judged = (CheckFact, Vec<CheckFinding>);

fn judged(name: &str, value: impl Into<String>, finding: Option<CheckFinding>) -> Judged {
    (CheckFact { name: name.into(), value: value.into() }, finding.into_iter().collect())
}

/// Judges everything.
pub(crate) fn judge(seen: &Seen) -> (Vec<CheckFact>, Vec<CheckFinding>) {
    let mut all = Vec::new();
    for SeenDisk { info, speed: measured, health: said } in &seen.disks {
        all.push(judged("disk", format!("{}, sectors of {} bytes", describe(info), info.sector_size), None));
        all.push(speed(info, *measured));
        all.push(health(info, *said));
    }
    all.push(link(&seen.inventory.nics));
    all.push(firmware(&seen.firmware));
    all.extend(raid(&seen.inventory));
    all.push(clock(seen.ahead));
    all.push(memory(seen.inventory.memory));
    let (facts, findings): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    (facts, findings.into_iter().flatten().collect())
}

/// The link through which the server is reached.
fn link(nics: &[NicInfo]) -> Judged {
    let Some(nic) = nics.iter().find(|nic| nic.address.is_some()) else {
        return judged("link", "not known", None);
    };
    let Some(speed) = nic.speed else {
        return judged("link", format!("{}, speed not known", nic.name), None);
    };
    let slow = (speed < LINK).then(|| {
        CheckFinding::warning(
            format!("the link of {} has {speed} Mbit/s", nic.name),
            "Replace the cable (all four pairs must be good), and look at the switch's port: \
             imaging takes ten times as long.",
        )
    });
    judged("link", format!("{}, {speed} Mbit/s", nic.name), slow)
}

fn firmware(firmware: &Firmware) -> Judged {
    let value = match (firmware.uefi, firmware.secure_boot) {
        (false, _) => "BIOS",
        (true, Some(true)) => "UEFI, Secure Boot is on",
        (true, Some(false)) => "UEFI, Secure Boot is off",
        (true, None) => "UEFI, Secure Boot is not known",
    };
    judged("firmware", value, None)
}

/// Controllers in RAID mode, and the disks that they hide.
fn raid(inventory: &Inventory) -> Vec<Judged> {
    let judge = |Controller { title, hides }| {
        let finding = hides.map(|(what, advice)| CheckFinding::warning(what, advice));
        judged("storage controller", title, finding)
    };
    hidden::controllers(&inventory.devices, &inventory.disks).into_iter().map(judge).collect()
}

fn clock(ahead: Option<i64>) -> Judged {
    let Some(ahead) = ahead else { return judged("clock", "not compared", None) };
    let off = ahead.unsigned_abs();
    let direction = if ahead < 0 { "behind" } else { "ahead of" };
    let value = format!("{off} s {direction} the server's");
    let wrong = (off > CLOCK).then(|| {
        CheckFinding::warning(
            format!("the clock is {} min {direction} the server's", off / 60),
            "Set the clock in the firmware's setup; if it is wrong again later, replace the board's battery.",
        )
    });
    judged("clock", value, wrong)
}

fn speed(info: &DiskInfo, speed: Option<u64>) -> Judged {
    let Some(speed) = speed else { return judged("read speed", "not known", None) };
    let least = if info.rotational { ROTATING } else { SSD };
    let megabytes = speed / 1_000_000;
    let slow = (speed < least).then(|| {
        CheckFinding::warning(
            format!("the disk {} reads {megabytes} MB/s", describe(info)),
            "Look at its cable and its health report (SMART): a good one reads several times as fast.",
        )
    });
    judged("read speed", format!("{megabytes} MB/s"), slow)
}

fn health(info: &DiskInfo, health: Health) -> Judged {
    let fails = |what: &str| {
        CheckFinding::warning(
            format!("the disk {} {what}", describe(info)),
            "Replace the disk before it fails. Imaging it still works.",
        )
    };
    match health {
        Health::Unknown => judged("health", "not known", None),
        Health::Ata { failing: false } => judged("health", "good (SMART)", None),
        Health::Ata { failing: true } => {
            judged("health", "failing (SMART)", Some(fails("says that it is about to fail (SMART)")))
        }
        Health::Nvme(NvmeHealth { critical, spare, threshold, used }) => {
            let finding = match (critical, used) {
                (1.., _) => Some(fails(&format!("has critical warnings ({critical:#04x})"))),
                _ if spare < threshold => Some(fails(&format!("has {spare} % of its spare blocks left"))),
                (_, WORN..) => Some(fails(&format!("has done {used} % of its expected writes"))),
                _ => None,
            };
            judged("health", format!("{used} % used, {spare} % spare (NVMe)"), finding)
        }
    }
}

fn memory(bytes: u64) -> Judged {
    if bytes == 0 {
        return judged("memory", "not known", None);
    }
    let small = (bytes < MEMORY).then(|| {
        CheckFinding::warning(
            format!("the terminal has {} of memory", show_bytes(bytes)),
            "The agent needs 512 MB.",
        )
    });
    judged("memory", show_bytes(bytes), small)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Severity;

    fn what(judged: &Judged) -> (&str, Option<&str>) {
        (judged.0.value.as_str(), judged.1.first().map(|finding| finding.what.as_str()))
    }

    #[test]
    fn a_link_below_a_gigabit_is_a_warning_and_an_unknown_speed_is_not() {
        let nic = |name: &str, speed, address: Option<&str>| NicInfo {
            name: name.into(),
            speed,
            address: address.map(Into::into),
            ..NicInfo::default()
        };
        let slow = link(&[nic("wlan0", Some(54), None), nic("eth0", Some(100), Some("10.0.0.7/24"))]);
        assert_eq!(what(&slow), ("eth0, 100 Mbit/s", Some("the link of eth0 has 100 Mbit/s")));
        for (speed, value) in [(Some(1000), "eth0, 1000 Mbit/s"), (None, "eth0, speed not known")] {
            assert_eq!(what(&link(&[nic("eth0", speed, Some("10.0.0.7/24"))])), (value, None));
        }
        assert_eq!(what(&link(&[])), ("not known", None));
    }

    #[test]
    fn a_controller_that_hides_disks_is_a_warning() {
        let vmd = crate::api::DeviceInfo {
            bus: "pci".into(),
            id: "8086:9a0b".into(),
            class: "010400".into(),
            ..Default::default()
        };
        let found = raid(&Inventory { devices: vec![vmd], ..Inventory::default() });
        let (fact, findings) = &found[0];
        assert!(fact.value.contains("8086:9a0b"), "{fact:?}");
        assert!(
            findings[0].severity == Severity::Warning && findings[0].advice.contains("VMD"),
            "{findings:?}"
        );
        assert!(raid(&Inventory::default()).is_empty());
    }

    #[test]
    fn firmware_and_secure_boot_are_said() {
        let of = |uefi, secure_boot| firmware(&Firmware { uefi, secure_boot }).0.value;
        assert_eq!(of(false, None), "BIOS");
        assert_eq!(of(true, Some(true)), "UEFI, Secure Boot is on");
        assert_eq!(of(true, None), "UEFI, Secure Boot is not known");
    }

    #[test]
    fn a_clock_that_is_more_than_five_minutes_off_is_a_warning() {
        assert_eq!(what(&clock(Some(300))), ("300 s ahead of the server's", None));
        let late = clock(Some(-301));
        assert_eq!(what(&late).1, Some("the clock is 5 min behind the server's"));
        assert_eq!(what(&clock(None)), ("not compared", None));
        assert!(!clock(Some(i64::MIN)).1.is_empty());
    }

    #[test]
    fn a_slow_disk_is_a_warning_by_its_kind() {
        let disk = |rotational| DiskInfo { name: "sda".into(), rotational, ..DiskInfo::default() };
        assert!(speed(&disk(false), Some(49_999_999)).1[0].what.contains("reads 49 MB/s"));
        assert_eq!(what(&speed(&disk(true), Some(49_999_999))), ("49 MB/s", None));
        assert!(!speed(&disk(true), Some(29_999_999)).1.is_empty());
        assert_eq!(what(&speed(&disk(false), None)), ("not known", None));
    }

    #[test]
    fn a_disk_that_says_that_it_fails_or_is_worn_is_a_warning_and_silence_is_not() {
        let disk = DiskInfo { name: "nvme0n1".into(), ..DiskInfo::default() };
        let warns = |said| health(&disk, said).1.first().map(|finding| finding.what.clone());
        let good = NvmeHealth { critical: 0, spare: 100, threshold: 10, used: 3 };
        let nvme = |change: fn(&mut NvmeHealth)| {
            let mut log = good;
            change(&mut log);
            warns(Health::Nvme(log)).unwrap_or_default()
        };
        assert_eq!(what(&health(&disk, Health::Nvme(good))), ("3 % used, 100 % spare (NVMe)", None));
        assert!(nvme(|log| log.critical = 4).contains("critical warnings (0x04)"));
        assert!(nvme(|log| log.spare = 9).contains("9 % of its spare blocks"));
        assert!(nvme(|log| log.used = 100).contains("100 % of its expected writes"));
        assert!(warns(Health::Ata { failing: true }).is_some_and(|what| what.contains("about to fail")));
        assert_eq!(warns(Health::Ata { failing: false }), None);
        assert_eq!(warns(Health::Unknown), None);
    }

    #[test]
    fn too_little_memory_is_a_warning() {
        assert!(!memory(256 << 20).1.is_empty());
        assert!(memory(480_000_000).1.is_empty() && memory(0).1.is_empty());
    }
}
