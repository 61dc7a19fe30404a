//! Network cards and disk controllers on the PCI and USB buses, whether a driver serves them or not.
//!
//! Invariant: at most [`MOST`] devices, those that no driver serves first; an unreadable fact leaves its
//! device out.

use std::fs;
use std::path::Path;

use crate::api::DeviceInfo;
use crate::io::sysfs::text;

/// More than any terminal has.
const MOST: usize = 64;

/// Reads the devices below `root`.
pub(crate) fn read(root: &Path) -> Vec<DeviceInfo> {
    let mut found: Vec<DeviceInfo> = Vec::new();
    for (bus, device) in [("pci", pci as fn(&Path) -> _), ("usb", usb)] {
        let entries = fs::read_dir(root.join("sys/bus").join(bus).join("devices"));
        for entry in entries.into_iter().flatten().flatten() {
            let folder = entry.path();
            let Some((id, class)) = device(&folder) else { continue };
            let driver = fs::read_link(folder.join("driver")).ok();
            found.push(DeviceInfo {
                bus: bus.into(),
                address: entry.file_name().to_string_lossy().into_owned(),
                id,
                class,
                driver: driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
                modalias: text(&folder.join("modalias")).unwrap_or_default(),
            });
        }
    }
    found.sort();
    found.sort_by_key(|device| device.driver.is_some());
    found.truncate(MOST);
    found
}

/// Id and class of a disk controller or a wired network card.
fn pci(folder: &Path) -> Option<(String, String)> {
    let hex = |name: &str| text(&folder.join(name))?.strip_prefix("0x").map(str::to_owned);
    let class = hex("class")?;
    let wanted = class.starts_with("01") || class.starts_with("02") && !class.starts_with("0280");
    wanted.then_some((format!("{}:{}", hex("vendor")?, hex("device")?), class))
}

/// Id and class of a USB interface that may be a network card or a disk: storage, communication, RNDIS, and
/// what only its maker's driver knows.
fn usb(folder: &Path) -> Option<(String, String)> {
    const WIRELESS: &str = "e0";
    let of = |name: &str| text(&folder.join(name));
    let class = of("bInterfaceClass")? + &of("bInterfaceSubClass")? + &of("bInterfaceProtocol")?;
    let wanted = ["02", "08", "ff"].iter().any(|base| class.starts_with(base))
        || class.starts_with(WIRELESS) && class.ends_with("0103");
    // The entry is a link to the interface's folder, which lies in its device's.
    let device = fs::canonicalize(folder).ok()?;
    let of_device = |name: &str| text(&device.parent()?.join(name));
    let id = || Some(format!("{}:{}", of_device("idVendor")?, of_device("idProduct")?));
    if wanted { Some((id()?, class)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn add_pci(root: &Path, address: &str, class: &str, id: (&str, &str), driver: Option<&str>) {
        let folder = format!("sys/bus/pci/devices/{address}");
        for (name, value) in [("class", class), ("vendor", id.0), ("device", id.1)] {
            put(root, &format!("{folder}/{name}"), &format!("0x{value}\n"));
        }
        put(root, &format!("{folder}/modalias"), &format!("pci:v0000{}\n", id.0));
        if let Some(driver) = driver {
            let link = root.join(folder).join("driver");
            std::os::unix::fs::symlink(format!("../drivers/{driver}"), link).expect("linked");
        }
    }

    #[test]
    fn cards_and_disk_controllers_are_listed_and_those_without_a_driver_come_first() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        assert_eq!(read(root), []);
        add_pci(root, "0000:00:1f.6", "020000", ("8086", "15fb"), Some("e1000e"));
        add_pci(root, "0000:00:0e.0", "010400", ("8086", "9a0b"), None);
        add_pci(root, "0000:00:02.0", "030000", ("8086", "9a49"), None);
        add_pci(root, "0000:02:00.0", "028000", ("8086", "2723"), None);
        put(root, "sys/devices/usb1/1-4/idVendor", "0bda\n");
        put(root, "sys/devices/usb1/1-4/idProduct", "8153\n");
        put(root, "sys/devices/usb1/1-5/idVendor", "046d\n");
        let interface = |path: &str, class: [&str; 3]| {
            let names = ["bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol"];
            for (name, value) in names.iter().zip(class) {
                put(root, &format!("sys/devices/usb1/{path}/{name}"), value);
            }
            let name = path.rsplit('/').next().expect("a name");
            fs::create_dir_all(root.join("sys/bus/usb/devices")).expect("made");
            let link = root.join("sys/bus/usb/devices").join(name);
            std::os::unix::fs::symlink(format!("../../../devices/usb1/{path}"), link).expect("linked");
        };
        interface("1-4/1-4:1.0", ["ff", "ff", "00"]);
        interface("1-5/1-5:1.0", ["03", "01", "01"]);
        let said: Vec<String> = read(root).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "RAID controller 8086:9a0b at pci 0000:00:0e.0, no driver",
                "USB device 0bda:8153 at usb 1-4:1.0, no driver",
                "network card 8086:15fb at pci 0000:00:1f.6, driver e1000e",
            ]
        );
    }

    #[test]
    fn a_machine_with_too_many_devices_keeps_those_that_nothing_serves() {
        let root = tempfile::tempdir().expect("a folder");
        for n in 0..MOST {
            add_pci(root.path(), &format!("0000:{n:02x}:00.0"), "020000", ("8086", "15fb"), Some("igb"));
        }
        add_pci(root.path(), "0001:00:00.0", "010400", ("8086", "9a0b"), None);
        let found = read(root.path());
        assert_eq!((found.len(), found[0].id.as_str()), (MOST, "8086:9a0b"));
    }
}
