//! The words of the project as types: a number never travels without its unit.
//!
//! Invariant: a value that exists is valid (a `PieceLength` is one of the allowed lengths, a hash has its
//! full size). `layout` and `swarm` apply the numbers to disks and torrents.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of one block: the most that one request asks for (BEP 3).
pub(crate) const BLOCK_LEN: u32 = 16 * 1024;

/// Time since some start that the holder knows, for example the engine's. Below `io` there is no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(pub Duration);

impl Now {
    pub const ZERO: Now = Now(Duration::ZERO);

    /// Time passed since `earlier`, or zero if that is later.
    pub fn since(self, earlier: Now) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Now {
    type Output = Now;

    fn add(self, wait: Duration) -> Now {
        Now(self.0.saturating_add(wait))
    }
}

/// Index of a piece in the payload, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PieceIndex(pub u32);

impl PieceIndex {
    /// The index as an array position.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "piece {}", self.0)
    }
}

/// Byte offset on a disk, from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskOffset(pub u64);

impl fmt::Display for DiskOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}", self.0)
    }
}

/// Logical block address: counts sectors of the disk's logical sector size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lba(pub u64);

/// Logical sector size of a disk in bytes: a power of two from 512 to 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SectorSize(u32);

impl SectorSize {
    /// The size every tool assumes when nothing else is known.
    pub const DEFAULT: SectorSize = SectorSize(512);

    /// `None` unless `bytes` is 512, 1024, 2048 or 4096.
    pub fn new(bytes: u32) -> Option<Self> {
        matches!(bytes, 512 | 1024 | 2048 | 4096).then_some(SectorSize(bytes))
    }

    /// Bytes in one sector.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Where `lba` begins, or `None` if that is beyond 2^64.
    pub fn offset_of(self, lba: Lba) -> Option<DiskOffset> {
        lba.0.checked_mul(u64::from(self.0)).map(DiskOffset)
    }
}

impl<'de> Deserialize<'de> for SectorSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = u32::deserialize(d)?;
        SectorSize::new(bytes)
            .ok_or_else(|| de::Error::custom(format!("sector size {bytes} is not 512, 1024, 2048 or 4096")))
    }
}

/// Length of a piece of an image in bytes: a power of two from 16 KiB to 32 MiB.
///
/// Images use 1 MiB and more (docs/formats.md); smaller lengths are allowed so that small tests stay small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PieceLength(u32);

impl PieceLength {
    pub const DEFAULT: PieceLength = PieceLength(4 << 20);

    /// `None` unless `bytes` is a power of two from 16 KiB to 32 MiB.
    pub fn new(bytes: u32) -> Option<Self> {
        (bytes.is_power_of_two() && (BLOCK_LEN..=32 << 20).contains(&bytes)).then_some(PieceLength(bytes))
    }

    /// Bytes in one piece.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Bytes in one piece, for offsets.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }
}

impl<'de> Deserialize<'de> for PieceLength {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = u32::deserialize(d)?;
        PieceLength::new(bytes).ok_or_else(|| {
            de::Error::custom(format!("piece length {bytes} is not a power of two from 16 KiB to 32 MiB"))
        })
    }
}

impl FromStr for PieceLength {
    type Err = String;

    /// Reads `4MiB`, `4M`, `512KiB`, `512k` or plain bytes.
    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = parse_bytes(text)?;
        u32::try_from(bytes).ok().and_then(PieceLength::new).ok_or_else(|| {
            format!("'{text}' is not a piece length: a power of two from 16KiB to 32MiB, for example 4MiB")
        })
    }
}

/// Reads a size as people write it: `64GiB`, `4M`, `512k`, `1024`; units are powers of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("'{text}' does not begin with a number"))?;
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        unit => return Err(format!("'{unit}' in '{text}' is not a unit: use KiB, MiB, GiB or TiB")),
    };
    number.checked_mul(1u64 << shift).ok_or_else(|| format!("'{text}' is more than 2^64 bytes"))
}

/// Bytes for people: `1.4 GiB`.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two shown digits need no more precision")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Reads a time as people write it: `90s`, `30min` or `30m`, `2h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return Err(format!("'{text}' is not a duration: use 90s, 30min or 2h")),
    };
    let number: u64 = text[..digits].parse().map_err(|_| format!("'{text}' does not begin with a number"))?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(|| format!("'{text}' is too long"))
}

/// Defines a fixed-size byte string that is shown, read and serialised as lower-case hexadecimal.
macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let wrong = || format!("'{text}' is not {} hexadecimal digits", 2 * $len);
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(wrong());
                }
                let mut bytes = [0u8; $len];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
                }
                Ok($name(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_bytes!(
    /// SHA-1 of a torrent's bencoded `info` dictionary: the name of a swarm (BEP 3).
    InfoHash,
    20
);
hex_bytes!(
    /// SHA-1 of a piece, as the torrent's `pieces` holds it (BEP 3).
    Sha1,
    20
);
hex_bytes!(
    /// SHA-256: of a sidecar, of a piece on the disk, or of piece hashes in order.
    Sha256,
    32
);
hex_bytes!(
    /// A peer's name in a swarm, chosen anew at each start (BEP 20: `-FM0100-` and 12 random bytes).
    PeerId,
    20
);

impl PeerId {
    /// It is a flashmob's: `-FM…`.
    pub fn is_ours(&self) -> bool {
        self.0.starts_with(b"-FM")
    }
}

/// The hardware address of a network adapter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    /// Reads six bytes in hexadecimal with `:` or `-` between them. Addresses that no adapter has (all zeros,
    /// multicast) are refused.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a MAC address like 52:54:00:12:34:56");
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() || bytes == [0; 6] || bytes[0] & 1 == 1 {
            return Err(wrong());
        }
        Ok(Mac(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_in_both_spellings_and_shown_in_one() {
        assert_eq!("52-54-00-AB-cd-01".parse::<Mac>().expect("valid").to_string(), "52:54:00:ab:cd:01");
        for bad in
            ["", "52:54:00:00:00", "52:54:00:00:00:0a:0b", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "5254:0"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("64GiB"), Ok(64 << 30));
        assert_eq!(parse_bytes("4M"), Ok(4 << 20));
        assert_eq!(parse_bytes("512 k"), Ok(512 << 10));
        assert_eq!(parse_bytes("17"), Ok(17));
        assert!(parse_bytes("MiB").is_err());
        assert!(parse_bytes("4MB").is_err());
        assert!(parse_bytes("99999999999999TiB").is_err());
    }

    #[test]
    fn only_allowed_piece_lengths_exist() {
        assert_eq!("4MiB".parse::<PieceLength>(), Ok(PieceLength::DEFAULT));
        for bad in ["3MiB", "64MiB", "8KiB", "0", ""] {
            assert!(bad.parse::<PieceLength>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hashes_round_trip_as_hexadecimal() {
        let hash = InfoHash([0xab; 20]);
        assert_eq!(hash.to_string().parse::<InfoHash>(), Ok(hash));
        assert!("ab".parse::<InfoHash>().is_err());
        assert!("zz".repeat(20).parse::<InfoHash>().is_err());
        assert!("ä".repeat(20).parse::<InfoHash>().is_err());
    }

    #[test]
    fn bytes_are_shown_with_one_digit() {
        assert_eq!(show_bytes(5), "5 B");
        assert_eq!(show_bytes(1536), "1.5 KiB");
        assert_eq!(show_bytes(64 << 30), "64.0 GiB");
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2 h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_duration("10m"), parse_duration("10min"));
        for bad in ["", "90", "s", "1d", "99999999999999999999h", "9999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
