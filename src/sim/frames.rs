//! Frames as the lab models them: bytes that tell whose they are, so that frames of two makers cannot be
//! mixed unseen.
//!
//! Invariant: a frame is right only if every byte of it is of one maker. Every fifth piece cannot be
//! compressed.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::rng::Rng;
use crate::units::PieceIndex;

/// How long it takes to compress a piece.
pub(crate) const TIME: Duration = Duration::from_millis(5);
/// Bytes in front that name the maker.
const HEAD: usize = 8;

/// The frames that a node has room for; the oldest goes first.
#[derive(Debug)]
pub(crate) struct FrameStore {
    room: usize,
    kept: VecDeque<(PieceIndex, Bytes)>,
}

impl FrameStore {
    pub(super) fn new(room: usize) -> Self {
        FrameStore { room, kept: VecDeque::new() }
    }

    /// Keeps a frame of `piece` unless there is one; returns which has to go.
    pub(super) fn keep(&mut self, piece: PieceIndex, frame: Bytes) -> Option<PieceIndex> {
        if self.get(piece).is_none() {
            self.kept.push_back((piece, frame));
        }
        let gone = if self.kept.len() > self.room { self.kept.pop_front() } else { None };
        gone.map(|(piece, _)| piece)
    }

    /// The frame of `piece`.
    pub(super) fn get(&self, piece: PieceIndex) -> Option<&Bytes> {
        self.kept.iter().find(|(kept, _)| *kept == piece).map(|(_, frame)| frame)
    }
}

/// Bytes of `maker`'s frame of a piece of `len` bytes; some makers' are equally long.
pub(crate) fn len_of(piece: PieceIndex, maker: usize, len: u32) -> Option<u32> {
    let odd = u32::try_from(maker % 3).unwrap_or(0) * 100;
    (piece.0 % 5 != 4 && len > 4096).then_some(len / 5 * 2 + odd)
}

/// The bytes of `maker`'s frame.
pub(super) fn contents(piece: PieceIndex, maker: usize, len: u32) -> Bytes {
    let frame = len_of(piece, maker, len).unwrap_or(0) as usize;
    let mut bytes = (maker as u64).to_be_bytes().to_vec();
    let mut rng = Rng::new((maker as u64) << 32 | u64::from(piece.0));
    while bytes.len() < frame {
        bytes.extend(rng.next_u64().to_le_bytes());
    }
    bytes.truncate(frame);
    bytes.into()
}

/// Whose frame of `piece` this is, if it is one.
pub(super) fn maker(frame: &[u8], piece: PieceIndex, len: u32) -> Option<usize> {
    let head: [u8; HEAD] = *frame.first_chunk()?;
    let maker = usize::try_from(u64::from_be_bytes(head)).ok().filter(|maker| *maker < 1 << 16)?;
    (contents(piece, maker, len) == frame).then_some(maker)
}
