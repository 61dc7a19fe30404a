//! The worker's decision how to end, sent to PID 1 as its exit status.
//!
//! Invariant: the status of a crash (101 after a panic, no status after a signal) is never a decision.

use std::process::ExitCode;

use crate::agent::imaging::Next;
use crate::api::After;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Restart by the firmware.
    Restart,
    Off,
    /// Start the kernel that is loaded.
    Kexec,
    /// A shell on the console.
    Shell,
    /// Restart by the firmware, with the boot entry that follows the one that started this system.
    ToDisk,
}

const FIRST: u8 = 40;
const ALL: [Leave; 5] = [Leave::Restart, Leave::Off, Leave::Kexec, Leave::Shell, Leave::ToDisk];

impl Leave {
    /// The decision that `after` means once the image is on the disk.
    pub fn after(after: After, next: &Next) -> Self {
        match (after, next) {
            (After::Kexec, Next::Kexec) => Leave::Kexec,
            // Where kexec was refused, the firmware starts the disk.
            (After::Reboot | After::Kexec, _) => Leave::Restart,
            (After::Poweroff, _) => Leave::Off,
            (After::Shell, _) => Leave::Shell,
        }
    }

    /// As an exit status.
    pub fn status(self) -> u8 {
        let index = ALL.iter().position(|leave| *leave == self).unwrap_or_default();
        FIRST + u8::try_from(index).unwrap_or_default()
    }

    /// From an exit status.
    pub(crate) fn from_status(status: i32) -> Option<Self> {
        ALL.into_iter().find(|leave| i32::from(leave.status()) == status)
    }
}

impl From<Leave> for ExitCode {
    fn from(leave: Leave) -> Self {
        ExitCode::from(leave.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_come_through_and_crashes_are_none() {
        for leave in ALL {
            assert_eq!(Leave::from_status(i32::from(leave.status())), Some(leave));
        }
        for status in [0, 1, 101, 139, 255] {
            assert_eq!(Leave::from_status(status), None);
        }
    }

    #[test]
    fn a_restart_follows_where_kexec_was_refused() {
        assert_eq!(Leave::after(After::Kexec, &Next::Kexec), Leave::Kexec);
        assert_eq!(Leave::after(After::Kexec, &Next::Firmware), Leave::Restart);
        assert_eq!(Leave::after(After::Poweroff, &Next::Kexec), Leave::Off);
    }
}
