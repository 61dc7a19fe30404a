//! Loads the drivers for the hardware that is there.
//!
//! Invariant: each module is tried once; one that fails is reported and never stops the others. Which modules
//! a device wants is decided in `index`.

pub mod index;

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use index::{Index, name_of};

/// Lets the kernel unpack `.ko.xz` and the like by itself (Linux 5.17, `MODULE_INIT_COMPRESSED_FILE`).
const COMPRESSED: u32 = 4;
/// Deeper device trees than any machine has.
const DEEPEST: usize = 40;

/// Loads modules of one tree, and remembers which it tried.
#[derive(Debug)]
pub struct Loader {
    tree: PathBuf,
    index: Index,
    aliases: HashSet<String>,
    tried: HashSet<String>,
}

/// The result of one round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Names of modules that are loaded now and were not before.
    pub loaded: Vec<String>,
    /// Modules that could not be loaded, with the reason.
    pub failed: Vec<String>,
}

impl Loader {
    /// Opens the tree of a kernel, for example `/lib/modules/6.1.0-40-amd64`. A missing tree is an empty one:
    /// a kernel can have all drivers built in.
    pub fn open(tree: &Path) -> io::Result<Self> {
        let read = |name: &str| match fs::read_to_string(tree.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };
        let index = Index::parse(&read("modules.alias")?, &read("modules.dep")?, &read("modules.softdep")?);
        Ok(Loader { tree: tree.to_owned(), index, aliases: HashSet::new(), tried: HashSet::new() })
    }

    /// True when there is nothing to load from.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Loads the untried modules for the devices below `sys` (`/sys`). The next round sees devices that
    /// appear because of a driver loaded in this one.
    pub(crate) fn load_for_devices(&mut self, sys: &Path) -> Round {
        let mut round = Round::default();
        for alias in modaliases(sys) {
            if self.aliases.insert(alias.clone()) {
                let modules: Vec<String> =
                    self.index.matching(&alias).into_iter().map(str::to_owned).collect();
                for module in modules {
                    self.load_into(&module, &mut round);
                }
            }
        }
        round
    }

    /// Loads `module` and all it needs.
    pub fn load(&mut self, module: &str) -> Round {
        let mut round = Round::default();
        self.load_into(module, &mut round);
        round
    }

    fn load_into(&mut self, module: &str, round: &mut Round) {
        for file in self.index.load_order(module) {
            let name = name_of(file);
            if !self.tried.insert(name.clone()) {
                continue;
            }
            match insert(&self.tree.join(file)) {
                Ok(true) => round.loaded.push(name),
                Ok(false) => {}
                Err(e) => round.failed.push(format!("{name}: {e}")),
            }
        }
    }
}

/// Gives one file to the kernel. False when it is there already, or says that its hardware is not.
fn insert(file: &Path) -> io::Result<bool> {
    let flags = match file.extension() {
        Some(ending) if ending != "ko" => ModuleInitFlags::from_bits_retain(COMPRESSED),
        _ => ModuleInitFlags::empty(),
    };
    match finit_module(File::open(file)?, c"", flags) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST | Errno::ENODEV) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The modaliases of all devices below `sys`, each once.
pub(crate) fn modaliases(sys: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![(sys.join("devices"), 0)];
    while let Some((dir, depth)) = todo.pop() {
        // Devices may appear and vanish during the walk.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < DEEPEST {
                todo.push((entry.path(), depth + 1));
            } else if kind.is_file()
                && entry.file_name() == "modalias"
                && let Ok(text) = fs::read_to_string(entry.path())
                && !text.trim().is_empty()
            {
                found.insert(text.trim().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_found_once_and_links_are_not_followed() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("devices/pci0000:00/0000:00:03.0/virtio0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("modalias"), "virtio:d00000001v00001AF4\n").unwrap();
        fs::write(device.join("../modalias"), "pci:v00001AF4d00001000\n").unwrap();
        fs::write(device.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("../..", device.join("subsystem")).unwrap();
        let found: Vec<_> = modaliases(sys.path()).into_iter().collect();
        assert_eq!(found, ["pci:v00001AF4d00001000", "virtio:d00000001v00001AF4"]);
    }

    #[test]
    fn a_broken_module_is_reported_once_and_does_not_stop_the_others() {
        let sys = tempfile::tempdir().unwrap();
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(sys.path().join("devices/x")).unwrap();
        fs::write(sys.path().join("devices/x/modalias"), "x:1").unwrap();
        fs::write(tree.path().join("modules.alias"), "alias x:* gone\nalias x:1 broken\n").unwrap();
        fs::write(tree.path().join("modules.dep"), "gone.ko:\nbroken.ko: gone.ko\n").unwrap();
        fs::write(tree.path().join("broken.ko"), "no module").unwrap();
        let mut loader = Loader::open(tree.path()).unwrap();
        let round = loader.load_for_devices(sys.path());
        assert_eq!((round.loaded.len(), round.failed.len()), (0, 2), "{round:?}");
        assert!(round.failed[0].starts_with("gone: No such file"), "{round:?}");
        assert_eq!(loader.load_for_devices(sys.path()), Round::default());
    }

    #[test]
    fn a_kernel_without_a_module_tree_is_fine() {
        let nowhere = tempfile::tempdir().unwrap();
        assert!(Loader::open(&nowhere.path().join("x")).unwrap().is_empty());
    }
}
