//! Secure Boot by a distribution's own chain: shim, signed GRUB and signed kernel, unmodified, beside our
//! initramfs.
//!
//! Invariant: no signed file is changed. The kernel carries a signature, or the build fails, because a
//! terminal would refuse it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::pe;
use crate::tools::file_of_package;

/// GRUB's configuration at the TFTP server.
const CONFIG: &str = include_str!("signed.grub");
/// The line of it that the server's address is written into.
const SERVER_LINE: &str = "set flashmob=\"\"\n";

/// Whose signed programs are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Debian's shim-signed and grub-efi-amd64-signed, with the kernel of this build.
    Debian,
}

/// A file of the chain: its name at the TFTP server, where it lies, and its Debian package.
struct Signed {
    name: &'static str,
    source: &'static str,
    package: &'static str,
}

const SHIM: Signed =
    Signed { name: "shimx64.efi", source: "/usr/lib/shim/shimx64.efi.signed", package: "shim-signed" };
/// shim asks for this name, whatever the folder that it came from.
const GRUB: Signed = Signed {
    name: "grubx64.efi",
    source: "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    package: "grub-efi-amd64-signed",
};
/// GRUB for CD and stick: it looks for its configuration on the medium.
const GRUB_OF_CD: Signed = Signed { source: "/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed", ..GRUB };
/// shim starts it when an administrator enrolls a key.
const MOK_MANAGER: Signed = Signed {
    name: "mmx64.efi",
    source: "/usr/lib/shim/mmx64.efi.signed",
    package: "shim-helpers-amd64-signed",
};

impl Signed {
    fn find(&self) -> Result<PathBuf> {
        file_of_package(self.source, self.package)
    }

    fn read(&self) -> Result<Vec<u8>> {
        let path = self.find()?;
        let content = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if !pe::is_signed(&content) {
            bail!("{} is not a signed UEFI program", path.display());
        }
        Ok(content)
    }
}

/// Refuses a kernel that Secure Boot would refuse.
pub(crate) fn check_kernel(path: &Path, kernel: &[u8]) -> Result<()> {
    if pe::is_signed(kernel) {
        return Ok(());
    }
    bail!(
        "the kernel {} is not signed, so a terminal with Secure Boot refuses it: leave out --kernel and take \
         Debian's own, or sign it (--uki)",
        path.display()
    )
}

/// The files for the TFTP server, by name.
pub(crate) fn netboot_files(server: Option<&str>) -> Result<Vec<(&'static str, Vec<u8>)>> {
    Ok(vec![
        (SHIM.name, SHIM.read()?),
        (GRUB.name, GRUB.read()?),
        (MOK_MANAGER.name, MOK_MANAGER.read()?),
        ("grub/grub.cfg", config(server).into_bytes()),
    ])
}

/// GRUB asks `server`, or else the TFTP server's port 6969.
fn config(server: Option<&str>) -> String {
    let host = server.map(|url| url.trim_start_matches("http://").trim_end_matches('/')).unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let host: String = host.chars().filter(|c| fits(*c)).collect();
    CONFIG.replace(SERVER_LINE, &format!("set flashmob=\"{host}\"\n"))
}

/// What the firmware starts from CD and stick, with the names in `EFI/BOOT`.
pub(crate) fn files_of_cd() -> Result<[(PathBuf, &'static str); 3]> {
    Ok([
        (SHIM.find()?, "BOOTX64.EFI"),
        (GRUB_OF_CD.find()?, GRUB.name),
        (MOK_MANAGER.find()?, MOK_MANAGER.name),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_asks_the_server_that_is_named_or_the_one_it_came_from() {
        assert_eq!(CONFIG.matches(SERVER_LINE).count(), 1);
        assert!(config(Some("http://10.0.0.1:7000/")).contains("\nset flashmob=\"10.0.0.1:7000\"\n"));
        assert!(config(None).contains("set flashmob=\"$net_default_server:6969\""));
        assert!(!config(Some("http://a\";reboot")).contains("reboot\";"));
    }

    #[test]
    fn grubs_configuration_is_a_script_that_knows_the_functions_of_the_servers_answers() {
        for function in ["flashmob_imaged", "flashmob_disk"] {
            assert!(CONFIG.contains(&format!("\nfunction {function} {{\n")));
        }
        // A configuration that ends leaves GRUB at a prompt.
        assert!(CONFIG.ends_with("\nexit\n"));
        let script = Path::new("/usr/bin/grub-script-check");
        if script.is_file() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("grub.cfg");
            std::fs::write(&file, config(Some("http://10.0.0.1:6969"))).unwrap();
            assert!(std::process::Command::new(script).arg(&file).status().unwrap().success());
        }
    }

    #[test]
    fn a_kernel_without_a_signature_is_refused_with_what_to_do() {
        let error = check_kernel(Path::new("/boot/vmlinuz"), b"MZ").unwrap_err().to_string();
        assert!(error.contains("/boot/vmlinuz is not signed") && error.contains("--kernel"), "{error}");
    }
}
