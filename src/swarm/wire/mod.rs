//! The peer wire protocol: messages ↔ bytes (BEP 3, 6, 10, 21).
//!
//! Invariant: decoding is incremental and bounded (nothing longer than the torrent's largest legal message is
//! ever waited for), encoding and decoding are each other's inverse. Whether a message makes sense now is
//! left to the engine.

pub(super) mod codec;
pub(super) mod extended;
pub(super) mod flashmob;
pub(super) mod handshake;
pub(super) mod message;

pub use codec::{Decoder, PIECE_HEADER_LEN, WireError, encode, encode_piece_header};
pub use extended::{ExtendedHandshake, OUR_EXTENSION, OUR_EXTENSION_ID, OUR_EXTENSION_VERSION};
pub use flashmob::{MAX_OFFERED, Offered, SchedulingMessage};
pub use handshake::{HANDSHAKE_LEN, Handshake, HandshakeError};
pub use message::Message;
