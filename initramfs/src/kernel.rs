//! The source of the kernel and its modules: given files, a Debian package, or Debian's current package.
//!
//! Invariant: a package is unpacked once, into the cache, and is used only when it was unpacked completely.
//! Nothing is installed. `drivers` chooses modules.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::arguments::BuildArgs;
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
    pub(crate) fn find(args: &BuildArgs) -> Result<Self> {
        if let (Some(kernel), Some(modules)) = (&args.kernel, &args.modules) {
            if !kernel.is_file() {
                bail!("there is no kernel at {}", kernel.display());
            }
            return Ok(Kernel { vmlinuz: kernel.clone(), modules: ModuleTree::read(modules)? });
        }
        std::fs::create_dir_all(&args.cache)
            .with_context(|| format!("making the cache folder {}", args.cache.display()))?;
        match &args.kernel_deb {
            Some(deb) => unpack(deb, &args.cache),
            None => debian(&args.cache),
        }
    }
}

/// Debian's current kernel, from the cache or by `apt-get download`.
fn debian(cache: &Path) -> Result<Kernel> {
    let asked = run(command("apt-cache")?.args(["depends", META_PACKAGE]), "asking which kernel is current")?;
    let text = String::from_utf8_lossy(&asked.stdout);
    let package = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("apt knows no {META_PACKAGE}; run 'apt-get update' first"))?;
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
