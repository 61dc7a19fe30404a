//! A hybrid ISO that starts the agent from CD and USB stick, by BIOS and UEFI.
//!
//! Invariant: boot images are made by GRUB's own programs. Where Secure Boot must accept the ISO, UEFI starts
//! a distribution's signed ones, unmodified, or the program that the organisation signed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::secureboot;
use crate::tools::{command, file_of_package, run};
use crate::uki;

/// GRUB modules that the ISO needs; the complete set would add 10 MB.
const MODULES: &str =
    "part_gpt part_msdos fat iso9660 search search_fs_file linux normal echo test boot serial";
/// GRUB's boot sector for an ISO on a stick.
const STICK_SECTOR: &str = "/usr/lib/grub/i386-pc/boot_hybrid.img";

/// GRUB's menu on the ISO.
fn config(cmdline: &str) -> String {
    let arguments = if cmdline.is_empty() { String::new() } else { format!(" {cmdline}") };
    format!(
        "serial --unit=0 --speed=115200\nterminal_output console serial\nset default=0\nset timeout=2\n\
         menuentry \"flashmob: image this machine\" {{\n  linux /boot/vmlinuz{arguments}\n  \
         initrd /boot/initramfs.img\n}}\n"
    )
}

/// What UEFI firmware starts on the ISO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starts {
    /// GRUB, which Secure Boot refuses.
    Grub,
    /// A distribution's signed shim and GRUB.
    SignedChain,
    /// The organisation's signed program in the boot folder.
    OwnProgram,
}

/// Writes the ISO `iso` with the kernel and initramfs from `netboot`.
pub(crate) fn write(netboot: &Path, iso: &Path, cmdline: &str, starts: Starts) -> Result<()> {
    file_of_package("/usr/lib/grub/x86_64-efi/moddep.lst", "grub-efi-amd64-bin")?;
    file_of_package("/usr/lib/grub/i386-pc/moddep.lst", "grub-pc-bin")?;
    for needed in ["xorriso", "mformat"] {
        command(needed)?;
    }
    let work = tempfile::tempdir().context("making a temporary folder")?;
    let tree = work.path().join("tree");
    let boot = tree.join("boot");
    let grub = boot.join("grub");
    std::fs::create_dir_all(&grub).with_context(|| format!("making {}", grub.display()))?;
    for name in ["vmlinuz", "initramfs.img"] {
        std::fs::copy(netboot.join(name), boot.join(name)).with_context(|| format!("copying {name}"))?;
    }
    std::fs::write(grub.join("grub.cfg"), config(cmdline)).context("writing grub.cfg")?;
    let esp = work.path().join("esp.img");
    let mut make = match starts {
        Starts::Grub => by_rescue(&tree, iso)?,
        Starts::SignedChain => {
            // The signed GRUB for CDs finds its medium by this file.
            let disk = tree.join(".disk");
            std::fs::create_dir_all(&disk).with_context(|| format!("making {}", disk.display()))?;
            std::fs::write(disk.join("info"), "flashmob\n").context("writing .disk/info")?;
            write_esp(&esp, &secureboot::files_of_cd()?)?;
            with_esp(&esp, &tree, iso)?
        }
        Starts::OwnProgram => {
            write_esp(&esp, &[(netboot.join(uki::NAME), "BOOTX64.EFI")])?;
            with_esp(&esp, &tree, iso)?
        }
    };
    run(&mut make, &format!("making {}", iso.display()))?;
    Ok(())
}

fn by_rescue(tree: &Path, iso: &Path) -> Result<std::process::Command> {
    let mut rescue = command("grub-mkrescue")?;
    rescue.arg("-o").arg(iso).arg(tree);
    rescue.args(["--locales=", "--themes=", "--fonts=", "--compress=gz"]);
    rescue.arg(format!("--install-modules={MODULES}"));
    rescue.args(["--", "-volid", "FLASHMOB"]);
    Ok(rescue)
}

/// For BIOS GRUB's own image; for UEFI the partition `esp`, which is the CD's boot image as well.
fn with_esp(esp: &Path, tree: &Path, iso: &Path) -> Result<std::process::Command> {
    file_of_package(STICK_SECTOR, "grub-pc-bin")?;
    let mut bios = command("grub-mkimage")?;
    bios.args(["-O", "i386-pc-eltorito", "-p", "/boot/grub", "-o"]).arg(tree.join("boot/grub/bios.img"));
    bios.arg("biosdisk").args(MODULES.split(' '));
    run(&mut bios, "making the ISO's boot image for BIOS")?;
    let mut make = command("xorriso")?;
    make.args(["-as", "mkisofs", "-quiet", "-V", "FLASHMOB", "-r", "-J"]);
    make.args(["-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
    make.args(["--grub2-boot-info", "--grub2-mbr", STICK_SECTOR]);
    make.args(["-append_partition", "2", "0xef"]).arg(esp).arg("-appended_part_as_gpt");
    make.args(["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]);
    make.arg("-o").arg(iso).arg(tree);
    Ok(make)
}

/// Writes the FAT filesystem `image` with `files` under their names in `EFI/BOOT`: what the firmware starts
/// from CD and stick.
fn write_esp(image: &Path, files: &[(PathBuf, &str)]) -> Result<()> {
    let mut size = 0;
    for (file, _) in files {
        size += std::fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.len();
    }
    // Room for the allocation table and the folders.
    let size = (size + size / 16).next_multiple_of(1 << 20) + (1 << 20);
    std::fs::File::create(image)
        .and_then(|image| image.set_len(size))
        .with_context(|| format!("making {}", image.display()))?;
    let tool = |program: &str| -> Result<std::process::Command> {
        let mut command = command(program)?;
        command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image);
        Ok(command)
    };
    run(tool("mformat")?.args(["-v", "FLASHMOBEFI", "-N", "f1a5b0b1", "::"]), "making the ISO's boot image")?;
    run(tool("mmd")?.args(["::/EFI", "::/EFI/BOOT"]), "making folders in the ISO's boot image")?;
    for (file, name) in files {
        let mut copy = tool("mcopy")?;
        copy.arg(file).arg(format!("::/EFI/BOOT/{name}"));
        run(&mut copy, &format!("copying {name} into the ISO's boot image"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_iso_passes_the_kernel_arguments_on() {
        assert!(config("console=ttyS0").contains("linux /boot/vmlinuz console=ttyS0\n"));
        assert!(config("").contains("linux /boot/vmlinuz\n"));
    }
}
