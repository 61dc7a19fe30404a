//! One connected peer: its connection, our requests there, its requests here, and its part in the scheduling.
//!
//! Each part has private fields and changes only through its methods. Decisions are left to `download` and
//! `upload`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::swarm::interface::ConnId;
use crate::swarm::peers::download::Download;
use crate::swarm::peers::link::Link;
use crate::swarm::peers::scheduling::Scheduling;
use crate::swarm::peers::upload::Upload;
use crate::swarm::wire::extended::ExtendedHandshake;
use crate::swarm::wire::handshake::Handshake;
use crate::units::{Now, PieceIndex};

/// All connected peers, in a fixed order so that runs can be repeated.
pub(crate) type Peers = BTreeMap<ConnId, Peer>;

/// A peer that owes blocks and says nothing for so long is gone.
const OWES_BLOCKS: Duration = Duration::from_secs(5);

/// One connected peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub link: Link,
    pub download: Download,
    pub upload: Upload,
    pub scheduling: Scheduling,
}

impl Peer {
    /// A peer that has just shaken hands and has said nothing about pieces.
    pub(crate) fn new(
        addr: SocketAddr,
        incoming: bool,
        handshake: &Handshake,
        pieces: u32,
        now: Now,
    ) -> Self {
        Peer {
            link: Link::new(addr, incoming, handshake, pieces, now),
            download: Download::new(now),
            upload: Upload::new(now),
            scheduling: Scheduling::default(),
        }
    }

    /// A message came.
    pub(crate) fn hear(&mut self, now: Now) {
        self.link.hear(now);
        self.scheduling.spoke();
    }

    /// Takes the peer's extension handshake.
    pub(crate) fn introduce(&mut self, said: &ExtendedHandshake) {
        if let Some(requests) = said.request_queue {
            self.download.set_request_queue(requests);
        }
        self.link.introduce(said);
        self.scheduling.introduce(said);
    }

    /// It speaks our scheduling, owes us an answer or blocks, and is silent: its cable was pulled, or its
    /// power went. A closed socket would have said so. Standard clients may be silent for two minutes
    /// (BEP 3).
    pub(crate) fn is_gone(&self, now: Now) -> bool {
        let owes_blocks = self.download.is_snubbed() && self.link.silent_for(now) >= OWES_BLOCKS;
        self.scheduling.is_spoken() && (self.scheduling.is_gone(now) || owes_blocks)
    }

    /// It may be offered pieces of ours.
    pub(crate) fn takes_offers(&self) -> bool {
        self.scheduling.is_spoken() && self.upload.is_interested() && self.link.access().serve
    }

    /// Whether the peer would take `piece` of ours, as far as we know.
    pub(crate) fn may_take(&self, piece: PieceIndex, now: Now) -> bool {
        !self.link.have().has(piece) && !self.scheduling.is_declined(piece, now)
    }

    /// Whether `piece` may be asked for: the peer has it and did not refuse it lately.
    pub(crate) fn offers(&self, piece: PieceIndex, now: Now) -> bool {
        self.link.have().has(piece) && !self.download.is_refused(piece, now)
    }
}
