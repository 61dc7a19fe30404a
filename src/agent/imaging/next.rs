//! The system that starts next: boot entries in the firmware, or the image's kernel for kexec.
//!
//! Invariant: the image is good even if these steps fail, so a problem here is a warning and never a failure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::api::After;
use crate::boot::entries;
use crate::io::disk::efivars;
use crate::io::disk::kexec;
use crate::io::disk::target::ImageStorage;

/// The system that starts next, as far as the attempt could prepare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The firmware's choice (or none, if the job leaves the machine off).
    Firmware,
    /// A kernel is loaded: `reboot(LINUX_REBOOT_CMD_KEXEC)` starts it.
    Kexec,
}

/// Writes boot entries where the machine was booted by UEFI, and loads the image's kernel where the job asks
/// for it.
pub(super) async fn prepare(
    at_most: Duration,
    after: After,
    storage: &Arc<ImageStorage>,
    warnings: &mut Vec<String>,
) -> Next {
    let storage = Arc::clone(storage);
    let prepared = tokio::task::spawn_blocking(move || {
        let mut warnings = Vec::new();
        if let Err(why) = boot_entries(&storage, Path::new(efivars::EFIVARS)) {
            warnings.push(format!(
                "the firmware's boot entries were not changed: {why}. If it does not start the new system, \
                 delete entries in its setup, or put the loader at /EFI/BOOT/BOOTX64.EFI in the image"
            ));
        }
        let mut next = Next::Firmware;
        if after == After::Kexec {
            match kexec::load(&storage) {
                Ok(()) => next = Next::Kexec,
                Err(why) => warnings.push(format!("restarting by the firmware instead of kexec: {why}")),
            }
        }
        (next, warnings)
    });
    match tokio::time::timeout(at_most, prepared).await {
        Ok(Ok((next, said))) => {
            warnings.extend(said);
            next
        }
        Err(_) => {
            warnings.push(format!(
                "preparing the next start has not ended after {} s: does the firmware answer?",
                at_most.as_secs()
            ));
            Next::Firmware
        }
        Ok(Err(e)) => {
            warnings.push(format!("preparing the next start ended unexpectedly: {e}"));
            Next::Firmware
        }
    }
}

fn boot_entries(storage: &ImageStorage, folder: &Path) -> std::io::Result<()> {
    let wanted = entries::wanted(storage.plan());
    if !efivars::is_there(folder) {
        return Ok(());
    }
    let before = storage.claim().facts().table.as_ref().ok();
    let replaced = entries::replaced(storage.plan(), before);
    let present = efivars::read(folder)?;
    efivars::write(folder, &entries::plan(&present, &wanted, &replaced))
}
