//! A folder as the root of a system: files below it are read and changed without ever leaving it. `replace`
//! changes them, `labels` gives new ones a label.
//!
//! Invariant: links are followed as the installed system would follow them, below this root (openat2(2),
//! `RESOLVE_IN_ROOT`).

mod labels;
mod replace;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

/// Largest file that is read.
const MOST: u64 = 256 << 10;
/// A file that is not whole yet, in the folder where it gets its name.
const NEW: &str = ".flashmob-new";

pub(super) struct Root {
    folder: OwnedFd,
    /// A new file below has a label that may not be the policy's.
    guessed: Rc<Cell<bool>>,
}

impl Root {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let folder = open(folder, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Root { folder, guessed: Rc::default() })
    }

    /// A folder below this root as a root of its own.
    pub(super) fn below(&self, path: &str) -> io::Result<Self> {
        self.open_at(path, OFlag::O_DIRECTORY).map(|folder| self.with(folder))
    }

    fn with(&self, folder: OwnedFd) -> Root {
        Root { folder, guessed: Rc::clone(&self.guessed) }
    }

    fn open_at(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let resolve = inside | ResolveFlag::RESOLVE_NO_XDEV;
        let flags = flags | OFlag::O_CLOEXEC;
        let mode = if flags.contains(OFlag::O_CREAT) { Mode::from_bits_retain(0o644) } else { Mode::empty() };
        let how = OpenHow::new().flags(flags).mode(mode).resolve(resolve);
        Ok(openat2(&self.folder, path, how)?)
    }

    /// The folder of `path`, and its name there.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(Root, &'a str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
        Ok((self.below(folder)?, name))
    }

    /// What is at `path`, a link itself.
    fn stat(&self, path: &str) -> io::Result<Option<FileStat>> {
        let (parent, name) = match self.parent(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match fstatat(&parent.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Is there something, a link that leads nowhere included?
    pub(super) fn has(&self, path: &str) -> bool {
        matches!(self.stat(path), Ok(Some(_)))
    }

    pub(super) fn is_folder(&self, path: &str) -> bool {
        self.below(path).is_ok()
    }

    /// Is it a file, and no link to one?
    pub(super) fn is_file(&self, path: &str) -> io::Result<bool> {
        Ok(self.stat(path)?.is_some_and(|stat| kind(&stat) == SFlag::S_IFREG))
    }

    /// The content of a file; `None` if there is none.
    pub(super) fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        // A pipe with this name must not stop the terminal.
        let file = match self.open_at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => File::from(opened?),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The names in a folder; none if there is no such folder.
    pub(super) fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let folder = match self.open_at(path, OFlag::O_DIRECTORY | OFlag::O_RDONLY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in Dir::from_fd(folder)?.iter() {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Returns when everything that was written below is on the medium.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::syncfs(self.folder.as_fd())?)
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests;
