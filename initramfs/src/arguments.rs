//! The arguments of `flashmob-initramfs build`.
//!
//! Invariant: plain values; the build checks that they fit together.

use std::path::PathBuf;

use clap::Args;

use crate::drivers::DriverSet;
use crate::secureboot::Distribution;

/// Where everything comes from and goes to.
#[derive(Args)]
pub(crate) struct BuildArgs {
    /// Folder that gets the netboot files.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The static agent, as the Debian package installs it or as docs/operations.md builds it.
    #[arg(long, value_name = "FILE", default_value = "/usr/lib/flashmob/flashmob-agent")]
    pub agent: PathBuf,
    /// Drivers inside: `virtio` for virtual machines, `all` for real ones.
    #[arg(long, value_enum, default_value_t = DriverSet::All)]
    pub drivers: DriverSet,
    /// A kernel to use instead of Debian's; needs --modules.
    #[arg(long, value_name = "VMLINUZ", requires = "modules", conflicts_with = "kernel_deb")]
    pub kernel: Option<PathBuf>,
    /// That kernel's modules, a folder named by the kernel's version (/lib/modules/VERSION).
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// A Debian kernel package to unpack (without it: the one that linux-image-amd64 names, by apt-get
    /// download).
    #[arg(long, value_name = "FILE.deb")]
    pub kernel_deb: Option<PathBuf>,
    /// Where downloaded and unpacked kernel packages are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/cache/flashmob/kernel")]
    pub cache: PathBuf,
    /// Firmware files as drivers name them.
    #[arg(long, value_name = "DIR", default_value = "/lib/firmware")]
    pub firmware: PathBuf,
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
    /// Put busybox inside as /bin/sh, for flashmob.after=shell.
    #[arg(long)]
    pub shell: bool,
    /// Also write a hybrid ISO that starts from CD and USB stick, by BIOS and UEFI.
    #[arg(long, value_name = "FILE")]
    pub iso: Option<PathBuf>,
    /// Also lay out a distribution's signed shim, signed GRUB and signed kernel, unmodified, for terminals with
    /// Secure Boot: shimx64.efi, grubx64.efi, mmx64.efi and grub/grub.cfg. The ISO starts by them likewise.
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
    /// Kernel arguments for the ISO, flashmob.efi and boot.ipxe's fallback, for example `console=ttyS0`.
    #[arg(long, value_name = "ARGS", default_value = "")]
    pub cmdline: String,
}
