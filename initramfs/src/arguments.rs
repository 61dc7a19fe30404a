//! The arguments of `flashmob-initramfs build`, and those that it shares with `check`.
//!
//! Invariant: plain values; the build checks that they fit together.

use std::path::PathBuf;

use clap::Args;

use crate::drivers::DriverSet;
use crate::secureboot::Distribution;

/// Which kernel is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Debian's own.
    Stable,
    /// A newer one that Debian offers for the same release, for new machines.
    Backports,
    /// Any kernel's file.
    File(PathBuf),
}

impl From<&str> for Source {
    fn from(word: &str) -> Self {
        match word {
            "stable" => Source::Stable,
            "backports" => Source::Backports,
            file => Source::File(file.into()),
        }
    }
}

/// Which kernel, and where it is kept.
#[derive(Args)]
pub(crate) struct KernelArgs {
    /// The kernel: Debian's `stable` one, its newer one from `backports`, or a file, which needs --modules.
    #[arg(long, value_name = "stable|backports|VMLINUZ", default_value = "stable")]
    pub kernel: Source,
    /// That file's modules, a folder named by the kernel's version (/lib/modules/VERSION).
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// A Debian kernel package to unpack, instead of the one that linux-image-amd64 names, which apt-get
    /// download fetches.
    #[arg(long, value_name = "FILE.deb", conflicts_with_all = ["kernel", "modules"])]
    pub kernel_deb: Option<PathBuf>,
    /// Where downloaded and unpacked kernel packages are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/cache/flashmob/kernel")]
    pub cache: PathBuf,
}

/// Which of the kernel's drivers, and their firmware.
#[derive(Args)]
pub(crate) struct DriverArgs {
    /// Drivers inside: `virtio` for virtual machines, `all` for real ones.
    #[arg(long = "drivers", value_enum, default_value_t = DriverSet::All)]
    pub set: DriverSet,
    /// Firmware files as drivers name them.
    #[arg(long, value_name = "DIR", default_value = "/lib/firmware")]
    pub firmware: PathBuf,
}

/// Where everything comes from and goes to.
#[derive(Args)]
pub(crate) struct BuildArgs {
    /// Folder that gets the netboot files.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The static agent, as the Debian package installs it or as docs/install.md builds it.
    #[arg(long, value_name = "FILE", default_value = "/usr/lib/flashmob/flashmob-agent")]
    pub agent: PathBuf,
    #[command(flatten)]
    pub drivers: DriverArgs,
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Public key that signed manifests must match (minisign's .pub file); may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// Address of the server, tried before those that DHCP, DNS and mDNS name.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Let `flashmob.insecure=1` on the kernel's command line accept unsigned manifests. For test labs only.
    #[arg(long)]
    pub allow_insecure: bool,
    /// Never believe the server's record of a disk's content: jobs with compare = "trust" read the disk, as
    /// with "auto".
    #[arg(long)]
    pub no_trust: bool,
    /// Put Debian's ntfsresize inside (package ntfs-3g), so that the agent lets an NTFS grow on a larger
    /// disk. Without it Windows does so at its first start, by flashmob's helper.
    #[arg(long)]
    pub ntfs: bool,
    /// Put busybox inside as /bin/sh, for flashmob.after=shell.
    #[arg(long)]
    pub shell: bool,
    /// Also write a hybrid ISO that starts from CD and USB stick, by BIOS and UEFI. With --secure-boot, or
    /// else with --uki, UEFI starts it by signed programs.
    #[arg(long, value_name = "FILE")]
    pub iso: Option<PathBuf>,
    /// Also lay out a distribution's signed shim, signed GRUB and signed kernel, unmodified, for terminals
    /// with Secure Boot: shimx64.efi, grubx64.efi, mmx64.efi and grub/grub.cfg. The ISO starts by them
    /// likewise.
    #[arg(long, value_enum, value_name = "DISTRIBUTION")]
    pub secure_boot: Option<Distribution>,
    /// Also make flashmob.efi: kernel, initramfs and command line in one UEFI program, signed with the
    /// organisation's key, which the terminals' firmware must know. The firmware starts it directly.
    #[arg(long, requires = "sign_key", requires = "sign_cert")]
    pub uki: bool,
    /// Private key that signs flashmob.efi (PEM).
    #[arg(long, value_name = "FILE", requires = "uki")]
    pub sign_key: Option<PathBuf>,
    /// That key's certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "uki")]
    pub sign_cert: Option<PathBuf>,
    /// Folder that `flashmob-initramfs keys` made: the agent enrols these keys of Secure Boot on each
    /// terminal whose firmware is in Setup Mode.
    #[arg(long, value_name = "DIR")]
    pub enrol_keys: Option<PathBuf>,
    /// Kernel arguments for the ISO, flashmob.efi and boot.ipxe's fallback, for example `console=ttyS0`.
    #[arg(long, value_name = "ARGS", default_value = "")]
    pub cmdline: String,
}
