//! The swarm engine: one torrent's peer-wire protocol as a state machine without sockets, clock or threads.
//!
//! `Engine::handle(now, input)` takes what happened, `Engine::poll()` drains what is to be done, and
//! `Engine::deadline()` says when `Input::Tick` is due at the latest. The same code runs under `io::torrent`
//! with real sockets and in a seeded simulation of many terminals.
//!
//! Invariant: a piece leaves the engine (`Output::Store`) only complete; memory is that of the buffer pool
//! plus small change for each peer. Checking a piece's hash and writing it is left to whoever drives the
//! engine.

mod context;
mod download;
mod engine;
mod geometry;
mod interface;
mod peers;
mod pieces;
mod rate;
mod ratio;
#[cfg(test)]
mod tests;
mod upload;
pub mod wire;

pub use engine::Engine;
pub use geometry::{Block, FRAME, Geometry, MAX_REQUEST_LEN, PieceShape, WholePieces};
pub use interface::{
    CloseReason, ConnId, EngineConfig, Fault, FrameState, Input, Output, StoreResult, SwarmStats,
};
