//! Pieces that are left alone for a while: those a peer refused to send, and those it declined to take.
//!
//! Invariant: the list is bounded; a piece is on it once at most.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::{Now, PieceIndex};

/// Pieces that are remembered for each peer.
const MAX_RESTING: usize = 64;
/// How long a piece rests.
const REST: Duration = Duration::from_secs(3);

/// The pieces, each with the time from which it rests.
#[derive(Debug, Default)]
pub(crate) struct RestingPieces(VecDeque<(PieceIndex, Now)>);

impl RestingPieces {
    /// `piece` rests from `now` on.
    pub(crate) fn add(&mut self, piece: PieceIndex, now: Now) {
        self.0.retain(|(old, at)| *old != piece && now.since(*at) < REST);
        if self.0.len() >= MAX_RESTING {
            self.0.pop_front();
        }
        self.0.push_back((piece, now));
    }

    /// Whether `piece` rests at `now`.
    pub(crate) fn has(&self, piece: PieceIndex, now: Now) -> bool {
        self.0.iter().any(|(old, at)| *old == piece && now.since(*at) < REST)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
