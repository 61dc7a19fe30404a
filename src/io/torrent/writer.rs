//! The writing task of a connection: many messages and blocks with one call, from where they lie.
//!
//! Blocks of a storage in the page cache are read just before they are sent, into a small buffer that stays
//! in the processor's cache. Measurements show that this costs less than sending from large buffers, and less
//! than `sendfile`.
//!
//! Invariant: blocks are reported to the owner when the kernel has taken them, and refused to the peer when
//! they cannot be read. A peer that takes nothing for [`STALLED`] is closed.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::cache::Data;
use super::report::{Outgoing, PeerEvent, Torrent};
use crate::storage::StorageError;
use crate::swarm::wire::{encode, encode_piece_header};
use crate::swarm::{Block, ConnId, MAX_REQUEST_LEN};

/// A batch of a few hundred KiB takes longer than this only when the peer is stuck.
const STALLED: Duration = Duration::from_secs(60);
/// Messages that are taken from the queue at once.
const BATCH: usize = 64;
/// Room for blocks that are read just before they are sent: at least one of the longest.
const ROOM: usize = MAX_REQUEST_LEN as usize;

/// Writes queued messages until the owner or the peer ends it.
pub(super) async fn write_messages(
    conn: ConnId,
    mut stream: OwnedWriteHalf,
    mut outgoing: mpsc::Receiver<Outgoing>,
    torrent: Torrent,
    events: &mpsc::Sender<PeerEvent>,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut next = Batch::new(torrent);
    while outgoing.recv_many(&mut batch, BATCH).await > 0 {
        for item in batch.drain(..) {
            if let Some(item) = next.add(item) {
                next.send(conn, &mut stream, events).await?;
                next.add(item);
            }
        }
        next.send(conn, &mut stream, events).await?;
    }
    Ok(())
}

/// The bytes of one write call.
struct Batch {
    torrent: Torrent,
    small: BytesMut,
    wire: Segments,
    blocks: Vec<Block>,
    unreadable: Vec<(Block, StorageError)>,
}

impl Batch {
    fn new(torrent: Torrent) -> Self {
        Batch {
            torrent,
            small: BytesMut::new(),
            wire: Segments::default(),
            blocks: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// Adds something, or gives it back when there is no room for it before the rest is sent.
    fn add(&mut self, item: Outgoing) -> Option<Outgoing> {
        let (block, data) = match item {
            Outgoing::Message(message) => {
                encode(&message, &mut self.small);
                return None;
            }
            Outgoing::Block(block, data) => (block, data),
        };
        let part = match data {
            Data::Here(bytes) => Part::Bytes(bytes),
            Data::Kept => {
                let Some(room) = self.wire.take_room(block.len as usize) else {
                    return Some(Outgoing::Block(block, Data::Kept));
                };
                let offset = self.torrent.geometry.start_of(block.piece) + u64::from(block.offset);
                if let Err(error) = self.torrent.storage.read_at(offset, &mut self.wire.room[room.clone()]) {
                    self.unreadable.push((block, error));
                    return None;
                }
                Part::Room(room)
            }
        };
        self.small.extend_from_slice(&encode_piece_header(block));
        self.wire.push(Part::Bytes(self.small.split().freeze()));
        self.wire.push(part);
        self.blocks.push(block);
        None
    }

    /// Sends the batch, and reports to the owner.
    async fn send(
        &mut self,
        conn: ConnId,
        stream: &mut OwnedWriteHalf,
        events: &mpsc::Sender<PeerEvent>,
    ) -> io::Result<()> {
        self.wire.push(Part::Bytes(self.small.split().freeze()));
        timeout(STALLED, stream.write_all_buf(&mut self.wire)).await??;
        self.wire.used = 0;
        let gone = |_| io::Error::other("the torrent has been stopped");
        if !self.blocks.is_empty() {
            let blocks = std::mem::take(&mut self.blocks);
            events.send(PeerEvent::Sent(conn, blocks)).await.map_err(gone)?;
        }
        for (block, error) in self.unreadable.drain(..) {
            events.send(PeerEvent::Unreadable(conn, block, error)).await.map_err(gone)?;
        }
        Ok(())
    }
}

/// A stretch of bytes to be sent.
enum Part {
    Bytes(Bytes),
    /// A part of the room.
    Room(Range<usize>),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::Room(range) => range.len(),
        }
    }
}

/// Bytes from several places, written with one call and without being copied together.
#[derive(Default)]
struct Segments {
    parts: VecDeque<Part>,
    /// Made when it is first needed.
    room: Vec<u8>,
    used: usize,
}

impl Segments {
    fn push(&mut self, part: Part) {
        if part.len() > 0 {
            self.parts.push_back(part);
        }
    }

    /// So much of the room, if that is left.
    fn take_room(&mut self, count: usize) -> Option<Range<usize>> {
        self.room.resize(ROOM, 0);
        let range = self.used..self.used + count;
        (range.end <= ROOM).then(|| self.used = range.end)?;
        Some(range)
    }

    fn bytes<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match part {
            Part::Bytes(bytes) => bytes,
            Part::Room(range) => &self.room[range.clone()],
        }
    }
}

impl Buf for Segments {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| self.bytes(part))
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.parts.front_mut() else { return };
            let step = count.min(front.len());
            match front {
                Part::Bytes(bytes) => bytes.advance(step),
                Part::Room(range) => range.start += step,
            }
            count -= step;
            if front.len() == 0 {
                self.parts.pop_front();
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let filled = into.iter_mut().zip(&self.parts);
        filled.map(|(slice, part)| *slice = IoSlice::new(self.bytes(part))).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_one_stream_of_bytes() {
        let mut segments = Segments::default();
        let room = segments.take_room(3).unwrap();
        segments.room[room.clone()].copy_from_slice(b"cde");
        for text in ["ab", ""] {
            segments.push(Part::Bytes(Bytes::from_static(text.as_bytes())));
        }
        segments.push(Part::Room(room));
        segments.push(Part::Bytes(Bytes::from_static(b"f")));
        assert_eq!(segments.remaining(), 6);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(segments.chunks_vectored(&mut slices), 3);
        segments.advance(3);
        assert_eq!(segments.chunk(), b"de");
        assert_eq!(segments.copy_to_bytes(3), "def");
        assert!(!segments.has_remaining());
    }

    #[test]
    fn there_is_no_more_room_than_there_is() {
        let mut segments = Segments::default();
        assert!(segments.take_room(ROOM - 1).is_some());
        assert!(segments.take_room(2).is_none());
        assert_eq!(segments.take_room(1), Some(ROOM - 1..ROOM));
    }
}
