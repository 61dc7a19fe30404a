//! Assembles the netboot files: agent, modules, firmware, keys and settings go into the initramfs, the other
//! files beside it.
//!
//! Invariant: every file of the result is written under a temporary name first, so that a running server
//! never sends half of a file.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flashmob::manifest::TrustedKeys;

use crate::archive::{Node, Tree};
use crate::arguments::BuildArgs;
use crate::drivers::{self, DriverSet};
use crate::enrol;
use crate::firmware::Firmware;
use crate::iso::{self, Starts};
use crate::kernel::Kernel;
use crate::localboot;
use crate::netboot;
use crate::ntfs;
use crate::secureboot;
use crate::tools::{command, run};
use crate::uki;
use crate::whole;

/// Kernel and initramfs together stay under this, so that a hundred terminals can fetch them.
const LARGEST: u64 = 64 << 20;
/// Written by depmod, read by the agent.
const MODULE_LISTS: &[&str] = &["modules.alias", "modules.builtin", "modules.dep", "modules.softdep"];
/// Read by depmod.
const DEPMOD_NEEDS: &[&str] = &["modules.builtin", "modules.builtin.modinfo", "modules.order"];
/// Folders that the agent mounts on or writes to.
const FOLDERS: &[&str] = &["dev", "etc", "mnt", "proc", "run", "sys", "tmp", "var"];
const BUSYBOX: &str = "/bin/busybox";

/// Builds everything that `args` ask for and returns a summary for people.
pub(crate) fn build(args: &BuildArgs) -> Result<String> {
    let kernel = Kernel::find(&args.kernel)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let chosen = drivers::select(&kernel.modules, args.drivers.set)?;
    log::info!("kernel {}, {} modules", kernel.modules.version, chosen.len());

    let mut tree = Tree::default();
    base(&mut tree, args)?;
    let ntfs = if args.ntfs { Some(ntfs::add(&mut tree)?) } else { None };
    let mut firmware = Firmware::default();
    modules(&mut tree, &kernel, &chosen.iter().copied().collect::<Vec<_>>(), args, &mut firmware)?;
    for (name, path) in &firmware.files {
        tree.file(&format!("lib/firmware/{name}"), read(path)?);
    }
    let contents = tree.contents();
    tree.file("etc/flashmob/contents.sha256", contents);

    let image = tree.to_image(level(args.drivers.set))?;
    let vmlinuz = read(&kernel.vmlinuz)?;
    if args.secure_boot.is_some() {
        secureboot::check_kernel(&kernel.vmlinuz, &vmlinuz)?;
    }
    let size = size_of(&vmlinuz) + size_of(&image);
    if size > LARGEST {
        bail!("kernel and initramfs have {size} bytes; at most {LARGEST} are allowed: use fewer modules");
    }
    // It has the agent and the keys of an earlier build, and firmware may take it before all others.
    let removed = !args.uki && remove_if_there(&args.out.join(uki::NAME))?;
    whole::write(&args.out.join("vmlinuz"), &vmlinuz)?;
    whole::write(&args.out.join("initramfs.img"), &image)?;
    whole::write(&args.out.join("boot.ipxe"), netboot::ipxe_script(args.server.as_deref()).as_bytes())?;
    localboot::write(&args.out)?;
    let without = netboot::copy_ipxe(&args.out)?;
    let uki = if args.uki { Some(uki::write(args, &vmlinuz, &image)?) } else { None };
    if args.secure_boot.is_some() {
        for (name, content) in secureboot::netboot_files(args.server.as_deref())? {
            whole::write(&args.out.join(name), &content)?;
        }
    }
    if let Some(iso) = &args.iso {
        let starts = match (args.secure_boot, args.uki) {
            (Some(_), _) => Starts::SignedChain,
            (None, true) => Starts::OwnProgram,
            (None, false) => Starts::Grub,
        };
        iso::write(&args.out, iso, &args.cmdline, starts)?;
    }

    let mut summary = format!(
        "kernel {}, {} modules, {} firmware files\n{:>9} bytes vmlinuz\n{:>9} bytes initramfs.img\n",
        kernel.modules.version,
        chosen.len(),
        firmware.files.len(),
        vmlinuz.len(),
        image.len()
    );
    if let Some(size) = ntfs {
        writeln!(summary, "inside it ntfsresize and its libraries, {size} bytes before compression")?;
    }
    if let Some(size) = uki {
        writeln!(summary, "{size:>9} bytes {}", uki::NAME)?;
    }
    if removed {
        writeln!(
            summary,
            "{} of an earlier build is gone, because it had that build's agent and keys; --uki makes a new \
             one",
            uki::NAME
        )?;
    }
    if !firmware.missing.is_empty() {
        let names: Vec<String> =
            firmware.missing.iter().map(|(name, (n, of))| format!("{name} ({n} of {of})")).collect();
        writeln!(
            summary,
            "drivers that name firmware which is not under {} (Debian: firmware-misc-nonfree, \
             firmware-realtek, firmware-bnx2, firmware-bnx2x, firmware-qlogic); most work without: {}",
            args.drivers.firmware.display(),
            names.join(", ")
        )?;
    }
    if !without.is_empty() {
        writeln!(summary, "not copied: {} (apt-get install ipxe)", without.join(", "))?;
    }
    Ok(summary)
}

/// How hard zstd tries: the small set is built again and again, the large one is fetched by many.
fn level(set: DriverSet) -> i32 {
    match set {
        DriverSet::Virtio => 9,
        DriverSet::All => 15,
    }
}

fn base(tree: &mut Tree, args: &BuildArgs) -> Result<()> {
    for folder in FOLDERS {
        tree.put(folder, Node::Folder);
    }
    tree.put("dev/console", Node::Device { major: 5, minor: 1 });
    tree.put("dev/null", Node::Device { major: 1, minor: 3 });
    let agent = read(&args.agent)?;
    if !agent.starts_with(b"\x7fELF") {
        bail!("{} is not a Linux program: name the agent that was built for musl", args.agent.display());
    }
    tree.program("init", agent);
    let mut keys = String::new();
    for path in &args.keys {
        let text =
            String::from_utf8(read(path)?).with_context(|| format!("{} is not text", path.display()))?;
        let found = TrustedKeys::parse(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        if found.is_empty() {
            bail!(
                "{} holds no minisign public key: name the .pub file of flashmob-mkimage keygen",
                path.display()
            );
        }
        keys += text.trim_end();
        keys.push('\n');
    }
    if args.keys.is_empty() {
        log::warn!(
            "no --keys: terminals will trust no image{}",
            if args.allow_insecure {
                " unless flashmob.insecure=1 is on the kernel's command line"
            } else {
                ""
            }
        );
    }
    tree.file("etc/flashmob/keys.pub", keys);
    if let Some(server) = &args.server {
        if !server.starts_with("http://") {
            bail!("--server {server}: expected http://HOST:PORT");
        }
        tree.file("etc/flashmob/server", format!("{server}\n"));
    }
    if let Some(folder) = &args.enrol_keys {
        enrol::put_inside(tree, folder)?;
    }
    if args.allow_insecure {
        tree.file("etc/flashmob/allow-insecure", Vec::new());
    }
    if args.no_trust {
        tree.file("etc/flashmob/no-trust", Vec::new());
    }
    if args.shell {
        if !Path::new(BUSYBOX).is_file() {
            bail!("{BUSYBOX} is missing; install it with: apt-get install busybox-static");
        }
        tree.program("bin/busybox", read(Path::new(BUSYBOX))?);
        tree.put("bin/sh", Node::Link("busybox".into()));
    }
    Ok(())
}

/// The modules at `paths`, and depmod's lists of just these.
fn modules(
    tree: &mut Tree,
    kernel: &Kernel,
    paths: &[&str],
    args: &BuildArgs,
    firmware: &mut Firmware,
) -> Result<()> {
    let source = &kernel.modules.root;
    let version = &kernel.modules.version;
    let work = tempfile::tempdir().context("making a temporary folder")?;
    let base = work.path().join("lib/modules").join(version);
    for path in paths {
        let content = read_module(&source.join(path))?;
        let plain =
            path.split_once(".ko").map_or_else(|| (*path).to_string(), |(stem, _)| format!("{stem}.ko"));
        write(&base.join(&plain), &content)?;
        firmware.add(&crate::modules::module_name(path), &content, &args.drivers.firmware);
        tree.file(&format!("lib/modules/{version}/{plain}"), content);
    }
    for list in DEPMOD_NEEDS {
        if source.join(list).is_file() {
            write(&base.join(list), &read(&source.join(list))?)?;
        }
    }
    run(command("depmod")?.arg("-b").arg(work.path()).arg(version), "listing the modules' dependencies")?;
    for list in MODULE_LISTS {
        if base.join(list).is_file() {
            tree.file(&format!("lib/modules/{version}/{list}"), read(&base.join(list))?);
        }
    }
    Ok(())
}

/// A module's bytes, unpacked if the distribution compresses its modules: the whole archive is compressed
/// anyway.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("ko") => return read(path),
        _ => bail!("{} is compressed in a way that this program does not know", path.display()),
    };
    let what = format!("unpacking {}", path.display());
    Ok(run(command(program)?.arg("-dc").arg(path), &what)?.stdout)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Removes a file; false if there is none.
fn remove_if_there(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("removing {}", path.display())),
    }
}

/// Writes a file of the archive, with the folders above it.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().with_context(|| format!("{} has no folder", path.display()))?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    std::fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

fn size_of(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cli, Command};
    use clap::Parser;

    #[test]
    fn no_trust_is_in_the_initramfs_only_where_it_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let agent = folder.path().join("agent");
        std::fs::write(&agent, b"\x7fELF").expect("written");
        let agent = agent.to_str().expect("text");
        for (option, there) in [(None, false), (Some("--no-trust"), true)] {
            let words = ["flashmob-initramfs", "build", "--out", "/nowhere", "--agent", agent];
            let Command::Build(args) = Cli::parse_from(words.into_iter().chain(option)).command else {
                panic!("build was typed");
            };
            let mut tree = Tree::default();
            base(&mut tree, &args).expect("built");
            assert_eq!(tree.contents().contains("/etc/flashmob/no-trust"), there);
        }
    }
}
