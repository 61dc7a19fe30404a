//! The netboot files: the same bytes each time, and small enough for a hundred terminals to fetch.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use flashmob_testkit::command::try_command;

use crate::ASSETS;

/// Builds with `drivers` into a new folder and returns the files.
fn build(drivers: &str) -> Vec<(String, Vec<u8>)> {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(&ASSETS.programs.initramfs);
    command.arg("build").arg("--agent").arg(&ASSETS.programs.agent).arg("--out").arg(out.path());
    command.arg("--cache").arg(ASSETS.folder.join("kernel")).args(["--drivers", drivers]);
    try_command(command.arg("--keys").arg(ASSETS.folder.join("keys/lab.pub"))).unwrap();
    let mut files: Vec<_> = fs::read_dir(out.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (name(&path), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn netboot_files_are_the_same_bytes_each_time() {
    let first = build("virtio");
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "boot.ipxe",
        "initramfs.img",
        "localboot.0",
        "localboot.efi",
        "snponly.efi",
        "undionly.kpxe",
        "vmlinuz",
    ];
    assert_eq!(names, expected);
    for (one, other) in first.iter().zip(build("virtio")) {
        assert!(*one == other, "{} differs between two builds", one.0);
    }
}

#[test]
fn netboot_files_with_all_drivers_stay_within_64_mib() {
    let files = build("all");
    let size: usize = files.iter().map(|(_, content)| content.len()).sum();
    assert!(size <= 64 << 20, "{size} bytes");
    let agent = fs::metadata(&ASSETS.programs.agent).unwrap().len();
    assert!(agent <= 8 << 20, "the agent has {agent} bytes");
}

/// Functions by which a driver makes a wired network card or a disk. A driver that calls one has its name in
/// its table of symbols.
const MAKE_CARDS_AND_DISKS: [&str; 14] = [
    "alloc_etherdev_mqs",
    "devm_alloc_etherdev_mqs",
    "usbnet_probe",
    "scsi_host_alloc",
    "ata_host_alloc",
    "ata_host_alloc_pinfo",
    "ata_pci_sff_init_one",
    "ata_pci_bmdma_init_one",
    "__blk_mq_alloc_disk",
    "__blk_alloc_disk",
    "mmc_alloc_host",
    "sdhci_alloc_host",
    "ufshcd_alloc_host",
    "nvme_init_ctrl",
];

/// Drivers that do so and that no terminal needs: wireless ones, cable modems, card readers, scanners,
/// adapters for Fibre Channel and iSCSI, switches, disks made by software, persistent memory.
const NOT_NEEDED: [&str; 24] = [
    "drivers/net/wireless/",
    "drivers/net/sb1000",
    "drivers/staging/r",
    "drivers/usb/image/",
    "drivers/firewire/",
    "drivers/md/",
    "drivers/nvdimm/",
    "drivers/block/loop",
    "drivers/block/brd",
    "drivers/block/floppy",
    "drivers/block/drbd/",
    "drivers/net/ethernet/mellanox/mlxsw/",
    "drivers/scsi/be2iscsi/",
    "drivers/scsi/bfa/",
    "drivers/scsi/bnx2fc/",
    "drivers/scsi/bnx2i/",
    "drivers/scsi/csiostor/",
    "drivers/scsi/elx/",
    "drivers/scsi/fnic/",
    "drivers/scsi/lpfc/",
    "drivers/scsi/qedf/",
    "drivers/scsi/qedi/",
    "drivers/scsi/qla2xxx/",
    "drivers/scsi/qla4xxx/",
];

#[test]
fn all_drivers_of_debian_for_wired_cards_and_disks_are_inside() {
    let files = build("all");
    let (_, image) = files.iter().find(|(name, _)| name == "initramfs.img").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), image).unwrap();
    let list = "zstd -qdc \"$1\" | cpio --quiet -t";
    let image = folder.path().join("image");
    let listed = try_command(Command::new("sh").args(["-c", list, "sh"]).arg(&image)).unwrap();
    let inside: BTreeSet<&str> = listed.lines().filter_map(|path| path.rsplit('/').next()).collect();

    let kernel = ASSETS.kernel().unwrap();
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "--include=*.ko"]).args(MAKE_CARDS_AND_DISKS.map(|name| format!("-e{name}")));
    let all = try_command(grep.arg(&kernel)).unwrap();
    // Those that the kernel loads for a device.
    let lists = try_command(Command::new("find").arg(&kernel).args(["-name", "modules.alias"])).unwrap();
    let aliases = fs::read_to_string(lists.lines().next().unwrap()).unwrap();
    let loaded: BTreeSet<String> =
        aliases.lines().filter_map(|line| Some(line.split(' ').nth(2)?.replace('-', "_"))).collect();
    let missing: Vec<&str> = all
        .lines()
        .map(|path| path.rsplit_once("/kernel/").unwrap().1)
        .filter(|path| !NOT_NEEDED.iter().any(|folder| path.starts_with(folder)))
        .filter(|path| {
            let file = path.rsplit('/').next().unwrap();
            let name = file.trim_end_matches(".ko").replace('-', "_");
            loaded.contains(&name) && !inside.contains(file)
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
