//! Messages ↔ bytes, one at a time as the bytes arrive.
//!
//! Invariant: the decoder holds at most one message of the largest legal length plus what it was given last;
//! a length prefix beyond that is an error at once, before its bytes arrive.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::swarm::geometry::{Block, MAX_REQUEST_LEN};
use crate::swarm::wire::message::Message;
use crate::units::PieceIndex;

/// Longest extended message that is read (BEP 10); handshakes have a few hundred bytes.
const MAX_EXTENDED_LEN: u32 = 64 * 1024;

/// What a peer sent cannot be a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length prefix is greater than any message of this torrent can be.
    #[error("a message of {length} bytes, over the limit of {limit}")]
    TooLong {
        /// The prefix.
        length: u32,
        /// The largest that is accepted.
        limit: u32,
    },
    /// A message of a fixed length has another one.
    #[error("a message of kind {kind} with {length} bytes, which it cannot have")]
    BadLength {
        /// The message id.
        kind: u8,
        /// Bytes behind the id.
        length: usize,
    },
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limit: u32,
}

impl Decoder {
    /// For a torrent of this many pieces, which bounds the bitfield.
    pub fn new(pieces: u32) -> Self {
        let longest = (MAX_REQUEST_LEN + 8).max(pieces.div_ceil(8)).max(MAX_EXTENDED_LEN + 1);
        Decoder { buffer: BytesMut::new(), limit: longest + 1 }
    }

    /// Adds bytes that were received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer behind the decoder, for callers that read from a socket straight into it. Call
    /// [`next_message`](Self::next_message) until it returns `None` after each read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The block whose data comes next: the stream is at a `piece` message whose header is here. For those
    /// who want the data elsewhere than in a message; they [skip](Self::skip) the header and take the data
    /// out of the [buffer](Self::buffer).
    pub(crate) fn next_block(&self) -> Option<Block> {
        let header = self.buffer.first_chunk::<PIECE_HEADER_LEN>()?;
        let [prefix, piece, offset] = [0, 5, 9]
            .map(|at| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        let block = Block { piece: PieceIndex(piece), offset, len: prefix.checked_sub(9)? };
        (header[4] == 7 && block.len <= MAX_REQUEST_LEN).then_some(block)
    }

    /// Takes `count` bytes off the stream: the header of [`next_block`](Self::next_block), or data behind it.
    pub fn skip(&mut self, count: usize) {
        self.buffer.advance(count.min(self.buffer.len()));
    }

    /// The next complete message; `None` means that more bytes are needed.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix);
        if length > self.limit {
            return Err(WireError::TooLong { length, limit: self.limit });
        }
        let whole = 4 + length as usize;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        if let Some(message) = decode_short(&self.buffer[4..whole])? {
            self.buffer.advance(whole);
            return Ok(Some(message));
        }
        let mut body = self.buffer.split_to(whole).freeze();
        body.advance(4);
        decode_long(body).map(Some)
    }
}

/// A message that holds no bytes of the stream; `None` if it is one that does.
fn decode_short(mut body: &[u8]) -> Result<Option<Message>, WireError> {
    if body.is_empty() {
        return Ok(Some(Message::KeepAlive));
    }
    let kind = body.get_u8();
    let bad = WireError::BadLength { kind, length: body.len() };
    let exactly = |length: usize, body: &[u8]| if body.len() == length { Ok(()) } else { Err(bad) };
    let simple = |message: Message| exactly(0, body).map(|()| message);
    let message = match kind {
        0 => simple(Message::Choke)?,
        1 => simple(Message::Unchoke)?,
        2 => simple(Message::Interested)?,
        3 => simple(Message::NotInterested)?,
        4 | 13 | 17 => {
            exactly(4, body)?;
            let piece = PieceIndex(body.get_u32());
            match kind {
                4 => Message::Have(piece),
                13 => Message::Suggest(piece),
                _ => Message::AllowedFast(piece),
            }
        }
        6 | 8 | 16 => {
            exactly(12, body)?;
            let block =
                Block { piece: PieceIndex(body.get_u32()), offset: body.get_u32(), len: body.get_u32() };
            match kind {
                6 => Message::Request(block),
                8 => Message::Cancel(block),
                _ => Message::Reject(block),
            }
        }
        14 => simple(Message::HaveAll)?,
        15 => simple(Message::HaveNone)?,
        5 | 7 | 20 => return Ok(None),
        other => Message::Unknown(other),
    };
    Ok(Some(message))
}

/// A message whose body is kept.
fn decode_long(mut body: Bytes) -> Result<Message, WireError> {
    let kind = body.get_u8();
    let bad = WireError::BadLength { kind, length: body.len() };
    match kind {
        5 => Ok(Message::Bitfield(body)),
        7 => {
            if body.len() < 8 || body.len() - 8 > MAX_REQUEST_LEN as usize {
                return Err(bad);
            }
            Ok(Message::Piece { piece: PieceIndex(body.get_u32()), offset: body.get_u32(), data: body })
        }
        20 => {
            if body.is_empty() || body.len() > MAX_EXTENDED_LEN as usize {
                return Err(bad);
            }
            Ok(Message::Extended { id: body.get_u8(), payload: body })
        }
        other => Ok(Message::Unknown(other)),
    }
}

/// Appends the bytes of `message`.
pub fn encode(message: &Message, out: &mut BytesMut) {
    match message {
        Message::KeepAlive => out.put_u32(0),
        Message::Choke => put_simple(0, out),
        Message::Unchoke => put_simple(1, out),
        Message::Interested => put_simple(2, out),
        Message::NotInterested => put_simple(3, out),
        Message::HaveAll => put_simple(14, out),
        Message::HaveNone => put_simple(15, out),
        Message::Unknown(kind) => put_simple(*kind, out),
        Message::Have(piece) => put_index(4, *piece, out),
        Message::Suggest(piece) => put_index(13, *piece, out),
        Message::AllowedFast(piece) => put_index(17, *piece, out),
        Message::Request(block) => put_block(6, *block, out),
        Message::Cancel(block) => put_block(8, *block, out),
        Message::Reject(block) => put_block(16, *block, out),
        Message::Bitfield(bytes) => {
            put_head(5, bytes.len(), out);
            out.put_slice(bytes);
        }
        Message::Piece { piece, offset, data } => {
            put_head(7, 8 + data.len(), out);
            out.put_u32(piece.0);
            out.put_u32(*offset);
            out.put_slice(data);
        }
        Message::Extended { id, payload } => {
            put_head(20, 1 + payload.len(), out);
            out.put_u8(*id);
            out.put_slice(payload);
        }
    }
}

/// Bytes in front of a block's data.
pub const PIECE_HEADER_LEN: usize = 13;

/// The header in front of a block's data, for callers that send the data from its place.
pub fn encode_piece_header(block: Block) -> [u8; PIECE_HEADER_LEN] {
    let mut header = [0; PIECE_HEADER_LEN];
    header[..4].copy_from_slice(&(block.len.saturating_add(9)).to_be_bytes());
    header[4] = 7;
    header[5..9].copy_from_slice(&block.piece.0.to_be_bytes());
    header[9..].copy_from_slice(&block.offset.to_be_bytes());
    header
}

fn put_head(kind: u8, length: usize, out: &mut BytesMut) {
    // Nothing that we send comes near 4 GiB: blocks, bitfields and handshakes are bounded where they are
    // made.
    out.put_u32(u32::try_from(length + 1).unwrap_or(u32::MAX));
    out.put_u8(kind);
}

fn put_simple(kind: u8, out: &mut BytesMut) {
    put_head(kind, 0, out);
}

fn put_index(kind: u8, piece: PieceIndex, out: &mut BytesMut) {
    put_head(kind, 4, out);
    out.put_u32(piece.0);
}

fn put_block(kind: u8, block: Block, out: &mut BytesMut) {
    put_head(kind, 12, out);
    out.put_u32(block.piece.0);
    out.put_u32(block.offset);
    out.put_u32(block.len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages() -> impl Strategy<Value = Message> {
        let piece = || any::<u32>().prop_map(PieceIndex);
        let block = || {
            (piece(), any::<u32>(), any::<u32>()).prop_map(|(piece, offset, len)| Block {
                piece,
                offset,
                len,
            })
        };
        let data = || proptest::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from);
        prop_oneof![
            Just(Message::KeepAlive),
            Just(Message::Choke),
            Just(Message::Unchoke),
            Just(Message::Interested),
            Just(Message::NotInterested),
            Just(Message::HaveAll),
            Just(Message::HaveNone),
            piece().prop_map(Message::Have),
            piece().prop_map(Message::Suggest),
            piece().prop_map(Message::AllowedFast),
            block().prop_map(Message::Request),
            block().prop_map(Message::Cancel),
            block().prop_map(Message::Reject),
            data().prop_map(Message::Bitfield),
            (piece(), any::<u32>(), data()).prop_map(|(piece, offset, data)| Message::Piece {
                piece,
                offset,
                data
            }),
            (any::<u8>(), data()).prop_map(|(id, payload)| Message::Extended { id, payload }),
            (21u8..).prop_map(Message::Unknown),
        ]
    }

    fn drain(decoder: &mut Decoder) -> Result<Vec<Message>, WireError> {
        std::iter::from_fn(|| decoder.next_message().transpose()).collect()
    }

    proptest! {
        #[test]
        fn messages_round_trip_however_the_bytes_are_cut(
            sent in proptest::collection::vec(messages(), 0..12), cut in 1usize..40,
        ) {
            let mut bytes = BytesMut::new();
            sent.iter().for_each(|message| encode(message, &mut bytes));
            let mut decoder = Decoder::new(1000);
            let mut got = Vec::new();
            for part in bytes.chunks(cut) {
                decoder.push(part);
                got.extend(drain(&mut decoder).expect("all messages are legal"));
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn garbage_never_panics_and_never_asks_for_much(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..20),
        ) {
            let mut decoder = Decoder::new(1000);
            for part in parts {
                decoder.push(&part);
                if drain(&mut decoder).is_err() {
                    break;
                }
                prop_assert!(decoder.buffer.capacity() < 4 * decoder.limit as usize);
            }
        }
    }

    #[test]
    fn a_huge_length_is_an_error_before_its_bytes_arrive() {
        let mut decoder = Decoder::new(8);
        decoder.push(&u32::MAX.to_be_bytes());
        assert!(matches!(decoder.next_message(), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn wrong_fixed_lengths_are_errors() {
        for bytes in [
            &[0, 0, 0, 2, 0, 0][..],
            &[0, 0, 0, 1, 4],
            &[0, 0, 0, 2, 6, 0],
            &[0, 0, 0, 3, 7, 0, 0],
            &[0, 0, 0, 1, 20],
        ] {
            let mut decoder = Decoder::new(8);
            decoder.push(bytes);
            assert!(matches!(decoder.next_message(), Err(WireError::BadLength { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn the_header_of_a_block_is_that_of_its_message() {
        let block = Block { piece: PieceIndex(3), offset: 16384, len: 5 };
        let mut whole = BytesMut::new();
        let data = Bytes::from_static(b"hello");
        encode(&Message::Piece { piece: block.piece, offset: block.offset, data }, &mut whole);
        assert_eq!(&whole[..13], encode_piece_header(block));
        let mut decoder = Decoder::new(8);
        decoder.push(&whole[..12]);
        assert_eq!(decoder.next_block(), None);
        decoder.push(&whole[12..]);
        assert_eq!(decoder.next_block(), Some(block));
        decoder.skip(PIECE_HEADER_LEN);
        assert_eq!(&decoder.buffer()[..], b"hello");
    }
}
