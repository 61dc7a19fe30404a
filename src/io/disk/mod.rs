//! The terminal's disks, in the order in which an attempt goes through them: `list` finds them, `claim` opens
//! one exclusively, `table` reads its partition table, `compare` and `relocate` keep the pieces that are
//! right, `disarm` makes it unbootable, `target` takes the pieces, `readback` proves them, `commit` makes the
//! disk boot, and `efivars` and `kexec` start it. `grow` (with `grow_ntfs`) lets a filesystem fill its
//! partition, and `personal` makes the system the terminal's own, both on a `mount`; `health` and `sample`
//! only look at a disk.
//!
//! Invariant: each stage takes a value that only the stage before it can make.

pub mod claim;
pub(crate) mod commit;
pub mod compare;
pub(crate) mod disarm;
pub mod discard;
pub(crate) mod efivars;
#[cfg(feature = "agent")]
pub(crate) mod grow;
#[cfg(feature = "agent")]
pub(crate) mod grow_ntfs;
#[cfg(feature = "agent")]
pub(crate) mod health;
#[cfg(feature = "agent")]
pub mod kexec;
#[cfg(feature = "agent")]
pub(crate) mod lend;
pub mod list;
#[cfg(feature = "agent")]
mod mount;
pub mod partition_reader;
mod patience;
#[cfg(feature = "agent")]
pub(crate) mod personal;
pub(crate) mod readback;
pub(crate) mod relocate;
#[cfg(feature = "agent")]
pub(crate) mod sample;
pub(crate) mod scan;
pub mod table;
pub mod target;
