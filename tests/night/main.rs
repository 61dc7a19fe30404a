//! `flashmob serve` through a night: real processes, a room of fake terminals that use the real API, servers
//! that are killed.
//!
//! `place` is the server with its network, `machine` one terminal, `frames` the wake-up packets on the cable.
//!
//! Needs root: the server and its terminals have network namespaces of their own.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "this whole program is tests")]

mod frames;
mod kills;
mod load;
mod machine;
mod place;
mod room;

/// One test at a time, because each of them needs most of the machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
