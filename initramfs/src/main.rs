//! `flashmob-initramfs`: builds what a terminal netboots: kernel, initramfs, iPXE script, GRUB images, ISO.
//!
//! Invariant: same input, same bytes (the ISO excepted, whose boot images carry dates), and nothing is
//! written outside `--out` and the cache. `modules` knows the dependencies of kernel modules, `drivers` the
//! sets, `archive` the archive's format. `flashmob serve` serves the files.

mod archive;
mod build;
mod drivers;
mod firmware;
mod kernel;
mod localboot;
mod modules;
mod netboot;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use flashmob::event::Class;

use crate::drivers::DriverSet;

/// Builds the files that flashmob's terminals netboot.
#[derive(Parser)]
#[command(name = "flashmob-initramfs", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write vmlinuz, initramfs.img, boot.ipxe, localboot.0, localboot.efi, undionly.kpxe and snponly.efi
    /// into a folder for `flashmob serve --boot`.
    Build(BuildArgs),
}

/// Where everything comes from and goes to.
#[derive(Args)]
struct BuildArgs {
    /// Folder that gets the netboot files.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The static agent (`cargo build --profile agent --target x86_64-unknown-linux-musl --bin flashmob-agent
    /// --no-default-features --features agent`).
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// Drivers inside: `virtio` for virtual machines, `all` for real ones.
    #[arg(long, value_enum, default_value_t = DriverSet::All)]
    drivers: DriverSet,
    /// A kernel to use instead of Debian's; needs --modules.
    #[arg(long, value_name = "VMLINUZ", requires = "modules", conflicts_with = "kernel_deb")]
    kernel: Option<PathBuf>,
    /// That kernel's modules, a folder named by the kernel's version (/lib/modules/VERSION).
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// A Debian kernel package to unpack (without it: the one that linux-image-amd64 names, by apt-get
    /// download).
    #[arg(long, value_name = "FILE.deb")]
    kernel_deb: Option<PathBuf>,
    /// Where downloaded and unpacked kernel packages are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/cache/flashmob/kernel")]
    cache: PathBuf,
    /// Firmware files as drivers name them.
    #[arg(long, value_name = "DIR", default_value = "/lib/firmware")]
    firmware: PathBuf,
    /// Public key that signed manifests must match (minisign's .pub file); may be given more than once.
    #[arg(long, value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Address of the server, tried before those that DHCP, DNS and mDNS name.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Let `flashmob.insecure=1` on the kernel's command line accept unsigned manifests. For test labs only.
    #[arg(long)]
    allow_insecure: bool,
    /// Never believe the server's record of a disk's content: jobs with compare = "trust" read the disk, as
    /// with "auto".
    #[arg(long)]
    no_trust: bool,
    /// Put busybox inside as /bin/sh, for flashmob.after=shell.
    #[arg(long)]
    shell: bool,
    /// Also write a hybrid ISO that starts from CD and USB stick, by BIOS and UEFI.
    #[arg(long, value_name = "FILE")]
    iso: Option<PathBuf>,
    /// Kernel arguments for the ISO and boot.ipxe's fallback, for example `console=ttyS0`.
    #[arg(long, value_name = "ARGS", default_value = "")]
    cmdline: String,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format_timestamp(None)
        .format_target(false)
        .init();
    let Command::Build(args) = Cli::parse().command;
    match build::build(&args) {
        Ok(summary) => {
            print!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::from(Class::Usage.exit_code())
        }
    }
}
