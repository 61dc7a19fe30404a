//! Which drivers belong into an initramfs: the two sets, by folder and by name.
//!
//! Invariant: a set names only the wanted drivers; `modules` adds their dependencies.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::modules::ModuleTree;

/// How many machines the initramfs should start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DriverSet {
    /// Virtual machines: virtio, AHCI, NVMe, e1000; filesystems of Linux.
    Virtio,
    /// Real machines: Ethernet, USB Ethernet, AHCI, NVMe, SCSI, USB storage, eMMC, Hyper-V, VMware.
    All,
}

/// Modules of the small set. Each must be there or be compiled into the kernel.
const VIRTIO: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "ahci",
    "nvme",
    "sd_mod",
    "e1000",
    "e1000e",
    "efivarfs",
    "crc32c_generic",
    "crc32c_intel",
    "ext4",
    "xfs",
    "btrfs",
];

/// Folders (below `kernel/`) of the large set.
const ALL_FOLDERS: &[&str] = &[
    "drivers/ata/",
    "drivers/hv/",
    "drivers/message/fusion/",
    "drivers/mmc/",
    "drivers/net/ethernet/",
    "drivers/net/hyperv/",
    "drivers/net/mdio/",
    "drivers/net/pcs/",
    "drivers/net/phy/",
    "drivers/net/usb/",
    "drivers/net/vmxnet3/",
    "drivers/nvme/host/",
    "drivers/pci/controller/",
    "drivers/scsi/",
    "drivers/staging/qlge/",
    "drivers/thunderbolt/",
    "drivers/ufs/",
    "drivers/usb/host/",
    "drivers/usb/storage/",
    "drivers/virtio/",
];

/// Modules of the large set that lie elsewhere; one that this kernel does not have is left out.
const ALL_NAMES: &[&str] = &[
    "virtio_net",
    "virtio_blk",
    "efivarfs",
    "crc32c_generic",
    "crc32c_intel",
    // The agent changes a Linux system's own files (its host name, for example).
    "ext4",
    "xfs",
    "btrfs",
    "hid_generic",
    "hid_hyperv",
    "hyperv_keyboard",
    "hyperv_fb",
    "usbhid",
    "atkbd",
    "i8042",
    "simpledrm",
    "xen_netfront",
    "xen_blkfront",
    "mtip32xx",
    "thunderbolt_net",
];

/// Folders inside the above that no terminal of a lab boots from: Fibre Channel and iSCSI adapters, the chips
/// of Ethernet switches, tests.
const ALL_WITHOUT: &[&str] = &[
    "drivers/scsi/be2iscsi/",
    "drivers/scsi/bfa/",
    "drivers/scsi/bnx2fc/",
    "drivers/scsi/bnx2i/",
    "drivers/scsi/csiostor/",
    "drivers/scsi/cxgbi/",
    "drivers/scsi/elx/",
    "drivers/scsi/fcoe/",
    "drivers/scsi/fnic/",
    "drivers/scsi/libfc/",
    "drivers/scsi/lpfc/",
    "drivers/scsi/qedf/",
    "drivers/scsi/qedi/",
    "drivers/scsi/qla2xxx/",
    "drivers/scsi/qla4xxx/",
    "drivers/net/ethernet/mellanox/mlxsw/",
    "drivers/mmc/core/mmc_test",
];

/// The paths of the modules of `set`, with everything that they need.
pub(crate) fn select(tree: &ModuleTree, set: DriverSet) -> Result<BTreeSet<&str>> {
    let mut wanted = BTreeSet::new();
    let names = match set {
        DriverSet::Virtio => VIRTIO,
        DriverSet::All => ALL_NAMES,
    };
    for name in names {
        match tree.path_of(name) {
            Some(path) => {
                wanted.insert(path);
            }
            None if set == DriverSet::All || tree.is_builtin(name) => {}
            None => bail!("kernel {} has no module {name}, which --drivers virtio needs", tree.version),
        }
    }
    if set == DriverSet::All {
        let below = |path: &str, folders: &[&str]| {
            let path = path.strip_prefix("kernel/").unwrap_or(path);
            folders.iter().any(|folder| path.starts_with(folder))
        };
        wanted.extend(tree.paths().filter(|p| below(p, ALL_FOLDERS) && !below(p, ALL_WITHOUT)));
    }
    Ok(tree.closure(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(dep: &str, builtin: &str) -> (tempfile::TempDir, ModuleTree) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("1.0");
        std::fs::create_dir_all(root.join("kernel")).unwrap();
        std::fs::write(root.join("modules.dep"), dep).unwrap();
        std::fs::write(root.join("modules.builtin"), builtin).unwrap();
        let tree = ModuleTree::read(&root).unwrap();
        (dir, tree)
    }

    #[test]
    fn all_takes_folders_with_what_they_need_and_nothing_else() {
        let dep = "kernel/drivers/net/ethernet/intel/e1000e.ko: kernel/drivers/ptp/ptp.ko\n\
                   kernel/drivers/ptp/ptp.ko:\nkernel/drivers/scsi/lpfc/lpfc.ko:\nkernel/sound/snd.ko:\n\
                   kernel/drivers/block/virtio_blk.ko:\n";
        let (_dir, tree) = tree(dep, "");
        let chosen: Vec<_> = select(&tree, DriverSet::All).unwrap().into_iter().collect();
        let expected = [
            "kernel/drivers/block/virtio_blk.ko",
            "kernel/drivers/net/ethernet/intel/e1000e.ko",
            "kernel/drivers/ptp/ptp.ko",
        ];
        assert_eq!(chosen, expected);
    }

    #[test]
    fn a_driver_of_the_small_set_must_be_there_or_be_builtin() {
        let dep: String = VIRTIO.iter().skip(1).map(|name| format!("kernel/{name}.ko:\n")).collect();
        let (_dir, without) = tree(&dep, "");
        assert!(select(&without, DriverSet::Virtio).unwrap_err().to_string().contains("virtio_pci"));
        let (_dir, builtin) = tree(&dep, "kernel/drivers/virtio/virtio_pci.ko\n");
        assert_eq!(select(&builtin, DriverSet::Virtio).unwrap().len(), VIRTIO.len() - 1);
    }
}
