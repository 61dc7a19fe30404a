//! The engine against peers that are played by hand: standard clients and rude ones.

mod scheduling;
mod wanted;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{
    Block, CloseReason, ConnId, Engine, EngineConfig, FRAME, Fault, Input, Output, RateLimit, StoreResult,
    WholePieces,
};
use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::swarm::wire::extended::ExtendedHandshake;
use crate::swarm::wire::handshake::Handshake;
use crate::swarm::wire::message::Message;
use crate::units::{InfoHash, Now, PeerId, PieceIndex};

const PIECE: u32 = 64 * 1024;
const PIECES: u32 = 8;
const OUR_ID: PeerId = PeerId([50; 20]);

struct Rig {
    engine: Engine,
    now: Now,
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 6881))
}

fn block(piece: u32, number: u32) -> Block {
    Block { piece: PieceIndex(piece), offset: number * 16384, len: 16384 }
}

impl Rig {
    fn new(have: Bitfield) -> Self {
        Self::tuned(have, |_| {})
    }

    fn tuned(have: Bitfield, tune: fn(&mut EngineConfig)) -> Self {
        let total = u64::from(PIECE) * u64::from(PIECES);
        let mut config = EngineConfig::new(InfoHash([1; 20]), OUR_ID, PIECE, total, have);
        tune(&mut config);
        let pool = BufPool::new(PIECE as usize, 4);
        let engine = Engine::new(config, pool, Arc::new(WholePieces)).expect("a valid torrent");
        Rig { engine, now: Now::ZERO }
    }

    fn leecher() -> Self {
        Self::new(Bitfield::none(PIECES))
    }

    fn seeder() -> Self {
        let mut rig = Self::new(Bitfield::all(PIECES));
        assert!(matches!(rig.drain()[..], [Output::Complete]));
        rig
    }

    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.engine.poll()).collect()
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.engine.handle(self.now, input);
        self.drain()
    }

    fn connect(&mut self, conn: u64, id: u64, incoming: bool, fast: bool) -> Vec<Output> {
        let id = u8::try_from(id).expect("a small number");
        let handshake =
            Handshake { info_hash: InfoHash([1; 20]), peer_id: PeerId([id; 20]), fast, extended: false };
        self.give(Input::Connected { conn: ConnId(conn), addr: addr(id), incoming, handshake })
    }

    fn say(&mut self, conn: u64, message: Message) -> Vec<Output> {
        self.give(Input::Message { conn: ConnId(conn), message })
    }

    fn wait(&mut self, seconds: u64) -> Vec<Output> {
        let end = self.now + Duration::from_secs(seconds);
        let mut all = Vec::new();
        while self.now < end {
            self.now = self
                .engine
                .deadline()
                .map_or(end, |due| due.max(self.now + Duration::from_millis(1)))
                .min(end);
            all.extend(self.give(Input::Tick));
        }
        all
    }
}

fn requests(outputs: &[Output], conn: u64) -> Vec<Block> {
    let of = |output: &Output| match output {
        Output::Send { conn: to, message: Message::Request(block) } if to.0 == conn => Some(*block),
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

fn closes(outputs: &[Output]) -> Vec<(u64, CloseReason)> {
    let of = |output: &Output| match output {
        Output::Close { conn, why } => Some((conn.0, why.clone())),
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

fn sent(outputs: &[Output], message: &Message) -> usize {
    outputs
        .iter()
        .filter(|output| matches!(output, Output::Send { message: said, .. } if said == message))
        .count()
}

fn data(block: Block) -> Message {
    Message::Piece {
        piece: block.piece,
        offset: block.offset,
        data: Bytes::from(vec![7; block.len as usize]),
    }
}

#[test]
fn a_peer_cannot_fill_the_book_with_ports_or_move_the_address_that_was_dialled() {
    let dials = |outputs: Vec<Output>| {
        let of = |output| if let Output::Dial(addr) = output { Some(addr) } else { None };
        outputs.into_iter().filter_map(of).collect::<Vec<_>>()
    };
    let mut rig = Rig::leecher();
    assert_eq!(dials(rig.give(Input::Candidates(vec![addr(3)]))), [addr(3)]);
    rig.connect(1, 2, true, true);
    rig.connect(2, 3, false, true);
    for port in 7001..7010 {
        let said = ExtendedHandshake { port: Some(port), ..ExtendedHandshake::default() };
        for conn in [1, 2] {
            rig.say(conn, Message::Extended { id: 0, payload: said.encode().into() });
        }
    }
    rig.give(Input::Closed { conn: ConnId(1) });
    rig.give(Input::Closed { conn: ConnId(2) });
    let mut again = dials(rig.wait(5));
    again.sort();
    assert_eq!(again, [SocketAddr::new(addr(2).ip(), 7001), addr(3)]);
}

#[test]
fn a_standard_seeder_is_asked_within_its_queue_until_the_piece_is_whole() {
    let mut rig = Rig::leecher();
    assert!(rig.connect(1, 2, false, false).is_empty(), "nothing to say to a plain BEP 3 peer yet");
    let said = ExtendedHandshake { request_queue: Some(3), ..ExtendedHandshake::default() };
    rig.say(1, Message::Extended { id: 0, payload: said.encode().into() });
    let out = rig.say(1, Message::Bitfield(Bytes::from_static(&[0xff])));
    assert_eq!(sent(&out, &Message::Interested), 1);
    let mut asked = requests(&rig.say(1, Message::Unchoke), 1);
    assert_eq!(asked.len(), 3, "reqq is 3");
    let piece = asked[0].piece;
    let mut stored = Vec::new();
    for _ in 0..4 {
        let next = asked.remove(0);
        assert_eq!(next.piece, piece, "one piece is finished before the next");
        let out = rig.say(1, data(next));
        asked.extend(requests(&out, 1));
        assert!(asked.len() <= 3);
        stored.extend(out.into_iter().filter(|output| matches!(output, Output::Store { .. })));
    }
    assert!(matches!(stored[..], [Output::Store { piece: whole, .. }] if whole == piece));
    drop(stored);
    let out = rig.give(Input::Stored { piece, result: StoreResult::Ok });
    assert_eq!(sent(&out, &Message::Have(piece)), 1);
    assert_eq!(rig.engine.stats().pieces_done, 1);
}

#[test]
fn no_piece_is_begun_without_a_buffer() {
    let mut rig = Rig::leecher();
    rig.connect(1, 2, false, true);
    rig.say(1, Message::HaveAll);
    let out = rig.say(1, Message::Unchoke);
    let mut asked = requests(&out, 1);
    let mut held = Vec::new();
    let mut whole = std::collections::BTreeSet::new();
    while let Some(next) = asked.pop() {
        for output in rig.say(1, data(next)) {
            match output {
                Output::Store { piece, buf, .. } => {
                    whole.insert(piece);
                    held.push(buf);
                }
                Output::Send { message: Message::Request(block), .. } => asked.push(block),
                _ => {}
            }
        }
    }
    assert_eq!((held.len(), whole.len()), (4, 4), "the pool has four buffers");
    held.pop();
    assert!(!requests(&rig.wait(1), 1).is_empty(), "a buffer came back");
}

#[test]
fn a_choke_gives_the_blocks_to_another_peer() {
    let mut rig = Rig::leecher();
    rig.connect(1, 2, false, false);
    rig.connect(2, 3, false, false);
    for conn in [1, 2] {
        rig.say(conn, Message::Bitfield(Bytes::from_static(&[0x80])));
    }
    let asked = requests(&rig.say(1, Message::Unchoke), 1);
    assert_eq!(asked.len(), 4);
    rig.say(1, data(asked[0]));
    rig.say(1, Message::Choke);
    assert_eq!(requests(&rig.say(2, Message::Unchoke), 2), asked[1..]);
}

#[test]
fn a_stalled_peer_loses_its_blocks_and_late_blocks_are_still_taken() {
    let mut rig = Rig::leecher();
    rig.connect(1, 2, false, false);
    rig.say(1, Message::Bitfield(Bytes::from_static(&[0x80])));
    let asked = requests(&rig.say(1, Message::Unchoke), 1);
    let out = rig.wait(12);
    assert_eq!(asked.iter().map(|block| sent(&out, &Message::Cancel(*block))).sum::<usize>(), 4);
    rig.connect(2, 3, false, false);
    rig.say(2, Message::Bitfield(Bytes::from_static(&[0x80])));
    assert_eq!(requests(&rig.say(2, Message::Unchoke), 2), asked);
    assert!(closes(&rig.say(1, data(asked[3]))).is_empty());
    assert_eq!(rig.engine.stats().bytes_in, 16384);
}

#[test]
fn who_alone_sent_a_bad_piece_is_banned() {
    let mut rig = Rig::leecher();
    rig.connect(1, 2, false, false);
    rig.say(1, Message::Bitfield(Bytes::from_static(&[0x80])));
    rig.connect(3, 4, false, false);
    rig.say(3, Message::Bitfield(Bytes::from_static(&[0x80])));
    for block in requests(&rig.say(1, Message::Unchoke), 1) {
        rig.say(1, data(block));
    }
    let out = rig.give(Input::Stored { piece: PieceIndex(0), result: StoreResult::WrongHash });
    assert_eq!(closes(&out), [(1, CloseReason::BadPiece(PieceIndex(0)))]);
    assert_eq!(closes(&rig.connect(2, 2, true, false)), [(2, CloseReason::Banned)]);
}

#[test]
fn the_only_peer_with_a_piece_is_asked_again_after_a_rest_and_not_banned() {
    let mut rig = Rig::leecher();
    rig.connect(1, 2, false, false);
    rig.say(1, Message::Bitfield(Bytes::from_static(&[0xc0])));
    let asked = requests(&rig.say(1, Message::Unchoke), 1);
    let first = asked[0].piece;
    asked.into_iter().filter(|block| block.piece == first).for_each(|block| drop(rig.say(1, data(block))));
    rig.give(Input::Stored { piece: first, result: StoreResult::Ok });
    let second = PieceIndex(1 - first.0);
    (0..4).for_each(|number| drop(rig.say(1, data(block(second.0, number)))));
    let out = rig.give(Input::Stored { piece: second, result: StoreResult::WrongHash });
    assert_eq!((closes(&out), requests(&out, 1).len()), (vec![], 0));
    rig.now = Now(rig.now.0 + Duration::from_secs(4));
    assert_eq!(requests(&rig.give(Input::Tick), 1).len(), 4, "the same piece, once more");
}

#[test]
fn an_only_source_that_was_never_right_loses_its_connection_and_may_come_again() {
    let mut rig = Rig::leecher();
    rig.connect(1, 2, false, false);
    rig.say(1, Message::Bitfield(Bytes::from_static(&[0x80])));
    for block in requests(&rig.say(1, Message::Unchoke), 1) {
        rig.say(1, data(block));
    }
    let out = rig.give(Input::Stored { piece: PieceIndex(0), result: StoreResult::WrongHash });
    assert_eq!(closes(&out), [(1, CloseReason::BadPiece(PieceIndex(0)))]);
    assert_eq!(closes(&rig.connect(2, 2, true, false)), []);
}

#[test]
fn two_who_sent_a_bad_piece_together_are_tried_one_by_one() {
    let mut rig = Rig::leecher();
    for conn in [1, 2] {
        rig.connect(conn, 1 + conn, false, false);
        rig.say(conn, Message::Bitfield(Bytes::from_static(&[0x80])));
    }
    let asked = requests(&rig.say(1, Message::Unchoke), 1);
    rig.say(1, data(asked[0]));
    rig.say(1, Message::Choke);
    for block in requests(&rig.say(2, Message::Unchoke), 2) {
        rig.say(2, data(block));
    }
    let out = rig.give(Input::Stored { piece: PieceIndex(0), result: StoreResult::WrongHash });
    assert_eq!(closes(&out), []);
    let again = requests(&out, 2);
    assert_eq!(again.len(), 4, "all of it from one");
    again.into_iter().for_each(|block| drop(rig.say(2, data(block))));
    let out = rig.give(Input::Stored { piece: PieceIndex(0), result: StoreResult::WrongHash });
    assert_eq!(closes(&out), [(2, CloseReason::BadPiece(PieceIndex(0)))]);
}

#[test]
fn a_broken_medium_stops_the_requests() {
    let mut rig = Rig::leecher();
    rig.connect(1, 2, false, true);
    rig.say(1, Message::HaveAll);
    assert!(!requests(&rig.say(1, Message::Unchoke), 1).is_empty());
    rig.give(Input::Stored { piece: PieceIndex(0), result: StoreResult::Failed });
    assert!(requests(&rig.wait(20), 1).is_empty());
}

#[test]
fn requests_are_answered_by_the_window_and_rejected_by_the_rules() {
    let mut rig = Rig::tuned(Bitfield::all(PIECES), |config| config.send_window = 2);
    rig.drain();
    rig.connect(1, 2, true, true);
    let out = rig.say(1, Message::Request(block(0, 0)));
    assert_eq!(sent(&out, &Message::Reject(block(0, 0))), 1, "choked");
    assert_eq!(sent(&rig.say(1, Message::Interested), &Message::Unchoke), 1);
    let windowed = |out: &[Output]| out.iter().filter(|o| matches!(o, Output::SendBlock { .. })).count();
    let counts: Vec<usize> = (0..4).map(|n| windowed(&rig.say(1, Message::Request(block(0, n))))).collect();
    assert_eq!(counts, [1, 1, 0, 0]);
    let out = rig.say(1, Message::Cancel(block(0, 3)));
    assert_eq!(sent(&out, &Message::Reject(block(0, 3))), 1, "BEP 6 wants an answer to each request");
    assert_eq!(windowed(&rig.give(Input::BlockSent { conn: ConnId(1), block: block(0, 0) })), 1);
    assert_eq!(rig.engine.stats().bytes_out, 16384);
    let out = rig.give(Input::BlockUnreadable { conn: ConnId(1), block: block(0, 1) });
    assert_eq!(sent(&out, &Message::Reject(block(0, 1))), 1);
}

#[test]
fn faults_close_the_peer_with_a_reason() {
    type Expected = fn(&Fault) -> bool;
    let cases: [(bool, Message, Expected); 8] = [
        (true, Message::Bitfield(Bytes::from_static(&[0, 0])), |f| matches!(f, Fault::Bitfield(_))),
        (true, Message::Have(PieceIndex(8)), |f| matches!(f, Fault::NoSuchPiece(_))),
        (true, Message::Request(Block { len: 0, ..block(0, 0) }), |f| matches!(f, Fault::BadRequest(_))),
        (true, Message::Request(block(0, 4)), |f| matches!(f, Fault::BadRequest(_))),
        (true, data(block(0, 0)), |f| matches!(f, Fault::UnaskedBlock(_))),
        (true, Message::Reject(block(0, 0)), |f| matches!(f, Fault::UnaskedBlock(_))),
        (false, Message::HaveAll, |f| matches!(f, Fault::NotNegotiated)),
        (true, Message::Extended { id: 0, payload: Bytes::new() }, |f| matches!(f, Fault::Extension)),
    ];
    for (fast, message, expected) in cases {
        let mut rig = Rig::leecher();
        rig.connect(1, 2, true, fast);
        let out = closes(&rig.say(1, message.clone()));
        assert!(
            matches!(&out[..], [(1, CloseReason::Fault(fault))] if expected(fault)),
            "{message:?}: {out:?}"
        );
        assert_eq!(rig.engine.stats().peers, 0);
    }
}

#[test]
fn a_flood_of_requests_ends_the_connection() {
    let mut rig = Rig::seeder();
    rig.connect(1, 2, true, true);
    let flood = (0..20_000).find_map(|_| closes(&rig.say(1, Message::Request(block(0, 0)))).pop());
    assert_eq!(flood, Some((1, Fault::TooManyRequests.into())));
}

#[test]
fn seeders_part_and_the_engine_does_not_dial_itself_twice() {
    let mut rig = Rig::seeder();
    rig.connect(1, 2, true, true);
    assert_eq!(closes(&rig.say(1, Message::HaveAll)), [(1, CloseReason::NothingToTrade)]);
    rig.give(Input::Candidates(vec![addr(50)]));
    let out = rig.connect(2, 50, false, true);
    assert_eq!(closes(&out), [(2, CloseReason::Itself)]);
    assert!(!rig.wait(600).iter().any(|output| matches!(output, Output::Dial(_))));
}

#[test]
fn when_both_dial_each_other_both_keep_the_same_connection() {
    // Ours is 50: what a peer with a greater name dialled is kept, and ours against a smaller one.
    for (id, incoming_first) in [(60, true), (60, false), (40, true), (40, false)] {
        let mut rig = Rig::leecher();
        rig.connect(1, id, incoming_first, true);
        let out = closes(&rig.connect(2, id, !incoming_first, true));
        let kept_first = (id == 60) == incoming_first;
        assert_eq!(out, [(if kept_first { 2 } else { 1 }, CloseReason::Duplicate)], "{id} {incoming_first}");
        assert_eq!(rig.engine.stats().peers, 1);
    }
}

#[test]
fn failed_dials_are_repeated_with_patience() {
    let mut rig = Rig::leecher();
    let dials = |out: &[Output]| out.iter().filter(|o| matches!(o, Output::Dial(_))).count();
    let mut all = dials(&rig.give(Input::Candidates(vec![addr(9)])));
    for _ in 0..120 {
        // Only the first of these has anything to report.
        all += dials(&rig.give(Input::DialFailed(addr(9))));
        all += dials(&rig.wait(1));
    }
    // At 0, 1, 3, 7, 15, 31, 63 seconds and then each minute.
    assert!((6..=9).contains(&all), "{all}");
}

#[test]
fn silent_peers_are_dropped_and_quiet_ones_kept_alive() {
    let mut rig = Rig::leecher();
    rig.connect(1, 2, true, true);
    rig.connect(2, 3, true, true);
    let mut out = rig.wait(100);
    rig.say(2, Message::KeepAlive);
    out.extend(rig.wait(100));
    assert_eq!(closes(&out), [(1, CloseReason::Silent)]);
    assert!(sent(&out, &Message::KeepAlive) >= 4);
}

fn any_message() -> impl Strategy<Value = Message> {
    let piece = || (0..PIECES + 1).prop_map(PieceIndex);
    let raw = || (0..PIECES, 0u32..5).prop_map(|(piece, number)| block(piece, number));
    let framed = || raw().prop_map(|raw| Block { offset: raw.offset | FRAME, ..raw });
    let block = || prop_oneof![9 => raw(), 1 => framed()];
    prop_oneof![
        Just(Message::Choke),
        Just(Message::Unchoke),
        Just(Message::Interested),
        Just(Message::NotInterested),
        Just(Message::HaveAll),
        Just(Message::HaveNone),
        any::<u8>().prop_map(|bits| Message::Bitfield(Bytes::from(vec![bits]))),
        piece().prop_map(Message::Have),
        piece().prop_map(Message::AllowedFast),
        block().prop_map(Message::Request),
        block().prop_map(Message::Cancel),
        block().prop_map(Message::Reject),
        block().prop_map(data),
    ]
}

proptest! {
    /// Whatever peers say, in whatever order: no panic, each input has a bounded answer, every piece that
    /// comes out is whole, and counters never go astray.
    #[test]
    fn no_sequence_of_messages_disturbs_the_engine(
        says in proptest::collection::vec((0usize..4, any_message(), 0u64..3000), 0..300),
    ) {
        let mut rig = Rig::leecher();
        let mut conns = [1u64, 2, 3, 4];
        for conn in conns {
            rig.connect(conn, 1 + conn, conn % 2 == 0, conn != 3);
        }
        let mut next = 5;
        let mut answers: Vec<(u64, Block)> = Vec::new();
        for (who, message, milliseconds) in says {
            rig.now = rig.now + Duration::from_millis(milliseconds);
            let mut out = rig.say(conns[who], message);
            if let Some((conn, block)) = answers.pop() {
                out.extend(rig.say(conn, data(block)));
            }
            prop_assert!(out.len() < 2000);
            while let Some(output) = out.pop() {
                match output {
                    Output::Close { conn, .. } => {
                        let at = conns.iter().position(|known| *known == conn.0).expect("a known connection");
                        conns[at] = next;
                        out.extend(rig.connect(next, 10 + next % 200, false, next % 3 != 0));
                        next += 1;
                    }
                    Output::Store { piece, buf, .. } => {
                        prop_assert!(buf.iter().all(|byte| *byte == 7), "a hole in {}", piece);
                        let wrong = milliseconds % 5 == 0;
                        let result = if wrong { StoreResult::WrongHash } else { StoreResult::Ok };
                        drop(buf);
                        out.extend(rig.give(Input::Stored { piece, result }));
                    }
                    Output::Send { conn, message: Message::Request(block) } => answers.push((conn.0, block)),
                    Output::SendBlock { conn, block } => out.extend(rig.give(Input::BlockSent { conn,
                        block })),
                    _ => {}
                }
            }
            let stats = rig.engine.stats();
            prop_assert!(stats.peers <= 4 && stats.pieces_active <= 4);
            prop_assert_eq!(stats.bytes_done, u64::from(stats.pieces_done) * u64::from(PIECE));
        }
    }
}
