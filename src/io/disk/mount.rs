//! A filesystem of an imaged disk, mounted by the kernel to be changed.
//!
//! Invariant: nothing on it is executed, and no device on it is opened. The mount ends with its value.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::io::disk::patience::patiently;
use crate::io::sysfs::{self, CLASS};
use crate::layout::personal::{Part, Places};

#[derive(Debug)]
pub(super) struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts `node`, a filesystem of kind `kind`, on a folder of its own.
    pub(super) fn new(node: &Path, kind: &str, flags: MsFlags) -> Result<Self, String> {
        let said = |what: &str, e: io::Error| format!("{what} {} ({kind}): {e}", node.display());
        let name = node.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let at = std::env::temp_dir().join(format!("flashmob-root-{}-{name}", std::process::id()));
        fs::create_dir_all(&at).map_err(|e| said("a folder for", e))?;
        let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
        // Another disk of this machine may have the same image.
        let options = (kind == "xfs").then_some("nouuid");
        if let Err(e) = patiently(|_| true, || mount(Some(node), &at, Some(kind), flags, options)) {
            let _ = fs::remove_dir(&at);
            return Err(said("mounting", e.into()));
        }
        Ok(Mount { at })
    }

    /// Its root folder.
    pub(super) fn path(&self) -> &Path {
        &self.at
    }

    /// Unmounts it. What was written is on the disk then.
    pub(super) fn close(self) -> io::Result<()> {
        patiently(|_| true, || umount2(&self.at, MntFlags::empty())).map_err(io::Error::from)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It is unmounted already after `close`. A plain unmount ends when the device is free again.
        if umount2(&self.at, MntFlags::empty()) == Err(Errno::EBUSY) {
            let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir(&self.at);
    }
}

/// The device of a partition.
pub(super) fn node(places: &Places, part: &Part) -> Result<PathBuf, String> {
    let name = &places.info.name;
    if places.bare {
        return Ok(Path::new("/dev").join(name));
    }
    let parts = sysfs::partitions(&Path::new(CLASS).join(name));
    let folder = parts.into_iter().find(|(number, _)| *number == part.number).map(|(_, folder)| folder);
    let node = folder.as_ref().and_then(|folder| folder.file_name());
    node.map(|node| Path::new("/dev").join(node))
        .ok_or_else(|| format!("the kernel does not know partition {} of {name}", part.number))
}
