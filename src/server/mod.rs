//! The lab's server: images, tracker, seeder, netboot files, terminals' calls and the lab's page on one port.
//!
//! `domain` decides, without I/O; `store` keeps the state, `repository` finds images, `seeder` seeds them,
//! `watch` acts without being asked; `http` is the port and its handlers; `app` is what they share; `start`
//! puts all of it together.
//!
//! Invariant: nothing here is on a terminal; everything a terminal says is bounded and nothing of it is
//! trusted beyond its own row.

pub mod app;
pub mod clock;
pub mod domain;
pub mod http;
mod mdns;
mod ports;
pub mod repository;
mod seeder;
mod start;
pub mod store;
#[cfg(test)]
mod tests;
mod watch;

pub use ports::{DEFAULT_PEER_PORT, DEFAULT_PORT};
pub use start::{Options, Server};
