//! `flashmob serve` as a service: what it tells systemd, and the unit that starts it.
//!
//! Needs no systemd to run: the tests are the service manager. Where `systemd-analyze` is installed it judges
//! the unit.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "this whole program is tests")]

mod notify;
mod unit;
