//! The words between an owner task and the two tasks of each connection.
//!
//! Invariant: plain values; which task sends which is drawn at the head of the room.

use std::sync::Arc;

use super::cache::Data;
use super::receive_window::ReceiveWindow;
use crate::storage::{Storage, StorageError};
use crate::swarm::wire::{Message, WireError};
use crate::swarm::{Block, ConnId, Geometry, Landings};

/// What a peer sent.
pub(super) enum Heard {
    Message(Message),
    /// A block that lies in its place.
    Landed(Block),
}

/// What a peer's tasks tell the owner.
pub(super) enum PeerEvent {
    Heard(ConnId, Vec<Heard>),
    Garbage(ConnId, WireError),
    Sent(ConnId, Vec<Block>),
    Unreadable(ConnId, Block, StorageError),
    Closed(ConnId, String),
}

/// What the owner gives to the writer.
pub(super) enum Outgoing {
    Message(Message),
    Block(Block, Data),
}

/// What the tasks need to know of the torrent.
pub(super) struct Torrent {
    pub(super) geometry: Geometry,
    pub(super) landings: Landings,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) window: ReceiveWindow,
}
