//! Filesystems in files, filled and aged through mounts in this process's own namespace, FAT by mtools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flashmob_testkit::command::run;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

use super::Chance;

/// Names on one command line.
const BATCH: usize = 500;
/// Files of a folder.
const IN_FOLDER: usize = 200;

/// Enters a mount namespace, so that later mounts end with this process.
pub(crate) fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace (this bench needs root)");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("mounts of its own");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Ext4,
    /// mkntfs, filled through ntfs-3g.
    Ntfs,
    /// FAT32, filled by mtools.
    Fat,
    Xfs,
    Btrfs,
}

/// A filesystem in a file, with the files that the bench put there.
pub(crate) struct Volume {
    pub kind: Kind,
    pub image: PathBuf,
    place: PathBuf,
    /// Paths from its root.
    files: Vec<String>,
    chance: Chance,
}

impl Volume {
    /// An empty one of `size` bytes; `None` if this kernel does not know it.
    pub(crate) fn make(kind: Kind, folder: &Path, size: u64) -> Option<Self> {
        let image = folder.join(format!("{kind:?}").to_lowercase());
        fs::File::create(&image).and_then(|file| file.set_len(size)).expect("a file");
        let place = folder.join("mounted");
        fs::create_dir_all(&place).expect("a folder");
        match kind {
            Kind::Ext4 => run("mke2fs", &[&"-q", &"-F", &"-t", &"ext4", &image]),
            Kind::Ntfs => run("mkntfs", &[&"-q", &"-F", &"-Q", &image]),
            Kind::Fat => run("mkfs.vfat", &[&"-F", &"32", &image]),
            Kind::Xfs => run("mkfs.xfs", &[&"-q", &"-f", &image]),
            Kind::Btrfs => run("mkfs.btrfs", &[&"-q", &"-f", &image]),
        };
        let volume = Volume { kind, image, place, files: Vec::new(), chance: Chance(1) };
        (kind == Kind::Fat || volume.mount(false)).then(|| volume.unmount()).map(|()| volume)
    }

    fn mount(&self, read_only: bool) -> bool {
        let mut command = Command::new(if self.kind == Kind::Ntfs { "ntfs-3g" } else { "mount" });
        let options = match (self.kind, read_only) {
            (Kind::Ntfs, false) => "rw",
            (Kind::Ntfs, true) => "ro",
            (_, false) => "loop",
            // Two of one name are mounted at once to be compared.
            (Kind::Xfs, true) => "loop,ro,nouuid",
            (_, true) => "loop,ro",
        };
        command.args(["-o", options]).arg(&self.image).arg(&self.place);
        command.status().is_ok_and(|status| status.success())
    }

    fn unmount(&self) {
        if self.kind != Kind::Fat {
            run("umount", &[&self.place]);
        }
    }

    /// With it mounted (not FAT).
    fn mounted<R>(&self, work: impl FnOnce(&Path) -> R) -> R {
        assert!(self.kind == Kind::Fat || self.mount(false), "mounting {}", self.image.display());
        let result = work(&self.place);
        self.unmount();
        result
    }

    /// Adds folders of files, as they lie in `from`.
    pub(crate) fn add(&mut self, from: &Path) {
        let folders: Vec<PathBuf> = list(from);
        self.mounted(|place| {
            for folder in &folders {
                match self.kind {
                    Kind::Fat => run("mcopy", &[&"-s", &"-Q", &"-i", &self.image, folder, &"::"]),
                    // Owners and modes are no matter here.
                    _ => run("cp", &[&"-r", &"--no-preserve=all", folder, &place]),
                };
            }
        });
        for folder in folders {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let inside = list(&folder);
            let inside =
                inside.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()));
            self.files.extend(inside.map(|file| format!("{name}/{file}")));
        }
    }

    /// Deletes a quarter of all files, writes thousands of small ones, three times over.
    pub(crate) fn age(&mut self, folder: &Path, pool: &[PathBuf]) {
        for round in 0..3 {
            let mut gone = Vec::new();
            for _ in 0..self.files.len() / 4 {
                let at = self.chance.below(self.files.len());
                gone.push(self.files.swap_remove(at));
            }
            self.mounted(|place| match self.kind {
                Kind::Fat => gone.chunks(BATCH).for_each(|names| {
                    let names: Vec<String> = names.iter().map(|name| format!("::{name}")).collect();
                    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-i", &self.image];
                    names.iter().for_each(|name| arguments.push(name));
                    run("mdel", &arguments);
                }),
                _ => gone.iter().for_each(|name| fs::remove_file(place.join(name)).expect("removed")),
            });
            let small = folder.join("small");
            for number in 0..3000 {
                let len = 512 + self.chance.below(32 << 10);
                let from = &pool[self.chance.below(pool.len())];
                let mut bytes = fs::read(from).unwrap_or_default();
                bytes.truncate(len);
                let inside = small.join(format!("r{round}-{}", number / IN_FOLDER));
                fs::create_dir_all(&inside).expect("a folder");
                fs::write(inside.join(format!("f{number}")), bytes).expect("a file");
            }
            self.add(&small);
            fs::remove_dir_all(&small).expect("removed");
        }
    }

    /// Bytes that are not free, as the filesystem itself counts.
    pub(crate) fn used(&self) -> u64 {
        if self.kind == Kind::Fat {
            let said = run("fsck.fat", &[&"-n", &self.image]);
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            // "image: 12 files, 34/5678 clusters"
            let clusters = text.rsplit(' ').nth(1).and_then(|both| both.split_once('/'));
            let (used, all) = clusters.unwrap_or_else(|| panic!("fsck.fat says: {text}"));
            let (used, all): (u64, u64) =
                (used.parse().expect("a number"), all.trim().parse().expect("a number"));
            let boot = fs::File::open(&self.image).and_then(|file| {
                use std::os::unix::fs::FileExt;
                let mut boot = [0; 512];
                file.read_exact_at(&mut boot, 0).map(|()| boot)
            });
            let cluster = u64::from(boot.expect("the boot sector")[13]) * 512;
            let size = fs::metadata(&self.image).expect("the image").len();
            return size - (all - used) * cluster;
        }
        let size = fs::metadata(&self.image).expect("the image").len();
        self.mounted(|place| {
            let facts = statvfs(place).expect("facts of the filesystem");
            size - facts.blocks_free() * facts.fragment_size()
        })
    }

    /// Refuses a filesystem that its own program does not find whole.
    pub(crate) fn check(&self) {
        match self.kind {
            Kind::Ext4 => run("e2fsck", &[&"-f", &"-n", &self.image]),
            Kind::Ntfs => run("ntfsfix", &[&"-n", &self.image]),
            Kind::Fat => run("fsck.fat", &[&"-n", &self.image]),
            Kind::Xfs => run("xfs_repair", &[&"-n", &self.image]),
            Kind::Btrfs => {
                let said = run("btrfs", &[&"check", &"--readonly", &"--check-data-csum", &self.image]);
                let text = String::from_utf8_lossy(&said.stderr).into_owned();
                assert!(!text.contains("verify failed"), "{text}");
                said
            }
        };
    }

    /// Compares every file with those of another volume of the same kind.
    pub(crate) fn same_files(&self, other: &Path, folder: &Path) {
        let copy = Volume {
            kind: self.kind,
            image: other.to_path_buf(),
            place: folder.join("other"),
            files: Vec::new(),
            chance: Chance(1),
        };
        fs::create_dir_all(&copy.place).expect("a folder");
        copy.check();
        if self.kind == Kind::Fat {
            for volume in [self, &copy] {
                run("mcopy", &[&"-s", &"-Q", &"-n", &"-i", &volume.image, &"::", &volume.place]);
            }
        } else {
            assert!(self.mount(true) && copy.mount(true), "mounting what arrived");
        }
        run("diff", &[&"-r", &"--no-dereference", &self.place, &copy.place]);
        for volume in [self, &copy] {
            volume.unmount();
            if self.kind == Kind::Fat {
                fs::remove_dir_all(&volume.place).expect("removed");
                fs::create_dir(&volume.place).expect("a folder");
            }
        }
    }
}

/// The paths in a folder, in order.
pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.sort();
    found
}

/// Copies plain files of a tree into folders of some hundred, under short names, until they have `size`
/// bytes. Every filesystem takes these.
pub(crate) fn stage(tree: &Path, folder: &Path, size: u64) -> Vec<PathBuf> {
    let (mut open, mut staged, mut bytes) = (vec![tree.to_path_buf()], Vec::new(), 0);
    while let Some(next) = open.pop() {
        for path in list(&next) {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if metadata.is_dir() {
                open.push(path);
            } else if metadata.is_file() && bytes + metadata.len() <= size {
                let inside = folder.join(format!("d{}", staged.len() / IN_FOLDER));
                fs::create_dir_all(&inside).expect("a folder");
                let to = inside.join(format!("f{}", staged.len()));
                fs::copy(&path, &to).expect("copied");
                staged.push(to);
                bytes += metadata.len();
            }
        }
    }
    staged
}
