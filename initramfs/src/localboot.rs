//! GRUB for the way from the network to the imaged disk: `localboot.0` for BIOS, `localboot.efi` for
//! UEFI.
//!
//! Invariant: both have the same configuration, which starts only the partition whose identity the server's
//! script names (`flashmob::boot::start`). They are made by GRUB's own programs.

use std::path::Path;

use anyhow::{Context, Result};

use crate::tools::{command, file_of_package, run};
use crate::whole;

const CONFIG: &str = include_str!("localboot.grub");

/// GRUB modules in both.
const MODULES: &[&str] = &[
    "memdisk",
    "tar",
    "part_gpt",
    "part_msdos",
    "probe",
    "regexp",
    "eval",
    "net",
    "chain",
    "normal",
    "minicmd",
    "echo",
    "test",
    "boot",
    "sleep",
];

/// A GRUB image for one kind of firmware.
struct Program {
    name: &'static str,
    /// GRUB's word for the platform.
    format: &'static str,
    /// A file that is there when GRUB's modules for it are.
    sign: &'static str,
    package: &'static str,
    /// Modules that only this image has.
    modules: &'static [&'static str],
}

const PROGRAMS: [Program; 2] = [
    Program {
        name: "localboot.0",
        format: "i386-pc-pxe",
        sign: "/usr/lib/grub/i386-pc/moddep.lst",
        package: "grub-pc-bin",
        modules: &["biosdisk", "drivemap", "pxe"],
    },
    Program {
        name: "localboot.efi",
        format: "x86_64-efi",
        sign: "/usr/lib/grub/x86_64-efi/moddep.lst",
        package: "grub-efi-amd64-bin",
        modules: &["efinet", "fat"],
    },
];

/// Makes both in the folder `out`.
pub(crate) fn write(out: &Path) -> Result<()> {
    let work = tempfile::tempdir().context("making a temporary folder")?;
    let disk = memory_disk(work.path())?;
    for program in &PROGRAMS {
        file_of_package(program.sign, program.package)?;
        let mut mkimage = command("grub-mkimage")?;
        mkimage.args(["-O", program.format, "-p", "(memdisk)/boot/grub", "-m"]).arg(&disk);
        let (target, half) = (out.join(program.name), out.join(format!("{}.half", program.name)));
        mkimage.arg("-o").arg(&half).args(MODULES).args(program.modules);
        run(&mut mkimage, &format!("making {}", program.name))?;
        whole::place(&half, &target)?;
    }
    Ok(())
}

/// A configuration inside the image proper is read by GRUB's rescue parser, which knows no `if`; one that
/// lies on a memory disk is read by the normal one.
fn memory_disk(work: &Path) -> Result<std::path::PathBuf> {
    let folder = work.join("boot/grub");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let config = folder.join("grub.cfg");
    std::fs::write(&config, CONFIG).with_context(|| format!("writing {}", config.display()))?;
    let disk = work.join("memdisk.tar");
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
    run(tar.arg(&disk).arg("-C").arg(work).arg("boot/grub/grub.cfg"), "packing localboot's configuration")?;
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashmob::boot::start::PREFIX;

    #[test]
    fn the_disk_is_found_by_what_the_server_names_and_never_by_a_path() {
        assert_eq!(CONFIG.matches(&format!("'^{PREFIX}")).count(), 2);
        assert!(!CONFIG.contains("search"));
        let script = Path::new("/usr/bin/grub-script-check");
        if script.is_file() {
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("grub.cfg");
            std::fs::write(&config, CONFIG).unwrap();
            let checked = std::process::Command::new(script).arg(&config).status().unwrap();
            assert!(checked.success());
        }
    }
}
