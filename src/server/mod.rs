//! The lab's server: images, tracker, seeder, netboot files, terminals' calls and the lab's page on one port.
//!
//! `domain` decides, without I/O; `store` keeps the state, `repository` finds images, `seeder` seeds them,
//! `tftp` answers signed GRUB, `pxe` runs dnsmasq, `watch` acts without being asked, `waking` sends wake-up
//! packets, `webhooks` tells others what happened; `http` is the port and its handlers, `app` their shared
//! state; `start` assembles the server.
//!
//! Invariant: nothing here runs on a terminal. A terminal's reports are bounded, and trusted only for its own
//! row.

pub mod app;
pub mod clock;
pub mod domain;
pub mod http;
mod mdns;
pub mod meters;
mod ports;
pub(crate) mod pxe;
pub mod repository;
mod seeder;
mod start;
pub mod store;
#[cfg(test)]
mod tests;
mod tftp;
mod waking;
mod watch;
mod webhooks;

pub use ports::{DEFAULT_PEER_PORT, DEFAULT_PORT};
pub use start::{Options, Server};
pub(crate) use watch::read_config;
