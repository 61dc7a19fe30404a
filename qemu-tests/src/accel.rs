//! Whether this machine's KVM can be used. `/dev/kvm` may exist and be useless, so it is tried.
//!
//! Invariant: asked once for each process; the answer is never a guess.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// How QEMU runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// The best that works here.
    pub fn probed() -> Accel {
        static ANSWER: OnceLock<Accel> = OnceLock::new();
        *ANSWER.get_or_init(|| if kvm_works().unwrap_or(false) { Accel::Kvm } else { Accel::Tcg })
    }

    /// QEMU's arguments for it.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "qemu64"],
        }
    }
}

/// QEMU's exit code after the boot sector wrote 0x10 to the debug port: `(0x10 << 1) | 1`.
const GOOD: i32 = 33;

/// Runs a boot sector that reports to the debug port: `mov $0xf4,%dx; mov $0x10,%al; outb %al,%dx; hlt`.
fn kvm_works() -> std::io::Result<bool> {
    if !std::path::Path::new("/dev/kvm").exists() {
        return Ok(false);
    }
    let mut sector = [0u8; 512];
    sector[..7].copy_from_slice(&[0xba, 0xf4, 0x00, 0xb0, 0x10, 0xee, 0xf4]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), sector)?;
    let drive = format!("format=raw,file={},if=ide", file.path().display());
    let status = Command::new("timeout")
        .args(["-s", "KILL", "3", "qemu-system-x86_64"])
        .args(Accel::Kvm.arguments())
        .args(["-m", "64", "-display", "none", "-nodefaults", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive", &drive])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(status.code() == Some(GOOD))
}
