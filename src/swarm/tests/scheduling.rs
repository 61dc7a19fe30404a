//! The messages of flashmob's own extension at the engine's boundary: whatever a peer offers, grants or asks
//! for, nobody else is disturbed.

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};

use super::*;
use crate::swarm::wire::{OUR_EXTENSION_ID, OUR_EXTENSION_VERSION, Offered, SchedulingMessage};

/// The id under which the peers of these tests want messages of the extension.
const THEIR_ID: u8 = 33;

impl Rig {
    /// Connects a flashmob peer that has everything and answers requests.
    fn flashmob(&mut self, conn: u64) -> Vec<Output> {
        let last = u8::try_from(conn).expect("a small number");
        let handshake = Handshake::ours(InfoHash([1; 20]), PeerId([last; 20]));
        let connected = Input::Connected { conn: ConnId(conn), addr: addr(last), incoming: true, handshake };
        let mut out = self.give(connected);
        let said = ExtendedHandshake {
            flashmob_id: Some(THEIR_ID),
            flashmob_version: Some(OUR_EXTENSION_VERSION),
            frames: Some(1),
            ..ExtendedHandshake::default()
        };
        out.extend(self.say(conn, Message::Extended { id: 0, payload: said.encode().into() }));
        out.extend(self.say(conn, Message::HaveAll));
        out.extend(self.say(conn, Message::Unchoke));
        out
    }

    fn schedule(&mut self, conn: u64, message: &SchedulingMessage) -> Vec<Output> {
        let payload = message.encode().into();
        self.say(conn, Message::Extended { id: OUR_EXTENSION_ID, payload })
    }
}

/// The engine's messages of the extension to `conn`.
fn scheduled(outputs: &[Output], conn: u64) -> Vec<SchedulingMessage> {
    let of = |output: &Output| match output {
        Output::Send { conn: to, message: Message::Extended { id: THEIR_ID, payload } } if to.0 == conn => {
            SchedulingMessage::decode(payload)
        }
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

fn offer(pieces: &[u32]) -> SchedulingMessage {
    let pieces = pieces.iter().map(|piece| Offered::whole(PieceIndex(*piece))).collect();
    SchedulingMessage::Offer { start_in: Duration::ZERO, pieces }
}

#[test]
fn an_offer_is_answered_by_a_grant_and_requests_for_one_of_its_pieces() {
    let mut rig = Rig::leecher();
    rig.flashmob(1);
    let out = rig.schedule(1, &offer(&[6, 2]));
    assert_eq!(scheduled(&out, 1), [SchedulingMessage::Grant { piece: PieceIndex(6), bytes: PIECE }]);
    assert!(requests(&out, 1).iter().all(|block| block.piece == PieceIndex(6)));
    let out = rig.schedule(1, &offer(&[6]));
    assert!(matches!(scheduled(&out, 1)[..], [SchedulingMessage::Decline { want: Some(_) }]), "{out:?}");
}

#[test]
fn a_limited_receiver_waits_for_the_bytes_of_an_offer_and_not_for_the_time_that_its_sender_names() {
    let mut rig = Rig::tuned(Bitfield::none(PIECES), |config| config.limit = RateLimit::new(1_000_000));
    rig.flashmob(1);
    rig.flashmob(2);
    let late = SchedulingMessage::Offer {
        start_in: Duration::from_secs(4000),
        pieces: vec![Offered::whole(PieceIndex(6))],
    };
    assert!(matches!(scheduled(&rig.schedule(1, &late), 1)[..], [SchedulingMessage::Grant { .. }]));
    rig.give(Input::Closed { conn: ConnId(1) });
    rig.wait(1);
    let out = scheduled(&rig.schedule(2, &offer(&[2])), 2);
    assert!(matches!(out[..], [SchedulingMessage::Grant { .. }]), "{out:?}");
}

#[test]
fn a_scheduling_peer_is_asked_for_nothing_that_it_did_not_offer() {
    let mut rig = Rig::leecher();
    let out = rig.flashmob(1);
    assert_eq!(requests(&out, 1), []);
    assert_eq!(requests(&rig.wait(5), 1), []);
}

#[test]
fn an_offer_of_a_piece_that_does_not_exist_closes_its_sender_and_nobody_else() {
    let mut rig = Rig::leecher();
    rig.flashmob(1);
    rig.flashmob(2);
    let out = rig.schedule(1, &offer(&[0, PIECES]));
    assert_eq!(closes(&out), [(1, Fault::NoSuchPiece(PieceIndex(PIECES)).into())]);
}

#[test]
fn grants_declines_and_busy_words_out_of_the_blue_change_nothing() {
    let mut rig = Rig::seeder();
    rig.flashmob(1);
    for message in [
        SchedulingMessage::Grant { piece: PieceIndex(u32::MAX - 1), bytes: u32::MAX },
        SchedulingMessage::Grant { piece: PieceIndex(0), bytes: 0 },
        SchedulingMessage::Decline { want: Some(PieceIndex(PIECES + 7)) },
        SchedulingMessage::Busy { free_in: Duration::from_micros(u32::MAX.into()) },
    ] {
        let out = rig.schedule(1, &message);
        assert_eq!((closes(&out), scheduled(&out, 1).len()), (vec![], 0), "{message:?}");
    }
}

fn any_scheduling() -> impl Strategy<Value = Bytes> {
    let piece = || prop_oneof![9 => 0..PIECES, 1 => any::<u32>()].prop_map(PieceIndex);
    let offered = (piece(), prop_oneof![Just(0), 1..PIECE, any::<u32>()]);
    let offered = offered.prop_map(|(piece, frame)| Offered { piece, frame });
    let time = || any::<u32>().prop_map(|micros| Duration::from_micros(micros.into()));
    let message = prop_oneof![
        (time(), proptest::collection::vec(offered, 1..8))
            .prop_map(|(start_in, pieces)| SchedulingMessage::Offer { start_in, pieces }),
        (piece(), any::<u32>()).prop_map(|(piece, bytes)| SchedulingMessage::Grant { piece, bytes }),
        time().prop_map(|free_in| SchedulingMessage::Busy { free_in }),
        proptest::option::of(piece()).prop_map(|want| SchedulingMessage::Decline { want }),
    ];
    prop_oneof![
        9 => message.prop_map(|message| Bytes::from(message.encode())),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
    ]
}

proptest! {
    /// Whatever a flashmob peer says, in whatever order: no panic, bounded answers, and a quiet peer beside
    /// it stays connected.
    #[test]
    fn no_sequence_of_scheduling_disturbs_another_peer(
        has in 0u32..=PIECES,
        says in proptest::collection::vec(
            (prop_oneof![any_scheduling().prop_map(Ok), any_message().prop_map(Err)], 0u64..500), 0..100),
    ) {
        let mut rig = Rig::new(Bitfield::of_range(PIECES, 0..has));
        rig.flashmob(1);
        let mut rude = 2;
        rig.flashmob(rude);
        for (said, milliseconds) in says {
            rig.now = rig.now + Duration::from_millis(milliseconds);
            let message = match said {
                Ok(payload) => Message::Extended { id: OUR_EXTENSION_ID, payload },
                Err(message) => message,
            };
            let mut out = rig.say(rude, message);
            rig.say(1, Message::KeepAlive);
            prop_assert!(out.len() < 2000);
            while let Some(output) = out.pop() {
                match output {
                    Output::Close { conn, why } if conn.0 == rude => {
                        prop_assert!(!matches!(why, CloseReason::Silent), "{}", why);
                        rude = rude % 200 + 2;
                        out.extend(rig.flashmob(rude));
                    }
                    Output::Close { conn, why } => {
                        prop_assert!(why == CloseReason::NothingToTrade, "{} {}", conn, why);
                    }
                    Output::Store { piece, buf, .. } => {
                        drop(buf);
                        out.extend(rig.give(Input::Stored { piece, result: StoreResult::Ok }));
                    }
                    Output::SendBlock { conn, block } => out.extend(rig.give(Input::BlockSent { conn,
                        block })),
                    _ => {}
                }
            }
            let stats = rig.engine.stats();
            prop_assert!(stats.peers <= 2 && stats.pieces_active <= 4);
        }
    }
}
