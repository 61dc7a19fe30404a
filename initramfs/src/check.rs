//! `flashmob-initramfs check`: which devices of a machine have their driver in a set, and which lack
//! firmware.
//!
//! Invariant: the answer is about the same modules and firmware that `build` would put inside.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::arguments::{DriverArgs, KernelArgs};
use crate::devices::{self, Fields};
use crate::drivers;
use crate::firmware::Firmware;
use crate::kernel::Kernel;
use crate::modules::{ModuleTree, module_name};

/// What is looked up, and in which set.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Files with modalias lines (cat /sys/bus/{pci,usb}/devices/*/modalias), the output of `lspci -n` or
    /// `lsusb`, or of `flashmob terminal show --json`; `-` for standard input. Or ids: 8086:15f3,
    /// usb:0bda:8153.
    #[arg(value_name = "FILE|ID", required = true)]
    pub devices: Vec<String>,
    #[command(flatten)]
    pub kernel: KernelArgs,
    #[command(flatten)]
    pub drivers: DriverArgs,
}

/// What a set has for one device.
#[derive(Debug, PartialEq, Eq)]
enum Served {
    /// By these modules of the set.
    By(Vec<String>),
    /// By the kernel itself.
    BuiltIn(String),
    /// By modules for wired network cards or disks that the kernel has and the set has not.
    NotInSet(Vec<String>),
    /// Its modules are for something else.
    Other(Vec<String>),
    Never,
}

/// Folders (below `kernel/drivers/`) of drivers for wired network cards and disks.
const OURS: [&str; 10] = [
    "ata/",
    "block/",
    "message/",
    "mmc/",
    "net/ethernet/",
    "net/usb/",
    "nvme/",
    "scsi/",
    "ufs/",
    "usb/storage/",
];

fn is_ours(path: &str) -> bool {
    path.strip_prefix("kernel/drivers/")
        .is_some_and(|path| OURS.iter().any(|folder| path.starts_with(folder)))
}

/// The aliases of a kernel's drivers for PCI and USB devices.
struct Aliases {
    modules: Vec<(Fields, String)>,
    builtin: Vec<(Fields, String)>,
}

impl Aliases {
    fn read(tree: &ModuleTree) -> Result<Self> {
        let path = tree.root.join("modules.alias");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let modules = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((Fields::parse(words.next()?)?, words.next()?.to_string()))
        });
        // NAME.alias=PATTERN, each ended by NUL.
        let inside = std::fs::read(tree.root.join("modules.builtin.modinfo")).unwrap_or_default();
        let builtin = inside.split(|byte| *byte == 0).filter_map(|entry| {
            let (name, pattern) = str::from_utf8(entry).ok()?.split_once(".alias=")?;
            Some((Fields::parse(pattern)?, name.to_string()))
        });
        Ok(Aliases { modules: modules.collect(), builtin: builtin.collect() })
    }

    fn served(&self, device: &Fields, set: &BTreeSet<String>, is_ours: &dyn Fn(&str) -> bool) -> Served {
        let fitting = |all: &[(Fields, String)]| -> Vec<String> {
            let names =
                all.iter().filter(|(pattern, _)| pattern.fits(device)).map(|(_, name)| module_name(name));
            names.collect::<BTreeSet<_>>().into_iter().collect()
        };
        let found = fitting(&self.modules);
        let (inside, outside): (Vec<_>, Vec<_>) = found.into_iter().partition(|name| set.contains(name));
        match (inside.is_empty(), fitting(&self.builtin).into_iter().next(), outside.is_empty()) {
            (false, _, _) => Served::By(inside),
            (true, Some(name), _) => Served::BuiltIn(name),
            (true, None, false) if outside.iter().any(|name| is_ours(name)) => Served::NotInSet(outside),
            (true, None, false) => Served::Other(outside),
            (true, None, true) => Served::Never,
        }
    }
}

/// Looks all devices up. The answer is a text for people and whether everything is served.
pub(crate) fn check(args: &CheckArgs) -> Result<(String, bool)> {
    let (mut text, mut names) = (String::new(), BTreeSet::new());
    for one in &args.devices {
        let content = content_of(one)?;
        names.extend(drivers_of_cards(&content));
        text += &content;
        text.push('\n');
    }
    let devices = devices::in_text(&text);
    if devices.is_empty() && names.is_empty() {
        bail!(
            "no device is named there: give modalias lines, the output of lspci -n or lsusb, an inventory, \
             or ids such as 8086:15f3"
        );
    }
    let kernel = Kernel::find(&args.kernel)?;
    let tree = &kernel.modules;
    let chosen = drivers::select(tree, args.drivers.set)?;
    let set: BTreeMap<String, &str> = chosen.iter().map(|path| (module_name(path), *path)).collect();
    let aliases = Aliases::read(tree)?;
    let inside = set.keys().cloned().collect();
    let mut answer = format!("kernel {}, {} modules in the set\n", tree.version, set.len());
    let mut all_served = true;
    let is_ours = |name: &str| tree.path_of(name).is_some_and(is_ours);
    let firmware = |name: &str| firmware_of(&set, name, tree, args);
    let lines_of = |devices: &[Fields]| -> Vec<(String, bool)> {
        let line = |device| line_of(device, &aliases.served(device, &inside, &is_ours), &firmware);
        devices.iter().filter_map(line).collect()
    };
    for (line, is_served) in lines_of(&devices) {
        all_served &= is_served;
        answer += &line;
    }
    for id in args.devices.iter().filter(|one| is_id(one)) {
        if lines_of(&devices::in_text(id)).is_empty() {
            all_served = false;
            answer += &format!(
                "{id}: no driver for wired network cards or disks names it; if one is for its whole class, \
                 the line of lspci -n tells, and for USB the file modalias in /sys/bus/usb/devices\n"
            );
        }
    }
    for name in names {
        let is_served = set.contains_key(&name) || tree.is_builtin(&name);
        all_served &= is_served;
        let says = if is_served { "served" } else { "NOT SERVED: the set lacks this driver" };
        answer += &format!("driver {name}: {says}{}\n", firmware_of(&set, &name, tree, args));
    }
    Ok((answer, all_served))
}

/// The line for a device; `None` for one that flashmob does not need.
fn line_of(device: &Fields, served: &Served, firmware: &dyn Fn(&str) -> String) -> Option<(String, bool)> {
    let wanted = device.is_wanted();
    let (says, is_served) = match served {
        _ if wanted == Some(false) => return None,
        // A plain id is looked up on both buses, and hubs and keyboards need no driver here.
        Served::Never if wanted.is_none() => return None,
        Served::Other(_) if wanted.is_none() => return None,
        Served::Never => ("NOT SERVED: this kernel has no driver for it".to_string(), false),
        Served::NotInSet(names) | Served::Other(names) => {
            (format!("NOT SERVED: its driver {} is not in this set", names.join(", ")), false)
        }
        Served::BuiltIn(name) => (format!("served by the kernel itself ({name})"), true),
        Served::By(names) => {
            let names: Vec<String> = names.iter().map(|name| format!("{name}{}", firmware(name))).collect();
            (format!("served by {}", names.join(", ")), true)
        }
    };
    Some((format!("{}: {says}\n", device.title()), is_served))
}

/// What a module lacks, in words.
fn firmware_of(set: &BTreeMap<String, &str>, name: &str, tree: &ModuleTree, args: &CheckArgs) -> String {
    let mut firmware = Firmware::default();
    let Some(content) = set.get(name).and_then(|path| crate::build::read_module(&tree.root.join(path)).ok())
    else {
        return String::new();
    };
    firmware.add(name, &content, &args.drivers.firmware);
    firmware.missing.get(name).map_or_else(String::new, |(absent, of)| {
        format!(" ({absent} of {of} firmware files are not under {})", args.drivers.firmware.display())
    })
}

fn is_id(one: &str) -> bool {
    !devices::in_text(one).is_empty() && !std::path::Path::new(one).is_file()
}

fn content_of(one: &str) -> Result<String> {
    if one == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(text);
    }
    if is_id(one) {
        Ok(one.to_string())
    } else {
        std::fs::read_to_string(one).with_context(|| format!("reading {one}"))
    }
}

/// The drivers that an inventory names without their devices, as older agents do.
fn drivers_of_cards(content: &str) -> Vec<String> {
    if content.contains("\"modalias\"") { Vec::new() } else { drivers_in_json(content) }
}

/// The drivers of the network cards in an inventory: `"driver": "e1000e"`.
fn drivers_in_json(text: &str) -> Vec<String> {
    let values = text.split("\"driver\"").skip(1).filter_map(|rest| {
        let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        value.split('"').next()
    });
    values.map(module_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases() -> Aliases {
        let parsed =
            |pattern: &str, name: &str| (Fields::parse(pattern).expect("a pattern"), name.to_string());
        Aliases {
            modules: vec![
                parsed("pci:v00008086d000015F3sv*sd*bc*sc*i*", "igc"),
                parsed("pci:v00008086d00002723sv*sd*bc*sc*i*", "iwlwifi"),
                parsed("usb:v05ACp1402d*dc*dsc*dp*ic*isc*ip*in*", "asix"),
                parsed("usb:v046Dp0825d*dc*dsc*dp*ic*isc*ip*in*", "uvcvideo"),
                parsed("usb:v0BDAp8153d*dc*dsc*dp*ic*isc*ip*in*", "r8152"),
            ],
            builtin: vec![parsed("pci:v*d*sv*sd*bc0Csc03i30*", "xhci_pci")],
        }
    }

    fn lines(text: &str) -> Vec<(String, bool)> {
        let set = BTreeSet::from(["igc".to_string(), "r8152".to_string()]);
        let devices = devices::in_text(text);
        let line = |device| {
            line_of(device, &aliases().served(device, &set, &|name| name == "asix"), &|_| String::new())
        };
        devices.iter().filter_map(line).collect()
    }

    #[test]
    fn a_machines_list_says_what_is_served_by_which_module_and_what_is_not() {
        let said = lines(
            "00:14.0 0c03: 8086:a0ed\n00:02.0 0300: 8086:9a49\n03:00.0 0200: 8086:15f3\n\
             04:00.0 0200: 1234:0001\nBus 001 Device 002: ID 0bda:8153 Realtek\n\
             Bus 001 Device 003: ID 046d:c31c x\n\
             Bus 001 Device 004: ID 046d:0825 Webcam\nBus 001 Device 005: ID 05ac:1402 Ethernet\n",
        );
        let expected = [
            ("pci 1234:0001: NOT SERVED: this kernel has no driver for it\n", false),
            ("pci 8086:15f3: served by igc\n", true),
            ("pci 8086:a0ed: served by the kernel itself (xhci_pci)\n", true),
            ("usb 05ac:1402: NOT SERVED: its driver asix is not in this set\n", false),
            ("usb 0bda:8153: served by r8152\n", true),
        ];
        assert_eq!(said, expected.map(|(line, served)| (line.to_string(), served)));
    }

    #[test]
    fn the_drivers_of_an_inventory_are_read() {
        let json = "{\"nics\": [{\"name\": \"eth0\", \"driver\": \"e1000e\"}, {\"driver\":\"r8169\"}, \
                    {\"driver\": null}]}";
        assert_eq!(drivers_in_json(json), ["e1000e", "r8169"]);
    }

    #[test]
    fn a_terminals_inventory_is_looked_up_by_its_devices() {
        let json = r#"{"id":"52:54:00:00:00:01","address":"10.0.0.7","inventory":{"nics":[{"name":"eth0",
            "mac":"52:54:00:00:00:01","driver":"igc"}],"devices":[
            {"bus":"pci","address":"0000:03:00.0","id":"8086:15f3","class":"020000","driver":"igc",
             "modalias":"pci:v00008086d000015F3sv00001043sd000087D2bc02sc00i00"},
            {"bus":"pci","address":"0000:04:00.0","id":"1234:0001","class":"020000","driver":null,
             "modalias":"pci:v00001234d00000001sv00000000sd00000000bc02sc00i00"},
            {"bus":"usb","address":"1-4:1.0","id":"0bda:8153","class":"ffff00","driver":null,
             "modalias":"usb:v0BDAp8153d3100dc00dsc00dp00icFFiscFFip00in00"}]}}"#;
        let expected = [
            ("pci 1234:0001: NOT SERVED: this kernel has no driver for it\n", false),
            ("pci 8086:15f3: served by igc\n", true),
            ("usb 0bda:8153: served by r8152\n", true),
        ];
        let expected = expected.map(|(line, served)| (line.to_string(), served));
        for text in
            [json.to_string(), json.replace('\n', " "), json.replace(',', ",\n").replace(":\"", ": \"")]
        {
            assert_eq!(lines(&text), expected, "{text}");
            assert!(drivers_of_cards(&text).is_empty(), "the devices say it");
        }
    }
}
