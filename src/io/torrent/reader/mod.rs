//! The reading task of a connection: blocks go from the socket into their places, all other input becomes
//! messages.
//!
//! Invariant: input is reported to the owner before more is read, so a busy owner slows the peer down. One
//! report has at most [`REPORT`] messages. A peer that sends nothing for [`SILENCE`] is closed.

mod block;

use std::io;
use std::time::Duration;

use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::block::Stream;
use super::receive_window::ReceiveWindow;
use super::report::{Heard, PeerEvent};
use crate::slots::{BlockWriter, InflightPieces};
use crate::swarm::wire::{Decoder, PIECE_HEADER_LEN, WireError};
use crate::swarm::{Block, ConnId};

/// Keep-alives come every two minutes (BEP 3).
const SILENCE: Duration = Duration::from_secs(180);
/// Bytes of room before each read for everything except blocks with a place.
const READ_ROOM: usize = 16 * 1024;
/// Messages of one report to the owner.
const REPORT: usize = 256;

/// Reads until the peer closes, breaks the framing or falls silent.
pub(super) async fn read_messages(
    conn: ConnId,
    stream: OwnedReadHalf,
    pieces: u32,
    inflight: InflightPieces,
    window: ReceiveWindow,
    events: &mpsc::Sender<PeerEvent>,
) -> io::Result<()> {
    let mut intake = Intake::new(conn, pieces, inflight);
    let mut buffer = 0;
    loop {
        window.keep(stream.as_ref(), &mut buffer)?;
        let mut heard = Vec::new();
        let sorted = intake.sort(&mut heard);
        if !heard.is_empty() && events.send(PeerEvent::Heard(conn, heard)).await.is_err() {
            return Ok(());
        }
        match sorted {
            Ok(Sorted::All) => {}
            Ok(Sorted::Some) => continue,
            Err(error) => {
                let _ = events.send(PeerEvent::Garbage(conn, error)).await;
                return Err(io::Error::other(error));
            }
        }
        match intake.read(&stream) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                timeout(SILENCE, stream.readable()).await??;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether some of the input is still to be reported.
enum Sorted {
    All,
    Some,
}

/// Input of a connection that was read but not yet reported.
struct Intake {
    conn: ConnId,
    decoder: Decoder,
    inflight: InflightPieces,
    /// The block that is being read; the decoder's bytes come after it.
    writer: Option<BlockWriter>,
    /// Blocks that are full.
    arrived: Vec<Block>,
}

impl Intake {
    fn new(conn: ConnId, pieces: u32, inflight: InflightPieces) -> Self {
        let decoder = Decoder::new(pieces);
        Intake { conn, decoder, inflight, writer: None, arrived: Vec::new() }
    }

    /// Makes messages of the input, in the order of the stream.
    fn sort(&mut self, heard: &mut Vec<Heard>) -> Result<Sorted, WireError> {
        loop {
            heard.extend(self.arrived.drain(..).map(Heard::Landed));
            if heard.len() >= REPORT {
                return Ok(Sorted::Some);
            }
            if let Some(block) = self.decoder.next_block() {
                // Without a slot it is a message as any other.
                let Block { piece, offset, len } = block;
                if let Some(mut writer) = self.inflight.claim(self.conn.0, piece, offset, len) {
                    self.decoder.skip(PIECE_HEADER_LEN);
                    let taken = block::put(&mut writer, self.decoder.buffer(), &mut self.arrived);
                    self.decoder.skip(taken);
                    if writer.rest() > 0 {
                        self.writer = Some(writer);
                        return Ok(Sorted::All);
                    }
                    continue;
                }
            }
            match self.decoder.next_message()? {
                Some(message) => heard.push(Heard::Message(message)),
                None => return Ok(Sorted::All),
            }
        }
    }

    /// Reads once, without waiting.
    fn read(&mut self, stream: &impl Stream) -> io::Result<usize> {
        let Some(writer) = &mut self.writer else {
            let buffer = self.decoder.buffer();
            buffer.reserve(READ_ROOM);
            return stream.read_buf(buffer);
        };
        let others = self.decoder.buffer();
        let read = block::read(writer, stream, &mut self.arrived, others);
        if writer.rest() == 0 {
            self.writer = None;
        }
        read
    }
}

#[cfg(test)]
mod tests;
