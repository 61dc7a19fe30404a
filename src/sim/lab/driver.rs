//! Driving the engines: inputs go in, outputs are carried out as `io::torrent` does with a real one.

use std::time::Duration;

use bytes::Bytes;

use super::Lab;
use super::event::Event;
use crate::sim::frames;
use crate::sim::link::Packet;
use crate::sim::spec::Character;
use crate::swarm::wire::Message;
use crate::swarm::{Engine, FrameState, Input, Output, StoreResult};
use crate::units::PieceIndex;

impl Lab {
    /// Gives an engine an input and does what it wants.
    pub(super) fn tell(&mut self, node: usize, input: Input) {
        let Some(engine) = self.nodes[node].engine.as_mut() else { return };
        engine.handle(self.now, input);
        while let Some(output) = self.nodes[node].engine.as_mut().and_then(Engine::poll) {
            self.act(node, output);
        }
        let deadline = self.nodes[node].engine.as_ref().and_then(Engine::deadline);
        if let Some(deadline) = deadline.map(|deadline| deadline.max(self.now + Duration::from_micros(1)))
            && self.nodes[node].woken_at.is_none_or(|planned| deadline < planned)
        {
            self.nodes[node].woken_at = Some(deadline);
            self.at(deadline, Event::Wake(node));
        }
        self.transmit(node);
    }

    pub(super) fn act(&mut self, node: usize, output: Output) {
        let mute = matches!(self.nodes[node].spec.character, Character::Script(_));
        match output {
            Output::Dial(to) => self.at(self.now + 3 * self.spec.latency, Event::Connect { from: node, to }),
            Output::Send { .. } | Output::SendBlock { .. } if mute => {}
            Output::Send { conn, message } => {
                let takes_only = matches!(self.nodes[node].spec.character, Character::Taker);
                if !(takes_only && matches!(message, Message::Request(_))) {
                    self.push(node, conn, Packet::Message(message));
                }
            }
            Output::SendBlock { conn, block } => {
                let whole = if block.in_frame() {
                    let Some(frame) = self.nodes[node].frames.get(block.piece) else {
                        return self.tell(node, Input::BlockUnreadable { conn, block });
                    };
                    frame.clone()
                } else {
                    self.payload[block.piece.get()].clone()
                };
                let data = whole.slice(block.start() as usize..(block.start() + block.len) as usize);
                let lie = || Bytes::from(data.iter().map(|byte| !byte).collect::<Vec<_>>());
                let data = match self.nodes[node].spec.character {
                    Character::Stalling => return,
                    Character::Liar => lie(),
                    Character::Garbler if block.in_frame() => lie(),
                    _ => data,
                };
                self.push(node, conn, Packet::Block(block, data));
            }
            Output::Close { conn, why } => {
                self.nodes[node].closes.push(why);
                self.hang_up(node, conn);
            }
            Output::Store { piece, buf, frame } => {
                let len = self.geometry.len_of(piece) as usize;
                let right = if let Some(frame) = frame {
                    let maker = frames::maker(&buf[..frame as usize], piece, self.geometry.len_of(piece));
                    if maker.is_some() {
                        self.at(self.now, Event::Framed { node, piece, maker });
                    }
                    maker.is_some()
                } else {
                    buf[..len] == self.payload[piece.get()][..]
                };
                let result = if right { StoreResult::Ok } else { StoreResult::WrongHash };
                let start = self.nodes[node].disk_free.max(self.now);
                let time = self.nodes[node].spec.writing(len as u64 * u64::from(self.spec.scale));
                self.nodes[node].disk_free = start + time;
                self.at(self.nodes[node].disk_free, Event::Stored { node, piece, result });
            }
            Output::MakeFrame { piece, at_most } => {
                let len =
                    frames::len_of(piece, node, self.geometry.len_of(piece)).filter(|len| *len <= at_most);
                self.at(self.now + frames::TIME, Event::Framed { node, piece, maker: len.map(|_| node) });
            }
            Output::Complete => self.nodes[node].finished = Some(self.now),
        }
    }

    /// The node keeps a frame; one that it has no more room for is gone.
    pub(super) fn framed(&mut self, node: usize, piece: PieceIndex, maker: Option<usize>) {
        let whole = self.geometry.len_of(piece);
        let len = maker.and_then(|maker| frames::len_of(piece, maker, whole));
        let frame = maker.map(|maker| frames::contents(piece, maker, whole));
        if let Some(gone) = frame.and_then(|frame| self.nodes[node].frames.keep(piece, frame)) {
            self.tell(node, Input::Frame { piece: gone, state: FrameState::Gone });
        }
        self.tell(node, Input::Frame { piece, state: len.map_or(FrameState::Useless, FrameState::Ready) });
    }
}
