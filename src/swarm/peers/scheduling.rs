//! How one peer takes part in the scheduling between flashmob peers: its word about its downlink, and whether
//! it keeps to its word.

use crate::swarm::peers::reliance::Reliance;
use crate::swarm::peers::resting::RestingPieces;
use crate::swarm::wire::extended::ExtendedHandshake;
use crate::units::{Now, PieceIndex};

/// The version of our extension that has offers.
const VERSION: u8 = 2;

/// One peer's part in the scheduling.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    /// The message id that the peer chose for our extension, if it speaks it.
    id: Option<u8>,
    takes_frames: bool,
    /// Its downlink is busy until then, as it said.
    busy_until: Now,
    /// Pieces it declined lately.
    declined: RestingPieces,
    reliance: Reliance,
    /// A piece of ours that it asked to be offered.
    want: Option<PieceIndex>,
}

impl Scheduling {
    /// Takes the peer's extension handshake.
    pub(crate) fn introduce(&mut self, said: &ExtendedHandshake) {
        if let Some(id) = said.flashmob_id.filter(|_| said.flashmob_version >= Some(VERSION)) {
            self.id = Some(id);
            self.takes_frames = said.frames.is_some();
        }
    }

    /// The message id that the peer chose for our extension, if it speaks it.
    pub(crate) fn id(&self) -> Option<u8> {
        self.id
    }

    /// The peer speaks our extension.
    pub(crate) fn is_spoken(&self) -> bool {
        self.id.is_some()
    }

    /// The peer takes compressed pieces.
    pub(crate) fn takes_frames(&self) -> bool {
        self.takes_frames
    }

    /// The peer says that its downlink is busy until then.
    pub(crate) fn set_busy(&mut self, until: Now) {
        self.busy_until = until;
    }

    /// Its downlink is busy until then, or it rests.
    pub(crate) fn busy_until(&self) -> Now {
        self.busy_until
    }

    /// The peer declined `piece`, or we could not send it.
    pub(crate) fn decline(&mut self, piece: PieceIndex, now: Now) {
        self.declined.add(piece, now);
    }

    /// Whether the peer declined `piece` lately.
    pub(crate) fn is_declined(&self, piece: PieceIndex, now: Now) -> bool {
        self.declined.has(piece, now)
    }

    /// The peer asks for an offer of this piece, or of none.
    pub(crate) fn set_want(&mut self, piece: Option<PieceIndex>) {
        self.want = piece;
    }

    pub(crate) fn want(&self) -> Option<PieceIndex> {
        self.want
    }

    /// The peer did not answer an offer: it rests.
    pub(crate) fn gave_no_answer(&mut self, now: Now) {
        self.busy_until = now + self.reliance.gave_no_answer(now);
    }

    /// The peer took a piece and asked for nothing of it: it rests.
    pub(crate) fn asked_for_nothing(&mut self, now: Now) {
        self.busy_until = now + self.reliance.asked_for_nothing();
    }

    /// A message came from the peer.
    pub(crate) fn spoke(&mut self) {
        self.reliance.spoke();
    }

    /// The peer asked for a piece that it took.
    pub(crate) fn asked(&mut self) {
        self.reliance.asked();
    }

    /// The peer let us down the last time.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.reliance.is_doubtful()
    }

    /// The peer owes an answer and has been silent for so long that it must be gone.
    pub(crate) fn is_gone(&self, now: Now) -> bool {
        self.reliance.is_gone(now)
    }
}
