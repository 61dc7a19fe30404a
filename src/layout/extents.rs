//! The kind of each byte of a partition: data, zero or free; and `extents.bin`, its compact form.
//!
//! Invariant: the runs of a decoded or built [`Extents`] cover each partition of its manifest exactly, from
//! byte 0 to its size, in order, without gaps; neighbours differ in kind; every boundary lies on 4 KiB except
//! the partition's own end. `layout::grid` derives the pieces.

use crate::manifest::Manifest;

/// Ranges are known to this many bytes (docs/formats.md).
pub const UNIT: u64 = 4096;
/// First bytes of `extents.bin`.
pub const MAGIC: [u8; 8] = *b"fmextnt1";
/// Larger files are not decoded: a run takes up to 24 times its encoded size in memory.
pub const MAX_EXTENTS_BYTES: usize = 32 << 20;
/// Groups of 7 bits in the longest varint (a u64).
const MAX_VARINT_BYTES: usize = 10;

/// The kind of a partition's range (docs/formats.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeKind {
    Data,
    /// Must read as zero on the target.
    Zero,
    Free,
}

impl RangeKind {
    fn code(self) -> u64 {
        match self {
            RangeKind::Data => 0,
            RangeKind::Zero => 1,
            RangeKind::Free => 2,
        }
    }

    pub(crate) fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(RangeKind::Data),
            1 => Some(RangeKind::Zero),
            2 => Some(RangeKind::Free),
            _ => None,
        }
    }
}

/// A range of a partition of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub kind: RangeKind,
    /// First byte, from the partition's first byte.
    pub start: u64,
    /// Bytes; never 0.
    pub len: u64,
}

impl Run {
    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The runs of every partition, in the manifest's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extents {
    /// Runs of each partition, in order of their first byte.
    pub partitions: Vec<Vec<Run>>,
}

/// Why bytes are not the extents of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtentsError {
    /// Another file, or another version of the format.
    #[error("extents do not begin with the mark of format 1")]
    Magic,
    /// More than is ever read.
    #[error("extents have {0} bytes; at most {MAX_EXTENTS_BYTES} are read")]
    TooLarge(usize),
    /// The file ends in the middle of something.
    #[error("extents end too early, in partition {0}")]
    Truncated(u32),
    /// A number of more than 64 bits, or not written in its shortest form.
    #[error("extents have a malformed number in partition {0}")]
    Number(u32),
    /// A kind that does not exist.
    #[error("extents have a run of an unknown kind in partition {0}")]
    Kind(u32),
    /// Runs do not cover a partition exactly, or are not in their shortest form.
    #[error("extents of partition {partition}: {what}")]
    Cover {
        partition: u32,
        /// The problem.
        what: &'static str,
    },
    /// Bytes after the last partition.
    #[error("extents have {0} bytes after the last partition")]
    Trailing(usize),
    /// They and the manifest tell different things.
    #[error("extents contradict the manifest: {0}")]
    Contradiction(String),
}

impl Extents {
    /// The bytes of `extents.bin`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for runs in &self.partitions {
            put_varint(&mut out, runs.len() as u64);
            for run in runs {
                put_varint(&mut out, (run.len.div_ceil(UNIT) << 2) | run.kind.code());
            }
        }
        out
    }

    /// Reads `extents.bin`. Strict: accepts only the encoding that [`Extents::encode`] writes for partitions
    /// of exactly these sizes. The length of `bytes` bounds the memory.
    pub fn decode(bytes: &[u8], manifest: &Manifest) -> Result<Self, ExtentsError> {
        if bytes.len() > MAX_EXTENTS_BYTES {
            return Err(ExtentsError::TooLarge(bytes.len()));
        }
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(ExtentsError::Magic)?;
        let mut partitions = Vec::with_capacity(manifest.partitions.len());
        for partition in &manifest.partitions {
            partitions.push(decode_partition(&mut rest, partition.number, partition.size)?);
        }
        if !rest.is_empty() {
            return Err(ExtentsError::Trailing(rest.len()));
        }
        Ok(Extents { partitions })
    }
}

fn decode_partition(rest: &mut &[u8], number: u32, size: u64) -> Result<Vec<Run>, ExtentsError> {
    let cover = |what| ExtentsError::Cover { partition: number, what };
    let count = take_varint(rest, number)?;
    // Each run has at least one byte, so a count that cannot be true is refused before anything is reserved.
    let count = usize::try_from(count).ok().filter(|count| *count <= rest.len());
    let count = count.ok_or(ExtentsError::Truncated(number))?;
    let mut builder = RunBuilder { runs: Vec::with_capacity(count), end: 0 };
    for _ in 0..count {
        let word = take_varint(rest, number)?;
        let kind = RangeKind::from_code(word & 3).ok_or(ExtentsError::Kind(number))?;
        let left = size - builder.end;
        let units = word >> 2;
        if units == 0 || units > left.div_ceil(UNIT) {
            return Err(cover("a run is empty or goes beyond the partition's end"));
        }
        if builder.runs.last().is_some_and(|last| last.kind == kind) {
            return Err(cover("two runs of one kind follow each other"));
        }
        // Only the last unit of the partition can be partial, and `units` was checked against it.
        builder.push(kind, units.saturating_mul(UNIT).min(left));
    }
    if builder.end != size {
        return Err(cover("runs end before the partition does"));
    }
    Ok(builder.finish())
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn take_varint(rest: &mut &[u8], number: u32) -> Result<u64, ExtentsError> {
    let mut value = 0u64;
    for group in 0..MAX_VARINT_BYTES {
        let (&byte, tail) = rest.split_first().ok_or(ExtentsError::Truncated(number))?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * group;
        if (bits << shift) >> shift != bits {
            return Err(ExtentsError::Number(number));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            // A last group of zeros would be a second way to write the same number.
            return if bits == 0 && group > 0 { Err(ExtentsError::Number(number)) } else { Ok(value) };
        }
    }
    Err(ExtentsError::Number(number))
}

/// Makes the runs of one partition from its ranges, told from its first byte to its last.
#[derive(Debug, Default)]
pub struct RunBuilder {
    runs: Vec<Run>,
    end: u64,
}

impl RunBuilder {
    /// The next `len` bytes are `kind`. All but the last range of a partition are whole [`UNIT`]s.
    pub fn push(&mut self, kind: RangeKind, len: u64) {
        if len == 0 {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.kind == kind => last.len += len,
            _ => self.runs.push(Run { kind, start: self.end, len }),
        }
        self.end += len;
    }

    /// Bytes told so far.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn finish(self) -> Vec<Run> {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Policy;
    use crate::testkit::manifests::manifest_of;
    use crate::testkit::manifests::runs_strategy;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extents_come_back_as_they_were_written(
            parts in proptest::collection::vec(runs_strategy(), 1..5)
        ) {
            let extents = Extents { partitions: parts };
            let manifest = manifest_of(&extents, 16 * 1024, Policy::Replace);
            prop_assert_eq!(Extents::decode(&extents.encode(), &manifest), Ok(extents));
        }

        #[test]
        fn garbage_is_refused_or_is_exactly_what_encode_writes(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), sectors in 1u64..100_000
        ) {
            let whole = vec![Run { kind: RangeKind::Data, start: 0, len: sectors * 512 }];
            let manifest = manifest_of(&Extents { partitions: vec![whole] }, 16 * 1024, Policy::Replace);
            let mut file = MAGIC.to_vec();
            file.extend(bytes);
            if let Ok(extents) = Extents::decode(&file, &manifest) {
                prop_assert_eq!(extents.encode(), file);
            }
        }

        #[test]
        fn a_damaged_file_is_refused_or_still_covers_the_partition(
            runs in runs_strategy(), at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let size = runs.last().expect("one").end();
            let extents = Extents { partitions: vec![runs] };
            let manifest = manifest_of(&extents, 16 * 1024, Policy::Replace);
            let mut file = extents.encode();
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            if let Ok(read) = Extents::decode(&file, &manifest) {
                prop_assert_eq!(read.partitions[0].iter().map(|r| r.len).sum::<u64>(), size);
            }
        }

        #[test]
        fn any_number_survives_its_varint(value in any::<u64>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut rest = &bytes[..];
            prop_assert_eq!(take_varint(&mut rest, 1), Ok(value));
            prop_assert!(rest.is_empty());
        }
    }

    fn one(bytes: &[u8], size: u64) -> Result<Extents, ExtentsError> {
        let whole = vec![Run { kind: RangeKind::Data, start: 0, len: size }];
        let manifest = manifest_of(&Extents { partitions: vec![whole] }, 16 * 1024, Policy::Replace);
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(bytes);
        Extents::decode(&file, &manifest)
    }

    #[test]
    fn every_kind_of_fault_is_named() {
        let size = 3 * UNIT;
        assert!(one(&[2, 1 << 2, (2 << 2) | 1], size).is_ok());
        assert_eq!(one(&[], size), Err(ExtentsError::Truncated(1)));
        assert_eq!(one(&[200, 1], size), Err(ExtentsError::Truncated(1)));
        assert_eq!(one(&[1, 0x8c, 0x00], size), Err(ExtentsError::Number(1)));
        assert_eq!(one(&[0xff; 12], size), Err(ExtentsError::Number(1)));
        assert_eq!(one(&[1, (3 << 2) | 3], size), Err(ExtentsError::Kind(1)));
        assert!(matches!(one(&[1, 4 << 2], size), Err(ExtentsError::Cover { .. })));
        assert!(matches!(one(&[1, 2 << 2], size), Err(ExtentsError::Cover { .. })));
        assert!(matches!(one(&[2, 0, 3 << 2], size), Err(ExtentsError::Cover { .. })));
        assert!(matches!(one(&[2, 1 << 2, 2 << 2], size), Err(ExtentsError::Cover { .. })));
        assert_eq!(one(&[1, 3 << 2, 9], size), Err(ExtentsError::Trailing(1)));
        assert_eq!(
            Extents::decode(
                b"fmextnt2",
                &manifest_of(
                    &Extents { partitions: vec![vec![Run { kind: RangeKind::Zero, start: 0, len: 512 }]] },
                    16384,
                    Policy::Replace
                )
            ),
            Err(ExtentsError::Magic)
        );
    }

    #[test]
    fn the_bytes_of_the_format_stay_as_they_are() {
        // 5 units of data, 300 of zeros, 1 free, then data of two units of which the last is half.
        let mut builder = RunBuilder::default();
        builder.push(RangeKind::Data, 5 * UNIT);
        builder.push(RangeKind::Zero, 300 * UNIT);
        builder.push(RangeKind::Free, UNIT);
        builder.push(RangeKind::Data, UNIT + 2048);
        let extents = Extents { partitions: vec![builder.finish()] };
        assert_eq!(extents.encode(), b"fmextnt1\x04\x14\xb1\x09\x06\x08");
    }
}
