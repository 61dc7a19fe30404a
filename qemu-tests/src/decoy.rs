//! Disks that start another system than the imaged one, like an old Windows on a second disk or a pupil's
//! stick.
//!
//! Invariant: every boot path of a decoy prints [`DECOY_IS_UP`] on the serial line and stops.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::golden::{self, END, ESP, MIB, ROOT};

/// A decoy's message on the serial line.
pub const DECOY_IS_UP: &str = "DECOY is up";

/// Loaders of installed systems, which a search by path would find.
const LOADERS: [&str; 3] = ["Microsoft/Boot/bootmgfw.efi", "debian/shimx64.efi", "BOOT/BOOTX64.EFI"];

fn config(work: &Path) -> Result<PathBuf> {
    let path = work.join("decoy.cfg");
    // The rescue parser reads it, which knows commands but no `while`.
    let say = format!("echo {DECOY_IS_UP}\nsleep 2\n").repeat(300);
    fs::write(&path, format!("serial --unit=0 --speed=115200\nterminal_output serial\n{say}"))?;
    Ok(path)
}

/// A disk with unique identities that starts by BIOS and UEFI.
pub fn make(disk: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(disk.parent().context("the disk needs a folder")?)?;
    let work = work.path();
    File::create(disk)?.set_len((END + 1) * MIB)?;
    golden::partition(disk)?;
    let loader = golden::efi_grub(work, &config(work)?)?;
    let files: Vec<(&str, &Path)> = LOADERS.iter().map(|path| (*path, loader.as_path())).collect();
    let target = File::options().write(true).open(disk)?;
    golden::copy_sparse(&golden::esp_with(work, &files)?, &target, ESP * MIB)?;
    golden::install_bios_grub(work, &target, &config(work)?)
}

/// A stick with the identities of `imaged`, which starts something else.
pub fn copy_of(imaged: &Path, stick: &Path) -> Result<()> {
    fs::copy(imaged, stick).with_context(|| format!("copying {}", imaged.display()))?;
    let work = tempfile::tempdir_in(stick.parent().context("the stick needs a folder")?)?;
    let loader = golden::efi_grub(work.path(), &config(work.path())?)?;
    for path in LOADERS {
        golden::put_into_esp(&esp_of(stick), path, &loader)?;
    }
    let target = File::options().write(true).open(stick)?;
    // Its root is gone, so that the imaged system finds its own.
    for mib in ROOT..END {
        target.write_all_at(&vec![0; 1 << 20], mib * MIB)?;
    }
    golden::install_bios_grub(work.path(), &target, &config(work.path())?)
}

/// Adds a fake Windows loader to the golden disk `disk`, and moves the system to its own folder.
pub fn make_dual_boot(disk: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(disk.parent().context("the disk needs a folder")?)?;
    let esp = esp_of(disk);
    let real = golden::efi_grub(work.path(), &golden::early_config(work.path())?)?;
    golden::put_into_esp(&esp, "golden/grubx64.efi", &real)?;
    let decoy = golden::efi_grub(work.path(), &config(work.path())?)?;
    golden::put_into_esp(&esp, "Microsoft/Boot/bootmgfw.efi", &decoy)?;
    // The fallback too: the loader that the image names must start.
    golden::put_into_esp(&esp, "BOOT/BOOTX64.EFI", &decoy)
}

/// The EFI system partition of a disk, in mtools' words.
fn esp_of(disk: &Path) -> PathBuf {
    PathBuf::from(format!("{}@@{ESP}M", disk.display()))
}
