//! A connection as the owner sees it, and its two tasks: one reads (`reader`), one writes (`writer`).
//!
//! Invariant: both end when the owner drops its [`PeerHandle`]. What messages mean is left to the engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::cache::Data;
use super::limits::Permit;
use super::reader::{Heard, read_messages};
use super::receive_window::ReceiveWindow;
use super::writer::write_messages;
use crate::storage::{Storage, StorageError};
use crate::swarm::wire::{Message, WireError};
use crate::swarm::{Block, ConnId, Geometry, Landings};

/// Messages and blocks that may wait for one peer: a peer that lets more gather does not read.
const QUEUE: usize = 4096;
/// Bytes that may wait in a socket without having been sent.
const UNSENT: u32 = 64 * 1024;

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

/// How long the kernel sends again what nobody acknowledges: a peer whose cable was pulled closes no socket.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Small messages leave at once; and what was written is what is on its way: with megabytes in the socket,
/// the engine would believe a piece sent and begin the next one beside it.
pub(super) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_notsent_lowat(UNSENT)
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
    let (pieces, landings) = (torrent.geometry.pieces(), torrent.landings.clone());
    let window = torrent.window.clone();
    let reader = tokio::spawn(async move {
        let why = match read_messages(conn, read, pieces, landings, window, &to_owner).await {
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
