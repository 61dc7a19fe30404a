//! Which of the kernel's messages belong into an attempt's log: those about disks and network cards, and all
//! errors.
//!
//! Invariant: pure. The kernel's command line is never among them, because it holds a ticket.

use std::time::Duration;

/// Highest level (syslog(2)) of a message that belongs into the log regardless of its subject: errors.
const ALWAYS: u8 = 3;
/// Subsystems (`SUBSYSTEM=` in a record) of disks and network cards, and of the buses behind them.
const SUBSYSTEMS: [&str; 10] =
    ["ata_port", "ata_device", "block", "mmc", "mmc_host", "net", "nvme", "nvme-subsystem", "scsi", "virtio"];
/// Beginnings of words in messages that name no device. A digit or a colon follows a device's name.
const DEVICES: [&str; 14] =
    ["sd", "vd", "xvd", "nvme", "ata", "mmcblk", "mmc", "md", "dm-", "eth", "en", "scsi", "hd", "sr"];
/// Parts of messages about disks and network cards.
const PARTS: [&str; 24] = [
    "I/O error",
    "Buffer I/O",
    "critical medium",
    "blk_update_request",
    "NETDEV WATCHDOG",
    "link is",
    "link becomes ready",
    "Link is",
    "Link up",
    "Link down",
    "ahci",
    "nvme",
    "megaraid",
    "mpt3sas",
    "vmd",
    "usb-storage",
    "uas",
    "virtio_blk",
    "virtio_net",
    "e1000",
    "igb",
    "igc",
    "r8169",
    "Attached SCSI",
];

/// A record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Since the machine's start.
    pub(crate) time: Duration,
    level: u8,
    pub(crate) text: &'a str,
    subsystem: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// Reads `LEVEL,SEQUENCE,MICROSECONDS,FLAGS;TEXT` and the lines ` KEY=VALUE` after it.
    pub(crate) fn read(record: &'a str) -> Option<Self> {
        let (head, rest) = record.split_once(';')?;
        let mut fields = head.split(',');
        // The lowest three bits are the level, the others the facility.
        let level = u8::try_from(fields.next()?.parse::<u32>().ok()? & 7).ok()?;
        let micros = fields.nth(1)?.parse().ok()?;
        let mut lines = rest.lines();
        let text = lines.next()?;
        let subsystem = lines.find_map(|line| line.strip_prefix(" SUBSYSTEM="));
        Some(Record { time: Duration::from_micros(micros), level, text, subsystem })
    }

    /// Does it belong into the log of an attempt?
    pub(crate) fn concerns_disks_or_network(&self) -> bool {
        // "Command line: …" and "Unknown kernel command line parameters …" repeat a ticket.
        if self.text.to_ascii_lowercase().contains("command line") || self.text.contains("flashmob.") {
            return false;
        }
        self.level <= ALWAYS
            || self.subsystem.is_some_and(|subsystem| SUBSYSTEMS.contains(&subsystem))
            || PARTS.iter().any(|part| self.text.contains(part))
            || self.text.split([' ', '[', '(']).any(is_device)
    }
}

/// Is it the name of a disk or network card, such as `sda:`, `nvme0n1` or `eth0`?
fn is_device(word: &str) -> bool {
    let word = word.trim_end_matches([':', ',', ')', ']', '.']);
    DEVICES.iter().any(|start| {
        word.strip_prefix(start).is_some_and(|rest| match *start {
            "sd" | "vd" | "xvd" | "hd" => {
                let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
                (1..=2).contains(&letters.len()) && letters.bytes().all(|c| c.is_ascii_lowercase())
            }
            // Names of cards by their place: eno1, enp3s0, ens5, enx525400123456.
            "en" => {
                rest.starts_with(['o', 'p', 's', 'x'])
                    && rest[1..].starts_with(|c: char| c.is_ascii_hexdigit())
            }
            _ => rest.starts_with(|c: char| c.is_ascii_digit()),
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn belongs(record: &str) -> bool {
        Record::read(record).expect(record).concerns_disks_or_network()
    }

    #[test]
    fn a_record_is_read_with_its_time_its_level_and_its_subsystem() {
        let record = "6,1234,5140900,-;sd 0:0:0:0: [sda] Attached\n SUBSYSTEM=scsi\n DEVICE=+scsi:0:0:0:0\n";
        let read = Record::read(record).expect("a record");
        assert_eq!(
            (read.level, read.time, read.subsystem),
            (6, Duration::from_micros(5_140_900), Some("scsi"))
        );
        assert_eq!(read.text, "sd 0:0:0:0: [sda] Attached");
        assert_eq!(Record::read("30,1,2,-;from a daemon").expect("a record").level, 6);
        for bad in ["", "6,1", "x,1,2,-;text", "6,1,x,-;text", "6,1,2,-;"] {
            assert_eq!(Record::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn messages_about_disks_and_cards_belong_into_the_log() {
        for text in [
            "blk_update_request: I/O error, dev sda, sector 123",
            "sda: sda1 sda2",
            " nvme0n1: p1 p2 p3",
            "nvme nvme0: I/O 12 QID 3 timeout, aborting",
            "ata1.00: failed command: READ FPDMA QUEUED",
            "e1000e 0000:00:1f.6 eno1: NIC Link is Down",
            "r8169 0000:02:00.0 eth0: Link is Up - 1Gbps/Full",
            "virtio_blk virtio1: [vda] 20971520 512-byte logical blocks",
            "vmd 0000:00:0e.0: PCI host bridge to bus 10000:00",
        ] {
            assert!(belongs(&format!("6,1,2,-;{text}")), "{text}");
        }
        assert!(belongs("6,1,2,-;something\n SUBSYSTEM=net\n"));
        assert!(belongs("3,1,2,-;Out of memory: Killed process 99"), "an error");
    }

    #[test]
    fn other_messages_and_the_command_line_do_not() {
        for text in [
            "Freeing unused kernel image memory: 2048K",
            "systemd[1]: Started",
            "input: Power Button",
            "usb 1-1: new high-speed USB device",
            "the end of sdram",
        ] {
            assert!(!belongs(&format!("6,1,2,-;{text}")), "{text}");
        }
        for text in [
            "Command line: root=/dev/nvme0n1p2 flashmob.ticket=0f0f",
            "Kernel command line: flashmob.disk=nvme0n1 flashmob.ticket=0f0f",
            "Unknown kernel command line parameters \"flashmob.ticket=0f\", will be passed to user space.",
        ] {
            assert!(!belongs(&format!("3,1,2,-;{text}")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_record_panics(record in "\\PC{0,60}", head in "([0-9,]{0,12};)?") {
            if let Some(read) = Record::read(&format!("{head}{record}")) {
                let _ = read.concerns_disks_or_network();
            }
        }
    }
}
