//! A terminal that wants a part of the torrent: what it asks for, what it says of itself, what it serves.

use super::*;

const WANTED: std::ops::Range<u32> = 2..5;

fn part_wanted() -> Rig {
    Rig::tuned(Bitfield::none(PIECES), |config| config.wanted = Bitfield::of_range(PIECES, WANTED))
}

/// What the engine says of itself in extension handshakes.
fn said_upload_only(outputs: &[Output], conn: u64) -> Vec<bool> {
    let of = |output: &Output| match output {
        Output::Send { conn: to, message: Message::Extended { id: 0, payload } } if to.0 == conn => {
            ExtendedHandshake::decode(payload).expect("it is readable").upload_only
        }
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

/// Answers every request until no more come, and returns everything that was said on the way.
fn fetch_all(rig: &mut Rig, conn: u64, mut asked: Vec<Block>) -> (Vec<Block>, Vec<Output>) {
    let (mut all, mut said) = (asked.clone(), Vec::new());
    while let Some(next) = asked.pop() {
        let mut out = rig.say(conn, data(next));
        let mut stored = Vec::new();
        out.retain(|output| match output {
            Output::Store { piece, .. } => {
                stored.push(*piece);
                false
            }
            _ => true,
        });
        for piece in stored {
            out.extend(rig.give(Input::Stored { piece, result: StoreResult::Ok }));
        }
        let more = requests(&out, conn);
        all.extend(&more);
        asked.extend(more);
        said.extend(out);
    }
    (all, said)
}

#[test]
fn nothing_unwanted_is_asked_for_and_wanted_pieces_make_it_complete() {
    let mut rig = part_wanted();
    rig.connect(1, 2, false, true);
    rig.say(1, Message::HaveAll);
    let asked = requests(&rig.say(1, Message::Unchoke), 1);
    let (all, said) = fetch_all(&mut rig, 1, asked);
    let mut pieces: Vec<u32> = all.iter().map(|block| block.piece.0).collect();
    pieces.sort_unstable();
    assert_eq!(pieces, [2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4], "each block of the wanted pieces, once");
    assert_eq!(said.iter().filter(|output| matches!(output, Output::Complete)).count(), 1);
    assert_eq!(sent(&said, &Message::NotInterested), 1);
    assert_eq!(closes(&said), [(1, CloseReason::NothingToTrade)], "a seeder is of no more use");
    let stats = rig.engine.stats();
    assert!(stats.complete);
    assert_eq!((stats.pieces, stats.pieces_done), (3, 3));
    assert_eq!((stats.bytes_total, stats.bytes_done), (u64::from(3 * PIECE), u64::from(3 * PIECE)));
    assert!(requests(&rig.wait(20), 1).is_empty());
}

#[test]
fn only_wanted_pieces_are_of_interest() {
    let mut rig = part_wanted();
    rig.connect(1, 2, false, false);
    // Pieces 0, 1, 5, 6, 7: all that it does not want.
    let out = rig.say(1, Message::Bitfield(Bytes::from_static(&[0b1100_0111])));
    assert_eq!(sent(&out, &Message::Interested), 0);
    assert!(requests(&rig.say(1, Message::Unchoke), 1).is_empty());
    let out = rig.say(1, Message::Have(PieceIndex(4)));
    assert_eq!(sent(&out, &Message::Interested), 1);
    let asked = requests(&out, 1);
    assert_eq!(asked.len(), 4);
    let (all, said) = fetch_all(&mut rig, 1, asked);
    assert!(all.iter().all(|block| block.piece.0 == 4), "{all:?}");
    assert_eq!(sent(&said, &Message::NotInterested), 1);
    assert!(closes(&said).is_empty(), "two wanted pieces are missing: the peer may get them");
}

#[test]
fn who_has_its_part_says_so_and_serves_it() {
    let mut rig = part_wanted();
    rig.connect(1, 2, false, true);
    rig.say(1, Message::HaveAll);
    let handshake =
        Handshake { info_hash: InfoHash([1; 20]), peer_id: PeerId([3; 20]), fast: true, extended: true };
    let leecher = ConnId(2);
    let out = rig.give(Input::Connected { conn: leecher, addr: addr(3), incoming: true, handshake });
    assert_eq!(said_upload_only(&out, 2), [false]);
    rig.say(2, Message::HaveNone);
    rig.say(2, Message::Interested);
    let asked = requests(&rig.say(1, Message::Unchoke), 1);
    let (_, said) = fetch_all(&mut rig, 1, asked);
    assert_eq!(said_upload_only(&said, 2), [true], "BEP 21: it cannot be told from the pieces");
    assert_eq!(closes(&said), [(1, CloseReason::NothingToTrade)], "the leecher stays");
    let served = rig.say(2, Message::Request(block(3, 0)));
    assert!(
        served
            .iter()
            .any(|output| matches!(output, Output::SendBlock { block: sent, .. } if *sent == block(3, 0)))
    );
    assert_eq!(sent(&rig.say(2, Message::Request(block(0, 0))), &Message::Reject(block(0, 0))), 1);
}

#[test]
fn a_part_that_is_there_already_is_complete_at_once_and_offered_as_it_is() {
    let mut rig = Rig::tuned(Bitfield::of_range(PIECES, WANTED), |config| {
        config.wanted = Bitfield::of_range(PIECES, WANTED);
    });
    assert!(matches!(rig.drain()[..], [Output::Complete]));
    let out = rig.connect(1, 2, true, true);
    assert_eq!(sent(&out, &Message::Bitfield(Bytes::from_static(&[0b0011_1000]))), 1);
    assert_eq!(sent(&rig.say(1, Message::Have(PieceIndex(0))), &Message::Interested), 0);
}
