//! This machine's hardware, from `/sys` and `/proc`.
//!
//! Invariant: unreadable fields stay empty, because an inventory is for people and rules and never a reason
//! to fail. `io::disk::list` reads the disks.

use std::fs;
use std::path::Path;

use crate::api::{Hello, Inventory, NicInfo};
use crate::io::disk::list;
use crate::io::host::devices;

/// Reads the inventory of this machine. `nics` comes from netlink, without driver and speed.
pub fn read(nics: Vec<NicInfo>) -> Inventory {
    // A machine whose disks cannot be listed still says hello; claiming a disk will report the reason.
    read_below(Path::new("/"), nics, list::all().unwrap_or_default())
}

/// The same below another root, with the disks given.
pub(crate) fn read_below(root: &Path, mut nics: Vec<NicInfo>, disks: Vec<crate::api::DiskInfo>) -> Inventory {
    for nic in &mut nics {
        let dir = root.join("sys/class/net").join(&nic.name);
        let driver = fs::read_link(dir.join("device/driver")).ok();
        nic.software = !has_hardware(&dir);
        nic.driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        nic.speed = text(&dir.join("speed")).and_then(|speed| speed.parse().ok()).filter(|speed| *speed > 0);
    }
    let dmi = |name: &str| dmi(root, name);
    let machine: Vec<String> = [dmi("sys_vendor"), dmi("product_name")].into_iter().flatten().collect();
    let uefi = root.join("sys/firmware/efi").exists();
    Inventory {
        machine: machine.join(" "),
        serial: dmi("product_serial"),
        cpu: cpu(root),
        memory: memory(root),
        firmware: if uefi { "uefi" } else { "bios" }.into(),
        disks,
        nics,
        devices: devices::read(root),
    }
}

/// Is there a card on a bus behind the interface at `dir` in `/sys/class/net`?
fn has_hardware(dir: &Path) -> bool {
    // Pretended cards of the kernel's own tests have a bus as well.
    const PRETENDED: [&str; 3] = ["faux", "mac80211_hwsim", "netdevsim"];
    let subsystem = fs::read_link(dir.join("device/subsystem")).ok();
    let bus = subsystem.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    bus.is_some_and(|bus| !PRETENDED.contains(&bus))
}

/// This machine's introduction, with `first` (the MAC address that it netbooted from) before the others, also
/// if no interface has it, because the server sent the agent to the machine with this MAC: firmware can give
/// a dock the laptop's MAC where Linux sees the dock's own. Only cards identify a machine, because software
/// interfaces have the same MAC on many machines. A container without a card is identified by its interfaces
/// with an address.
pub fn hello(inventory: Inventory, first: Option<&str>) -> Hello {
    let kinds: [fn(&&NicInfo) -> bool; 3] = [|nic| !nic.software, |nic| nic.address.is_some(), |_| true];
    let of_kind = |kind| inventory.nics.iter().filter(kind).map(|nic| nic.mac.clone()).collect();
    let mut macs: Vec<String> =
        kinds.into_iter().map(of_kind).find(|macs: &Vec<String>| !macs.is_empty()).unwrap_or_default();
    macs.retain(|mac| Some(mac.as_str()) != first);
    macs.splice(..0, first.map(str::to_owned));
    macs.dedup();
    Hello { uuid: uuid(Path::new("/")), macs, inventory, agent: env!("CARGO_PKG_VERSION").into() }
}

/// The SMBIOS UUID below `root`, lower case; `None` for the values by which firmware means "none".
pub fn uuid(root: &Path) -> Option<String> {
    let uuid = dmi(root, "product_uuid")?.to_ascii_lowercase();
    let digits: Vec<char> = uuid.chars().filter(|c| *c != '-').collect();
    let real = digits.len() == 32
        && digits.iter().all(char::is_ascii_hexdigit)
        && digits.iter().any(|c| *c != digits[0])
        && uuid != "03000200-0400-0500-0006-000700080009";
    real.then_some(uuid)
}

fn dmi(root: &Path, name: &str) -> Option<String> {
    // Texts of board makers that forgot to fill the field.
    const FILLERS: [&str; 6] = [
        "to be filled by o.e.m.",
        "default string",
        "system product name",
        "system manufacturer",
        "none",
        "not specified",
    ];
    let text = text(&root.join("sys/class/dmi/id").join(name))?;
    (!FILLERS.contains(&text.to_ascii_lowercase().as_str())).then_some(text)
}

fn cpu(root: &Path) -> String {
    let info = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let field = |line: &str, name: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    let cores = info.lines().filter(|line| field(line, "processor").is_some()).count();
    let model = info.lines().find_map(|line| field(line, "model name")).unwrap_or_else(|| "processor".into());
    format!("{cores} × {model}")
}

fn memory(root: &Path) -> u64 {
    let info = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn a_machine_is_described_as_its_firmware_says() {
        let root = machine(&[
            ("sys/class/dmi/id/sys_vendor", "Dell Inc.\n"),
            ("sys/class/dmi/id/product_name", "OptiPlex 7090\n"),
            ("sys/class/dmi/id/product_serial", "ABC123\n"),
            ("sys/class/dmi/id/product_uuid", "4C4C4544-0031-4A10-8052-B4C04F4A3533\n"),
            (
                "proc/cpuinfo",
                "processor\t: 0\nmodel name\t: Intel i5\n\nprocessor\t: 1\nmodel name\t: Intel i5\n",
            ),
            ("proc/meminfo", "MemTotal:         500000 kB\nMemFree: 1 kB\n"),
            ("sys/firmware/efi/fw_platform_size", "64"),
            ("sys/class/net/eth0/speed", "1000\n"),
            ("sys/class/net/eth1/speed", "-1\n"),
            ("sys/class/net/vboxnet0/speed", "10\n"),
            ("sys/class/net/sim0/speed", "10\n"),
        ]);
        for (nic, bus) in [("eth0", "pci"), ("eth1", "usb"), ("sim0", "netdevsim")] {
            let device = root.path().join("sys/class/net").join(nic).join("device");
            fs::create_dir_all(&device).unwrap();
            std::os::unix::fs::symlink(format!("../../../bus/{bus}"), device.join("subsystem")).unwrap();
        }
        let device = root.path().join("sys/class/net/eth0/device");
        std::os::unix::fs::symlink("../../../bus/pci/drivers/e1000e", device.join("driver")).unwrap();
        let nic = |name: &str| NicInfo { name: name.into(), mac: format!("02:{name}"), ..NicInfo::default() };
        let nics = ["eth0", "eth1", "vboxnet0", "sim0"].map(nic).to_vec();
        let found = read_below(root.path(), nics, vec![]);
        assert_eq!(found.machine, "Dell Inc. OptiPlex 7090");
        assert_eq!(found.serial.as_deref(), Some("ABC123"));
        assert_eq!(found.cpu, "2 × Intel i5");
        assert_eq!(found.memory, 512_000_000);
        assert_eq!(found.firmware, "uefi");
        assert_eq!((found.nics[0].driver.as_deref(), found.nics[0].speed), (Some("e1000e"), Some(1000)));
        assert_eq!((found.nics[1].driver.as_deref(), found.nics[1].speed), (None, None));
        assert_eq!(uuid(root.path()).as_deref(), Some("4c4c4544-0031-4a10-8052-b4c04f4a3533"));
        assert_eq!(found.nics.iter().map(|nic| nic.software).collect::<Vec<_>>(), [false, false, true, true]);
        assert_eq!(hello(found.clone(), Some("02:eth1")).macs, ["02:eth1", "02:eth0"]);
        assert_eq!(hello(found, None).macs, ["02:eth0", "02:eth1"]);
    }

    #[test]
    fn a_laptop_at_a_dock_names_the_mac_that_its_firmware_gave_the_dock() {
        let dock = NicInfo { name: "eth0".into(), mac: "02:00:00:00:00:d0".into(), ..NicInfo::default() };
        let inventory = Inventory { nics: vec![dock], ..Inventory::default() };
        let said = hello(inventory, Some("02:00:00:00:00:01"));
        assert_eq!(said.macs, ["02:00:00:00:00:01", "02:00:00:00:00:d0"]);
    }

    #[test]
    fn only_cards_name_a_machine_and_where_there_is_none_the_interface_that_reaches_the_server() {
        let nic = |name: &str, software, address: Option<&str>| {
            let (name, mac) = (name.to_string(), format!("02:{name}"));
            NicInfo { name, mac, software, address: address.map(Into::into), ..NicInfo::default() }
        };
        let macs = |nics: &[NicInfo]| {
            let inventory = Inventory { nics: nics.to_vec(), ..Inventory::default() };
            hello(inventory, None).macs
        };
        let card = nic("eth0", false, None);
        let veth = nic("eth0", true, Some("10.0.0.2/24"));
        let vbox = nic("vboxnet0", true, None);
        assert_eq!(macs(&[vbox.clone(), card]), ["02:eth0"]);
        assert_eq!(macs(&[vbox.clone(), veth]), ["02:eth0"], "in a container");
        assert_eq!(macs(&[vbox]), ["02:vboxnet0"], "better than no name");
    }

    #[test]
    fn what_board_makers_forgot_to_fill_in_is_nothing() {
        let root = machine(&[
            ("sys/class/dmi/id/sys_vendor", "To Be Filled By O.E.M.\n"),
            ("sys/class/dmi/id/product_serial", "Default string\n"),
            ("sys/class/dmi/id/product_uuid", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n"),
        ]);
        let found = read_below(root.path(), vec![], vec![]);
        assert_eq!((found.machine.as_str(), found.serial), ("", None));
        assert_eq!(found.firmware, "bios");
        assert_eq!(uuid(root.path()), None);
    }
}
