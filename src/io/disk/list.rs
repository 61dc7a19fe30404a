//! The disks of this machine as `/sys/class/block` shows them.
//!
//! Invariant: only facts, and an unreadable one is absent, never guessed. `layout::rule` chooses a disk;
//! `io::disk::claim` checks that it is free.

use std::fs;
use std::io;
use std::path::Path;

use crate::api::DiskInfo;
use crate::event::Failure;
use crate::io::disk::table;
use crate::io::sysfs::{self, CLASS};
use crate::layout::identity::Identity;
use crate::layout::rule::is_external;
use crate::units::SectorSize;

/// All disks that could hold a system, in the order of their names. Partitions, ramdisks, optical drives,
/// flash chips of the firmware, areas that eMMC keeps for its own boot code, and loop devices are not disks
/// to choose from (see [`find`] for those that are named). A fixed disk of size 0 is listed: it is there and
/// does not answer, which is a reason to ask a person and not to take its neighbour. A card reader without a
/// card is not.
pub fn all() -> io::Result<Vec<DiskInfo>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !is_disk(&name) {
            continue;
        }
        let disk = read(Path::new(CLASS), &name);
        // Paths of a multipath NVMe disk are shown here too, but cannot be opened.
        let hidden = fs::read_to_string(Path::new(CLASS).join(&name).join("hidden"));
        if (disk.size > 0 || !is_external(&disk)) && !hidden.is_ok_and(|hidden| hidden.trim() == "1") {
            disks.push(disk);
        }
    }
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(disks)
}

/// Whether a name in `/sys/block` is that of a kind of device that systems are installed on.
fn is_disk(name: &str) -> bool {
    let other = [
        "loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd", "mtdblock", "ubiblock", "bcache", "drbd",
        "rbd",
    ];
    // mmcblk0boot0, mmcblk0boot1, mmcblk0rpmb: areas beside the user area of an eMMC.
    let of_emmc =
        name.strip_prefix("mmcblk").is_some_and(|rest| rest.contains("boot") || rest.contains("rpmb"));
    !of_emmc && !other.iter().any(|kind| name.starts_with(kind))
}

/// The block device at `path` (`/dev/sda`, `/dev/disk/by-id/…`, `/dev/loop3`, `/dev/sda2`).
pub fn find(path: &str) -> Result<DiskInfo, Failure> {
    let missing = |why: String| {
        Failure::refused(
            format!("there is no disk {path}: {why}"),
            "Look up the disk's name in the list of disks that the server shows for this terminal.",
        )
    };
    let real = fs::canonicalize(path).map_err(|e| missing(e.to_string()))?;
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !Path::new(CLASS).join(&name).exists() {
        return Err(missing("it is not a block device".into()));
    }
    Ok(read(Path::new(CLASS), &name))
}

/// The identity by which other programs recognise a disk. An unreadable disk has none.
pub fn identity(disk: &DiskInfo) -> Identity {
    let path = format!("/dev/{}", disk.name);
    let sector = SectorSize::new(disk.sector_size).unwrap_or(SectorSize::DEFAULT);
    let found = fs::File::open(&path).and_then(|mut file| table::identity(&mut file, disk.size, sector));
    found.unwrap_or_else(|e| {
        log::warn!("the partition table of {path} cannot be read: {e}");
        Identity::default()
    })
}

/// The block devices that `name` is made of (RAID, multipath, LVM), at any depth.
pub(crate) fn made_of(name: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = vec![name.to_string()];
    while let Some(name) = open.pop() {
        let slaves =
            fs::read_dir(Path::new(CLASS).join(&name).join("slaves")).into_iter().flatten().flatten();
        let names = slaves.map(|entry| entry.file_name().to_string_lossy().into_owned());
        for name in names.filter(|name| !found.contains(name)).collect::<Vec<_>>() {
            open.push(name.clone());
            found.push(name);
        }
    }
    found
}

fn read(class: &Path, name: &str) -> DiskInfo {
    let dir = class.join(name);
    let real = fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
    // A partition's disk knows the hardware.
    let disk = match real.parent() {
        Some(parent) if real.join("partition").exists() => parent.to_path_buf(),
        _ => real.clone(),
    };
    let text = |file: &str| sysfs::text(&disk.join(file));
    let number = |file: &str| sysfs::number(&disk.join(file));
    let queue = |file: &str| number(&format!("queue/{file}"));
    // These two are the partition's own.
    let own = |file: &str| sysfs::number(&real.join(file));
    DiskInfo {
        name: name.to_string(),
        size: own("size").unwrap_or(0).saturating_mul(sysfs::SECTOR),
        sector_size: queue("logical_block_size").and_then(|n| u32::try_from(n).ok()).unwrap_or(512),
        model: text("device/model"),
        // virtio-blk has it beside `device`; SCSI and ATA in a page of vital product data.
        serial: text("device/serial").or_else(|| text("serial")).or_else(|| vpd_serial(&disk)),
        wwn: text("wwid").or_else(|| text("device/wwid")),
        bus: bus(name, &real),
        path: stable_path(&real),
        rotational: queue("rotational") == Some(1),
        removable: number("removable") == Some(1) || can_be_pulled(&disk, &real),
        read_only: own("ro") == Some(1) || number("ro") == Some(1),
    }
}

/// Removable in practice, although not marked as such: a card in a reader, a disk on an external port.
fn can_be_pulled(dir: &Path, real: &Path) -> bool {
    let says = |file: &Path, word: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == word);
    says(&dir.join("device/type"), "SD")
        || real.ancestors().any(|device| says(&device.join("removable"), "removable"))
}

/// Unit serial number (SPC-5 §7.7.18): four bytes of header, then text.
fn vpd_serial(dir: &Path) -> Option<String> {
    let page = fs::read(dir.join("device/vpd_pg80")).ok()?;
    let text = String::from_utf8_lossy(page.get(4..)?)
        .trim_matches(|c: char| c == '\0' || c.is_whitespace())
        .to_string();
    (!text.is_empty()).then_some(text)
}

/// How the disk is attached, from its place in the device tree.
fn bus(name: &str, real: &Path) -> String {
    let path = real.to_string_lossy();
    let known = [("/usb", "usb"), ("/ata", "ata"), ("/nvme", "nvme"), ("/mmc", "mmc"), ("/virtio", "virtio")];
    if name.starts_with("loop") {
        return "loop".into();
    }
    // A virtio-scsi disk is SCSI; a USB disk is USB although it is SCSI too.
    if path.contains("/usb") {
        return "usb".into();
    }
    if path.contains("/ata") {
        return "ata".into();
    }
    if path.contains("/target") {
        return "scsi".into();
    }
    known.iter().find(|(part, _)| path.contains(part)).map_or("other", |(_, bus)| bus).to_string()
}

/// The device tree's path to the disk, without the numbers that the kernel gives as it finds things: a PCI
/// address, then for SCSI the channel, target and unit.
fn stable_path(real: &Path) -> String {
    let mut kept = Vec::new();
    let names = real.components().map(|part| part.as_os_str().to_string_lossy());
    for name in names.skip_while(|name| name != "devices").skip(1).take_while(|name| name != "block") {
        let counted = ["host", "target", "virtio", "nvme"].iter().any(|prefix| name.starts_with(prefix));
        match name.splitn(2, ':').collect::<Vec<_>>()[..] {
            _ if counted => {}
            [host, unit] if unit.matches(':').count() == 2 && host.parse::<u32>().is_ok() => {
                kept.push(unit.to_string());
            }
            _ => kept.push(name.into_owned()),
        }
    }
    kept.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;

    #[test]
    fn a_path_stays_the_same_when_the_kernel_counts_otherwise() {
        let one = "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda";
        let two = "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host7/target7:0:0/7:0:0:0/block/sdb";
        assert_eq!(stable_path(Path::new(one)), "pci0000:00/0000:00:1f.2/ata1/0:0:0");
        assert_eq!(stable_path(Path::new(two)), stable_path(Path::new(one)));
        let virtio = "/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda";
        assert_eq!(stable_path(Path::new(virtio)), "pci0000:00/0000:00:04.0");
        let nvme = "/sys/devices/pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1";
        assert_eq!(stable_path(Path::new(nvme)), "pci0000:00/0000:00:05.0");
    }

    #[test]
    fn a_bus_is_told_from_the_place_in_the_device_tree() {
        let of = |name, path| bus(name, Path::new(path));
        assert_eq!(
            of("sda", "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda"),
            "ata"
        );
        assert_eq!(
            of(
                "sda",
                "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0/block/sda"
            ),
            "usb"
        );
        assert_eq!(
            of("sda", "/sys/devices/pci0000:00/0000:00:04.0/virtio1/host0/target0:0:0/0:0:0:0/block/sda"),
            "scsi"
        );
        assert_eq!(of("vda", "/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda"), "virtio");
        assert_eq!(of("nvme0n1", "/sys/devices/pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1"), "nvme");
        assert_eq!(of("loop0", "/sys/devices/virtual/block/loop0"), "loop");
    }

    #[test]
    fn areas_of_an_emmc_and_flash_chips_are_no_disks() {
        for disk in ["sda", "nvme0n1", "vda", "mmcblk0", "xvda", "pmem0"] {
            assert!(is_disk(disk), "{disk}");
        }
        for other in
            ["mmcblk0boot0", "mmcblk0boot1", "mmcblk0rpmb", "mtdblock0", "md0", "dm-1", "sr0", "loop0"]
        {
            assert!(!is_disk(other), "{other}");
        }
    }

    #[test]
    fn cards_and_disks_on_external_ports_are_removable() {
        let sys = tempfile::tempdir().expect("a folder");
        let disk = |path: &str, kind: &str, port: &str| {
            let (dir, real) = (sys.path().join("class"), sys.path().join("devices").join(path));
            fs::create_dir_all(real.join("device")).expect("made");
            fs::create_dir_all(&dir).expect("made");
            fs::write(real.join("removable"), "0\n").expect("written");
            fs::write(real.join("device/type"), format!("{kind}\n")).expect("written");
            let above = real.parent().expect("inside");
            fs::write(above.join("removable"), format!("{port}\n")).expect("written");
            let name = path.replace('/', "-");
            std::os::unix::fs::symlink(&real, dir.join(&name)).expect("linked");
            read(&dir, &name).removable
        };
        assert!(disk("mmc0/mmcblk0", "SD", "unknown"));
        assert!(!disk("mmc1/mmcblk1", "MMC", "fixed"));
        assert!(disk("pci3/nvme0n1", "", "removable"), "behind an external port");
        assert!(!disk("pci4/nvme1n1", "", "unknown"));
    }

    #[test]
    fn disks_are_listed_with_their_sizes_and_what_is_no_disk_is_not_found() {
        for disk in all().expect("sysfs") {
            assert!(!disk.name.is_empty() && disk.sector_size >= 512, "{disk:?}");
            assert_eq!(find(&format!("/dev/{}", disk.name)).expect("it is there"), disk);
        }
        assert_eq!(find("/dev/null").expect_err("no disk").class, Class::Refused);
        assert_eq!(find("/dev/none-such").expect_err("not there").class, Class::Refused);
    }
}
