//! What starts next: the firmware's boot entries and the kernel for kexec.
//!
//! Invariant: everything here is bytes and decisions; reading and writing variables and loading kernels is
//! left to `io::disk::efivars` and `io::disk::kexec`.

pub mod entries;
pub mod kexec;
pub mod option;
pub mod start;
