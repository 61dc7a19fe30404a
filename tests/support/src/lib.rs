//! What the tests and benches of several packages share; no program depends on it.
//!
//! - `child`: processes that never outlive their test
//! - `command`: programs that run to their end
//! - `loops`: loop devices
//! - `net`: network namespaces and free ports
//! - `swarm`: payloads, torrents, sessions, deadlines
//! - `tracker`: a tracker in this process
//!
//! Invariant: dropping a value ends its processes and removes its devices and namespaces, even after a panic.

#![expect(clippy::panic, reason = "a test that cannot run fails")]

pub mod child;
pub mod command;
pub mod loops;
pub mod net;
pub mod swarm;
pub mod tracker;
