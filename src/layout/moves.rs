//! The order in which pieces move on a disk.
//!
//! Invariant: a source is read before anything is written over it. Where pieces wait for each other in a
//! circle, one of them is parked in memory, or given up if there is no room. `io::disk::relocate` reads and
//! writes.

use std::collections::VecDeque;
use std::ops::Range;

use crate::units::PieceIndex;

/// A piece on the disk, and its place. Both are bytes of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub piece: PieceIndex,
    /// Where its bytes are.
    pub from: Range<u64>,
    /// Its place. Places of different pieces do not overlap.
    pub to: Range<u64>,
}

/// The next step. The number is the move's position in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read it, then write it to its place.
    Copy(usize),
    /// Read it and keep it in memory.
    Park(usize),
    /// Write the parked piece to its place.
    Place(usize),
    /// There is no room to park it: it is not moved, and its source may be overwritten.
    GiveUp(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Parked,
    Over,
}

/// Moves in an order that loses nothing.
#[derive(Debug)]
pub(crate) struct Schedule {
    moves: Vec<Move>,
    /// Places in order, with their moves.
    places: Vec<(Range<u64>, usize)>,
    state: Vec<State>,
    /// For each move: how many sources of others lie at its place and are not read yet.
    unread: Vec<u32>,
    ready: VecDeque<usize>,
    /// All moves before this one are finished.
    next: usize,
    room: usize,
}

impl Schedule {
    /// `room` pieces may be parked at a time.
    pub(crate) fn new(moves: Vec<Move>, room: usize) -> Self {
        let mut places: Vec<_> = moves.iter().enumerate().map(|(i, one)| (one.to.clone(), i)).collect();
        places.sort_by_key(|(place, _)| place.start);
        let mut schedule = Schedule {
            state: vec![State::Waiting; moves.len()],
            unread: vec![0; moves.len()],
            ready: VecDeque::new(),
            next: 0,
            moves,
            places,
            room,
        };
        for reader in 0..schedule.moves.len() {
            for writer in schedule.writers_over(reader) {
                schedule.unread[writer] += 1;
            }
        }
        schedule.ready = (0..schedule.moves.len()).filter(|i| schedule.unread[*i] == 0).collect();
        schedule
    }

    pub(crate) fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// The next step; `None` when all moves are over. The caller carries out each step before it calls again.
    pub(crate) fn step(&mut self) -> Option<Step> {
        if let Some(ready) = self.ready.pop_front() {
            if std::mem::replace(&mut self.state[ready], State::Over) == State::Parked {
                self.room += 1;
                return Some(Step::Place(ready));
            }
            self.source_is_read(ready);
            return Some(Step::Copy(ready));
        }
        while *self.state.get(self.next)? != State::Waiting {
            self.next += 1;
        }
        let blocked = self.next;
        let step = match self.room.checked_sub(1) {
            Some(left) => {
                self.room = left;
                self.state[blocked] = State::Parked;
                Step::Park(blocked)
            }
            None => {
                self.state[blocked] = State::Over;
                Step::GiveUp(blocked)
            }
        };
        self.source_is_read(blocked);
        Some(step)
    }

    /// Other moves that write over the source of `reader`.
    fn writers_over(&self, reader: usize) -> Vec<usize> {
        let source = &self.moves[reader].from;
        let first = self.places.partition_point(|(place, _)| place.end <= source.start);
        let over = self.places[first..].iter().take_while(|(place, _)| place.start < source.end);
        over.map(|(_, writer)| *writer).filter(|writer| *writer != reader).collect()
    }

    fn source_is_read(&mut self, reader: usize) {
        for writer in self.writers_over(reader) {
            self.unread[writer] -= 1;
            if self.unread[writer] == 0 && self.state[writer] != State::Over {
                self.ready.push_back(writer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN: u64 = 4;

    /// Carries out the moves on a disk in memory. Returns the moves that were given up, and the most that
    /// were parked at once.
    fn carry_out(disk: &mut [u8], moves: Vec<Move>, room: usize) -> (Vec<usize>, usize) {
        let mut schedule = Schedule::new(moves, room);
        let (mut parked, mut most) = (std::collections::HashMap::new(), 0);
        let mut given_up = Vec::new();
        while let Some(step) = schedule.step() {
            match step {
                Step::Copy(i) => {
                    let bytes = disk[at(&schedule.moves()[i].from)].to_vec();
                    disk[at(&schedule.moves()[i].to)].copy_from_slice(&bytes);
                }
                Step::Park(i) => {
                    parked.insert(i, disk[at(&schedule.moves()[i].from)].to_vec());
                    most = most.max(parked.len());
                }
                Step::Place(i) => {
                    let bytes = parked.remove(&i).expect("it was parked");
                    disk[at(&schedule.moves()[i].to)].copy_from_slice(&bytes);
                }
                Step::GiveUp(i) => given_up.push(i),
            }
        }
        assert!(parked.is_empty());
        (given_up, most)
    }

    fn at(range: &Range<u64>) -> Range<usize> {
        let small = |position| usize::try_from(position).expect("small");
        small(range.start)..small(range.end)
    }

    fn one(piece: u32, from: u64, to: u64) -> Move {
        Move { piece: PieceIndex(piece), from: from..from + LEN, to: to..to + LEN }
    }

    proptest! {
        #[test]
        fn every_piece_that_was_not_given_up_is_what_its_source_was(
            froms in proptest::collection::vec(0u64..77, 1..20), order in any::<u64>(), room in 0usize..4
        ) {
            let cells = 20u64;
            let before: Vec<u8> = (0..80u8).collect();
            // Distinct places in some order; sources anywhere, also across cells and at the place itself.
            let moves: Vec<Move> = (0u32..).zip(&froms).map(|(i, from)| {
                one(i, *from, (u64::from(i) * 7 + order % cells) % cells * LEN)
            }).collect();
            let mut disk = before.clone();
            let (given_up, most) = carry_out(&mut disk, moves.clone(), room);
            prop_assert!(most <= room);
            prop_assert!(room < froms.len() || given_up.is_empty());
            for (i, one) in moves.iter().enumerate().filter(|(i, _)| !given_up.contains(i)) {
                prop_assert_eq!(&disk[at(&one.to)], &before[at(&one.from)], "move {}", i);
            }
        }
    }

    #[test]
    fn a_shift_needs_no_memory_and_each_circle_needs_one_piece() {
        let shift = |by: u64| (0..10).map(move |i| one(i, u64::from(i) * LEN + by, u64::from(i) * LEN));
        for by in [0, 1, 4, 8] {
            let mut disk: Vec<u8> = (0..60).collect();
            assert_eq!(carry_out(&mut disk, shift(by).collect(), 0), (vec![], 0), "by {by}");
        }
        let swaps = [(0, 4), (4, 0), (8, 12), (12, 8), (16, 20), (20, 16)];
        let moves: Vec<Move> = (0..).zip(swaps).map(|(i, (from, to))| one(i, from, to)).collect();
        let mut disk: Vec<u8> = (0..24).collect();
        assert_eq!(carry_out(&mut disk, moves.clone(), 1), (vec![], 1));
        assert_eq!(disk[..8], [4, 5, 6, 7, 0, 1, 2, 3]);
        let mut disk: Vec<u8> = (0..24).collect();
        assert_eq!(carry_out(&mut disk, moves, 0).0, [0, 2, 4], "one of each circle comes from the swarm");
    }
}
