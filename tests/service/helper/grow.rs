//! What the helper lets grow.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{FINDMNT, LSBLK, System, succeeds};

/// A file that lets the partition with this number grow.
fn with_growth(system: &System, number: u32) {
    let file = "boot/efi/EFI/flashmob/terminal.json";
    let text = system.text(file).replace("\"7-abc\"", &format!("\"7-abc\",\n  \"grow\": \"{number}\""));
    system.put(file, &text);
    system.put("sys/class/block/sda3/partition", "3\n");
}

/// The helper's second tool for filesystems: what is mounted is the root.
const WITH_TYPES: &str = r#"case $* in
'-rndo FSTYPE /dev/sda3') echo "$KIND" ;;
'-rnpo NAME /dev/sda') printf '/dev/sda\n/dev/sda2\n/dev/sda3\n/dev/mapper/vg-root\n' ;;
*) exec "$0-disks" "$@" ;;
esac"#;
const WITH_MOUNTS: &str = r#"case $* in
'-nro TARGET --source '*) echo / ;;
'-nro FSTYPE --source '*) echo "$MOUNTED" ;;
*) exec "$0-files" "$@" ;;
esac"#;

#[test]
fn a_filesystem_that_the_agent_left_grows_and_a_partition_that_is_not_marked_does_not() {
    for (kind, mounted, expected) in [
        ("ext4", "ext4", "resize2fs /dev/sda3"),
        ("xfs", "xfs", "xfs_growfs /"),
        ("btrfs", "btrfs", "btrfs filesystem resize max /"),
        ("ntfs", "", ""),
    ] {
        let system = System::new("http://127.0.0.1:9");
        let log = system.at("log");
        system.tool("lsblk-disks", LSBLK);
        system.tool("lsblk", WITH_TYPES);
        system.tool("findmnt-files", FINDMNT);
        system.tool("findmnt", WITH_MOUNTS);
        for tool in ["resize2fs", "xfs_growfs", "btrfs", "pvresize", "lvextend"] {
            system.tool(tool, &format!("echo {tool} \"$@\" >>{}", log.display()));
        }
        let early = || {
            let mut command = system.command(&["dash"], "early");
            succeeds(&command.env("KIND", kind).env("MOUNTED", mounted).output().unwrap());
            system.text("log").trim().to_string()
        };
        let unmarked = system.text("boot/efi/EFI/flashmob/terminal.json").replace("7-abc", "6-abc");
        system.put("boot/efi/EFI/flashmob/terminal.json", &unmarked);
        assert_eq!(early(), "", "{kind}: the image lets nothing grow");
        system.put("boot/efi/EFI/flashmob/terminal.json", &unmarked.replace("6-abc", "7-abc"));
        with_growth(&system, 3);
        assert_eq!(early(), expected);
        assert_eq!(early(), expected, "{kind}: once");
    }
}

/// A loop device that is given back at the end.
struct Detach(String);

impl Drop for Detach {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).output();
    }
}

#[test]
fn the_root_volume_gets_what_the_larger_disk_adds_and_free_room_of_the_group_stays_free() {
    let lvm = ["pvs", "vgs", "lvs", "pvresize", "lvextend"];
    let real = |tool: &str| PathBuf::from("/usr/sbin").join(tool);
    if !real("lvextend").exists() {
        eprintln!("SKIPPED: there is no LVM");
        return;
    }
    let system = System::new("http://127.0.0.1:9");
    let file = system.at("disk");
    fs::File::create(&file).and_then(|file| file.set_len(64 << 20)).unwrap();
    let attach = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().unwrap();
    let device = succeeds(&attach).trim().to_string();
    let _detached = Detach(device.clone());
    let group = format!("flashmob{}", std::process::id());
    // Only the metadata is changed: the kernel of this machine may have no device-mapper.
    let config = format!(
        "devices {{ use_devicesfile=0 filter=[\"a|^{device}$|\",\"r|.*|\"] \
         external_device_info_source=\"none\" }} activation {{ udev_sync=0 udev_rules=0 }}"
    );
    let run = |tool: &str, arguments: &[&str]| {
        let mut command = Command::new(real(tool));
        command.args(["--driverloaded", "n", "--config", &config]).args(arguments);
        succeeds(&command.env("DM_DISABLE_UDEV", "1").output().unwrap())
    };
    run("pvcreate", &[&device]);
    // Else udev may activate the volume, which then holds the device.
    run("vgcreate", &["--setautoactivation", "n", &group, &device]);
    run("lvcreate", &["-an", "-Zn", "-Wn", "-l", "5", "-n", "root", &group]);
    let extents = || run("lvs", &["--noheadings", "-o", "seg_size_pe", &group]).trim().to_string();
    assert_eq!(extents(), "5");
    fs::File::options().write(true).open(&file).and_then(|file| file.set_len(128 << 20)).unwrap();
    succeeds(&Command::new("losetup").arg("--set-capacity").arg(&device).output().unwrap());
    for tool in lvm {
        let does = format!(
            "[ ! -e \"$FLASHMOB_ROOT/fails-{tool}\" ] || exit 1\nfor word; do shift\ncase $word in\n\
             /dev/mapper/vg-root) word={group}/root ;;\n/dev/sda3) word={device} ;;\nesac\n\
             set -- \"$@\" \"$word\"\ndone\n\
             DM_DISABLE_UDEV=1 exec {} --driverloaded n --config '{config}' \"$@\"",
            real(tool).display()
        );
        system.tool(tool, &does);
    }
    system.tool("lsblk-disks", &LSBLK.replace("/dev/sdb2 part 1 \\n/dev/sdb disk 1 usb\\n", ""));
    system.tool("lsblk", WITH_TYPES);
    system.tool("findmnt-files", FINDMNT);
    system.tool("findmnt", WITH_MOUNTS);
    system.tool("resize2fs", "echo \"$@\" >>\"$FLASHMOB_ROOT/log\"");
    with_growth(&system, 3);
    let early = || {
        let mut command = system.command(&["dash"], "early");
        let command = command.env("OF_ROOT", "/dev/mapper/vg-root").env("KIND", "LVM2_member");
        command.env("MOUNTED", "ext4").output().unwrap()
    };
    // The power fails before each step.
    for tool in ["pvresize", "lvextend"] {
        system.put(&format!("fails-{tool}"), "");
        assert_eq!(early().status.code(), Some(1), "{tool}");
        fs::remove_file(system.at(&format!("fails-{tool}"))).unwrap();
    }
    succeeds(&early());
    let grown = extents();
    succeeds(&early());
    let free = run("vgs", &["--noheadings", "-o", "vg_free_count", &group]).trim().to_string();
    assert_eq!((grown.as_str(), free.as_str()), ("21", "10"), "16 extents are new, and 10 were free");
    assert_eq!(system.text("log"), "/dev/mapper/vg-root\n");
}
