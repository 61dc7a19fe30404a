//! A connection as the owner sees it, and its two tasks: one reads (`reader`), one writes (`writer`).
//!
//! Invariant: both end when the owner drops its [`PeerHandle`]. The engine interprets messages.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::limits::Permit;
use super::reader::read_messages;
use super::report::{Outgoing, PeerEvent, Torrent};
use super::writer::write_messages;
use crate::swarm::ConnId;

/// Messages and blocks that may wait for one peer: a peer that lets more gather does not read.
const QUEUE: usize = 4096;
/// The owner's end of a connection.
pub(super) struct PeerHandle {
    pub(super) address: SocketAddr,
    queue: mpsc::Sender<Outgoing>,
    tasks: [AbortHandle; 2],
    _permit: Permit,
}

impl PeerHandle {
    /// Queues something for the peer; false if its queue is full or it is gone.
    pub(super) fn send(&self, outgoing: Outgoing) -> bool {
        self.queue.try_send(outgoing).is_ok()
    }
}

impl Drop for PeerHandle {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Starts the tasks of a connection on which both handshakes are through.
pub(super) fn start(
    conn: ConnId,
    stream: TcpStream,
    address: SocketAddr,
    torrent: Torrent,
    permit: Permit,
    events: &mpsc::Sender<PeerEvent>,
) -> PeerHandle {
    let (read, write) = stream.into_split();
    let (queue, outgoing) = mpsc::channel(QUEUE);
    let (to_owner, events) = (events.clone(), events.clone());
    let (pieces, inflight) = (torrent.geometry.pieces(), torrent.inflight.clone());
    let window = torrent.window.clone();
    let reader = tokio::spawn(async move {
        let why = match read_messages(conn, read, pieces, inflight, window, &to_owner).await {
            Ok(()) => "it closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        let _ = to_owner.send(PeerEvent::Closed(conn, why)).await;
    });
    let writer = tokio::spawn(async move {
        if let Err(error) = write_messages(conn, write, outgoing, torrent, &events).await {
            let _ = events.send(PeerEvent::Closed(conn, error.to_string())).await;
        }
    });
    PeerHandle { address, queue, tasks: [reader.abort_handle(), writer.abort_handle()], _permit: permit }
}
