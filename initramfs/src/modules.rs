//! A kernel's module tree: the modules and their dependencies.
//!
//! Invariant: a closure holds every module that `modules.dep` and `modules.softdep` name for its members, so
//! that no module in the initramfs fails to load because a file is missing. `drivers` chooses the modules,
//! the agent loads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The modules of one kernel version.
#[derive(Debug)]
pub(crate) struct ModuleTree {
    /// The folder that holds `kernel/` and `modules.dep`.
    pub root: PathBuf,
    /// The kernel's version, the folder's name.
    pub version: String,
    /// Path of each module (relative to the root) and the paths it needs.
    needs: BTreeMap<String, Vec<String>>,
    /// Paths by module name.
    names: BTreeMap<String, String>,
    /// Module names by alias (exact ones only).
    aliases: BTreeMap<String, Vec<String>>,
    /// Soft dependencies of a module name.
    soft: BTreeMap<String, Vec<String>>,
    /// Names that are part of the kernel itself.
    builtin: BTreeSet<String>,
}

impl ModuleTree {
    /// Reads depmod's lists of the modules under `root`.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let version = root
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{} does not end in a kernel version", root.display()))?
            .to_string();
        if !root.join("kernel").is_dir() {
            bail!("{} is not a module tree: it has no folder 'kernel'", root.display());
        }
        if !root.join("modules.dep").is_file() {
            bail!("{} has no modules.dep; make it with: depmod -b BASE {version}", root.display());
        }
        let text = |name: &str| -> Result<String> {
            let path = root.join(name);
            if !path.exists() && name != "modules.dep" {
                return Ok(String::new());
            }
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let needs = parse_dep(&text("modules.dep")?);
        let names = needs.keys().map(|path| (module_name(path), path.clone())).collect();
        Ok(ModuleTree {
            root: root.to_path_buf(),
            version,
            names,
            needs,
            aliases: parse_alias(&text("modules.alias")?),
            soft: parse_softdep(&text("modules.softdep")?),
            builtin: text("modules.builtin")?.lines().map(module_name).collect(),
        })
    }

    /// Paths of all modules, sorted.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.needs.keys().map(String::as_str)
    }

    /// The path of the module called `name` (`-` and `_` are the same).
    pub(crate) fn path_of(&self, name: &str) -> Option<&str> {
        self.names.get(&module_name(name)).map(String::as_str)
    }

    /// True when `name` is compiled into the kernel.
    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&module_name(name))
    }

    /// `wanted` and all modules that they need, hard and soft, as sorted paths.
    pub(crate) fn closure<'a>(&'a self, wanted: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut waiting: Vec<&str> = wanted.into_iter().collect();
        let mut found = BTreeSet::new();
        while let Some(path) = waiting.pop() {
            let Some((path, needs)) = self.needs.get_key_value(path) else { continue };
            if !found.insert(path.as_str()) {
                continue;
            }
            waiting.extend(needs.iter().map(String::as_str));
            for name in self.soft.get(&module_name(path)).into_iter().flatten() {
                waiting.extend(self.resolve(name));
            }
        }
        found
    }

    /// The modules that a soft dependency's name stands for: one of that name, or all that have it as an
    /// alias.
    fn resolve(&self, name: &str) -> Vec<&str> {
        if let Some(path) = self.path_of(name) {
            return vec![path];
        }
        let modules = self.aliases.get(&module_name(name)).into_iter().flatten();
        modules.filter_map(|module| self.path_of(module)).collect()
    }
}

/// A module's name by its path or as written: without folders and suffix, with `_` for `-`.
pub(crate) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.replace('-', "_")
}

/// `kernel/a.ko: kernel/b.ko kernel/c.ko`
fn parse_dep(text: &str) -> BTreeMap<String, Vec<String>> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path.to_string(), needs.split_whitespace().map(str::to_string).collect()))
        .collect()
}

/// `alias NAME MODULE`; patterns are for devices and not for soft dependencies.
fn parse_alias(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some("alias"), Some(alias), Some(module)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if !alias.contains(['*', ':', '?']) {
            aliases.entry(module_name(alias)).or_default().push(module.to_string());
        }
    }
    aliases
}

/// `softdep MODULE pre: A B post: C`
fn parse_softdep(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut soft: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
        let names = words.filter(|word| !matches!(*word, "pre:" | "post:")).map(str::to_string);
        soft.entry(module_name(module)).or_default().extend(names);
    }
    soft
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, ModuleTree) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("6.1.0-test");
        std::fs::create_dir_all(root.join("kernel")).unwrap();
        for (name, text) in files {
            std::fs::write(root.join(name), text).unwrap();
        }
        let tree = ModuleTree::read(&root).unwrap();
        (dir, tree)
    }

    #[test]
    fn a_closure_follows_hard_dependencies_to_the_end() {
        let (_dir, tree) = tree(&[(
            "modules.dep",
            "kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\nkernel/d.ko:\n",
        )]);
        let closure: Vec<_> = tree.closure(["kernel/a.ko"]).into_iter().collect();
        assert_eq!(closure, ["kernel/a.ko", "kernel/b.ko", "kernel/c.ko"]);
    }

    #[test]
    fn a_closure_follows_soft_dependencies_by_name_and_by_alias() {
        let (_dir, tree) = tree(&[
            (
                "modules.dep",
                "kernel/ext4.ko:\nkernel/crc32c_intel.ko:\nkernel/crc32c_generic.ko: kernel/lib.ko\n\
                 kernel/lib.ko:\nkernel/r8169.ko:\nkernel/net/realtek.ko:\n",
            ),
            ("modules.softdep", "softdep ext4 pre: crypto-crc32c\nsoftdep r8169 pre: realtek\n"),
            (
                "modules.alias",
                "alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\nalias pci:v* r8169\n",
            ),
        ]);
        let closure: Vec<_> = tree.closure(["kernel/ext4.ko", "kernel/r8169.ko"]).into_iter().collect();
        let expected = [
            "kernel/crc32c_generic.ko",
            "kernel/crc32c_intel.ko",
            "kernel/ext4.ko",
            "kernel/lib.ko",
            "kernel/net/realtek.ko",
            "kernel/r8169.ko",
        ];
        assert_eq!(closure, expected);
    }

    #[test]
    fn names_are_the_same_with_dashes_and_underscores() {
        let (_dir, tree) = tree(&[
            ("modules.dep", "kernel/usb/xhci-pci.ko:\n"),
            ("modules.builtin", "kernel/x/sd-mod.ko\n"),
        ]);
        assert_eq!(tree.path_of("xhci_pci"), Some("kernel/usb/xhci-pci.ko"));
        assert!(tree.is_builtin("sd_mod"));
        assert_eq!(module_name("kernel/a/virtio-net.ko.xz"), "virtio_net");
    }

    #[test]
    fn a_folder_that_is_no_module_tree_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ModuleTree::read(dir.path()).unwrap_err().to_string().contains("no folder 'kernel'"));
        std::fs::create_dir(dir.path().join("kernel")).unwrap();
        assert!(ModuleTree::read(dir.path()).unwrap_err().to_string().contains("depmod"));
    }
}
