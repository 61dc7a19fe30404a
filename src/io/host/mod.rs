//! The machine that a program runs on: PID 1's duties, drivers, console, inventory, memory and limits.
//!
//! Invariant: facts and deeds only; which of them are wanted is the caller's decision.

#[cfg(feature = "agent")]
pub mod console;
pub mod handles;
#[cfg(feature = "agent")]
pub mod init;
#[cfg(feature = "agent")]
pub mod inventory;
#[cfg(feature = "agent")]
pub mod memory;
pub mod modules;
