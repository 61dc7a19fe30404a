//! The words between an owner task and the two tasks of each connection.
//!
//! Invariant: plain values; which task sends which is drawn at the head of the room.

use std::sync::Arc;

use super::cache::Data;
use super::receive_window::ReceiveWindow;
use crate::slots::InflightPieces;
use crate::storage::{Storage, StorageError};
use crate::swarm::wire::{Message, WireError};
use crate::swarm::{Block, ConnId, Geometry};

/// A peer's message or block.
pub(super) enum Heard {
    Message(Message),
    /// A block that lies in its place.
    Landed(Block),
}

/// Reports of a peer's tasks to the owner.
pub(super) enum PeerEvent {
    Heard(ConnId, Vec<Heard>),
    Garbage(ConnId, WireError),
    Sent(ConnId, Vec<Block>),
    Unreadable(ConnId, Block, StorageError),
    Closed(ConnId, String),
}

/// The owner's input to the writer.
pub(super) enum Outgoing {
    Message(Message),
    Block(Block, Data),
}

/// The tasks' knowledge of the torrent.
pub(super) struct Torrent {
    pub(super) geometry: Geometry,
    pub(super) inflight: InflightPieces,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) window: ReceiveWindow,
}
