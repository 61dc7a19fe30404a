//! Scripts and boot images that start the kernel over the network or from a stick.
//!
//! Invariant: scripts are plain text made here; boot images are made by GRUB's own programs. The server
//! answers `/boot/ipxe`; `localboot` starts the disk.

use std::path::Path;

use anyhow::{Context, Result};

use crate::tools::{command, file_of_package, run};

/// GRUB modules that the ISO needs; the complete set would add 10 MB.
const ISO_MODULES: &str =
    "part_gpt part_msdos fat iso9660 search search_fs_file linux normal echo test boot serial";

/// The static iPXE script, which asks the server that answered DHCP for this machine's boot script.
pub(crate) fn ipxe_script(server: Option<&str>) -> String {
    let server = server.map_or("http://${next-server}:6969", |url| url.trim_end_matches('/'));
    format!(
        "#!ipxe\n\
         # Asks flashmob's server what this terminal should start: the agent or its own disk.\n\
         isset ${{ip}} || dhcp ||\n\
         set tries:int32 0\n\
         :ask\n\
         chain --replace {server}/boot/ipxe?mac=${{mac}}&uuid=${{uuid}}&platform=${{platform}} ||\n\
         inc tries\n\
         echo flashmob: {server} did not answer (try ${{tries}} of 5)\n\
         iseq ${{tries}} 5 && goto disk ||\n\
         sleep 4\n\
         goto ask\n\
         :disk\n\
         echo flashmob: the firmware goes on with its next boot entry\n\
         exit 1\n"
    )
}

/// Copies Debian's iPXE programs for the TFTP server; says which are not there.
pub(crate) fn copy_ipxe(out: &Path) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for name in ["undionly.kpxe", "snponly.efi"] {
        let source = Path::new("/usr/lib/ipxe").join(name);
        if !source.is_file() {
            missing.push(name);
            continue;
        }
        let target = out.join(name);
        std::fs::copy(&source, &target)
            .with_context(|| format!("copying {} to {}", source.display(), target.display()))?;
    }
    Ok(missing)
}

/// GRUB's menu on the ISO.
pub(crate) fn iso_config(cmdline: &str) -> String {
    let arguments = if cmdline.is_empty() { String::new() } else { format!(" {cmdline}") };
    format!(
        "serial --unit=0 --speed=115200\nterminal_output console serial\nset default=0\nset timeout=2\n\
         menuentry \"flashmob: image this machine\" {{\n  linux /boot/vmlinuz{arguments}\n  \
         initrd /boot/initramfs.img\n}}\n"
    )
}

/// A hybrid ISO (CD, USB stick; BIOS, UEFI) with the kernel and initramfs from `netboot`.
pub(crate) fn write_iso(netboot: &Path, iso: &Path, cmdline: &str) -> Result<()> {
    file_of_package("/usr/lib/grub/x86_64-efi/moddep.lst", "grub-efi-amd64-bin")?;
    file_of_package("/usr/lib/grub/i386-pc/moddep.lst", "grub-pc-bin")?;
    for needed in ["xorriso", "mformat"] {
        command(needed)?;
    }
    let work = tempfile::tempdir().context("making a temporary folder")?;
    let boot = work.path().join("boot");
    let grub = boot.join("grub");
    std::fs::create_dir_all(&grub).with_context(|| format!("making {}", grub.display()))?;
    for name in ["vmlinuz", "initramfs.img"] {
        std::fs::copy(netboot.join(name), boot.join(name)).with_context(|| format!("copying {name}"))?;
    }
    std::fs::write(grub.join("grub.cfg"), iso_config(cmdline)).context("writing grub.cfg")?;
    let mut rescue = command("grub-mkrescue")?;
    rescue.arg("-o").arg(iso).arg(work.path());
    rescue.args(["--locales=", "--themes=", "--fonts=", "--compress=gz"]);
    rescue.arg(format!("--install-modules={ISO_MODULES}"));
    rescue.args(["--", "-volid", "FLASHMOB"]);
    run(&mut rescue, &format!("making {}", iso.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipxe_script_asks_the_server_that_dhcp_named_or_the_one_given() {
        let script = ipxe_script(None);
        assert!(script.starts_with("#!ipxe\n"));
        assert!(
            script.contains(
                "http://${next-server}:6969/boot/ipxe?mac=${mac}&uuid=${uuid}&platform=${platform}"
            )
        );
        assert!(ipxe_script(Some("http://lab:7000/")).contains("chain --replace http://lab:7000/boot/ipxe?"));
    }

    #[test]
    fn the_iso_passes_the_kernel_arguments_on() {
        assert!(iso_config("console=ttyS0").contains("linux /boot/vmlinuz console=ttyS0\n"));
        assert!(iso_config("").contains("linux /boot/vmlinuz\n"));
    }
}
