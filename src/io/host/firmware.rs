//! The firmware's choices that matter for imaging: UEFI and Secure Boot.
//!
//! Invariant: only facts, and an unreadable one is absent, never guessed.

use std::fs;
use std::path::Path;

/// `SecureBoot` of `EFI_GLOBAL_VARIABLE` (UEFI 2.10 §3.3): four bytes of attributes, then one byte.
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Firmware {
    pub(crate) uefi: bool,
    /// `None` on BIOS, and where the variables are not shown.
    pub(crate) secure_boot: Option<bool>,
}

/// Reads the facts below `root`.
pub(crate) fn read(root: &Path) -> Firmware {
    let variable = fs::read(root.join(SECURE_BOOT)).ok();
    let secure_boot = variable.and_then(|data| data.get(4).map(|byte| *byte == 1));
    let uefi = root.join("sys/firmware/efi").exists();
    Firmware { uefi, secure_boot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secure_boot_is_seen() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |path: &str, content: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, content).expect("written");
        };
        assert_eq!(read(root.path()), Firmware::default());
        put(SECURE_BOOT, &[6, 0, 0, 0, 1]);
        assert_eq!(read(root.path()), Firmware { uefi: true, secure_boot: Some(true) });
        put(SECURE_BOOT, &[6, 0, 0, 0, 0]);
        assert_eq!(read(root.path()).secure_boot, Some(false));
    }
}
