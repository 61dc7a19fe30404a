//! Where payload bytes really lie: files, folders, block devices, the runs of an image.
//!
//! Invariant: a storage has its stated size. Every refusal (missing, too small, busy) happens when it is
//! opened, before the first write. The callers of [`Storage`] place the pieces.

mod access;
mod block;
pub mod device;
mod file;
mod folder;
mod runs;

pub(crate) use access::prefetch_file;
pub use access::{Opened, Resize};
pub use block::{BlockStorage, is_block_device};
pub use file::FileStorage;
pub use folder::FolderStorage;
pub use runs::{ImageRuns, ImageShape};
