//! Loads the imaged system's kernel, to be started without the firmware.
//!
//! Invariant: nothing is started here: `reboot(LINUX_REBOOT_CMD_KEXEC)` by PID 1 does that. Files are read
//! from the device through the image's place on it, so no partition node and no mount is needed.

use std::ffi::{CString, NulError};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use ext4_view::{Ext4, Ext4Error, Ext4Read};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::boot::kexec::{self, NoKernel};
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

/// Why the image's kernel was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    NoKernel(#[from] NoKernel),
    #[error("reading the kernel's filesystem: {0}")]
    Filesystem(#[from] Ext4Error),
    #[error("reading {path}: {why}")]
    File { path: String, why: String },
    #[error("the command line has a zero in it")]
    CommandLine(#[from] NulError),
    #[error("the running kernel refused to load it: {source}{}", hint(.source))]
    Refused { source: io::Error },
}

/// Loads the image's kernel.
pub fn load(storage: &Arc<ImageStorage>) -> Result<(), LoadError> {
    let plan = kexec::plan(storage.plan())?;
    let disk = ImagedDisk(Arc::clone(storage));
    let reader = ImagedPartition(PartitionReader::new(disk, plan.start.0, plan.size));
    let files = Ext4::load(Box::new(reader))?;
    let kernel = memory_file(&files, &plan.kernel)?;
    let initrd = plan.initrd.as_deref().map(|path| memory_file(&files, path)).transpose()?;
    let cmdline = CString::new(plan.cmdline.as_str())?;
    let initrd = initrd.as_ref().map(AsFd::as_fd);
    sys::kexec_file_load(kernel.as_fd(), initrd, &cmdline).map_err(|source| LoadError::Refused { source })
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => " (locked down by Secure Boot, or not root)",
        Some(libc::ENOSYS) => " (this kernel was built without it)",
        Some(libc::ENOEXEC) => " (not a kernel for this machine)",
        Some(libc::EKEYREJECTED | libc::ENOKEY) => " (its signature is not trusted)",
        _ => "",
    }
}

/// A file of the filesystem in memory, with a descriptor.
fn memory_file(files: &Ext4, path: &str) -> Result<std::fs::File, LoadError> {
    let said = |why: String| LoadError::File { path: path.to_owned(), why };
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
