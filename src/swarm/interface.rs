//! The engine's inputs and outputs.
//!
//! Invariant: everything the engine knows about the world came through [`EngineConfig`] and [`Input`], and
//! everything it does is an [`Output`]. Doing it is left to `io::torrent` or to the simulation.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::bitfield::{Bitfield, BitfieldError};
use crate::buf::PieceBuf;
use crate::peer_policy::PeerPolicy;
use crate::swarm::geometry::{Block, FRAME};
use crate::swarm::limit::RateLimit;
use crate::swarm::wire::codec::WireError;
use crate::swarm::wire::handshake::Handshake;
use crate::swarm::wire::message::Message;
use crate::units::{InfoHash, PeerId, PieceIndex};

/// Names one connection for as long as the engine lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// The engine's configuration, fixed for its life. Start from [`EngineConfig::new`].
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Our name in the swarm.
    pub peer_id: PeerId,
    /// Bytes of a piece.
    pub piece_length: u32,
    /// Bytes of the payload.
    pub total_length: u64,
    /// Pieces that are on the medium already; served whether they are wanted or not.
    pub have: Bitfield,
    /// Pieces that shall be on the medium: no other piece is ever asked for.
    pub wanted: Bitfield,
    /// Chance: equal seeds and equal inputs give equal outputs.
    pub seed: u64,
    /// Where we accept connections; told to peers (BEP 10 `p`), and never dialled on `own_addresses`.
    pub listen_port: u16,
    /// Addresses of this machine, so that it does not dial itself.
    pub own_addresses: Vec<std::net::IpAddr>,
    /// Connections at most, dialled and accepted.
    pub max_peers: usize,
    /// Connections up to which candidates are dialled; the rest of `max_peers` is for peers that dial us.
    pub dial_up_to: usize,
    /// Dials under way at most.
    pub max_dialling: usize,
    /// Peers that may ask us for blocks at a time.
    pub upload_slots: usize,
    /// Peers that are served at the same moment, a whole piece each; more only while one of them is slow.
    pub upload_parallel: usize,
    /// Blocks handed out as `SendBlock` for one connection before `BlockSent` is awaited.
    pub send_window: usize,
    /// Requests a peer may have waiting here (our `reqq`).
    pub request_queue: u32,
    /// Requests we have waiting at one peer at most (its own `reqq` counts as well).
    pub request_depth: usize,
    /// Only flashmob peers are welcome: others cannot take part without piece hashes.
    pub ours_only: bool,
    /// How long a peer that has requests of ours may send no block before they are given to others.
    pub stall_after: Duration,
    /// Bytes on the wire that each of ours stands for: 1, but in simulations whose payload weighs little.
    pub scale: u32,
    /// Flashmob peers may send us frames: pieces compressed with zstd.
    pub takes_frames: bool,
    /// How many compressed pieces may be in preparation ahead of offers; 0: only those received from peers
    /// are forwarded.
    pub frames_ahead: usize,
    /// What all torrents of this peer together may send, and receive.
    pub limit: RateLimit,
}

impl EngineConfig {
    /// Defaults for a lab: many peers on a fast network, all pieces wanted.
    pub fn new(
        info_hash: InfoHash,
        peer_id: PeerId,
        piece_length: u32,
        total_length: u64,
        have: Bitfield,
    ) -> Self {
        let wanted = Bitfield::all(have.pieces());
        EngineConfig {
            info_hash,
            peer_id,
            piece_length,
            total_length,
            have,
            wanted,
            seed: 0,
            listen_port: 0,
            own_addresses: Vec::new(),
            max_peers: 120,
            dial_up_to: 80,
            max_dialling: 16,
            upload_slots: 24,
            upload_parallel: 1,
            send_window: 8,
            request_queue: 2048,
            request_depth: 1024,
            ours_only: false,
            stall_after: Duration::from_secs(10),
            scale: 1,
            takes_frames: false,
            frames_ahead: 0,
            limit: RateLimit::default(),
        }
    }

    /// Whether compressed pieces are accepted. Not of pieces so long that their offsets need the bit that
    /// marks compressed ones.
    pub(in crate::swarm) fn accepts_frames(&self) -> bool {
        self.takes_frames && self.piece_length < FRAME
    }
}

/// The state of a piece's frame: its bytes compressed with zstd, in the memory of the engine's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameState {
    /// The frame has this many bytes. It stays the same frame until `Gone`.
    Ready(u32),
    /// The frame is gone, and may be asked for again.
    Gone,
    /// The piece can hardly be compressed, or could not be read: it is not asked for again.
    Useless,
}

/// The result for a piece that was handed out with [`Output::Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreResult {
    /// Checked (unless checking is off) and written: peers may have it.
    Ok,
    /// The hash is another one: the piece is fetched again, and its sender is held to account.
    WrongHash,
    /// The medium failed: nothing more is downloaded.
    Failed,
}

/// An event.
#[derive(Debug)]
pub enum Input {
    /// The tracker (or the administrator) named peers.
    Candidates(Vec<SocketAddr>),
    /// The tracker says which peers we may fetch from and serve.
    Policy(PeerPolicy),
    /// A [`Output::Dial`] led to nothing.
    DialFailed(SocketAddr),
    /// A connection is open and both handshakes are done for this torrent.
    Connected {
        /// A new name for the connection.
        conn: ConnId,
        /// The other end: the dialled address, or the one that the peer came from.
        addr: SocketAddr,
        /// True if the peer dialled us.
        incoming: bool,
        /// The peer's handshake.
        handshake: Handshake,
    },
    /// A peer sent a message.
    Message {
        /// The connection to the peer.
        conn: ConnId,
        message: Message,
    },
    /// A peer's block was read into its slot, which had been claimed of [`super::Engine::inflight`].
    Landed {
        /// The connection to the peer.
        conn: ConnId,
        block: Block,
    },
    /// A peer sent bytes that are not a message.
    Garbage {
        /// The connection to the peer.
        conn: ConnId,
        /// The fault.
        error: WireError,
    },
    /// A connection ended, or failed; not needed after [`Output::Close`].
    Closed { conn: ConnId },
    /// A block of [`Output::SendBlock`] was given to the network.
    BlockSent {
        /// The connection to the peer.
        conn: ConnId,
        block: Block,
    },
    /// A block of [`Output::SendBlock`] could not be read from the medium and was not sent.
    BlockUnreadable {
        /// The connection to the peer.
        conn: ConnId,
        block: Block,
    },
    /// A piece of [`Output::Store`] was dealt with.
    Stored { piece: PieceIndex, result: StoreResult },
    /// What there is of a piece's frame has changed: after [`Output::MakeFrame`], because it came from a
    /// peer, or because memory was needed.
    Frame {
        piece: PieceIndex,
        /// The frame's new state.
        state: FrameState,
    },
    /// Nothing; time has passed (also good after buffers went back to the pool).
    Tick,
}

/// An action for the driver of the engine.
#[derive(Debug)]
pub enum Output {
    /// Open a connection to this address; answer with `Connected` or `DialFailed`.
    Dial(SocketAddr),
    /// Send a message.
    Send {
        /// The connection to the peer.
        conn: ConnId,
        /// The message; never [`Message::Piece`].
        message: Message,
    },
    /// Read this block from the medium (or from memory, which frames are in) and send it; answer with
    /// `BlockSent`.
    SendBlock {
        /// The connection to the peer.
        conn: ConnId,
        block: Block,
    },
    /// End a connection. No input about it is needed after that.
    Close { conn: ConnId, why: CloseReason },
    /// A piece is complete: check it and write it; answer with `Stored`. The piece's bytes are the first of
    /// the buffer, as many as [`super::Geometry::len_of`] says.
    Store {
        piece: PieceIndex,
        /// Its bytes, or its frame.
        buf: PieceBuf,
        /// The buffer begins with a frame of this many bytes, to be unpacked first. One that does not unpack
        /// counts as a wrong hash.
        frame: Option<u32>,
    },
    /// Compress this piece, which is stored, beside everything else; answer with `Frame`.
    MakeFrame {
        piece: PieceIndex,
        /// A longer frame is useless.
        at_most: u32,
    },
    /// Every wanted piece is stored.
    Complete,
}

/// Why the engine ends a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer id is our own.
    #[error("that is this machine itself")]
    Itself,
    /// There is a connection to the same peer already.
    #[error("the peer is connected already")]
    Duplicate,
    /// All places are taken.
    #[error("there are enough peers")]
    Full,
    /// The tracker's rules do not let us meet.
    #[error("the tracker's policy keeps us apart")]
    NotAllowed,
    /// The torrent has no piece hashes and the peer is no flashmob.
    #[error("only flashmob peers can take part while there are no piece hashes")]
    Foreign,
    /// Both sides have everything they want.
    #[error("neither side needs anything")]
    NothingToTrade,
    /// The peer sent bad data before.
    #[error("the peer sent wrong data before and is banned")]
    Banned,
    /// A piece that came from this peer alone had the wrong hash.
    #[error("the peer sent a piece with wrong contents: {0}")]
    BadPiece(PieceIndex),
    /// Nothing was heard for long.
    #[error("the peer has been silent for too long")]
    Silent,
    /// A block could not be read and the peer knows no rejects.
    #[error("a block for the peer could not be read from the medium")]
    Unreadable,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Fault(#[from] Fault),
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that are not a message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A bitfield that does not fit the torrent.
    #[error(transparent)]
    Bitfield(#[from] BitfieldError),
    /// A piece that does not exist.
    #[error("{0}, which does not exist")]
    NoSuchPiece(PieceIndex),
    /// A request outside of its piece, empty or too long.
    #[error("a request for {0}, which cannot be asked for")]
    BadRequest(Block),
    /// More requests than we said we take, or many that could not be answered.
    #[error("too many requests")]
    TooManyRequests,
    /// A block that was not asked for.
    #[error("{0}, which nobody asked for")]
    UnaskedBlock(Block),
    /// An extension handshake that is not bencoded.
    #[error("an unreadable extension handshake")]
    Extension,
    /// Messages of BEP 6 without having offered it.
    #[error("a message of an extension it did not offer")]
    NotNegotiated,
}

/// A snapshot for people, pages and tests. Totals are of what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SwarmStats {
    /// Pieces wanted.
    pub pieces: u32,
    /// Wanted pieces stored.
    pub pieces_done: u32,
    /// Bytes of the wanted pieces.
    pub bytes_total: u64,
    /// Bytes of wanted pieces stored.
    pub bytes_done: u64,
    /// Bytes of blocks received that were of use.
    pub bytes_in: u64,
    /// Bytes of blocks received twice or in pieces with wrong hashes.
    pub bytes_wasted: u64,
    /// Bytes of blocks sent.
    pub bytes_out: u64,
    /// Bytes a second received, over the last two seconds.
    pub rate_in: u64,
    /// Bytes a second sent, over the last two seconds.
    pub rate_out: u64,
    /// Connected peers.
    pub peers: usize,
    /// Connected peers that have everything.
    pub seeders: usize,
    /// Pieces that are being fetched.
    pub pieces_active: usize,
    /// Pieces that came with a wrong hash.
    pub pieces_bad: u64,
    /// True when every wanted piece is stored.
    pub complete: bool,
    /// Bytes a second that this peer was seen to be able to receive, store and pass on; zero until then.
    pub capacity: u64,
}
