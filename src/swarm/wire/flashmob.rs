//! The messages of flashmob's own extension (BEP 10, `fm_flashmob` version 2): which peer sends which piece
//! to which other next.
//!
//! A receiver answers an offer with a grant, and then requests the piece in the ordinary way; or it declines;
//! or it says that its downlink is busy. An offer may name compressed pieces: requests with
//! [`FRAME`](crate::swarm::geometry::FRAME) set in their offset ask for bytes of those. Invariant:
//! encoding and decoding are each other's inverse; a message names at most [`MAX_OFFERED`] pieces. Whether
//! those pieces exist is left to the engine.

use std::time::Duration;

use crate::units::PieceIndex;

/// Pieces in one offer at most.
pub const MAX_OFFERED: usize = 8;

const OFFER: u8 = 0;
const DECLINE: u8 = 1;
const GRANT: u8 = 2;
const BUSY: u8 = 3;
const OFFER_FRAMES: u8 = 4;
/// Stands for "no piece": no torrent has a piece of this number.
const NONE: u32 = u32::MAX;

/// A piece of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    pub piece: PieceIndex,
    /// Bytes of the frame that the speaker has of it; 0: none, or none that is worth it.
    pub frame: u32,
}

impl Offered {
    /// The piece as it is.
    pub fn whole(piece: PieceIndex) -> Self {
        Offered { piece, frame: 0 }
    }
}

/// One message of the extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchedulingMessage {
    /// The speaker can send one of these pieces, the one it would like best first.
    Offer {
        /// When its uplink will be free for it, in whole microseconds from now.
        start_in: Duration,
        /// One to [`MAX_OFFERED`] pieces. Frames are named only to peers that take them.
        pieces: Vec<Offered>,
    },
    /// The speaker takes this piece of the last offer; its requests follow.
    Grant {
        piece: PieceIndex,
        /// Bytes that the requests will name in all.
        bytes: u32,
    },
    /// The speaker's downlink is busy, and takes nothing new for a time. Sent to all peers that may offer a
    /// piece whenever that changes; it also declines an offer that waits for its answer.
    Busy {
        /// For so long, in whole microseconds.
        free_in: Duration,
    },
    /// The speaker has no use for the pieces that were offered last.
    Decline {
        /// A piece of the listener's that the speaker would take.
        want: Option<PieceIndex>,
    },
}

impl SchedulingMessage {
    /// The payload of the extended message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            SchedulingMessage::Offer { start_in, pieces } => {
                let frames = pieces.iter().any(|offered| offered.frame > 0);
                let mut bytes = vec![if frames { OFFER_FRAMES } else { OFFER }];
                bytes.extend(micros(*start_in).to_be_bytes());
                for Offered { piece, frame } in pieces.iter().take(MAX_OFFERED) {
                    bytes.extend(piece.0.to_be_bytes());
                    bytes.extend(frames.then(|| frame.to_be_bytes()).iter().flatten());
                }
                bytes
            }
            SchedulingMessage::Grant { piece, bytes } => {
                [[GRANT].as_slice(), &piece.0.to_be_bytes(), &bytes.to_be_bytes()].concat()
            }
            SchedulingMessage::Busy { free_in } => {
                [[BUSY].as_slice(), &micros(*free_in).to_be_bytes()].concat()
            }
            SchedulingMessage::Decline { want } => {
                [[DECLINE].as_slice(), &want.map_or(NONE, |piece| piece.0).to_be_bytes()].concat()
            }
        }
    }

    /// Reads the payload of the extended message. `None` if it is malformed or of an unknown kind.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        let (numbers, []) = rest.as_chunks::<4>() else { return None };
        let numbers: Vec<u32> = numbers.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        let time = |micros: u32| Duration::from_micros(micros.into());
        match (*kind, numbers.as_slice()) {
            (OFFER, [start, offered @ ..]) if (1..=MAX_OFFERED).contains(&offered.len()) => {
                let raw = |piece: &u32| Offered { piece: PieceIndex(*piece), frame: 0 };
                Some(SchedulingMessage::Offer {
                    start_in: time(*start),
                    pieces: offered.iter().map(raw).collect(),
                })
            }
            (OFFER_FRAMES, [start, offered @ ..]) => {
                let (offered, []) = offered.as_chunks::<2>() else { return None };
                let pieces =
                    offered.iter().map(|[piece, frame]| Offered { piece: PieceIndex(*piece), frame: *frame });
                (1..=MAX_OFFERED)
                    .contains(&offered.len())
                    .then(|| SchedulingMessage::Offer { start_in: time(*start), pieces: pieces.collect() })
            }
            (BUSY, [free]) => Some(SchedulingMessage::Busy { free_in: time(*free) }),
            (DECLINE, [want]) => {
                Some(SchedulingMessage::Decline { want: (*want != NONE).then_some(PieceIndex(*want)) })
            }
            (GRANT, [piece, bytes]) => {
                Some(SchedulingMessage::Grant { piece: PieceIndex(*piece), bytes: *bytes })
            }
            _ => None,
        }
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_offer_without_pieces_or_with_too_many_is_none() {
        for pieces in [0, MAX_OFFERED + 1] {
            let bytes = [vec![OFFER], vec![0; 4 + 4 * pieces]].concat();
            assert_eq!(SchedulingMessage::decode(&bytes), None, "{pieces}");
            let bytes = [vec![OFFER_FRAMES], vec![0; 4 + 8 * pieces]].concat();
            assert_eq!(SchedulingMessage::decode(&bytes), None, "{pieces} with frames");
        }
        assert_eq!(
            SchedulingMessage::decode(&[vec![OFFER_FRAMES], vec![0; 8]].concat()),
            None,
            "half a piece"
        );
        assert_eq!(SchedulingMessage::decode(&[DECLINE, 0, 0, 1]), None);
        assert_eq!(SchedulingMessage::decode(&[9, 0, 0, 0, 1, 0, 0, 0, 1]), None);
    }

    proptest! {
        #[test]
        fn what_is_said_is_read_back(
            micros in any::<u32>(),
            pieces in proptest::collection::vec((0..NONE, any::<u32>()), 1..=MAX_OFFERED),
            framed in any::<bool>(),
            want in proptest::option::of(0..NONE),
        ) {
            let time = Duration::from_micros(micros.into());
            let offered = |(piece, frame)| Offered { piece: PieceIndex(piece),
                frame: if framed { frame } else { 0 } };
            let offer = SchedulingMessage::Offer { start_in: time,
                pieces: pieces.into_iter().map(offered).collect() };
            prop_assert_eq!(SchedulingMessage::decode(&offer.encode()), Some(offer));
            let taken = SchedulingMessage::Busy { free_in: time };
            prop_assert_eq!(SchedulingMessage::decode(&taken.encode()), Some(taken));
            let decline = SchedulingMessage::Decline { want: want.map(PieceIndex) };
            prop_assert_eq!(SchedulingMessage::decode(&decline.encode()), Some(decline));
            let grant = SchedulingMessage::Grant { piece: PieceIndex(micros), bytes: micros };
            prop_assert_eq!(SchedulingMessage::decode(&grant.encode()), Some(grant));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = SchedulingMessage::decode(&bytes);
        }
    }
}
