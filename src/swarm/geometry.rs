//! All arithmetic on pieces and blocks of one torrent, in one place.
//!
//! Invariant: a piece index that passed [`Geometry::check_piece`] and a block that passed
//! [`Geometry::check_block`] lie inside the payload. Which bytes of a piece travel is the [`PieceShape`]'s
//! word.

use std::fmt;
use std::ops::Range;

use crate::bitfield::Bitfield;
use crate::units::{BLOCK_LEN, PieceIndex};

/// A range inside one piece, the object of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    pub piece: PieceIndex,
    /// First byte, counted from the start of the piece; with [`FRAME`] set, from the start of the piece's
    /// frame.
    pub offset: u32,
    /// Bytes; at most 16 KiB in our own requests.
    pub len: u32,
}

/// The highest bit of an offset says that a block is of the piece's zstd frame and not of the piece. Between
/// flashmob peers that agreed on it requests, blocks, cancels and rejects are used for frames so, as they
/// are; pieces are shorter.
pub const FRAME: u32 = 1 << 31;

impl Block {
    /// It is of the piece's frame.
    pub(crate) fn in_frame(&self) -> bool {
        self.offset & FRAME != 0
    }

    /// Where its bytes begin in the piece, or in the frame.
    pub fn start(&self) -> u32 {
        self.offset & !FRAME
    }

    /// Where its bytes end; `None` if that is no 32-bit number.
    pub fn end(&self) -> Option<u32> {
        self.start().checked_add(self.len)
    }

    /// The blocks of a frame of `len` bytes.
    pub(crate) fn of_frame(piece: PieceIndex, len: u32) -> Vec<Block> {
        let starts = (0..len).step_by(BLOCK_LEN as usize);
        starts
            .map(|start| Block { piece, offset: start | FRAME, len: (len - start).min(BLOCK_LEN) })
            .collect()
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.in_frame() { "the frame of " } else { "" };
        write!(f, "{} bytes at {} of {of}{}", self.len, self.start(), self.piece)
    }
}

/// Says which bytes of a piece travel. All others are zeros: they are filled in and never requested.
pub trait PieceShape: Send + Sync {
    /// The ranges of `piece` (which has `len` bytes) that travel: ascending, not empty, not overlapping.
    /// Bytes outside of `0..len` are cut off.
    fn data_ranges(&self, piece: PieceIndex, len: u32) -> Vec<Range<u32>>;
}

/// The shape of ordinary torrents: everything travels.
#[derive(Debug, Clone, Copy, Default)]
pub struct WholePieces;

impl PieceShape for WholePieces {
    fn data_ranges(&self, _piece: PieceIndex, len: u32) -> Vec<Range<u32>> {
        std::iter::once(0..len).collect()
    }
}

/// The longest request that is answered: some clients ask for more than 16 KiB at once.
pub const MAX_REQUEST_LEN: u32 = 128 * 1024;

/// The sizes of one torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    piece_length: u32,
    total_length: u64,
    pieces: u32,
}

impl Geometry {
    /// `None` if the piece length is zero or there would be more pieces than the wire can name.
    pub fn new(piece_length: u32, total_length: u64) -> Option<Self> {
        let pieces = total_length.checked_add(u64::from(piece_length).checked_sub(1)?)?;
        let pieces = u32::try_from(pieces / u64::from(piece_length)).ok()?;
        Some(Geometry { piece_length, total_length, pieces })
    }

    /// Number of pieces.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Bytes of every piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Bytes of the payload.
    pub fn total_length(&self) -> u64 {
        self.total_length
    }

    /// Where `piece` begins in the payload.
    pub fn start_of(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_length)
    }

    /// Bytes of `piece`: the last one may be shorter. Zero for pieces that do not exist.
    pub(crate) fn len_of(&self, piece: PieceIndex) -> u32 {
        let rest = self.total_length.saturating_sub(self.start_of(piece));
        u32::try_from(rest).map_or(self.piece_length, |rest| rest.min(self.piece_length))
    }

    /// Bytes of all pieces of `field`.
    pub(crate) fn bytes_of(&self, field: &Bitfield) -> u64 {
        field.iter().map(|piece| u64::from(self.len_of(piece))).sum()
    }

    /// The index if such a piece exists.
    pub(crate) fn check_piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.pieces).then_some(PieceIndex(index))
    }

    /// True if `block` lies inside its piece and is not empty.
    pub(crate) fn check_block(&self, block: Block) -> bool {
        block.piece.0 < self.pieces
            && block.len > 0
            && block.offset.checked_add(block.len).is_some_and(|end| end <= self.len_of(block.piece))
    }

    /// The blocks that must be asked for to have all of `piece` that travels: each inside one cell of 16 KiB.
    pub(crate) fn blocks_of(&self, piece: PieceIndex, shape: &dyn PieceShape) -> Vec<Block> {
        let len = self.len_of(piece);
        let mut blocks = Vec::with_capacity((len / BLOCK_LEN + 1) as usize);
        let mut done = 0;
        for range in shape.data_ranges(piece, len) {
            let mut offset = range.start.max(done);
            let end = range.end.min(len);
            while offset < end {
                let cell_end = (offset / BLOCK_LEN + 1).saturating_mul(BLOCK_LEN);
                let stop = cell_end.min(end);
                blocks.push(Block { piece, offset, len: stop - offset });
                offset = stop;
            }
            done = done.max(end);
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Ranges(Vec<Range<u32>>);
    impl PieceShape for Ranges {
        fn data_ranges(&self, _: PieceIndex, _: u32) -> Vec<Range<u32>> {
            self.0.clone()
        }
    }

    #[test]
    fn the_last_piece_is_what_is_left() {
        let geometry = Geometry::new(100, 250).expect("valid");
        assert_eq!(geometry.pieces(), 3);
        assert_eq!([0, 1, 2, 3].map(|p| geometry.len_of(PieceIndex(p))), [100, 100, 50, 0]);
        assert!(!geometry.check_block(Block { piece: PieceIndex(2), offset: 40, len: 11 }));
        assert!(!geometry.check_block(Block { piece: PieceIndex(0), offset: u32::MAX, len: 2 }));
        assert!(geometry.check_block(Block { piece: PieceIndex(2), offset: 40, len: 10 }));
        assert_eq!(Geometry::new(0, 1), None);
        assert_eq!(Geometry::new(1, u64::MAX), None);
    }

    #[test]
    fn a_frames_blocks_are_none_of_the_piece() {
        let geometry = Geometry::new(100_000, 100_000).expect("valid");
        let blocks = Block::of_frame(PieceIndex(0), 40_000);
        let shown: Vec<_> = blocks.iter().map(|block| (block.start(), block.end())).collect();
        assert_eq!(shown, [(0, Some(16384)), (16384, Some(32768)), (32768, Some(40_000))]);
        assert!(blocks.iter().all(|block| block.in_frame() && !geometry.check_block(*block)));
        assert!(!geometry.blocks_of(PieceIndex(0), &WholePieces).iter().any(Block::in_frame));
        assert_eq!(Block::of_frame(PieceIndex(0), 0), []);
    }

    #[test]
    fn only_data_ranges_become_blocks() {
        let geometry = Geometry::new(65536, 65536).expect("valid");
        let shape = Ranges(vec![4096..8192, 12288..36864]);
        let blocks: Vec<_> =
            geometry.blocks_of(PieceIndex(0), &shape).iter().map(|b| (b.offset, b.len)).collect();
        assert_eq!(blocks, [(4096, 4096), (12288, 4096), (16384, 16384), (32768, 4096)]);
    }

    proptest! {
        #[test]
        fn blocks_cover_each_piece_once(piece_length in 1u32..200_000, total in 1u64..1_000_000) {
            let geometry = Geometry::new(piece_length, total).expect("valid");
            for piece in (0..geometry.pieces()).step_by(1 + geometry.pieces() as usize / 50).map(PieceIndex) {
                let mut next = 0;
                for block in geometry.blocks_of(piece, &WholePieces) {
                    prop_assert!(geometry.check_block(block) && block.len <= BLOCK_LEN);
                    prop_assert_eq!(block.offset, next);
                    next += block.len;
                }
                prop_assert_eq!(next, geometry.len_of(piece));
            }
        }

        #[test]
        fn a_careless_shape_cannot_lead_outside(ranges in proptest::collection::vec((0u32..100_000,
            0u32..100_000), 0..6)) {
            let geometry = Geometry::new(50_000, 50_000).expect("valid");
            let shape = Ranges(ranges.into_iter().map(|(a, b)| a..b).collect());
            let mut next = 0;
            for block in geometry.blocks_of(PieceIndex(0), &shape) {
                prop_assert!(geometry.check_block(block) && block.offset >= next);
                next = block.offset + block.len;
            }
        }
    }
}
