//! Compresses pieces to zstd frames, and decompresses frames.
//!
//! Invariant: a frame decompresses to exactly its piece's length or fails, in memory that exists already, so
//! that a peer's frame cannot make us allocate.

use std::io;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

/// zstd's own default. Less is hardly faster, and more costs four times as much for one percent (measured on
/// /usr).
const LEVEL: i32 = 3;
/// Compresses.
pub struct Packer(Compressor<'static>);

impl Packer {
    /// Fails when there is no memory.
    pub fn new() -> io::Result<Self> {
        Compressor::new(LEVEL).map(Packer)
    }

    /// The frame of `piece`; `None` if it is longer than `at_most`.
    pub fn pack(&mut self, piece: &[u8], at_most: usize) -> Option<Bytes> {
        let mut frame = Vec::with_capacity(at_most);
        self.0.compress_to_buffer(piece, &mut frame).ok()?;
        frame.shrink_to_fit();
        Some(frame.into())
    }
}

/// Decompresses.
pub(crate) struct Unpacker(Decompressor<'static>);

impl Unpacker {
    /// Fails when there is no memory.
    pub(crate) fn new() -> io::Result<Self> {
        Decompressor::new().map(Unpacker)
    }

    /// Fills `piece` from `frame`. Returns false if the frame does not give exactly that many bytes; the
    /// content of `piece` is then unspecified.
    pub(crate) fn unpack(&mut self, frame: &[u8], piece: &mut [u8]) -> bool {
        self.0.decompress_to_buffer(frame, piece).is_ok_and(|len| len == piece.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).flat_map(|n| format!("line {} of a file\n", n * n % 977).into_bytes()).take(len).collect()
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            parts in proptest::collection::vec((any::<u8>(), 1usize..3000), 0..20),
            noise in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut piece: Vec<u8> = parts.iter().flat_map(|(byte, count)| vec![*byte; *count]).collect();
            piece.extend(noise);
            let frame = Packer::new().unwrap().pack(&piece, piece.len() + 1000).expect("room for anything");
            let mut out = vec![0xee; piece.len()];
            prop_assert!(Unpacker::new().unwrap().unpack(&frame, &mut out));
            prop_assert_eq!(out, piece);
        }

        #[test]
        fn garbage_and_damaged_frames_never_write_beyond_the_piece(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300), damage in any::<(usize, u8)>(),
                real in any::<bool>(),
        ) {
            if real {
                bytes = Packer::new().unwrap().pack(&text(5000), 5000).expect("text").to_vec();
                let at = damage.0 % bytes.len();
                bytes[at] ^= damage.1;
            }
            let mut out = vec![0xee; 6000];
            let right = Unpacker::new().unwrap().unpack(&bytes, &mut out[..5000]);
            prop_assert!(out[5000..].iter().all(|byte| *byte == 0xee));
            prop_assert!(!right || real, "noise is no frame of 5000 bytes");
        }
    }

    #[test]
    fn a_frame_of_another_length_is_none_however_short_it_is_itself() {
        let mut packer = Packer::new().unwrap();
        let bomb = packer.pack(&vec![0; 64 << 20], 1 << 20).expect("zeros");
        assert!(bomb.len() < 16 << 10, "64 MiB in {} bytes", bomb.len());
        let mut unpacker = Unpacker::new().unwrap();
        let mut piece = vec![0; 100_000];
        assert!(!unpacker.unpack(&bomb, &mut piece), "too long");
        let short = packer.pack(&vec![0; 99_999], 100_000).expect("zeros");
        assert!(!unpacker.unpack(&short, &mut piece), "too short");
        let right = packer.pack(&vec![0; 100_000], 100_000).expect("zeros");
        assert!(unpacker.unpack(&right, &mut piece), "and an error leaves nothing behind");
        assert!(!unpacker.unpack(&right[..right.len() - 1], &mut piece), "cut off");
        assert!(!unpacker.unpack(&[], &mut piece), "nothing at all");
    }

    #[test]
    fn what_cannot_be_compressed_has_no_frame() {
        let mut noise = vec![0; 100_000];
        getrandom::fill(&mut noise).unwrap();
        assert_eq!(Packer::new().unwrap().pack(&noise, 90_000), None);
        assert!(Packer::new().unwrap().pack(&text(100_000), 90_000).is_some());
    }
}
