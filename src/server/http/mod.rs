//! The server's port: `listen` accepts, `router` finds the handler, and each other file handles one kind of
//! request.
//!
//! Invariant: a handler reads, asks `domain`, waits for the database where it promises something, and
//! answers.

pub mod api;
mod connections;
pub(crate) mod fairness;
mod latency;
pub mod listen;
pub mod metrics;
pub mod netboot;
pub mod page;
pub(crate) mod payload;
pub mod router;
pub(crate) mod tracking;
