//! The system that starts next: the firmware's boot entries, its keys, and the kernel for kexec.
//!
//! Invariant: only bytes and decisions. `io::disk::efivars` reads and writes variables, `io::disk::kexec`
//! loads kernels.

pub mod entries;
pub mod kexec;
pub mod option;
pub mod secure;
pub mod start;
