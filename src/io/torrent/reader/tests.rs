//! Messages and blocks as they come, whole and in slivers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::swarm::wire::Message;
use crate::swarm::wire::{Handshake, encode};
use crate::swarm::{CloseReason, Engine, EngineConfig, Input, Output, StoreResult, WholePieces};
use crate::units::{InfoHash, Now, PeerId, PieceIndex};

const PIECE: u32 = 5 * 16384 + 100;
const PIECES: u32 = 6;

/// Bytes that were sent and not read; a read returns at most `cut` bytes.
#[derive(Default)]
struct Pipe {
    bytes: RefCell<BytesMut>,
    cut: usize,
}

impl Pipe {
    fn take(&self, most: usize) -> io::Result<BytesMut> {
        let mut bytes = self.bytes.borrow_mut();
        let count = most.min(self.cut).min(bytes.len());
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(bytes.split_to(count)) }
    }
}

impl Stream for Pipe {
    fn read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let bytes = self.take(READ_ROOM)?;
        buffer.extend_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn read_places(&self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let bytes = self.take(places.iter().map(|place| place.len()).sum())?;
        let mut left = &bytes[..];
        for place in places {
            let (now, later) = left.split_at(left.len().min(place.len()));
            place[..now.len()].copy_from_slice(now);
            left = later;
        }
        Ok(bytes.len())
    }
}

fn payload(piece: PieceIndex) -> Vec<u8> {
    (0..PIECE).map(|at| (at / 7 + at % 251 + piece.0 * 91).to_le_bytes()[0]).collect()
}

fn answer(block: Block) -> Message {
    let bytes = payload(block.piece)[block.offset as usize..][..block.len as usize].to_vec();
    Message::Piece { piece: block.piece, offset: block.offset, data: bytes.into() }
}

fn engine() -> Engine {
    let total = u64::from(PIECE) * u64::from(PIECES);
    let config = EngineConfig::new(InfoHash([1; 20]), PeerId([2; 20]), PIECE, total, Bitfield::none(PIECES));
    Engine::new(config, BufPool::new(PIECE as usize, 3), Arc::new(WholePieces)).unwrap()
}

/// Two peers send the requested blocks, in any order and in any portions.
struct Scene {
    engine: Engine,
    peers: BTreeMap<ConnId, (Intake, Pipe, Vec<Block>)>,
    now: Now,
    whole: Vec<PieceIndex>,
}

impl Scene {
    fn new(cut: usize) -> Self {
        let mut scene = Scene { engine: engine(), peers: BTreeMap::new(), now: Now::ZERO, whole: Vec::new() };
        for number in [1u8, 2] {
            let conn = ConnId(number.into());
            let pipe = Pipe { cut, ..Pipe::default() };
            let intake = Intake::new(conn, PIECES, scene.engine.inflight());
            scene.peers.insert(conn, (intake, pipe, Vec::new()));
            let id = PeerId([number + 10; 20]);
            let handshake = Handshake { extended: false, ..Handshake::ours(InfoHash([1; 20]), id) };
            let addr = ([10, 0, 0, number], 1).into();
            scene.tell(Input::Connected { conn, addr, incoming: true, handshake });
            scene.tell(Input::Message { conn, message: Message::HaveAll });
            scene.tell(Input::Message { conn, message: Message::Unchoke });
        }
        scene
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(self.now, input);
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Send { conn, message: Message::Request(block) } => {
                    self.peers.get_mut(&conn).unwrap().2.push(block);
                }
                Output::Store { piece, buf, .. } => {
                    assert_eq!(&buf[..], payload(piece), "{piece}");
                    self.whole.push(piece);
                    drop(buf);
                    self.engine.handle(self.now, Input::Stored { piece, result: StoreResult::Ok });
                }
                Output::Close { why, .. } => assert_eq!(why, CloseReason::NothingToTrade),
                _ => {}
            }
        }
    }

    /// The peer sends one of the requested blocks, and something else; earlier bytes are read.
    fn step(&mut self, conn: ConnId, which: usize) {
        let (intake, pipe, asked) = self.peers.get_mut(&conn).unwrap();
        if !asked.is_empty() {
            let block = asked.remove(which % asked.len());
            encode(&answer(block), &mut pipe.bytes.borrow_mut());
            if which.is_multiple_of(3) {
                encode(&Message::Have(block.piece), &mut pipe.bytes.borrow_mut());
            }
        }
        let mut heard = Vec::new();
        for _ in 0..which % 7 {
            let _ = intake.read(pipe);
            while matches!(intake.sort(&mut heard), Ok(Sorted::Some)) {}
        }
        for heard in heard {
            self.tell(match heard {
                Heard::Message(message) => Input::Message { conn, message },
                Heard::Landed(block) => Input::Landed { conn, block },
            });
        }
    }

    fn end(mut self) {
        for round in 0..100_000 {
            if self.engine.stats().complete {
                assert_eq!(self.whole.len(), PIECES as usize);
                return;
            }
            self.now = self.now + Duration::from_millis(1);
            self.step(ConnId(1 + round % 2), 6);
            self.tell(Input::Tick);
        }
        panic!("{:?}", self.engine.stats());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pieces_are_right_however_their_blocks_come(
        cut in prop_oneof![1usize..200, 1000usize..50_000, 100_000usize..200_000],
        steps in proptest::collection::vec((1u64..3, 0usize..100), 0..200),
    ) {
        let mut scene = Scene::new(cut);
        for (conn, which) in steps {
            scene.step(ConnId(conn), which);
        }
        scene.peers.values_mut().for_each(|(_, pipe, _)| pipe.cut = cut.max(5000));
        scene.end();
    }
}

#[test]
fn blocks_in_order_are_read_into_their_places_and_nowhere_else() {
    let mut scene = Scene::new(1 << 20);
    let (intake, pipe, asked) = scene.peers.get_mut(&ConnId(1)).unwrap();
    asked.iter().take(6).for_each(|block| encode(&answer(*block), &mut pipe.bytes.borrow_mut()));
    let mut heard = Vec::new();
    let mut reads = 0;
    while !pipe.bytes.borrow().is_empty() {
        intake.read(pipe).unwrap();
        assert!(intake.decoder.buffer().len() <= READ_ROOM, "the first read only");
        intake.sort(&mut heard).unwrap();
        assert!(intake.decoder.buffer().is_empty());
        reads += 1;
    }
    assert_eq!(reads, 2);
    assert_eq!(heard.len(), 6);
    assert!(heard.iter().all(|heard| matches!(heard, Heard::Landed(_))));
}

#[test]
fn who_claims_places_and_falls_silent_holds_up_nobody() {
    let scene = Scene::new(1 << 20);
    let mut strangers = Vec::new();
    for (number, block) in scene.peers[&ConnId(1)].2.iter().take(5).enumerate() {
        let conn = ConnId(100 + number as u64);
        let pipe = Pipe { cut: 1000, ..Pipe::default() };
        let mut wrong = BytesMut::new();
        encode(&answer(*block), &mut wrong);
        wrong[13..].fill(0xee);
        pipe.bytes.borrow_mut().extend_from_slice(&wrong);
        let mut stranger = Intake::new(conn, PIECES, scene.engine.inflight());
        stranger.read(&pipe).unwrap();
        stranger.sort(&mut Vec::new()).unwrap();
        assert!(stranger.writer.is_some(), "it has the place");
        strangers.push((stranger, pipe));
    }
    scene.end();
    for (mut stranger, pipe) in strangers {
        let mut heard = Vec::new();
        while stranger.read(&pipe).is_ok() {
            stranger.sort(&mut heard).unwrap();
        }
        assert!(matches!(heard[..], [Heard::Landed(_)]), "the rest of its block was read, to nowhere");
    }
}

#[test]
fn a_place_is_given_back_by_a_connection_that_ends() {
    let scene = Scene::new(1 << 20);
    let block = scene.peers[&ConnId(1)].2[0];
    let inflight = scene.engine.inflight();
    let claim = |conn| inflight.claim(conn, block.piece, block.offset, block.len);
    let writer = claim(7).unwrap();
    assert!(claim(1).is_none());
    drop(writer);
    assert!(claim(1).is_some());
}
