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

/// The kernel that the image recorded, or the reason why it cannot start.
pub fn plan(layout: &LayoutPlan) -> Result<KexecPlan, String> {
    let linux = layout.manifest().boot.linux.as_ref();
    let linux = linux.ok_or("the image records no Linux kernel")?;
    let place = layout.place(linux.partition);
    let place =
        place.ok_or_else(|| format!("the kernel's partition {} is not in the image", linux.partition))?;
    if !place.replaced {
        return Err(format!("the kernel's partition {} was not written, and is not proved", linux.partition));
    }
    Ok(KexecPlan {
        start: place.start,
        size: place.size,
        kernel: linux.kernel.clone(),
        initrd: linux.initrd.clone(),
        cmdline: linux.cmdline.clone(),
    })
}
