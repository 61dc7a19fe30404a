//! The only place with syscalls, sockets, the clock and randomness.
//!
//! Invariant: every result of the kernel is looked at, and short is an error. What is done with what was read
//! is decided by the pure stages; this part only does what it is told.

pub mod announce;
pub mod claim;
pub mod commit;
pub mod compare;
#[cfg(feature = "agent")]
pub mod console;
#[cfg(feature = "agent")]
pub mod dhcp;
pub mod disarm;
pub mod discard;
#[cfg(feature = "agent")]
pub mod discover;
pub mod disk;
pub mod diskio;
pub mod disks;
pub mod efivars;
pub mod frames;
pub mod handles;
pub mod hash;
#[cfg(feature = "agent")]
pub mod http;
pub mod image;
pub mod image_storage;
#[cfg(feature = "agent")]
pub mod init;
#[cfg(feature = "agent")]
pub mod inventory;
#[cfg(feature = "agent")]
pub mod kexec;
#[cfg(feature = "agent")]
pub mod lldp;
#[cfg(feature = "agent")]
pub mod memory;
pub mod modules;
pub mod moving;
#[cfg(feature = "agent")]
pub mod netlink;
pub mod payload;
pub mod readback;
pub mod scan;
pub mod session;
pub mod storage;
pub mod sys;
pub mod table;
pub mod window;

#[cfg(test)]
mod image_tests;
#[cfg(test)]
pub(crate) mod testing;
