//! The events of a lab.

use std::net::SocketAddr;

use crate::sim::link::Packet;
use crate::swarm::{ConnId, StoreResult};
use crate::units::PieceIndex;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Arrive(usize),
    Leave(usize),
    /// Its cable is pulled.
    Vanish(usize),
    /// The kernel of a node gives up sending to one that has vanished.
    TimedOut {
        conn: ConnId,
        node: usize,
    },
    /// A dial to a node that has vanished was given up.
    Unreachable {
        from: usize,
        to: SocketAddr,
    },
    Wake(usize),
    Connect {
        from: usize,
        to: SocketAddr,
    },
    /// Asks the tracker.
    Announce(usize),
    /// A block has left.
    UplinkDone {
        node: usize,
        conn: ConnId,
        packet: Packet,
    },
    /// Messages have left.
    UplinkIdle(usize),
    /// A packet has passed the uplink of its sender's zone.
    Crossed {
        conn: ConnId,
        from: usize,
        to: usize,
        packet: Packet,
    },
    Reached {
        conn: ConnId,
        from: usize,
        to: usize,
        packet: Packet,
    },
    Received {
        conn: ConnId,
        from: usize,
        to: usize,
        packet: Packet,
    },
    HungUp {
        conn: ConnId,
        node: usize,
    },
    Stored {
        node: usize,
        piece: PieceIndex,
        result: StoreResult,
    },
    /// The node has a frame, of this maker; or has found that a piece is not worth one.
    Framed {
        node: usize,
        piece: PieceIndex,
        maker: Option<usize>,
    },
}
