//! The loader that firmware starts without any boot entry (UEFI 2.10 §3.5.1.1), for firmware that keeps none.
//!
//! Invariant: a loader of somebody else stays. What shim starts lies beside the copy before the copy is
//! there, and each file appears whole.

use std::io;

use crate::digest::sha256;
use crate::io::disk::personal::fat;
use crate::io::storage::device::Disk;

/// The hash of the copy that this program wrote, so that it may replace it.
const MARK: [&str; 3] = ["EFI", "flashmob", "fallback.sha256"];
/// Loaders have a few MiB; a larger file is none.
const MOST: u64 = 32 << 20;
/// The machine in a program's header (PE/COFF), and the part of file names for it.
const MACHINES: [(u16, &str); 3] = [(0x8664, "x64"), (0x014c, "ia32"), (0xaa64, "aa64")];

/// Copies the loader at `path` of an EFI system partition to the fallback path. The answer is for people.
pub(super) fn copy(disk: &Disk, at: (u64, u64), path: &str) -> io::Result<String> {
    let from: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let missing = || io::Error::other(format!("there is no {path}"));
    let loader = fat::read_at_most(disk, at, &from, MOST)?.ok_or_else(missing)?;
    let machine = machine(&loader).ok_or_else(|| io::Error::other(format!("{path} is no loader")))?;
    let name = format!("BOOT{}.EFI", machine.to_uppercase());
    let to = ["EFI", "BOOT", &name];
    let shown = format!("/{}", to.join("/"));
    let there = fat::read_at_most(disk, at, &to, MOST)?;
    let own = fat::read_at_most(disk, at, &MARK, 64)?;
    let ours = |there: &Vec<u8>| own.as_deref() == Some(sha256(there).to_string().as_bytes());
    let said = match &there {
        Some(there) if *there == loader => return Ok(format!("{shown} is {path} already")),
        Some(there) if !ours(there) => {
            return Err(io::Error::other(format!("{shown} is another loader, and stays")));
        }
        Some(_) => format!("{shown}, which an earlier attempt had written, is replaced by {path}"),
        None => format!("{path} is copied to {shown}"),
    };
    if let Some((file, folders)) = from.split_last()
        && file.to_ascii_lowercase().starts_with("shim")
    {
        // Shim starts GRUB, and the manager of its keys, from the folder where it lies itself.
        for beside in [format!("grub{machine}.efi"), format!("mm{machine}.efi")] {
            let from: Vec<&str> = folders.iter().copied().chain([beside.as_str()]).collect();
            let to = ["EFI", "BOOT", &beside];
            if let Some(program) = fat::read_at_most(disk, at, &from, MOST)?
                && (there.is_some() || fat::read_at_most(disk, at, &to, 1)?.is_none())
            {
                fat::write(disk, at, &to, &program)?;
            }
        }
    }
    fat::write(disk, at, &to, &loader)?;
    fat::write(disk, at, &MARK, sha256(&loader).to_string().as_bytes())?;
    Ok(said)
}

/// What machine a UEFI program is for, as file names have it.
fn machine(program: &[u8]) -> Option<&'static str> {
    let header = program.get(0x3c..0x40)?.first_chunk().map(|at| u32::from_le_bytes(*at))?;
    let header = program.get(usize::try_from(header).ok()?..)?;
    let machine = header.strip_prefix(b"PE\0\0")?.first_chunk().map(|kind| u16::from_le_bytes(*kind))?;
    MACHINES.iter().find(|(kind, _)| *kind == machine).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::disks::{LoopDisk, MIB};
    use crate::testkit::programs::run;

    const SIZE: u64 = 32 * MIB;

    /// A program for this machine with this content.
    fn program(machine: u16, content: u8) -> Vec<u8> {
        let mut bytes = vec![content; 70_000];
        bytes[0x3c..0x40].copy_from_slice(&0x80u32.to_le_bytes());
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
        bytes
    }

    /// A disk that is an EFI system partition with these files.
    fn esp(files: &[(&[&str], &[u8])]) -> (LoopDisk, Disk) {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("esp.img");
        std::fs::File::create(&file).and_then(|file| file.set_len(SIZE)).expect("a file");
        run("mkfs.vfat", &["-F", "16", file.to_str().expect("text")]);
        let loop_disk = LoopDisk::on(dir, file, 512);
        let disk = Disk::open(&loop_disk.path, false).expect("open");
        for (path, content) in files {
            fat::write(&disk, (0, SIZE), path, content).expect("written");
        }
        (loop_disk, disk)
    }

    fn there(disk: &Disk, name: &str) -> Option<Vec<u8>> {
        fat::read_at_most(disk, (0, SIZE), &["EFI", "BOOT", name], MOST).expect("readable")
    }

    #[test]
    fn shim_is_copied_with_what_it_starts_and_again_after_a_change() {
        const SHIM: &str = "/EFI/debian/shimx64.efi";
        let [shim, grub, newer] = [1, 2, 3].map(|content| program(0x8664, content));
        let (loop_disk, disk) =
            esp(&[(&["EFI", "debian", "shimx64.efi"], &shim), (&["EFI", "debian", "grubx64.efi"], &grub)]);
        let copy = || copy(&disk, (0, SIZE), SHIM).expect("copied");
        assert_eq!(copy(), format!("{SHIM} is copied to /EFI/BOOT/BOOTX64.EFI"));
        assert_eq!((there(&disk, "BOOTX64.EFI"), there(&disk, "grubx64.efi")), (Some(shim), Some(grub)));
        assert!(copy().contains("already"));
        fat::write(&disk, (0, SIZE), &["EFI", "debian", "shimx64.efi"], &newer).expect("written");
        assert!(copy().contains("an earlier attempt had written"));
        assert_eq!(there(&disk, "BOOTX64.EFI"), Some(newer));
        run("fsck.vfat", &["-n", &loop_disk.path]);
    }

    #[test]
    fn the_fallback_of_somebody_else_stays_and_what_is_no_loader_is_not_copied() {
        let other = program(0x8664, 9);
        let (loop_disk, disk) = esp(&[
            (&["EFI", "BOOT", "BOOTX64.EFI"], &other),
            (&["EFI", "x", "a.efi"], &program(0x8664, 1)),
            (&["EFI", "x", "ia32.efi"], &program(0x014c, 1)),
            (&["EFI", "x", "text.efi"], b"text"),
        ]);
        let copy = |path: &str| copy(&disk, (0, SIZE), path);
        assert!(copy("/EFI/x/a.efi").expect_err("kept").to_string().contains("another loader, and stays"));
        assert_eq!(there(&disk, "BOOTX64.EFI"), Some(other));
        assert!(copy("/EFI/x/ia32.efi").expect("copied").ends_with("/EFI/BOOT/BOOTIA32.EFI"));
        for none in ["/EFI/x/text.efi", "/EFI/x/none.efi"] {
            assert!(copy(none).is_err(), "{none}");
        }
        run("fsck.vfat", &["-n", &loop_disk.path]);
    }
}
