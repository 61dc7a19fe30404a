//! A folder as the root of a system: files below it are read and changed without ever leaving it.
//!
//! Invariant: links are followed as the installed system would follow them, below this root (openat2(2),
//! `RESOLVE_IN_ROOT`), and no file that is a link itself is changed. A file has its old content or its new one
//! whole, whenever the power fails. It keeps its SELinux label, and a new one gets one.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, fsync, unlinkat};

use super::power;
use crate::io::sys;

/// Largest file that is read.
const MOST: u64 = 256 << 10;
/// A file that is not whole yet, in the folder where it gets its name.
const NEW: &str = ".flashmob-new";

/// Who may do what with a file.
struct Access {
    uid: u32,
    gid: u32,
    mode: u32,
}

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

    /// Gives a file this content; it keeps its owner, mode and label. A new one is root's, for all to read.
    /// False: it had it.
    pub(super) fn write(&self, path: &str, content: &[u8]) -> io::Result<bool> {
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
    pub(super) fn put(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
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

    /// Gives a new file or folder of this folder a label if the system has SELinux. The kernel of this
    /// program has no policy that would give it one, and one without a label is closed to nearly all
    /// programs.
    fn label(&self, new: &impl AsFd, name: &str) -> io::Result<()> {
        let Some(own) = sys::label_of(&self.folder)? else { return Ok(()) };
        // What lies beside it has the same purpose, if all of that has one label.
        let is_other = |other: &String| ![".", "..", NEW, name].contains(&other.as_str());
        let is_folder = self.is_folder(name);
        let mut beside = BTreeSet::new();
        for other in self.names(".")?.into_iter().filter(is_other) {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            if self.is_folder(&other) == is_folder
                && let Ok(other) = self.open_at(&other, flags)
            {
                beside.extend(sys::label_of(&other)?);
            }
        }
        match (beside.len(), beside.pop_first()) {
            (1, Some(label)) => sys::set_label(new, &label),
            // Most policies give what is in a folder the folder's label.
            (0, _) => sys::set_label(new, &own),
            _ => {
                self.guessed.set(true);
                sys::set_label(new, &own)
            }
        }
    }

    /// Lets the system label all files anew at its first start if a label was guessed (selinux(8)). False:
    /// that is not needed.
    pub(super) fn relabel(&self) -> io::Result<bool> {
        if !self.guessed.get() {
            return Ok(false);
        }
        self.open_at(".autorelabel", OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW)?;
        Ok(true)
    }

    /// Makes flashmob's folder, unless it is there.
    pub(super) fn make_folder(&self, path: &str) -> io::Result<()> {
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
    pub(super) fn remove(&self, path: &str) -> io::Result<bool> {
        power::change()?;
        let (parent, name) = self.parent(path)?;
        match unlinkat(&parent.folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
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

/// What the kernel says of a link that must not be followed.
fn linked(e: io::Error) -> io::Error {
    match e.raw_os_error() {
        Some(code) if code == Errno::ELOOP as i32 => io::Error::other("it is a symbolic link"),
        _ => e,
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testkit::disks::run;

    #[test]
    fn no_link_leads_out_of_the_root_and_no_file_that_is_a_link_is_changed() {
        let (outside, inside) = (tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp"));
        let at = |name: &str| inside.path().join(name);
        fs::create_dir_all(at("real/etc")).expect("made");
        fs::create_dir(outside.path().join("etc")).expect("made");
        fs::write(outside.path().join("hostname"), "host").expect("written");
        // As on systems whose /etc is a link: absolute, below the own root.
        symlink("/real/etc", at("etc")).expect("linked");
        symlink(outside.path(), at("away")).expect("linked");
        symlink(outside.path().join("hostname"), at("real/etc/hostname")).expect("linked");
        symlink("../../../../../..", at("up")).expect("linked");
        let root = Root::open(inside.path()).expect("open");
        assert!(root.write("etc/hosts", b"x").expect("written"));
        assert_eq!(fs::read(at("real/etc/hosts")).expect("there"), b"x");
        assert!(!root.write("etc/hosts", b"x").expect("the same"));
        assert!(root.write("etc/hostname", b"evil").expect_err("a link").to_string().contains("link"));
        assert!(
            root.write("away/hostname", b"evil").is_err()
                && root.read("away/hostname").expect("none").is_none()
        );
        assert!(root.has("up/real") && !root.has("up/proc"), "up is the root itself");
        assert_eq!(fs::read(outside.path().join("hostname")).expect("there"), b"host");
    }

    #[test]
    fn a_file_that_is_put_somewhere_follows_no_link_on_its_way() {
        let (outside, dir) = (tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp"));
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("usr/lib")).expect("made");
        fs::write(at("usr/lib/old"), vec![1; 99]).expect("written");
        symlink("usr/lib", at("lib")).expect("linked");
        symlink(outside.path(), at("away")).expect("linked");
        symlink("/etc/passwd", at("usr/link")).expect("linked");
        let root = Root::open(dir.path()).expect("open");
        root.put("usr/lib/old", b"new", 0o755).expect("written");
        root.put("a/b/c", b"secret", 0o600).expect("folders are made");
        for (path, content, mode) in [("usr/lib/old", "new", 0o755), ("a/b/c", "secret", 0o600)] {
            assert_eq!(fs::read_to_string(at(path)).expect("there"), content);
            assert_eq!(fs::metadata(at(path)).expect("there").permissions().mode() & 0o7777, mode);
        }
        for (path, why) in [
            ("lib/x", "'lib' on the way"),
            ("away/x", "'away' on the way"),
            ("usr/link", "symbolic link"),
            ("usr/lib/old/x", "'old' on the way"),
            ("usr/lib", "directory"),
        ] {
            let said = root.put(path, b"x", 0o644).expect_err(path).to_string();
            assert!(said.contains(why), "{path}: {said}");
        }
        assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 0);
    }

    #[test]
    fn a_file_that_is_put_somewhere_replaces_the_old_one_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("temp");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("etc")).expect("made");
        fs::write(at("etc/fstab"), "old").expect("written");
        fs::hard_link(at("etc/fstab"), at("snapshot")).expect("linked");
        nix::unistd::mkfifo(&at("etc/pipe"), Mode::S_IRWXU).expect("made");
        fs::write(at("etc").join(NEW), "of a run that was cut off").expect("written");
        let root = Root::open(dir.path()).expect("open");
        let mut cut = 0;
        loop {
            power::test::fails_after(Some(cut));
            let put = root.put("etc/fstab", b"new", 0o640);
            power::test::fails_after(None);
            let now = fs::read_to_string(at("etc/fstab")).expect("there");
            assert_eq!(now, if put.is_ok() { "new" } else { "old" }, "cut off before change {cut}");
            if put.is_ok() {
                break;
            }
            cut += 1;
        }
        assert!(cut >= 3, "{cut} changes");
        assert_eq!(fs::read_to_string(at("snapshot")).expect("there"), "old", "another name of the old file");
        assert!(root.put("etc/pipe", b"x", 0o644).expect_err("a pipe").to_string().contains("no file"));
        assert_eq!(root.names("etc").expect("listed"), [".", "..", "fstab", "pipe"], "nothing is left over");
    }

    #[test]
    fn a_file_that_is_written_has_its_old_content_or_its_new_one_whenever_the_power_fails() {
        let dir = tempfile::tempdir().expect("temp");
        let (path, snapshot) = (dir.path().join("hosts"), dir.path().join("snapshot"));
        fs::write(&path, "old").expect("written");
        std::os::unix::fs::chown(&path, Some(7), Some(8)).expect("given away");
        fs::set_permissions(&path, Permissions::from_mode(0o4640)).expect("set");
        fs::hard_link(&path, &snapshot).expect("linked");
        let root = Root::open(dir.path()).expect("open");
        let mut cut = 0;
        loop {
            power::test::fails_after(Some(cut));
            let written = root.write("hosts", b"new and longer");
            power::test::fails_after(None);
            let now = fs::read_to_string(&path).expect("there");
            let expected = if written.is_ok() { "new and longer" } else { "old" };
            assert_eq!(now, expected, "cut off before change {cut}");
            let is = fs::metadata(&path).expect("there");
            assert_eq!((is.uid(), is.gid(), is.mode() & 0o7777), (7, 8, 0o4640), "{cut}");
            if written.is_ok() {
                break;
            }
            cut += 1;
        }
        assert!(cut >= 3, "{cut} changes");
        assert_eq!(fs::read_to_string(&snapshot).expect("there"), "old", "another name of the old file");
        assert_eq!(root.names(".").expect("listed"), [".", "..", "hosts", "snapshot"], "nothing is left over");
    }

    #[test]
    fn a_file_system_that_is_full_keeps_the_old_file() {
        let dir = tempfile::tempdir().expect("temp");
        let place = dir.path().to_str().expect("text");
        run("mount", &["-t", "tmpfs", "-o", "size=64k", "none", place]);
        fs::write(dir.path().join("fstab"), "old").expect("written");
        let root = Root::open(dir.path()).expect("open");
        let put = root.put("fstab", &vec![1; 256 << 10], 0o644);
        let written = root.write("fstab", &vec![1; 256 << 10]);
        let now = (fs::read_to_string(dir.path().join("fstab")).expect("there"), root.names("."));
        drop(root);
        run("umount", &[place]);
        for done in [put, written.map(drop)] {
            assert_eq!(done.expect_err("full").kind(), io::ErrorKind::StorageFull);
        }
        assert_eq!(
            (now.0.as_str(), now.1.expect("listed")),
            ("old", [".", "..", "fstab"].map(String::from).to_vec())
        );
    }

    #[test]
    fn a_file_that_is_written_keeps_its_mode_and_what_is_no_file_is_left_alone() {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("machine-id");
        fs::write(&path, "0123\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("set");
        nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).expect("made");
        let root = Root::open(dir.path()).expect("open");
        assert!(root.write("machine-id", b"").expect("written"));
        let now = fs::metadata(&path).expect("there");
        assert_eq!((now.len(), now.permissions().mode() & 0o777), (0, 0o444));
        assert!(root.read("pipe").is_err() && root.write("pipe", b"x").is_err());
        assert!(root.remove("pipe").expect("removed") && !root.remove("pipe").expect("gone"));
        assert_eq!(root.names("nowhere").expect("none"), Vec::<String>::new());
    }
}
