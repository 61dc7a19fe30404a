//! The owner's connections, from the handshake to the end.
//!
//! Invariant: a connection that the owner has dropped gets no message, and the engine knows that it is gone.
//! The engine decides all messages.

use std::sync::Arc;

use super::state::Owner;
use crate::io::torrent::connection;
use crate::io::torrent::limits::Permit;
use crate::io::torrent::report::{Heard, Outgoing, PeerEvent, Torrent};
use crate::swarm::wire::Handshake;
use crate::swarm::{ConnId, Input};
use crate::units::Now;

impl Owner {
    pub(super) fn send(&mut self, conn: ConnId, outgoing: Outgoing) {
        let Some(peer) = self.conns.get(&conn) else { return };
        if !peer.send(outgoing) {
            log::debug!("{}: it does not read its messages", peer.address);
            self.conns.remove(&conn);
            self.tell(Input::Closed { conn });
        }
    }

    pub(super) fn connected(
        &mut self,
        stream: tokio::net::TcpStream,
        address: std::net::SocketAddr,
        incoming: bool,
        handshake: Handshake,
        permit: Permit,
    ) {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let torrent = Torrent {
            geometry: self.geometry,
            inflight: self.engine.inflight(),
            storage: Arc::clone(&self.spec.storage),
            window: self.window.clone(),
        };
        let peer = connection::start(conn, stream, address, torrent, permit, &self.to_owner);
        self.conns.insert(conn, peer);
        self.tell(Input::Connected { conn, addr: address, incoming, handshake });
    }

    /// Passes all events to the engine, and lets it decide once. (It ignores the last messages of closed
    /// connections.)
    pub(super) fn peer_events(&mut self, events: &mut Vec<PeerEvent>) {
        let mut inputs = Vec::new();
        for event in events.drain(..) {
            match event {
                PeerEvent::Heard(conn, heard) => inputs.extend(heard.into_iter().map(|heard| match heard {
                    Heard::Message(message) => Input::Message { conn, message },
                    Heard::Landed(block) => Input::Landed { conn, block },
                })),
                PeerEvent::Garbage(conn, error) => inputs.push(Input::Garbage { conn, error }),
                PeerEvent::Sent(conn, blocks) => {
                    inputs.extend(blocks.into_iter().map(|block| Input::BlockSent { conn, block }));
                }
                PeerEvent::Unreadable(conn, block, error) => {
                    log::error!("{block} cannot be served: {error}");
                    inputs.push(Input::BlockUnreadable { conn, block });
                }
                PeerEvent::Closed(conn, why) => {
                    if let Some(peer) = self.conns.remove(&conn) {
                        log::debug!("{}: {why}", peer.address);
                        inputs.push(Input::Closed { conn });
                    }
                }
            }
        }
        self.engine.handle_all(Now(self.started.elapsed()), inputs);
    }
}
