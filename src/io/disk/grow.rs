//! Lets a filesystem fill its partition, through the kernel's own ioctls while it is mounted; an NTFS by a
//! program (`grow_ntfs`).
//!
//! Invariant: it begins after the image was proved and committed. A filesystem that was cut off while it grew
//! is whole (its journal sees to that), and grows on at the next try; an NTFS is then left to Windows.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use nix::mount::MsFlags;
use nix::sys::statvfs::fstatvfs;

use crate::io::disk::grow_ntfs::{self, Ntfs};
use crate::io::disk::mount::{Mount, node};
use crate::io::sys;
use crate::layout::personal::{LVM, Places, Told};
use crate::units::show_bytes;

/// What became of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grown {
    /// Its bytes before and after.
    From(u64, u64),
    /// The same, and Windows checks it at its next start.
    ThenChecked(u64, u64),
    /// It filled its partition already.
    Full,
    /// The system on it does it at its first start.
    BySystem,
    /// flashmob's helper does it there.
    ByHelper,
}

/// Lets the filesystems of an imaged disk grow whose partitions are larger than the image's. `tell` hears of
/// each.
pub(crate) fn all(places: &Places, tell: &mut dyn FnMut(Told)) {
    for part in places.growing() {
        let number = part.number;
        let grown = match &*part.filesystem {
            // Windows may have been started since, and may be hibernated.
            "ntfs" if !places.proved => Ok(Grown::BySystem),
            LVM => Ok(Grown::ByHelper),
            kind => node(places, part).and_then(|node| grow(&node, kind)),
        };
        tell(match grown {
            Ok(grown) => Told::Step(format!("the filesystem of partition {number} {grown}")),
            Err(why) => Told::Problem(format!("the filesystem of partition {number} did not grow: {why}")),
        });
    }
}

/// Lets the filesystem of kind `kind` on the device `node` grow to the device's end.
fn grow(node: &Path, kind: &str) -> Result<Grown, String> {
    let said = |what: &str, e: io::Error| format!("{what} {} ({kind}): {e}", node.display());
    let size = File::open(node).and_then(|mut device| device.seek(SeekFrom::End(0)));
    let size = size.map_err(|e| said("the size of", e))?;
    if kind == "ntfs" {
        let grown = grow_ntfs::grow(node, size, grow_ntfs::program().as_deref())?;
        return Ok(match grown {
            Ntfs::Full => Grown::Full,
            Ntfs::NoProgram => Grown::BySystem,
            Ntfs::Grown(before, after) => Grown::ThenChecked(before, after),
        });
    }
    let mounted = Mount::new(node, kind, MsFlags::empty())?;
    let folder = File::open(mounted.path()).map_err(|e| said("the root folder of", e))?;
    let before = bytes(&folder).map_err(|e| said("the filesystem's size on", e))?;
    let result = match kind {
        "ext4" => blocks_of(&folder, size).and_then(|blocks| sys::ext4_resize(&folder, blocks)),
        "xfs" => sys::xfs_grow(&folder, size),
        "btrfs" => sys::btrfs_grow(&folder),
        _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    result.map_err(|e| said("growing", e))?;
    let after = bytes(&folder).map_err(|e| said("the filesystem's size on", e))?;
    drop(folder);
    mounted.close().map_err(|e| said("unmounting", e))?;
    Ok(if after > before { Grown::From(before, after) } else { Grown::Full })
}

impl std::fmt::Display for Grown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Grown::From(before, after) => {
                write!(f, "grew from {} to {}", show_bytes(*before), show_bytes(*after))
            }
            Grown::ThenChecked(before, after) => {
                let (before, after) = (show_bytes(*before), show_bytes(*after));
                write!(f, "grew from {before} to {after}; Windows checks it at its first start")
            }
            Grown::Full => f.write_str("fills its partition"),
            Grown::ByHelper => f.write_str("is a volume of LVM, which the helper in the system lets grow"),
            Grown::BySystem => f.write_str("grows when the system on it starts for the first time"),
        }
    }
}

/// How many of the filesystem's blocks fit into `size` bytes.
fn blocks_of(folder: &File, size: u64) -> io::Result<u64> {
    let block = fstatvfs(folder).map_err(io::Error::from)?.fragment_size();
    size.checked_div(block).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Bytes that files may have.
fn bytes(folder: &File) -> io::Result<u64> {
    let facts = fstatvfs(folder).map_err(io::Error::from)?;
    Ok(facts.blocks().saturating_mul(facts.fragment_size()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::api::LayoutMode;
    use crate::layout::personal::Part;
    use crate::manifest::Role;
    use crate::testkit::disks::{LoopDisk, MIB, noise, sector_sizes};
    use crate::testkit::programs::run;

    /// A filesystem of 320 MiB with a file of noise, on a device of 704 MiB.
    fn filesystem(mkfs: &str, size: &[&str], kind: &str, sector: u32) -> LoopDisk {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("disk.img");
        File::create(&path).and_then(|file| file.set_len(704 * MIB)).expect("made");
        let disk = LoopDisk::on(dir, path, sector);
        run(mkfs, &[&[&*disk.path], size].concat());
        let mounted = Mount::new(Path::new(&disk.path), kind, MsFlags::empty()).expect("mounts");
        fs::write(mounted.path().join("file"), noise(1, 3_000_000)).expect("written");
        mounted.close().expect("unmounts");
        disk
    }

    /// The kernel lets only a process with CAP_SYS_RESOURCE (number 24) resize an ext4.
    fn may_resize_ext4() -> bool {
        let status = fs::read_to_string("/proc/self/status").expect("there");
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("there");
        u64::from_str_radix(mask.trim(), 16).expect("a mask") >> 24 & 1 == 1
    }

    fn grows(disk: &LoopDisk, kind: &str, check: &str, arguments: &[&str]) {
        let node = Path::new(&disk.path);
        let (before, after) = match grow(node, kind) {
            Ok(Grown::From(before, after)) => (before, after),
            other => panic!("{kind}: {other:?}"),
        };
        assert!(before < 330 * MIB && after > 600 * MIB, "{kind}: {before} to {after}");
        assert_eq!(grow(node, kind), Ok(Grown::Full), "a second try has nothing to do");
        run(check, &[arguments, &[&*disk.path]].concat());
        let mounted = Mount::new(node, kind, MsFlags::empty()).expect("mounts");
        assert!(fs::read(mounted.path().join("file")).expect("there") == noise(1, 3_000_000), "{kind}");
        mounted.close().expect("unmounts");
    }

    #[test]
    fn ext4_grows_is_sound_and_keeps_its_files() {
        for sector in sector_sizes() {
            let disk = filesystem("mkfs.ext4", &["320m"], "ext4", sector);
            if may_resize_ext4() {
                grows(&disk, "ext4", "e2fsck", &["-fn"]);
                continue;
            }
            let error = grow(Path::new(&disk.path), "ext4").expect_err("not allowed");
            assert!(error.contains("Operation not permitted"), "{error}");
            eprintln!(
                "without CAP_SYS_RESOURCE only the refusal was tested; the virtual lab tests the growth"
            );
        }
    }

    #[test]
    fn xfs_grows_is_sound_and_keeps_its_files() {
        for sector in sector_sizes() {
            let disk = filesystem("mkfs.xfs", &["-d", "size=320m"], "xfs", sector);
            grows(&disk, "xfs", "xfs_repair", &["-n"]);
        }
    }

    #[test]
    fn btrfs_grows_is_sound_and_keeps_its_files() {
        for sector in sector_sizes() {
            let disk = filesystem("mkfs.btrfs", &["-b", "320m"], "btrfs", sector);
            grows(&disk, "btrfs", "btrfs", &["check"]);
        }
    }

    #[test]
    fn an_error_names_the_device() {
        let disk = filesystem("mkfs.ext4", &["320m"], "ext4", 512);
        for (kind, what) in [("xfs", "mounting"), ("ntfs", "there is no NTFS on")] {
            let error = grow(Path::new(&disk.path), kind).expect_err("it is another filesystem");
            assert!(error.starts_with(&format!("{what} {}", disk.path)), "{error}");
        }
    }

    #[test]
    fn windows_grows_by_itself_where_it_may_have_been_started_since() {
        let disk = filesystem("mkfs.ext4", &["320m"], "ext4", 512);
        let part = Part {
            number: 1,
            start: 0,
            size: 320 * MIB,
            room: 704 * MIB,
            filesystem: "ntfs".into(),
            role: Role::Data,
        };
        let places = Places {
            info: disk.info(),
            layout: LayoutMode::WholeDisk,
            parts: vec![part],
            kept_esp: None,
            blank: None,
            bare: true,
            proved: false,
            loader: None,
            files: Vec::new(),
        };
        let tell = |places: &Places| {
            let mut told = Vec::new();
            all(places, &mut |what| told.push(what));
            told
        };
        let [Told::Step(step)] = &tell(&places)[..] else { panic!("{:?}", tell(&places)) };
        assert!(step.contains("when the system on it starts"), "{step}");
        let mut lvm = places.clone();
        lvm.parts[0].filesystem = "lvm".into();
        assert!(matches!(&tell(&lvm)[..], [Told::Step(step)] if step.contains("the helper in the system")));
        assert_eq!((lvm.for_helper(), places.for_helper()), ("1".into(), String::new()));
        lvm.parts[0].room = lvm.parts[0].size;
        assert_eq!(
            (tell(&lvm), lvm.for_helper()),
            (Vec::new(), String::new()),
            "the image lets nothing grow"
        );
        let now = tell(&Places { proved: true, ..places });
        assert!(matches!(&now[..], [Told::Problem(why)] if why.contains("there is no NTFS")), "{now:?}");
    }
}
