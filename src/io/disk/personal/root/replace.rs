//! Changes below a root: files with new content, new folders, files that are removed.
//!
//! Invariant: no file that is a link itself is changed. A file has its old content or its new one whole,
//! whenever the power fails. It keeps its SELinux label, and a new one gets one.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, fsync, unlinkat};

use super::{NEW, Root, kind};
use crate::io::disk::personal::power;
use crate::io::sys;

/// Who may do what with a file.
struct Access {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Root {
    /// Gives a file this content; it keeps its owner, mode and label. A new one is root's, for all to read.
    /// False: it had it.
    pub(in super::super) fn write(&self, path: &str, content: &[u8]) -> io::Result<bool> {
        if self.read(path).ok().flatten().as_deref() == Some(content) && self.is_file(path)? {
            return Ok(false);
        }
        let (parent, name) = self.parent(path)?;
        parent.replace(name, content, |old| match old {
            Some(old) => Access { uid: old.st_uid, gid: old.st_gid, mode: old.st_mode & 0o7777 },
            None => Access { uid: 0, gid: 0, mode: 0o644 },
        })?;
        Ok(true)
    }

    /// Gives the file at `path` this content and mode, and root as its owner, and makes the folders on the
    /// way. No link is followed: a golden system may have one where nobody expects it.
    pub(in super::super) fn put(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folder = self.below(".")?;
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = folder.enter_or_make(part)?;
        }
        folder.replace(name, content, |_| Access { uid: 0, gid: 0, mode })
    }

    /// Puts a new file in the place of `name` in this folder when it is whole and on the medium, so a full
    /// disk or a power cut leaves the old one as it was. `access` hears of the old one.
    fn replace(
        &self,
        name: &str,
        content: &[u8],
        access: impl FnOnce(Option<&FileStat>) -> Access,
    ) -> io::Result<()> {
        let old = self.old(name)?;
        let stat = old.as_ref().map(fstat).transpose()?;
        // A run that was cut off may have left one.
        self.remove(NEW)?;
        let done = self.fill(old.as_ref(), name, content, access(stat.as_ref())).and_then(|()| {
            power::change()?;
            Ok(renameat(&self.folder, NEW, &self.folder, name)?)
        });
        if done.is_err() {
            // The first error says more than one of this.
            let _ = self.remove(NEW);
            return done;
        }
        Ok(fsync(&self.folder)?)
    }

    /// The file `name` in this folder that a new one may replace; `None` if there is none.
    fn old(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        match self.open_at(name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(linked(e)),
            Ok(there) => match kind(&fstat(&there)?) {
                SFlag::S_IFREG => Ok(Some(there)),
                SFlag::S_IFDIR => Err(io::Error::other("it is a directory")),
                _ => Err(io::Error::other("it is no file")),
            },
        }
    }

    /// Makes the file `NEW` in this folder, which becomes `name` and has the label of `old`.
    fn fill(&self, old: Option<&OwnedFd>, name: &str, content: &[u8], access: Access) -> io::Result<()> {
        power::change()?;
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = File::from(self.open_at(NEW, flags)?);
        // Nobody reads a secret while it is written.
        file.set_permissions(Permissions::from_mode(0o600))?;
        match old.map(sys::label_of).transpose()?.flatten() {
            Some(label) => sys::set_label(&file, &label)?,
            None => self.label(&file, name)?,
        }
        power::change()?;
        file.write_all(content)?;
        let now = file.metadata()?;
        if (now.uid(), now.gid()) != (access.uid, access.gid) {
            fchown(&file, Some(access.uid.into()), Some(access.gid.into()))?;
        }
        // After the owner, whose change takes set-user-ID away.
        file.set_permissions(Permissions::from_mode(access.mode))?;
        file.sync_all()
    }

    /// The folder `name` in this one.
    fn enter_or_make(&self, name: &str) -> io::Result<Root> {
        let is_new = self.make(name)?;
        let opened = self.open_at(name, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW);
        let folder = opened.map_err(|e| match e.raw_os_error() {
            // What O_DIRECTORY says of a link.
            Some(code) if code == Errno::ENOTDIR as i32 => {
                io::Error::other(format!("'{name}' on the way is no folder, or a symbolic link"))
            }
            _ => linked(e),
        })?;
        if is_new || sys::label_of(&folder)?.is_none() {
            self.label(&folder, name)?;
        }
        Ok(self.with(folder))
    }

    /// Makes a folder in this one. False: something is there.
    fn make(&self, name: &str) -> io::Result<bool> {
        match mkdirat(&self.folder, name, Mode::from_bits_retain(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes flashmob's folder, unless it is there.
    pub(in super::super) fn make_folder(&self, path: &str) -> io::Result<()> {
        power::change()?;
        let (parent, name) = self.parent(path)?;
        if parent.make(name)? {
            // No policy has a label of its own for flashmob's folder.
            if let Some(label) = sys::label_of(&parent.folder)? {
                sys::set_label(&parent.below(name)?.folder, &label)?;
            }
        }
        Ok(())
    }

    /// Removes a file or a link. False: there is none.
    pub(in super::super) fn remove(&self, path: &str) -> io::Result<bool> {
        power::change()?;
        let (parent, name) = self.parent(path)?;
        match unlinkat(&parent.folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// What the kernel says of a link that must not be followed.
fn linked(e: io::Error) -> io::Error {
    match e.raw_os_error() {
        Some(code) if code == Errno::ELOOP as i32 => io::Error::other("it is a symbolic link"),
        _ => e,
    }
}
