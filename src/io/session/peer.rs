//! The two tasks of a connection: one reads (`reader`), one writes.
//!
//! Invariant: both end when the owner drops its [`PeerHandle`]; a peer that takes nothing for [`STALLED`] is given up. What
//! messages mean is left to the engine.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::limits::Permit;
use super::reader::{Heard, read_messages};
use crate::swarm::wire::{Message, WireError, encode, encode_piece_header};
use crate::swarm::{Block, ConnId, Landings};

/// Messages and blocks that may wait for one peer: a peer that lets more gather does not read.
const QUEUE: usize = 4096;
/// A batch of a few hundred KiB takes longer than this only when the peer is stuck.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes that may wait in a socket without having been sent.
const UNSENT: u32 = 64 * 1024;
/// What is sent with one system call at most, in messages.
const BATCH: usize = 64;

/// What a peer's tasks tell the owner.
pub(super) enum PeerEvent {
    Heard(ConnId, Vec<Heard>),
    Garbage(ConnId, WireError),
    Sent(ConnId, Vec<Block>),
    Closed(ConnId, String),
}

/// What the owner gives to the writer.
pub(super) enum Outgoing {
    Message(Message),
    Block(Block, Bytes),
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

/// Small messages leave at once; and what was written is what is on its way: with megabytes in the socket, the engine
/// would believe a piece sent and begin the next one beside it.
pub(super) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}

/// Starts the tasks of a connection on which both handshakes are through.
pub(super) fn start(
    conn: ConnId,
    stream: TcpStream,
    address: SocketAddr,
    (pieces, landings): (u32, Landings),
    permit: Permit,
    events: &mpsc::Sender<PeerEvent>,
) -> PeerHandle {
    let (read, write) = stream.into_split();
    let (queue, outgoing) = mpsc::channel(QUEUE);
    let (to_owner, events) = (events.clone(), events.clone());
    let reader = tokio::spawn(async move {
        let why = match read_messages(conn, read, pieces, landings, &to_owner).await {
            Ok(()) => "it closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        let _ = to_owner.send(PeerEvent::Closed(conn, why)).await;
    });
    let writer = tokio::spawn(async move {
        if let Err(error) = write_messages(conn, write, outgoing, &events).await {
            let _ = events.send(PeerEvent::Closed(conn, error.to_string())).await;
        }
    });
    PeerHandle { address, queue, tasks: [reader.abort_handle(), writer.abort_handle()], _permit: permit }
}

/// Writes what is queued, many messages with one call, and reports the blocks that left.
async fn write_messages(
    conn: ConnId,
    mut stream: OwnedWriteHalf,
    mut outgoing: mpsc::Receiver<Outgoing>,
    events: &mpsc::Sender<PeerEvent>,
) -> std::io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut small = BytesMut::new();
    let mut wire = Segments::default();
    while outgoing.recv_many(&mut batch, BATCH).await > 0 {
        let mut blocks = Vec::new();
        for item in batch.drain(..) {
            match item {
                Outgoing::Message(message) => encode(&message, &mut small),
                Outgoing::Block(block, bytes) => {
                    small.extend_from_slice(&encode_piece_header(block));
                    wire.push(small.split().freeze());
                    wire.push(bytes);
                    blocks.push(block);
                }
            }
        }
        wire.push(small.split().freeze());
        timeout(STALLED, stream.write_all_buf(&mut wire)).await??;
        if !blocks.is_empty() && events.send(PeerEvent::Sent(conn, blocks)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Bytes from several places, written with one call and without being copied together.
#[derive(Default)]
struct Segments {
    parts: VecDeque<Bytes>,
}

impl Segments {
    fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.parts.push_back(part);
        }
    }
}

impl Buf for Segments {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| &part[..])
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.parts.front_mut() else { return };
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.parts.pop_front();
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let filled = into.iter_mut().zip(&self.parts);
        filled.map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_one_stream_of_bytes() {
        let mut segments = Segments::default();
        for part in ["ab", "", "cde", "f"] {
            segments.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!(segments.remaining(), 6);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(segments.chunks_vectored(&mut slices), 3);
        segments.advance(3);
        assert_eq!(segments.chunk(), b"de");
        assert_eq!(segments.copy_to_bytes(3), "def");
        assert!(!segments.has_remaining());
    }
}
