//! The extension handshake (BEP 10), with `upload_only` (BEP 21) and flashmob's own extension.
//!
//! Invariant: reading never fails over keys that are missing, unknown or odd, only over bytes that are not
//! bencoded; what is not understood is as if it had not been said.

use crate::bencode::{self, BencodeError, Value};

/// The name of flashmob's own extension in `m`: scheduling between flashmob peers.
pub const OUR_EXTENSION: &str = "fm_flashmob";
/// The message id under which we receive messages of our own extension.
pub const OUR_EXTENSION_ID: u8 = 20;
/// The version of our extension: 1 reserved the name and had no messages.
pub const OUR_EXTENSION_VERSION: u8 = 2;

/// Values a handshake may hold in all; clients send a few dozen.
const MAX_VALUES: usize = 512;

/// A peer's description of itself after the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// Requests the speaker keeps in its queue (`reqq`).
    pub request_queue: Option<u32>,
    /// BEP 21: the speaker will not download. `None` where it was not said.
    pub upload_only: Option<bool>,
    /// Client name and version (`v`).
    pub client: Option<String>,
    /// The port the speaker listens on (`p`).
    pub port: Option<u16>,
    /// The id under which the speaker wants messages of [`OUR_EXTENSION`], if it knows it.
    pub flashmob_id: Option<u8>,
    /// The version of [`OUR_EXTENSION`] that the speaker knows (`fm_version`).
    pub flashmob_version: Option<u8>,
    /// The version of frames, compressed pieces, that the speaker takes (`fm_zstd`).
    pub frames: Option<u8>,
}

impl ExtendedHandshake {
    /// The payload of extended message 0.
    pub fn encode(&self) -> Vec<u8> {
        let mut names = Vec::new();
        if let Some(id) = self.flashmob_id {
            names.push((OUR_EXTENSION, Value::Int(i64::from(id))));
        }
        let mut entries = vec![("m", bencode::dict(names))];
        if let Some(requests) = self.request_queue {
            entries.push(("reqq", Value::Int(i64::from(requests))));
        }
        if let Some(upload_only) = self.upload_only {
            entries.push(("upload_only", Value::Int(i64::from(upload_only))));
        }
        if let Some(client) = &self.client {
            entries.push(("v", Value::text(client)));
        }
        if let Some(port) = self.port {
            entries.push(("p", Value::Int(i64::from(port))));
        }
        if let Some(version) = self.flashmob_version {
            entries.push(("fm_version", Value::Int(i64::from(version))));
        }
        if let Some(version) = self.frames {
            entries.push(("fm_zstd", Value::Int(i64::from(version))));
        }
        bencode::dict(entries).encode()
    }

    /// Reads the payload of extended message 0.
    pub fn decode(payload: &[u8]) -> Result<Self, BencodeError> {
        let value = Value::parse(payload, MAX_VALUES)?;
        let dict = value.as_dict().ok_or_else(|| BencodeError::Syntax("it is not a dictionary".into()))?;
        let number = |key: &str| dict.get(key.as_bytes()).and_then(Value::as_int);
        let own_id = dict
            .get(b"m".as_slice())
            .and_then(Value::as_dict)
            .and_then(|names| names.get(OUR_EXTENSION.as_bytes()))
            .and_then(Value::as_int);
        Ok(ExtendedHandshake {
            request_queue: number("reqq").and_then(|n| u32::try_from(n).ok()),
            upload_only: number("upload_only").map(|n| n != 0),
            client: dict
                .get(b"v".as_slice())
                .and_then(Value::as_text)
                .map(|client| client.chars().filter(|c| !c.is_control()).take(64).collect()),
            port: number("p").and_then(|n| u16::try_from(n).ok()).filter(|port| *port != 0),
            flashmob_id: own_id.and_then(|n| u8::try_from(n).ok()).filter(|id| *id != 0),
            flashmob_version: number("fm_version").and_then(|n| u8::try_from(n).ok()),
            frames: number("fm_zstd").and_then(|n| u8::try_from(n).ok()).filter(|version| *version != 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_we_say_is_read_back() {
        let said = ExtendedHandshake {
            request_queue: Some(2048),
            upload_only: Some(true),
            client: Some("flashmob 0.1.0".into()),
            port: Some(6881),
            flashmob_id: Some(OUR_EXTENSION_ID),
            flashmob_version: Some(OUR_EXTENSION_VERSION),
            frames: Some(1),
        };
        assert_eq!(ExtendedHandshake::decode(&said.encode()), Ok(said));
        let quiet = ExtendedHandshake::default();
        assert_eq!(ExtendedHandshake::decode(&quiet.encode()), Ok(quiet));
    }

    #[test]
    fn odd_values_are_as_if_not_said() {
        let odd = b"d1:md11:fm_flashmobi999e6:ut_pexi1ee1:pi70000e4:reqqi-5e1:vi3ee";
        assert_eq!(ExtendedHandshake::decode(odd), Ok(ExtendedHandshake::default()));
        assert!(ExtendedHandshake::decode(b"le").is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ExtendedHandshake::decode(&bytes);
        }
    }
}
