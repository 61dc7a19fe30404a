//! A terminal's hardware, as it says hello with it.

use serde::{Deserialize, Serialize};

use super::device::DeviceInfo;
use crate::event::DiskIdentity;

/// A terminal's hardware.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// SMBIOS manufacturer and product.
    pub machine: String,
    pub serial: Option<String>,
    /// Processor model and number of cores.
    pub cpu: String,
    pub memory: u64,
    /// `bios` or `uefi`.
    pub firmware: String,
    pub disks: Vec<DiskInfo>,
    pub nics: Vec<NicInfo>,
    /// Network cards and disk controllers, whether a driver serves them or not; empty from older agents.
    #[serde(default)]
    pub devices: Vec<DeviceInfo>,
}

/// A disk as `/sys/block` shows it. Disk rules match against it.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Kernel name: `sda`, `nvme0n1`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector_size: u32,
    /// Model as the disk says.
    pub model: Option<String>,
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// `virtio`, `ata`, `nvme`, `scsi`, `usb`, `mmc`, `loop`.
    pub bus: String,
    /// Path in the device tree, stable across boots.
    pub path: String,
    pub rotational: bool,
    /// Can be pulled out.
    pub removable: bool,
    /// Writes are refused by the device.
    pub read_only: bool,
}

impl DiskInfo {
    /// The fields that tell it from other disks.
    pub fn identity(&self) -> DiskIdentity {
        DiskIdentity {
            serial: self.serial.clone(),
            wwn: self.wwn.clone(),
            path: self.path.clone(),
            size: self.size,
        }
    }
}

#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NicInfo {
    pub name: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    pub driver: Option<String>,
    /// Made by software (a tap, a bridge, a VLAN, a tunnel's end): other machines may have one with the same
    /// MAC.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub software: bool,
    pub link: bool,
    /// Mbit/s, if known.
    pub speed: Option<u32>,
    /// Address with prefix length, if it has one.
    pub address: Option<String>,
    /// The switch at the other end, once it was heard (LLDP: every 30 s).
    #[serde(default)]
    pub neighbour: Option<Neighbour>,
}

/// A switch as it names itself on the port where a cable ends (IEEE 802.1AB).
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Neighbour {
    /// The switch: most often its MAC address.
    pub chassis: String,
    pub port: String,
    /// Its name, if its administrator gave it one.
    pub name: Option<String>,
}
