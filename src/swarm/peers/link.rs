//! One peer's connection: its addresses, its name, what it said about itself, and the pieces it has.
//!
//! Invariant: `useful` is the number of wanted pieces that the peer has and we lack.

use std::net::SocketAddr;
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::swarm::peers::access::PeerAccess;
use crate::swarm::wire::extended::ExtendedHandshake;
use crate::swarm::wire::handshake::Handshake;
use crate::units::{Now, PeerId, PieceIndex};

/// A connection and the peer behind it.
#[derive(Debug)]
pub(crate) struct Link {
    /// The other end of the connection.
    addr: SocketAddr,
    /// Where the peer listens, as far as known.
    listen: Option<SocketAddr>,
    /// True if the peer dialled us.
    incoming: bool,
    id: PeerId,
    /// Both sides speak BEP 6.
    fast: bool,
    /// Both sides speak BEP 10.
    extended: bool,
    have: Bitfield,
    /// A bitfield (or have-all, have-none) came.
    said_bitfield: bool,
    /// Counted as a peer that has everything.
    seed: bool,
    useful: u32,
    /// BEP 21.
    upload_only: bool,
    access: PeerAccess,
    connected_at: Now,
    /// When the last message came.
    heard: Now,
    /// When the last keep-alive went out.
    kept_alive: Now,
}

impl Link {
    /// The link to a peer that has just shaken hands and has said nothing about pieces.
    pub(crate) fn new(
        addr: SocketAddr,
        incoming: bool,
        handshake: &Handshake,
        pieces: u32,
        now: Now,
    ) -> Self {
        Link {
            addr,
            listen: (!incoming).then_some(addr),
            incoming,
            id: handshake.peer_id,
            fast: handshake.fast,
            extended: handshake.extended,
            have: Bitfield::none(pieces),
            said_bitfield: false,
            seed: false,
            useful: 0,
            upload_only: false,
            access: PeerAccess::FREE,
            connected_at: now,
            heard: now,
            kept_alive: now,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the peer listens, as far as known.
    pub(crate) fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// True if the peer dialled us.
    pub(crate) fn is_incoming(&self) -> bool {
        self.incoming
    }

    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    /// Both sides speak BEP 6.
    pub(crate) fn is_fast(&self) -> bool {
        self.fast
    }

    /// Both sides speak BEP 10.
    pub(crate) fn is_extended(&self) -> bool {
        self.extended
    }

    /// The pieces that the peer has.
    pub(crate) fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Whether it is counted as a peer that has everything.
    pub(crate) fn is_seed(&self) -> bool {
        self.seed
    }

    /// Whether it has a wanted piece that we lack.
    pub(crate) fn is_useful(&self) -> bool {
        self.useful > 0
    }

    /// The peer said that it will not download (BEP 21).
    pub(crate) fn is_upload_only(&self) -> bool {
        self.upload_only
    }

    /// The access that the tracker's policy gives us to the peer.
    pub(crate) fn access(&self) -> PeerAccess {
        self.access
    }

    pub(crate) fn set_access(&mut self, access: PeerAccess) {
        self.access = access;
    }

    /// A message came.
    pub(crate) fn hear(&mut self, now: Now) {
        self.heard = now;
    }

    /// How long no message came.
    pub(crate) fn silent_for(&self, now: Now) -> Duration {
        now.since(self.heard)
    }

    /// How long the connection has been open.
    pub(crate) fn age(&self, now: Now) -> Duration {
        now.since(self.connected_at)
    }

    /// True once in every `interval`: a keep-alive is to be sent.
    pub(crate) fn keeps_alive(&mut self, now: Now, interval: Duration) -> bool {
        let due = now.since(self.kept_alive) >= interval;
        if due {
            self.kept_alive = now;
        }
        due
    }

    /// Takes the peer's extension handshake.
    pub(crate) fn introduce(&mut self, said: &ExtendedHandshake) {
        if let Some(upload_only) = said.upload_only {
            self.upload_only = upload_only;
        }
        // Only while it is not known: a peer that names ever new ports would fill the book of addresses, and
        // the address that was dialled would never be dialled again.
        if let (Some(port), None) = (said.port, self.listen) {
            self.listen = Some(SocketAddr::new(self.addr.ip(), port));
        }
    }

    /// The first word about the peer's pieces: true once.
    pub(crate) fn is_first_bitfield(&mut self) -> bool {
        !std::mem::replace(&mut self.said_bitfield, true)
    }

    /// The peer has the pieces of `field`, of which we lack `useful`.
    pub(crate) fn set_have(&mut self, field: Bitfield, useful: usize) {
        self.have = field;
        self.useful = u32::try_from(useful).unwrap_or(u32::MAX);
    }

    /// The peer has one more piece, which may be of use. False if that was known.
    pub(crate) fn gained(&mut self, piece: PieceIndex, useful: bool) -> bool {
        self.said_bitfield = true;
        let new = self.have.insert(piece);
        self.useful += u32::from(new && useful);
        new
    }

    /// The peer is counted as one that has everything.
    pub(crate) fn became_seed(&mut self) {
        self.seed = true;
    }

    /// We have `piece` now, which the peer has too.
    pub(crate) fn no_longer_needs(&mut self, piece: PieceIndex) {
        debug_assert!(self.have.has(piece));
        self.useful = self.useful.saturating_sub(1);
    }
}
