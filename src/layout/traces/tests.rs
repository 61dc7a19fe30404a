//! Reading any partition ends and does no harm; `io::disk::compare` tests filesystems of the usual tools.

use super::*;
use proptest::prelude::*;

/// A partition in memory that counts the requested bytes.
struct Memory {
    bytes: Vec<u8>,
    /// The record covers its first `known` bytes.
    known: usize,
    asked: usize,
}

impl Untouched for Memory {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn prove(&mut self, at: u64, len: u64) -> Result<(), Doubt> {
        self.asked += 1;
        let end = at.checked_add(len).filter(|end| *end <= self.size());
        end.map(|_| ()).ok_or(Doubt::Unclear)
    }

    fn bytes(&mut self, at: u64, len: usize) -> Result<Vec<u8>, Doubt> {
        self.prove(at, len as u64)?;
        let at = usize::try_from(at).expect("it is in memory");
        if at + len > self.known { Err(Doubt::Unclear) } else { Ok(self.bytes[at..at + len].to_vec()) }
    }
}

#[test]
fn what_is_no_filesystem_or_not_known_is_unclear() {
    let mut luks = vec![0u8; 1 << 20];
    luks[..6].copy_from_slice(b"LUKS\xba\xbe");
    for bytes in [vec![], vec![0; 512], vec![0; 1 << 20], luks] {
        let known = bytes.len();
        assert_eq!(look(&mut Memory { bytes, known, asked: 0 }), Err(Doubt::Unclear));
    }
    let mut bytes = vec![0u8; 1 << 20];
    bytes[3..11].copy_from_slice(b"NTFS    ");
    assert_eq!(
        look(&mut Memory { bytes, known: 0, asked: 0 }),
        Err(Doubt::Unclear),
        "nothing is known of it"
    );
}

proptest! {
    #[test]
    fn no_content_makes_it_ask_without_end(
        mark in prop::sample::select(vec![
            (3usize, &b"NTFS    "[..]),
            (3, b"EXFAT   "),
            (82, b"FAT32"),
            (54, b"FAT1"),
            (0, b"XFSB"),
            (1024 + 56, b"\x53\xef"),
            (1024, b"\x10\x20\xf5\xf2"),
            (0x10040, b"_BHRfS_M"),
        ]),
        seed in any::<u64>(),
        // How many bytes in sixteen are not zero: small numbers lead further.
        dense in 0u64..16,
        size in prop::sample::select(vec![0x1_0041usize, 0x1_1041, 256 << 10, (256 << 10) + 512]),
        known in prop::sample::select(vec![4096usize, 64 << 10, 1 << 20]),
    ) {
        let mut chance = crate::rng::Rng::new(seed);
        let mut bytes: Vec<u8> = (0..size)
            .map(|_| chance.next_u64())
            .map(|bits| if bits % 16 < dense { u8::try_from(bits >> 56).unwrap_or(0) } else { 0 })
            .collect();
        let (at, text) = mark;
        if at + text.len() <= size {
            bytes[at..at + text.len()].copy_from_slice(text);
        }
        let mut memory = Memory { bytes, known, asked: 0 };
        let _ = look(&mut memory);
        prop_assert!(memory.asked < 500, "{}", memory.asked);
    }
}
