//! Reading a block from the socket into its slot, and the blocks that should come next with the same call.
//!
//! Invariant: bytes that are not of the expected blocks go to the decoder's buffer, in the order of the
//! stream.

use std::io::{self, IoSliceMut};
use std::ops::Range;

use bytes::BytesMut;
use tokio::net::tcp::OwnedReadHalf;

use crate::buf::PieceBuf;
use crate::slots::{BlockWriter, Slot};
use crate::swarm::Block;
use crate::swarm::wire::{PIECE_HEADER_LEN, encode_piece_header};

/// Blocks after the current one that are read with the same call, if they come as expected.
const LOOK_AHEAD: usize = 15;
/// Bytes read at once of a block that is no longer needed.
const SINK: usize = 4096;

/// Where bytes come from, without waiting for them.
pub(super) trait Stream {
    fn read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize>;
    fn read_places(&self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
}

impl Stream for OwnedReadHalf {
    fn read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(buffer)
    }

    fn read_places(&self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.try_read_vectored(places)
    }
}

/// The block that is being written.
fn block(writer: &BlockWriter) -> Block {
    block_of(writer, writer.slot())
}

fn block_of(writer: &BlockWriter, slot: Slot) -> Block {
    Block { piece: writer.piece(), offset: slot.offset, len: slot.len }
}

/// Takes the first of bytes that were read already; returns how many. A block that is full is appended to
/// `arrived`.
pub(super) fn put(writer: &mut BlockWriter, bytes: &[u8], arrived: &mut Vec<Block>) -> usize {
    let count = bytes.len().min(writer.rest());
    let mut buf = writer.slots().buf();
    if let Some(buf) = buf.as_mut().filter(|_| writer.keeps_slot()) {
        let start = writer.rest_range().start;
        buf[start..start + count].copy_from_slice(&bytes[..count]);
    }
    drop(buf);
    advance(writer, count, arrived)
}

/// Reads once from `stream`, into the rest of the block and the blocks that are expected after it. Blocks
/// that are full now are appended to `arrived`; bytes of other messages go to `others`.
pub(super) fn read(
    writer: &mut BlockWriter,
    stream: &impl Stream,
    arrived: &mut Vec<Block>,
    others: &mut BytesMut,
) -> io::Result<usize> {
    let slots = writer.slots().clone();
    let mut buf = slots.buf();
    let Some(buf) = buf.as_mut().filter(|_| writer.keeps_slot()) else {
        let mut sink = [0; SINK];
        let most = writer.rest().min(SINK);
        let count = stream.read_places(&mut [IoSliceMut::new(&mut sink[..most])])?;
        advance(writer, count, arrived);
        return Ok(count);
    };
    let expected: Vec<Slot> = writer.following(LOOK_AHEAD).collect();
    let mut heads = [[0; PIECE_HEADER_LEN]; LOOK_AHEAD + 1];
    let count = stream.read_places(&mut places(writer.rest_range(), &expected, buf, &mut heads))?;
    let mut left = count - advance(writer, count, arrived);
    for (slot, head) in expected.iter().zip(&heads) {
        let header = encode_piece_header(block_of(writer, *slot));
        if left < PIECE_HEADER_LEN || *head != header || !writer.claim_next() {
            break;
        }
        left -= PIECE_HEADER_LEN;
        left -= advance(writer, left, arrived);
    }
    // Bytes after the last block that came as expected: also those that lie where blocks were expected and
    // others came.
    let current = writer.slot().offset;
    let behind = expected.iter().position(|slot| slot.offset > current).unwrap_or(expected.len());
    for (number, head) in heads.iter().enumerate().skip(behind) {
        let range = expected.get(number).map_or(0..0, Slot::range);
        for part in [&head[..], &buf[range]] {
            let taken = part.len().min(left);
            others.extend_from_slice(&part[..taken]);
            left -= taken;
        }
    }
    Ok(count)
}

/// The rest of the current block, and a header and the block for each that is expected; at last a header.
fn places<'a>(
    rest: Range<usize>,
    expected: &[Slot],
    buf: &'a mut PieceBuf,
    heads: &'a mut [[u8; PIECE_HEADER_LEN]],
) -> Vec<IoSliceMut<'a>> {
    let mut places = Vec::with_capacity(2 * LOOK_AHEAD + 2);
    let (mut tail, mut from) = (&mut buf[..], 0);
    let mut heads = heads.iter_mut();
    for block in std::iter::once(rest).chain(expected.iter().map(Slot::range)) {
        let (_, behind) = std::mem::take(&mut tail).split_at_mut(block.start - from);
        let (place, behind) = behind.split_at_mut(block.len());
        (tail, from) = (behind, block.end);
        places.push(IoSliceMut::new(place));
        places.extend(heads.next().map(|head| IoSliceMut::new(head)));
    }
    places
}

/// Counts bytes of this block, `most` at most; returns how many.
fn advance(writer: &mut BlockWriter, most: usize, arrived: &mut Vec<Block>) -> usize {
    let count = writer.advance(most);
    if count > 0 && writer.rest() == 0 {
        arrived.push(block(writer));
    }
    count
}
