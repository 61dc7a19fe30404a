//! The offers that wait for answers, the grants that wait for requests, and the pieces that were given and
//! not yet announced.
//!
//! Invariant: `copies` counts, for each piece, the receivers in `given`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::swarm::geometry::Block;
use crate::swarm::interface::ConnId;
use crate::swarm::peers::reliance::PATIENCE;
use crate::swarm::ratio::Ratio;
use crate::units::{Now, PieceIndex};

/// The shortest time that an answer is expected to take.
const SHORTEST_ROUND_TRIP: Duration = Duration::from_millis(3);
/// The weight of one more answer in the round trip.
const SMOOTHING: Ratio = Ratio(1, 8);

/// An offer that waits for its answer.
#[derive(Debug)]
struct Open {
    conn: ConnId,
    pieces: Vec<PieceIndex>,
    since: Now,
}

/// A grant whose requests are on their way.
#[derive(Debug)]
struct Granted {
    conn: ConnId,
    piece: PieceIndex,
    /// Bytes that were not requested yet.
    bytes: u32,
    since: Now,
}

/// Offers and grants under way.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: Vec<Open>,
    granted: Vec<Granted>,
    /// Pieces that were requested after a grant, and whose receivers have not announced them yet.
    given: BTreeMap<PieceIndex, Vec<ConnId>>,
    copies: Vec<u16>,
    /// How long answers take: the way there and back through full queues, and some work.
    round_trip: Duration,
}

impl Ledger {
    /// The ledger of a torrent of this many pieces.
    pub(crate) fn new(pieces: u32) -> Self {
        Ledger { copies: vec![0; pieces as usize], ..Ledger::default() }
    }

    /// Since when offers and grants wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Now> {
        self.open.iter().map(|open| open.since).chain(self.granted.iter().map(|granted| granted.since))
    }

    /// Whether an offer to `conn` or its grant waits.
    pub(crate) fn waits_for(&self, conn: ConnId) -> bool {
        let granted = |granted: &Granted| granted.conn == conn;
        self.open.iter().any(|open| open.conn == conn) || self.granted.iter().any(granted)
    }

    /// How long answers took of late.
    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// How long an answer is expected to take.
    pub(crate) fn expected_round_trip(&self) -> Duration {
        self.round_trip.max(SHORTEST_ROUND_TRIP)
    }

    /// `pieces` are offered to `conn`.
    pub(crate) fn offered(&mut self, conn: ConnId, pieces: Vec<PieceIndex>, now: Now) {
        self.open.push(Open { conn, pieces, since: now });
    }

    /// `conn` takes `piece`, and will ask for `bytes` of it. False if it was not offered that.
    pub(crate) fn granted(&mut self, conn: ConnId, piece: PieceIndex, bytes: u32, now: Now) -> bool {
        self.answered(conn, now);
        let offered = self.open.iter().position(|open| open.conn == conn && open.pieces.contains(&piece));
        if let Some(at) = offered {
            self.open.remove(at);
            self.granted.push(Granted { conn, piece, bytes, since: now });
        }
        offered.is_some()
    }

    /// `conn` takes nothing of the pieces that it was offered. Returns them, or `None` if it was offered
    /// nothing.
    pub(crate) fn declined(&mut self, conn: ConnId, now: Now) -> Option<Vec<PieceIndex>> {
        self.answered(conn, now);
        let at = self.open.iter().position(|open| open.conn == conn)?;
        Some(self.open.remove(at).pieces)
    }

    /// `conn` says something; if that is its answer, it shows how long answers take.
    fn answered(&mut self, conn: ConnId, now: Now) {
        if let Some(open) = self.open.iter().find(|open| open.conn == conn) {
            // A peer that is slow to answer is not the rule.
            let took = now.since(open.since).min(self.round_trip * 2 + SHORTEST_ROUND_TRIP);
            self.round_trip = self.round_trip - SMOOTHING.of_time(self.round_trip) + SMOOTHING.of_time(took);
        }
    }

    /// `conn` asks for `block`. True if it granted that piece.
    pub(crate) fn requested(&mut self, conn: ConnId, block: Block) -> bool {
        let piece = block.piece;
        let granted = self.granted.iter_mut().find(|of| of.conn == conn && of.piece == piece);
        let agreed = granted.is_some();
        if let Some(granted) = granted {
            granted.bytes = granted.bytes.saturating_sub(block.len);
        }
        self.granted.retain(|granted| granted.bytes > 0);
        let to = self.given.entry(piece).or_default();
        if !to.contains(&conn) {
            to.push(conn);
            self.count(piece);
        }
        agreed
    }

    /// `conn` has `piece` now.
    pub(crate) fn announced(&mut self, conn: ConnId, piece: PieceIndex) {
        if let Some(to) = self.given.get_mut(&piece) {
            to.retain(|other| *other != conn);
            if to.is_empty() {
                self.given.remove(&piece);
            }
            self.count(piece);
        }
    }

    /// Counts the receivers of `piece`.
    fn count(&mut self, piece: PieceIndex) {
        let now = self.given.get(&piece).map_or(0, Vec::len);
        if let Some(copies) = self.copies.get_mut(piece.get()) {
            *copies = u16::try_from(now).unwrap_or(u16::MAX);
        }
    }

    /// `conn` is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.open.retain(|open| open.conn != conn);
        self.granted.retain(|granted| granted.conn != conn);
        let theirs: Vec<PieceIndex> =
            self.given.iter().filter(|(_, to)| to.contains(&conn)).map(|(piece, _)| *piece).collect();
        theirs.into_iter().for_each(|piece| self.announced(conn, piece));
    }

    /// Removes offers and grants that waited for too long. Returns the receivers that did not answer, and
    /// those that granted a piece and did not request it.
    pub(crate) fn expire(&mut self, now: Now) -> (Vec<ConnId>, Vec<ConnId>) {
        let over = |since: Now| now.since(since) >= PATIENCE;
        let silent = self.open.extract_if(.., |open| over(open.since)).map(|open| open.conn).collect();
        let unasked = self.granted.extract_if(.., |granted| over(granted.since)).map(|of| of.conn).collect();
        (silent, unasked)
    }

    /// The number of receivers that `piece` was given to, or is offered to just now.
    pub(crate) fn copies_given(&self, piece: PieceIndex) -> usize {
        let offered = self.open.iter().filter(|open| open.pieces.contains(&piece)).count();
        self.copies.get(piece.get()).map_or(0, |copies| usize::from(*copies)) + offered
    }
}
