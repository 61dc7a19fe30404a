//! `flashmob serve` as a service: what it tells systemd, its log, the unit that starts it, and the Debian
//! package.
//!
//! Needs no systemd to run: the tests are the service manager. Where `systemd-analyze` is installed it judges
//! the unit; where `cargo-deb` and all programs are, the package is built.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "this whole program is tests")]

mod helper;
mod log;
mod notify;
mod package;
mod unit;
