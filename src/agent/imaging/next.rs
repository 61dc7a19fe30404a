//! The system that starts next: boot entries in the firmware, or the image's kernel for kexec.
//!
//! Invariant: the image is good even if these steps fail, so a problem here is a warning and never a failure.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::api::After;
use crate::boot::entries;
use crate::boot::option::{LoadOption, PartitionId};
use crate::io::disk::claim::ClaimedDisk;
use crate::io::disk::efivars;
use crate::io::disk::kexec;
use crate::io::disk::list;
use crate::io::disk::target::ImageStorage;
use crate::layout::identity::Identity;
use crate::layout::plan::LayoutPlan;

/// The system that starts next, as far as the attempt could prepare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The firmware's choice (or none, if the job leaves the machine off).
    Firmware,
    /// A kernel is loaded: `reboot(LINUX_REBOOT_CMD_KEXEC)` starts it.
    Kexec,
}

/// Writes boot entries where the machine was booted by UEFI, and loads the image's kernel where the job asks
/// for it. The loader comes back that needs another way, because the firmware keeps no entry for it.
pub(super) async fn prepare(
    at_most: Duration,
    after: After,
    storage: &Arc<ImageStorage>,
    disk: &str,
    warnings: &mut Vec<String>,
) -> (Next, Option<String>) {
    let loader = entries::loader(storage.plan()).map(str::to_owned);
    let (storage, disk) = (Arc::clone(storage), disk.to_owned());
    let prepared = tokio::task::spawn_blocking(move || {
        let mut warnings = Vec::new();
        let entries = BootEntries::of(storage.plan(), storage.claim(), &disk).write();
        let is_written = entries.is_ok();
        warnings.extend(entries.err().map(|why| not_changed(&why)));
        let mut next = Next::Firmware;
        if after == After::Kexec {
            match kexec::load(&storage) {
                Ok(()) => next = Next::Kexec,
                Err(why) => warnings.push(format!("restarting by the firmware instead of kexec: {why}")),
            }
        }
        (next, is_written, warnings)
    });
    match tokio::time::timeout(at_most, prepared).await {
        Ok(Ok((next, is_written, said))) => {
            warnings.extend(said);
            (next, loader.filter(|_| !is_written))
        }
        Err(_) => {
            warnings.push(format!(
                "preparing the next start has not ended after {} s: does the firmware answer?",
                at_most.as_secs()
            ));
            (Next::Firmware, loader)
        }
        Ok(Err(e)) => {
            warnings.push(format!("preparing the next start ended unexpectedly: {e}"));
            (Next::Firmware, loader)
        }
    }
}

/// The identities of the machine's other disks.
fn others(own: &str) -> io::Result<Vec<Identity>> {
    let below = list::made_of(own);
    let others = list::all()?.into_iter().filter(|disk| disk.name != own && !below.contains(&disk.name));
    Ok(others.map(|disk| list::identity(&disk)).collect())
}

/// For people: the firmware has no entries of the new system.
pub(super) fn not_changed(why: &io::Error) -> String {
    format!(
        "the firmware's boot entries were not changed: {why}. The loader is copied to the path that needs no \
         entry, /EFI/BOOT, unless the job leaves the image as it is. If the firmware does not start the new \
         system, delete entries in its setup"
    )
}

/// The firmware's entries for a system, before they are written.
pub(super) struct BootEntries {
    wanted: Vec<LoadOption>,
    replaced: Vec<PartitionId>,
    /// The name of the system's disk.
    disk: String,
}

impl BootEntries {
    /// Those for the system of `plan` on the claimed disk, whose name is `disk`.
    pub(super) fn of(plan: &LayoutPlan, claim: &ClaimedDisk, disk: &str) -> Self {
        let before = claim.facts().table.as_ref().ok();
        let (wanted, replaced) = (entries::wanted(plan), entries::replaced(plan, before));
        BootEntries { wanted, replaced, disk: disk.to_owned() }
    }

    /// Writes them, away from the network's threads and for at most `at_most`.
    pub(super) async fn write_within(self, at_most: Duration) -> io::Result<()> {
        answered(at_most, || self.write()).await
    }

    /// Reads the tables of all disks and the firmware's variables, any of which may hang.
    fn write(self) -> io::Result<()> {
        let folder = Path::new(efivars::EFIVARS);
        if !efivars::is_there(folder) {
            return Ok(());
        }
        let replaced = match others(&self.disk) {
            Ok(others) => entries::only_here(self.replaced, &others),
            Err(e) => {
                // An old entry may be the one that starts a copy of this disk, so all of them stay.
                log::warn!("old boot entries stay, because the machine's disks could not be listed: {e}");
                Vec::new()
            }
        };
        let present = efivars::read(folder)?;
        efivars::write(folder, &entries::plan(&present, &self.wanted, &replaced))
    }
}

/// Calls the firmware on a thread that is left behind when it hangs.
async fn answered(
    at_most: Duration,
    call: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    match tokio::time::timeout(at_most, tokio::task::spawn_blocking(call)).await {
        Ok(Ok(written)) => written,
        Ok(Err(e)) => Err(io::Error::other(format!("writing them ended unexpectedly: {e}"))),
        Err(_) => {
            let why = format!("the firmware did not answer within {} s", at_most.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_firmware_that_hangs_is_an_error_in_time_and_holds_up_no_other_task() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        // The test has one thread, so a call on it would keep the time from passing.
        let call = move || {
            let _ = hangs.recv();
            Ok(())
        };
        let failed = answered(Duration::from_millis(50), call).await.expect_err("it hangs");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(release);
    }
}
