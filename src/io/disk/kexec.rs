//! Loads the imaged system's kernel, to be started without the firmware.
//!
//! Invariant: nothing is started here: `reboot(LINUX_REBOOT_CMD_KEXEC)` by PID 1 does that. Files are read
//! from the device through the image's place on it, so no partition node and no mount is needed.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use ext4_view::{Ext4, Ext4Read};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::boot::kexec::KexecPlan;
use crate::io::disk::partition_reader::{PartitionReader, ReadAt};
use crate::io::disk::target::ImageStorage;
use crate::io::sys;

/// Kernels and initrds are smaller than this; a larger file is not read into memory.
const MAX_FILE: u64 = 512 << 20;

/// One partition of an imaged disk.
struct ImagedPartition(PartitionReader<ImagedDisk>);

struct ImagedDisk(Arc<ImageStorage>);

impl ReadAt for ImagedDisk {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        ReadAt::read_at(self.0.disk(), offset, into)
    }
}

impl Ext4Read for ImagedPartition {
    fn read(&mut self, start: u64, into: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.read_exact_at(start, into)?)
    }
}

/// Loads the kernel; the error says for people why not.
pub fn load(storage: &Arc<ImageStorage>, plan: &KexecPlan) -> Result<(), String> {
    let disk = ImagedDisk(Arc::clone(storage));
    let reader = ImagedPartition(PartitionReader::new(disk, plan.start.0, plan.size));
    let files = Ext4::load(Box::new(reader)).map_err(|e| format!("reading the kernel's filesystem: {e}"))?;
    let kernel = memory_file(&files, &plan.kernel)?;
    let initrd = plan.initrd.as_deref().map(|path| memory_file(&files, path)).transpose()?;
    let cmdline = CString::new(plan.cmdline.as_str()).map_err(|_| "the command line has a zero in it")?;
    sys::kexec_file_load(kernel.as_fd(), initrd.as_ref().map(AsFd::as_fd), &cmdline).map_err(|e| refusal(&e))
}

fn refusal(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => " (locked down by Secure Boot, or not root)",
        Some(libc::ENOSYS) => " (this kernel was built without it)",
        Some(libc::ENOEXEC) => " (not a kernel for this machine)",
        Some(libc::EKEYREJECTED | libc::ENOKEY) => " (its signature is not trusted)",
        _ => "",
    };
    format!("the running kernel refused to load it: {error}{hint}")
}

/// A file of the filesystem in memory, with a descriptor.
fn memory_file(files: &Ext4, path: &str) -> Result<std::fs::File, String> {
    let said = |what: String| format!("reading {path}: {what}");
    let length = files.metadata(path).map_err(|e| said(e.to_string()))?.len();
    if length > MAX_FILE {
        return Err(said(format!("{length} bytes are too many for a kernel or initrd")));
    }
    let bytes = files.read(path).map_err(|e| said(e.to_string()))?;
    let fd = memfd_create(c"flashmob-kexec", MFdFlags::MFD_CLOEXEC).map_err(|e| said(e.to_string()))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&bytes).map_err(|e| said(e.to_string()))?;
    Ok(file)
}
