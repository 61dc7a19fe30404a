//! The messages of the wire.
//!
//! A message may hold anything the wire can carry: whether it makes sense is left to the engine.

use bytes::Bytes;

use crate::swarm::geometry::Block;
use crate::units::PieceIndex;

/// One message of the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Length zero: the connection is alive.
    KeepAlive,
    /// The sender will not answer requests.
    Choke,
    /// The sender will answer requests.
    Unchoke,
    /// The sender wants something the receiver has.
    Interested,
    /// The sender wants nothing.
    NotInterested,
    /// The sender has one more piece.
    Have(PieceIndex),
    /// The sender's pieces; not yet checked against the torrent.
    Bitfield(Bytes),
    /// The sender wants this block.
    Request(Block),
    /// A block's bytes.
    Piece {
        piece: PieceIndex,
        /// First byte in the piece.
        offset: u32,
        /// The bytes.
        data: Bytes,
    },
    /// The sender no longer wants this block.
    Cancel(Block),
    /// BEP 6: the sender has everything.
    HaveAll,
    /// BEP 6: the sender has nothing.
    HaveNone,
    /// BEP 6: a hint about what to ask for.
    Suggest(PieceIndex),
    /// BEP 6: this request will not be answered.
    Reject(Block),
    /// BEP 6: this piece may be asked for while choked.
    AllowedFast(PieceIndex),
    /// BEP 10: id 0 is the extension handshake, others as the receiver of the handshake named them.
    Extended {
        /// The extended message id.
        id: u8,
        /// The rest.
        payload: Bytes,
    },
    /// A message of a kind that is not known here (a DHT port, for example): ignored.
    Unknown(u8),
}
