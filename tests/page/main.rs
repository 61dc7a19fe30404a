//! The page in Debian's Chromium, as people use it: filters, languages, a phone, actions with a token.
//!
//! Needs `chromium` and `chromium-driver` (`qemu-tests/setup.sh` installs them).

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "this whole program is tests")]

mod access;
mod acting;
mod browser;
mod cost;
mod lab;
mod showing;
