//! The machine that a program runs on: PID 1's duties, drivers, console, inventory, memory, limits and
//! logs.
//!
//! Invariant: facts and actions only; the caller decides which to use.

#[cfg(feature = "agent")]
pub mod console;
#[cfg(feature = "agent")]
pub(crate) mod devices;
pub mod enrol;
#[cfg(feature = "agent")]
pub(crate) mod firmware;
pub mod handles;
#[cfg(feature = "agent")]
pub mod init;
#[cfg(feature = "agent")]
pub mod inventory;
#[cfg(feature = "agent")]
pub(crate) mod kmsg;
pub mod memory;
#[cfg(feature = "agent")]
pub(crate) mod mirror;
pub mod modules;
pub mod stdout;
