//! Assets of every lab, made once: programs, a kernel, netboot files, keys, golden disks, images.
//!
//! Invariant: everything lies under `target/qemu` and is reused where its input is the same. A run that makes
//! assets waits until no other run uses them. Terminals, disks and servers are `lab`'s.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flashmob_testkit::command::{try_command, try_run};
use sha2::{Digest, Sha256};

use crate::golden::{self, FirstStart, Kernel};

/// The image's name in the repository.
pub const IMAGE: &str = "golden";
/// Small, so that a small image has enough pieces to share.
pub const PIECE_LENGTH: &str = "1MiB";
/// The system that terminals get.
pub const NEW: &str = "new";
/// A system that was on a terminal before.
pub const OLD: &str = "old";
/// Kernel arguments of every terminal. Tests read the serial line. On a busy machine without KVM the timer's
/// interrupts come late, and a kernel that checks the timer panics.
pub const KERNEL_ARGUMENTS: &str = "console=tty0 console=ttyS0,115200 no_timer_check";

/// The programs as `cargo build --release` left them.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The server and administrator's tool.
    pub flashmob: PathBuf,
    pub mkimage: PathBuf,
    /// The netboot file maker.
    pub initramfs: PathBuf,
    pub agent: PathBuf,
}

/// How long a step of the preparation took.
#[derive(Debug, Clone)]
pub struct Step {
    pub what: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// Everything that labs share.
#[derive(Debug, Clone)]
pub struct Assets {
    pub folder: PathBuf,
    pub programs: Programs,
    /// Kernel, initramfs and so on, with the key that signed the images.
    pub netboot: PathBuf,
    /// The same as a CD.
    pub iso: PathBuf,
    /// Disk image of the system that terminals get.
    pub golden: PathBuf,
    /// Disk image of the system that was there before.
    pub old: PathBuf,
    /// The repository with the captured and signed image.
    pub images: PathBuf,
    /// The key that signed it.
    pub secret: PathBuf,
    /// Times of the steps.
    pub steps: Vec<Step>,
    /// A shared lock: no other run makes these files anew while this one serves them.
    pub lock: Arc<File>,
}

impl Assets {
    /// Makes missing assets and passes each step's description to `say`.
    pub fn prepare(say: &dyn Fn(&str)) -> Result<Assets> {
        ensure!(nix::unistd::geteuid().is_root(), "this needs root: it makes network namespaces");
        let target = target_folder();
        let folder = target.join("qemu");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            say("wait for another run of the tests or the demonstration to end");
            lock.lock().context("waiting for another run")?;
        }
        let mut steps = Steps { say, done: Vec::new() };

        let programs = steps.step("build the programs", || build_programs(&target))?;
        let keys = folder.join("keys");
        let public = keys.join("lab.pub");
        let secret = keys.join("lab.key");
        if !public.is_file() {
            let _ = fs::remove_dir_all(&keys);
            fs::create_dir_all(&keys)?;
            let args = [
                "keygen".as_ref(),
                "--secret".as_ref(),
                secret.as_os_str(),
                "--public".as_ref(),
                public.as_os_str(),
            ];
            try_command(Command::new(&programs.mkimage).args(args))?;
        }
        let netboot = folder.join("netboot");
        let iso = folder.join("flashmob.iso");
        let cache = folder.join("kernel");
        steps.step("make the netboot files", || {
            build_netboot(&programs, &netboot, &cache, &["--iso".as_ref(), iso.as_os_str()], &public)
        })?;
        let (golden, old) = steps.step("make the golden disk", || {
            let kernel = Kernel::unpacked(&unpacked_kernel(&cache)?)?;
            let make = |mark| golden_disk(&folder, &kernel, mark, FirstStart::Greeting);
            Ok((make(NEW)?, make(OLD)?))
        })?;
        let images = folder.join("images");
        steps.step("capture and sign the image", || capture(&programs, &golden, &images, &secret, &[]))?;
        lock.lock_shared().context("sharing the lock")?;
        let (steps, lock) = (steps.done, Arc::new(lock));
        Ok(Assets { folder, programs, netboot, iso, golden, old, images, secret, steps, lock })
    }

    /// The unpacked kernel package of the netboot files.
    pub fn kernel(&self) -> Result<PathBuf> {
        unpacked_kernel(&self.folder.join("kernel"))
    }

    /// A golden disk like the usual one, whose system runs flashmob's helper when it starts.
    pub fn golden_with_helper(&self) -> Result<PathBuf> {
        let kernel = Kernel::unpacked(&self.kernel()?)?;
        golden_disk(&self.folder, &kernel, NEW, FirstStart::Helper)
    }
}

struct Steps<'a> {
    say: &'a dyn Fn(&str),
    done: Vec<Step>,
}

impl Steps<'_> {
    fn step<T>(&mut self, what: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        (self.say)(what);
        let start = Instant::now();
        let value = work().with_context(|| format!("to {what}"))?;
        self.done.push(Step { what, took: start.elapsed() });
        Ok(value)
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

fn target_folder() -> PathBuf {
    // Cargo takes a relative folder from where it is started, which is the workspace.
    workspace().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Builds with cargo, which skips programs that are up to date.
fn build_programs(target: &Path) -> Result<Programs> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = |args: &str| {
        let mut command = Command::new(&cargo);
        command.current_dir(workspace()).args(["build", "--quiet", "--locked"]);
        // ring's build script runs again, and all that depends on it, when this differs from a build by hand.
        command.env_remove("CARGO_MANIFEST_DIR");
        try_command(command.args(args.split(' ')))
    };
    // All packages at once, as `demo.sh` does: then they share one set of features and so one build of each
    // dependency.
    build("--release --workspace --bins")?;
    let musl = "x86_64-unknown-linux-musl";
    build(&format!(
        "--profile agent -p flashmob --bin flashmob-agent --no-default-features --features agent --target \
         {musl}"
    ))?;
    let release = target.join("release");
    Ok(Programs {
        flashmob: release.join("flashmob"),
        mkimage: release.join("flashmob-mkimage"),
        initramfs: release.join("flashmob-initramfs"),
        agent: target.join(musl).join("agent/flashmob-agent"),
    })
}

/// Runs `flashmob-initramfs` with the small driver set.
pub fn build_netboot(
    programs: &Programs,
    out: &Path,
    cache: &Path,
    more: &[&std::ffi::OsStr],
    public_key: &Path,
) -> Result<()> {
    let mut command = Command::new(&programs.initramfs);
    command.arg("build").arg("--out").arg(out).arg("--agent").arg(&programs.agent);
    command.arg("--keys").arg(public_key).arg("--cache").arg(cache).args([
        "--drivers",
        "virtio",
        "--cmdline",
    ]);
    try_command(command.arg(KERNEL_ARGUMENTS).args(more)).map(drop)
}

/// The newest kernel package that `flashmob-initramfs` left unpacked in its cache, by the date that the
/// package gives its folder. After an update the older one is still there.
fn unpacked_kernel(cache: &Path) -> Result<PathBuf> {
    let unpacked = fs::read_dir(cache)
        .with_context(|| format!("reading {}", cache.display()))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.join("boot").is_dir());
    let when = |path: &PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    unpacked.max_by_key(when).with_context(|| format!("{} holds no unpacked kernel", cache.display()))
}

/// A golden disk, made when its recipe, its mark or the kernel is new.
fn golden_disk(folder: &Path, kernel: &Kernel, mark: &str, start: FirstStart) -> Result<PathBuf> {
    let recipe = Sha256::digest(concat!(
        include_str!("golden.rs"),
        include_str!("../../src/packaging/helper/linux/first-start")
    ));
    let recipe: String = recipe.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let kind = format!("{start:?}").to_lowercase();
    let disk = folder.join(format!("golden-{mark}-{kind}-{}-{recipe}.img", kernel.version));
    if !disk.is_file() {
        golden::make(&disk, kernel, mark, start)?;
    }
    Ok(disk)
}

/// Captures `golden` into the repository `images`, as version 1, signed, with `more` options.
pub fn capture(
    programs: &Programs,
    golden: &Path,
    images: &Path,
    secret: &Path,
    more: &[&str],
) -> Result<()> {
    if images.exists() {
        fs::remove_dir_all(images).with_context(|| format!("removing {}", images.display()))?;
    }
    let mut command = Command::new(&programs.mkimage);
    command.arg("capture").arg(golden).arg("--repository").arg(images);
    command.args(["--name", IMAGE, "--version", "1", "--piece-length", PIECE_LENGTH]);
    try_command(command.arg("--key").arg(secret).args(more)).map(drop)
}

/// Copies a folder with sparse files, so that a test may spoil the copy.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let args = ["-a".as_ref(), "--sparse=always".as_ref(), from.as_os_str(), to.as_os_str()];
    try_run("cp", args).map(drop)
}
