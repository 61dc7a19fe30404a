//! The 68 bytes that open every connection (BEP 3).
//!
//! Invariant: a `Handshake` that exists was spoken in the BitTorrent protocol; which torrents and peers are
//! welcome is left to the session and the engine.

use crate::units::{InfoHash, PeerId};

/// Bytes of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
/// BEP 10: reserved byte 5.
const EXTENDED_BIT: u8 = 0x10;
/// BEP 6: reserved byte 7.
const FAST_BIT: u8 = 0x04;

/// A handshake: the peer's name, the torrent, and the extensions it supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The speaker.
    pub peer_id: PeerId,
    /// BEP 6.
    pub fast: bool,
    /// BEP 10.
    pub extended: bool,
}

/// Why bytes are no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The first 20 bytes are something else: perhaps encrypted, perhaps another protocol.
    #[error("the other side does not speak BitTorrent (or only encrypted)")]
    Protocol,
}

impl Handshake {
    /// The handshake of a flashmob peer.
    pub fn ours(info_hash: InfoHash, peer_id: PeerId) -> Self {
        Handshake { info_hash, peer_id, fast: true, extended: true }
    }

    /// The bytes to send.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[25] = if self.extended { EXTENDED_BIT } else { 0 };
        bytes[27] = if self.fast { FAST_BIT } else { 0 };
        bytes[28..48].copy_from_slice(&self.info_hash.0);
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Reads the bytes that were received.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, HandshakeError> {
        if !Self::may_become(&bytes[..20]) {
            return Err(HandshakeError::Protocol);
        }
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0.copy_from_slice(&bytes[28..48]);
        let mut peer_id = PeerId([0; 20]);
        peer_id.0.copy_from_slice(&bytes[48..]);
        Ok(Handshake {
            info_hash,
            peer_id,
            fast: bytes[27] & FAST_BIT != 0,
            extended: bytes[25] & EXTENDED_BIT != 0,
        })
    }

    /// False as soon as the first bytes received cannot be a handshake, so that nobody waits for 68 of them.
    pub(crate) fn may_become(first: &[u8]) -> bool {
        first.iter().zip(PROTOCOL).all(|(got, expected)| got == expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_round_trips() {
        for (fast, extended) in [(true, true), (false, true), (true, false), (false, false)] {
            let said = Handshake {
                info_hash: InfoHash([7; 20]),
                peer_id: PeerId(*b"-FM0100-abcdefghijkl"),
                fast,
                extended,
            };
            assert_eq!(Handshake::decode(&said.encode()), Ok(said));
        }
    }

    #[test]
    fn another_protocol_is_seen_at_its_first_bytes() {
        assert!(!Handshake::may_become(b"GET / HTTP/1.1"));
        assert!(Handshake::may_become(b"\x13BitTor"));
        assert_eq!(Handshake::decode(&[0; 68]), Err(HandshakeError::Protocol));
    }
}
