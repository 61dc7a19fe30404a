//! A device of a terminal that a driver serves: a network card or a disk controller.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A device on the PCI or the USB bus.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// `pci` or `usb`.
    pub bus: String,
    /// Its place on the bus: `0000:03:00.0`, `1-4:1.0`.
    pub address: String,
    /// Vendor and device: `8086:15f3`.
    pub id: String,
    /// Base class, subclass and interface: `020000`.
    pub class: String,
    /// The driver that serves it.
    pub driver: Option<String>,
    /// All that drivers are chosen by; `flashmob-initramfs check` reads it.
    pub modalias: String,
}

impl DeviceInfo {
    /// What it is, by its class.
    pub fn kind(&self) -> &'static str {
        let classes: &[(&str, &str)] = match self.bus.as_str() {
            "usb" => &[("08", "USB disk"), ("", "USB device")],
            _ => &[
                ("0104", "RAID controller"),
                ("0106", "SATA controller"),
                ("0108", "NVMe disk"),
                ("01", "disk controller"),
                ("02", "network card"),
                ("", "device"),
            ],
        };
        classes.iter().find(|(class, _)| self.class.starts_with(class)).map_or("device", |(_, kind)| kind)
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver =
            self.driver.as_deref().map_or_else(|| "no driver".into(), |name| format!("driver {name}"));
        write!(f, "{} {} at {} {}, {driver}", self.kind(), self.id, self.bus, self.address)
    }
}
