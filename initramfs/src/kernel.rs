//! The source of the kernel and its modules: given files, a Debian package, or Debian's current package.
//!
//! Invariant: a package is unpacked once, into the cache, and is used only when it was unpacked completely.
//! Nothing is installed. `drivers` chooses modules.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::arguments::{KernelArgs, Source};
use crate::modules::ModuleTree;
use crate::tools::{command, run};

/// Debian's name for "the current kernel"; it depends on the real package.
const META_PACKAGE: &str = "linux-image-amd64";

/// A kernel and its modules.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub vmlinuz: PathBuf,
    pub modules: ModuleTree,
}

impl Kernel {
    /// Finds the kernel that `args` ask for.
    pub(crate) fn find(args: &KernelArgs) -> Result<Self> {
        let backports = match (&args.kernel, &args.modules) {
            (Source::File(kernel), Some(modules)) => {
                if !kernel.is_file() {
                    bail!("there is no kernel at {}", kernel.display());
                }
                return Ok(Kernel { vmlinuz: kernel.clone(), modules: ModuleTree::read(modules)? });
            }
            (Source::File(kernel), None) => bail!(
                "--kernel {}: a kernel file needs its modules, --modules /lib/modules/VERSION; Debian's own \
                 are 'stable' and 'backports'",
                kernel.display()
            ),
            (_, Some(_)) => bail!("--modules goes with the kernel's file: --kernel VMLINUZ"),
            (source, None) => *source == Source::Backports,
        };
        std::fs::create_dir_all(&args.cache)
            .with_context(|| format!("making the cache folder {}", args.cache.display()))?;
        match &args.kernel_deb {
            Some(deb) => unpack(deb, &args.cache),
            None => debian(&args.cache, backports),
        }
    }
}

/// Debian's current kernel of the release or of its backports, from the cache or by `apt-get download`.
fn debian(cache: &Path, backports: bool) -> Result<Kernel> {
    let asked = run(command("apt-cache")?.args(["show", META_PACKAGE]), "asking which kernel is current")?;
    let text = String::from_utf8_lossy(&asked.stdout);
    let package = newest(&text, backports).with_context(|| match backports {
        true => "apt knows no kernel from backports; add the line 'deb http://deb.debian.org/debian \
                 CODENAME-backports main' to /etc/apt/sources.list and run 'apt-get update'"
            .to_string(),
        false => format!("apt knows no {META_PACKAGE}; run 'apt-get update' first"),
    })?;
    let folder = cache.join("deb");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let prefix = format!("{package}_");
    if find_file(&folder, &prefix)?.is_none() {
        log::info!("downloading Debian's kernel package {package}");
        let mut download = command("apt-get")?;
        download.args(["download", package]).current_dir(&folder);
        run(&mut download, &format!("downloading {package} (if apt's lists are old: apt-get update)"))?;
    }
    let deb = find_file(&folder, &prefix)?
        .with_context(|| format!("apt-get download left no {package} in {}", folder.display()))?;
    unpack(&deb, cache)
}

/// The kernel package of the newest version that `apt-cache show` lists, of backports or else not of them.
fn newest(shown: &str, backports: bool) -> Option<&str> {
    shown.split("\n\n").find_map(|entry| {
        let value = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name));
        let is_backport = value("Version: ")?.contains("~bpo");
        let package = value("Depends: ")?.split([',', ' ']).find(|name| name.starts_with("linux-image-"))?;
        (is_backport == backports).then_some(package)
    })
}

/// The file in `folder` whose name begins with `prefix`.
fn find_file(folder: &Path, prefix: &str) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    names.sort();
    Ok(names.pop())
}

/// Unpacks a kernel package into the cache (once) and finds kernel and modules in it.
fn unpack(deb: &Path, cache: &Path) -> Result<Kernel> {
    let stem = deb.file_stem().with_context(|| format!("{} is not a package's name", deb.display()))?;
    let folder = cache.join(stem);
    if !folder.is_dir() {
        if !deb.is_file() {
            bail!("there is no package at {}", deb.display());
        }
        let half =
            tempfile::tempdir_in(cache).with_context(|| format!("writing into {}", cache.display()))?;
        let tree = half.path().join("tree");
        let what = format!("unpacking {}", deb.display());
        run(command("dpkg")?.arg("-x").arg(deb).arg(&tree), &what)?;
        let version = version_in(&modules_folder(&tree))?;
        run(
            command("depmod")?.arg("-b").arg(&tree).arg(&version),
            "finding the kernel modules' dependencies",
        )?;
        std::fs::rename(&tree, &folder).with_context(|| format!("naming {}", folder.display()))?;
    }
    let modules = modules_folder(&folder);
    let version = version_in(&modules)?;
    let vmlinuz = folder.join("boot").join(format!("vmlinuz-{version}"));
    if !vmlinuz.is_file() {
        bail!("{} holds no kernel {}", deb.display(), vmlinuz.display());
    }
    Ok(Kernel { vmlinuz, modules: ModuleTree::read(&modules.join(version))? })
}

/// Where an unpacked package has its modules (`/usr/lib` since Debian 13).
fn modules_folder(tree: &Path) -> PathBuf {
    let old = tree.join("lib/modules");
    if old.is_dir() { old } else { tree.join("usr/lib/modules") }
}

/// The one kernel version that has modules in `folder`.
fn version_in(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: this package holds no kernel modules", folder.display()))?;
    let versions: Vec<String> =
        entries.filter_map(|e| e.ok().map(|e| e.file_name().to_string_lossy().into_owned())).collect();
    match versions.as_slice() {
        [version] => Ok(version.clone()),
        others => bail!("{} holds modules of {} kernels, expected one", folder.display(), others.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_the_release_and_the_one_of_backports_are_told_apart() {
        let shown = "Package: linux-image-amd64\nVersion: 6.12.9-1~bpo12+1\n\
                     Depends: linux-image-6.12.9+bpo-amd64 (= 6.12.9-1~bpo12+1)\n\n\
                     Package: linux-image-amd64\nVersion: 6.1.129-1\n\
                     Depends: linux-image-6.1.0-32-amd64 (= 6.1.129-1)\n";
        assert_eq!(newest(shown, true), Some("linux-image-6.12.9+bpo-amd64"));
        assert_eq!(newest(shown, false), Some("linux-image-6.1.0-32-amd64"));
        assert_eq!(newest(shown.split_once("\n\n").expect("two").1, true), None);
    }

    #[test]
    fn a_kernel_file_without_modules_is_refused_with_what_to_do() {
        let args = KernelArgs {
            kernel: "/boot/vmlinuz".into(),
            modules: None,
            kernel_deb: None,
            cache: "/nowhere".into(),
        };
        assert!(Kernel::find(&args).unwrap_err().to_string().contains("--modules /lib/modules/VERSION"));
    }
}
