//! Attempts' logs as terminals send them: zstd frames of text.
//!
//! Invariant: no frame makes the server use more memory than [`MAX_LOG`] and the window of its decoder. What
//! is shown moves no cursor.

use std::io::Read;

use crate::api::{MAX_LOG, MAX_PACKED_LOG};

/// The window of a frame of [`MAX_LOG`] bytes fits into 2^20.
const WINDOW_LOG: u32 = 20;

/// Why a log is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongLog {
    #[error("the log has more than {} KiB, or {} KiB compressed", MAX_LOG >> 10, MAX_PACKED_LOG >> 10)]
    TooLong,
    #[error("the log is no zstd frame: {0}")]
    NotPacked(String),
}

/// The text of a log: lines without control characters.
pub fn unpack(packed: &[u8]) -> Result<String, WrongLog> {
    if packed.len() > MAX_PACKED_LOG {
        return Err(WrongLog::TooLong);
    }
    let wrong = |e: std::io::Error| WrongLog::NotPacked(e.to_string());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(wrong)?;
    decoder.window_log_max(WINDOW_LOG).map_err(wrong)?;
    let mut bytes = Vec::new();
    decoder.take(MAX_LOG as u64 + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() > MAX_LOG {
        return Err(WrongLog::TooLong);
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    text.retain(|c| c == '\n' || !c.is_control());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(text: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(text, 3).expect("packed")
    }

    #[test]
    fn a_log_is_shown_without_what_would_move_a_cursor() {
        assert_eq!(unpack(&pack(b"one\r\ntwo \x1b[2J\xff\n")), Ok("one\ntwo [2J\u{fffd}\n".into()));
        assert_eq!(unpack(&pack(b"")), Ok(String::new()));
        assert_eq!(unpack(&pack(&vec![b'a'; MAX_LOG])).map(|text| text.len()), Ok(MAX_LOG));
    }

    #[test]
    fn a_frame_that_unpacks_to_too_much_is_refused() {
        let bomb = pack(&vec![0; 1 << 30]);
        assert!(bomb.len() < MAX_PACKED_LOG, "{}", bomb.len());
        let error = unpack(&bomb).expect_err("a gigabyte");
        // Its window is too large already, or its content.
        assert!(matches!(error, WrongLog::TooLong | WrongLog::NotPacked(_)), "{error}");
        assert_eq!(unpack(&pack(&vec![b'a'; MAX_LOG + 1])), Err(WrongLog::TooLong));
        let twice = [pack(&vec![b'a'; MAX_LOG]), pack(b"a")].concat();
        assert_eq!(unpack(&twice), Err(WrongLog::TooLong), "frames one after another");
        assert_eq!(unpack(&vec![0; MAX_PACKED_LOG + 1]), Err(WrongLog::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            flip in any::<prop::sample::Index>(),
        ) {
            let _ = unpack(&bytes);
            let mut packed = pack(&bytes);
            let at = flip.index(packed.len());
            packed[at] ^= 0x10;
            let _ = unpack(&packed);
            bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
            let _ = unpack(&bytes);
        }
    }
}
