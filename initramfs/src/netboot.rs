//! What starts the kernel over the network, from a stick, and what sends a UEFI terminal on to its own disk.
//!
//! Invariant: scripts are plain text made here; boot images are made by GRUB's own programs. What `/boot/ipxe`
//! answers is the server's.

use std::path::Path;

use anyhow::{Context, Result};

use crate::tools::{command, file_of_package, run};

/// Loaders of installed systems on an EFI system partition, in the order they are tried: the system's own before
/// the fallback, which an installer may have left pointing at nothing.
const DISK_LOADERS: &[&str] = &[
    "/EFI/Microsoft/Boot/bootmgfw.efi",
    "/EFI/debian/shimx64.efi",
    "/EFI/debian/grubx64.efi",
    "/EFI/ubuntu/shimx64.efi",
    "/EFI/fedora/shimx64.efi",
    "/EFI/BOOT/BOOTX64.EFI",
];

/// GRUB modules in `localboot.efi`.
const LOCALBOOT_MODULES: &[&str] = &[
    "memdisk",
    "tar",
    "part_gpt",
    "part_msdos",
    "fat",
    "search",
    "search_fs_file",
    "chain",
    "normal",
    "minicmd",
    "echo",
    "test",
    "boot",
    "sleep",
];

/// GRUB modules that the ISO needs; all of them would be 10 MB more.
const ISO_MODULES: &str =
    "part_gpt part_msdos fat iso9660 search search_fs_file linux normal echo test boot serial";

/// The static iPXE script: it asks the server that answered DHCP what this machine should start.
pub fn ipxe_script(server: Option<&str>) -> String {
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
         echo flashmob: starting this machine's own disk\n\
         iseq ${{platform}} efi || sanboot --no-describe --drive 0x80 ||\n\
         exit 1\n"
    )
}

/// The configuration inside `localboot.efi`.
pub fn localboot_config() -> String {
    let mut text = String::new();
    for loader in DISK_LOADERS {
        text += &format!(
            "if search --no-floppy --file --set=root {loader}; then\n  echo \"flashmob: starting {loader} of \
             this disk\"\n  chainloader {loader}\n  boot\nfi\n"
        );
    }
    text + "echo \"flashmob: no disk of this machine has a loader that could be started.\"\nsleep 60\nexit\n"
}

/// GRUB for UEFI that starts the disk's own loader.
pub fn write_localboot(out: &Path) -> Result<()> {
    file_of_package("/usr/lib/grub/x86_64-efi/moddep.lst", "grub-efi-amd64-bin")?;
    let work = tempfile::tempdir().context("making a temporary folder")?;
    // A configuration inside the image proper is read by GRUB's rescue parser, which knows no `if`; one that lies
    // on a memory disk is read by the normal one.
    let folder = work.path().join("boot/grub");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let config = folder.join("grub.cfg");
    std::fs::write(&config, localboot_config()).with_context(|| format!("writing {}", config.display()))?;
    let disk = work.path().join("memdisk.tar");
    let mut tar = command("tar")?;
    tar.args([
        "--format=ustar",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=644",
        "-cf",
    ]);
    run(
        tar.arg(&disk).arg("-C").arg(work.path()).arg("boot/grub/grub.cfg"),
        "packing localboot.efi's configuration",
    )?;
    let mut mkimage = command("grub-mkimage")?;
    mkimage.args(["-O", "x86_64-efi", "-p", "(memdisk)/boot/grub", "-m"]).arg(&disk);
    mkimage.arg("-o").arg(out).args(LOCALBOOT_MODULES);
    run(&mut mkimage, "making localboot.efi")?;
    Ok(())
}

/// Copies Debian's iPXE programs for the TFTP server; says which are not there.
pub fn copy_ipxe(out: &Path) -> Result<Vec<&'static str>> {
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
pub fn iso_config(cmdline: &str) -> String {
    let arguments = if cmdline.is_empty() { String::new() } else { format!(" {cmdline}") };
    format!(
        "serial --unit=0 --speed=115200\nterminal_output console serial\nset default=0\nset timeout=2\n\
         menuentry \"flashmob: image this machine\" {{\n  linux /boot/vmlinuz{arguments}\n  \
         initrd /boot/initramfs.img\n}}\n"
    )
}

/// A hybrid ISO (CD, USB stick; BIOS, UEFI) with the kernel and initramfs from `netboot`.
pub fn write_iso(netboot: &Path, iso: &Path, cmdline: &str) -> Result<()> {
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
    fn the_disks_own_loader_is_tried_before_the_fallback() {
        let config = localboot_config();
        let windows = config.find("bootmgfw.efi").unwrap();
        let debian = config.find("shimx64.efi").unwrap();
        let fallback = config.find("BOOTX64.EFI").unwrap();
        assert!(windows < fallback && debian < fallback);
    }

    #[test]
    fn the_iso_passes_the_kernel_arguments_on() {
        assert!(iso_config("console=ttyS0").contains("linux /boot/vmlinuz console=ttyS0\n"));
        assert!(iso_config("").contains("linux /boot/vmlinuz\n"));
    }
}
