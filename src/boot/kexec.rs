//! The kernel to start directly, without the firmware.
//!
//! Invariant: a [`KexecPlan`] names files on a partition that the plan of the disk has. `io::disk::kexec`
//! reads and loads them.

use crate::layout::plan::LayoutPlan;
use crate::units::DiskOffset;

/// A kernel on the imaged disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KexecPlan {
    /// Where its filesystem begins on the disk.
    pub start: DiskOffset,
    /// Bytes of the filesystem's partition.
    pub size: u64,
    /// Path of the kernel.
    pub kernel: String,
    /// Path of its initrd.
    pub initrd: Option<String>,
    pub cmdline: String,
}

/// Why the image's kernel cannot start without the firmware.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoKernel {
    #[error("the image records no Linux kernel")]
    NotRecorded,
    #[error("the kernel's partition {0} is not in the image")]
    NotInImage(u32),
    #[error("the kernel's partition {0} was not written, and is not proved")]
    NotWritten(u32),
}

/// The kernel that the image recorded.
pub fn plan(layout: &LayoutPlan) -> Result<KexecPlan, NoKernel> {
    let linux = layout.manifest().boot.linux.as_ref().ok_or(NoKernel::NotRecorded)?;
    let place = layout.place(linux.partition).ok_or(NoKernel::NotInImage(linux.partition))?;
    if !place.replaced {
        return Err(NoKernel::NotWritten(linux.partition));
    }
    Ok(KexecPlan {
        start: place.start,
        size: place.size,
        kernel: linux.kernel.clone(),
        initrd: linux.initrd.clone(),
        cmdline: linux.cmdline.clone(),
    })
}
