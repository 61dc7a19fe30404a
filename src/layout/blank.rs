//! The blank: a file of flashmob's helper in a Windows that starts by BIOS. Its first bytes are for the
//! terminal's own file, because such a disk has no filesystem that the agent can write.
//!
//! Invariant: pure. Only bytes that are a blank's, empty or filled, are written over. `io::disk::personal`
//! does it.

use super::personal::OwnFile;
use crate::manifest::BLANK_LENGTH;

/// Where it lies on the filesystem of the Windows.
pub const PATH: [&str; 3] = ["ProgramData", "flashmob", "terminal.json"];
/// Bytes of it that an agent may write. The rest of the file is spaces.
pub const LENGTH: usize = BLANK_LENGTH as usize;
/// Its first line until an agent fills it: JSON without a ticket, with which the helper does nothing.
pub const MARK: &str = r#"{"format": 1, "blank": "flashmob writes the file of each terminal here"}"#;
/// Bytes that every disk writes whole or not at all.
const HEAD: usize = 512;

/// The first bytes of a blank that nobody has filled.
pub fn empty() -> Vec<u8> {
    let mut bytes = format!("{MARK}\n").into_bytes();
    bytes.resize(LENGTH, b' ');
    bytes
}

/// Those of one with `own`; `None` if that is too long.
pub fn filled(own: &OwnFile) -> Option<Vec<u8>> {
    let mut bytes = own.to_bytes();
    (bytes.len() <= LENGTH).then(|| bytes.resize(LENGTH, b' '))?;
    Some(bytes)
}

/// Are these the first bytes of a blank? One whose head is empty may have been half filled when the power
/// failed.
pub fn is_one(bytes: &[u8]) -> bool {
    let is_empty = bytes.get(..HEAD) == empty().get(..HEAD);
    bytes.len() == LENGTH && (is_empty || serde_json::from_slice::<OwnFile>(bytes).is_ok())
}

/// The writes that turn `there` into `new`, each with its place in the blank, for a disk whose sectors have
/// `sector` bytes. The head is empty until all else is written.
pub fn writes(there: &[u8], new: &[u8], sector: usize) -> Vec<(usize, Vec<u8>)> {
    let (head, rest) = new.split_at(sector.min(new.len()));
    let empty = empty()[..head.len()].to_vec();
    let mut writes = Vec::new();
    if !rest.is_empty() {
        if !there.starts_with(&empty) {
            writes.push((0, empty));
        }
        writes.push((head.len(), rest.to_vec()));
    }
    writes.push((0, head.to_vec()));
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(label: &str) -> OwnFile {
        OwnFile { attempt: 7, job: "1".into(), label: label.into(), ..OwnFile::default() }
    }

    #[test]
    fn a_filled_blank_is_the_file_and_spaces_and_one_that_is_too_long_is_refused() {
        let bytes = filled(&own("lab-01")).expect("it fits");
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(serde_json::from_slice::<OwnFile>(&bytes).expect("JSON"), own("lab-01"));
        assert!(own("lab-01").is_complete(&bytes));
        assert_eq!(filled(&own(&"x".repeat(LENGTH))), None);
    }

    #[test]
    fn only_an_empty_or_a_filled_blank_is_one() {
        assert!(is_one(&empty()) && is_one(&filled(&own("lab-01")).expect("it fits")));
        for other in [vec![0; LENGTH], vec![b' '; LENGTH], empty()[..HEAD].to_vec(), vec![0x5a; LENGTH]] {
            assert!(!is_one(&other));
        }
        let mut spoilt = empty();
        spoilt[100] = b'x';
        assert!(!is_one(&spoilt));
        let mut followed = filled(&own("lab-01")).expect("it fits");
        followed[LENGTH - 1] = b'x';
        assert!(!is_one(&followed), "something else lies behind the file");
    }

    #[test]
    fn the_helper_reads_an_empty_blank_as_json_without_a_ticket() {
        let read: serde_json::Value = serde_json::from_slice(&empty()).expect("JSON");
        assert!(read.is_object() && read.get("ticket").is_none());
    }

    #[test]
    fn after_each_write_that_is_the_last_the_bytes_are_a_blank_and_never_half_a_file() {
        let new = filled(&own(&"y".repeat(900))).expect("it fits");
        for sector in [512, 4096] {
            for golden in [empty(), filled(&own(&"z".repeat(1200))).expect("it fits")] {
                let mut bytes = golden.clone();
                for (at, part) in writes(&golden, &new, sector) {
                    assert!(at.is_multiple_of(sector) && part.len().is_multiple_of(sector));
                    bytes[at..at + part.len()].copy_from_slice(&part);
                    assert!(is_one(&bytes));
                    assert!(bytes == new || !own("").is_complete(&bytes), "it counts before it is whole");
                }
                assert!(bytes == new);
            }
        }
    }
}
