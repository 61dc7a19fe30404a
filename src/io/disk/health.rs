//! A disk's own statement on its health: NVMe's log page, or SMART of ATA.
//!
//! Invariant: read only, and never a reason to fail: a disk, bridge or kernel that does not answer is
//! [`Health::Unknown`].

use std::fs::File;

use crate::io::sys;

/// Bytes of the SMART / Health Information log page (NVM Express base specification 2.0, §5.16.1.3).
const LOG: usize = 512;
/// SENSE data in the format with descriptors (SPC-5 §4.4.2), and the descriptor of an ATA status (SAT-4
/// §12.2.2.7).
const DESCRIPTORS: u8 = 0x72;
const ATA_STATUS: u8 = 0x09;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It does not say.
    Unknown,
    /// SMART RETURN STATUS.
    Ata {
        failing: bool,
    },
    Nvme(NvmeHealth),
}

/// The fields of an NVMe disk's health log that tell whether it fails soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NvmeHealth {
    /// A bit for each thing that is critical; 0 if nothing is.
    pub(crate) critical: u8,
    /// Spare blocks that are left, percent.
    pub(crate) spare: u8,
    /// Below this it counts as worn out, percent.
    pub(crate) threshold: u8,
    /// Share of its expected writes that are done, percent; may be more than 100.
    pub(crate) used: u8,
}

/// Asks the disk that is open as `device`. `bus` is the one of its `DiskInfo`.
pub(crate) fn read(device: &File, bus: &str) -> Health {
    match bus {
        "nvme" => {
            let mut log = [0; LOG];
            sys::nvme_health_log(device, &mut log).map_or(Health::Unknown, |()| Health::Nvme(nvme(&log)))
        }
        "ata" | "scsi" | "usb" => sys::ata_smart_status(device)
            .ok()
            .and_then(|sense| ata(&sense))
            .map_or(Health::Unknown, |failing| Health::Ata { failing }),
        _ => Health::Unknown,
    }
}

fn nvme(log: &[u8; LOG]) -> NvmeHealth {
    NvmeHealth { critical: log[0], spare: log[3], threshold: log[4], used: log[5] }
}

/// Whether the disk says that it fails, from the registers after SMART RETURN STATUS (ACS-4 §7.47.8).
fn ata(sense: &[u8; sys::SENSE]) -> Option<bool> {
    if sense[0] & 0x7f != DESCRIPTORS || sense[8] != ATA_STATUS {
        return None;
    }
    match (sense[17], sense[19]) {
        (0x4f, 0xc2) => Some(false),
        (0xf4, 0x2c) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_health_log_are_where_the_specification_has_them() {
        let mut log = [0; LOG];
        log[..6].copy_from_slice(&[0b101, 0x2c, 0x01, 9, 10, 97]);
        assert_eq!(nvme(&log), NvmeHealth { critical: 5, spare: 9, threshold: 10, used: 97 });
    }

    #[test]
    fn an_ata_disk_says_by_its_registers_whether_it_fails() {
        let sense = |format: u8, middle: u8, high: u8| {
            let mut sense = [0; sys::SENSE];
            (sense[0], sense[8], sense[9], sense[17], sense[19]) = (format, 0x09, 0x0c, middle, high);
            sense
        };
        assert_eq!(ata(&sense(0x72, 0x4f, 0xc2)), Some(false));
        assert_eq!(ata(&sense(0x72, 0xf4, 0x2c)), Some(true));
        assert_eq!(ata(&sense(0x72, 0, 0)), None, "a bridge that answers for the disk");
        assert_eq!(ata(&sense(0x70, 0x4f, 0xc2)), None, "another format");
    }

    #[test]
    fn a_device_that_does_not_know_the_commands_is_no_failure() {
        let file = tempfile::tempfile().expect("a file");
        for bus in ["nvme", "ata", "virtio"] {
            assert_eq!(read(&file, bus), Health::Unknown);
        }
    }
}
