//! The swarm engine: one torrent's peer-wire protocol as a state machine without sockets, clock or threads.
//!
//! `Engine::handle(now, input)` takes an event, `Engine::poll()` returns the next action, and
//! `Engine::deadline()` says when `Input::Tick` is due at the latest. The same code runs under `io::torrent`
//! with real sockets and in a seeded simulation of many terminals.
//!
//! Invariant: a piece leaves the engine (`Output::Store`) only complete; memory is that of the buffer pool
//! plus small change for each peer. The driver of the engine checks each piece's hash and writes the piece.

mod context;
mod download;
mod engine;
mod geometry;
mod interface;
mod limit;
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
pub use limit::RateLimit;
