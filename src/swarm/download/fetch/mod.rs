//! Downloading: which blocks are asked of which peer.
//!
//! A piece has one owner, the peer that is to send all of it. A peer with room for requests gets, in this
//! order: the rest of its own pieces; a piece whose owner was lost; a new piece, the rarest it has; blocks of
//! another peer's piece that nobody was asked for; a piece that waits at a seeder although this peer has it
//! too; in the end game, blocks that another peer was asked for.
//!
//! Invariant: a piece is begun only with a buffer from the pool; a block in a peer's `asked` list is marked
//! so in its piece, and the other way round; nothing is asked of a peer beyond its queue.

mod recover;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::buf::BufPool;
use crate::rng::Rng;
use crate::swarm::interface::{ConnId, Output};
use crate::swarm::peers::peer::Peers;
use crate::swarm::pieces::active::{ActivePiece, Arrival};
use crate::swarm::pieces::compressed::longest;
use crate::swarm::pieces::geometry::{Block, Geometry, PieceShape};
use crate::swarm::pieces::inflight::{Landing, Landings};
use crate::swarm::pieces::picker::Picker;
use crate::swarm::wire::flashmob::Offered;
use crate::swarm::wire::message::Message;
use crate::units::{Now, PeerId, PieceIndex};

/// How soon the pool is asked again after it was empty.
const BUFFER_RETRY: Duration = Duration::from_millis(20);
/// How long an owner may leave a piece untouched before a peer with nothing to do takes it over.
const WAIT_FOR_OWNER: Duration = Duration::from_secs(2);

/// A peer that sent blocks of a piece: enough to ban it after it is gone.
#[derive(Debug, Clone, Copy)]
pub struct Giver {
    /// The connection.
    pub conn: ConnId,
    /// The peer's name.
    pub id: PeerId,
}

/// What a block that was of use shows.
#[derive(Debug)]
pub struct Seen {
    /// It completed a piece that one peer sent: so many bytes came in so much time.
    pub run: Option<(u64, Duration)>,
}

/// The downloading half of the engine.
pub struct Fetcher {
    geometry: Geometry,
    pool: BufPool,
    shape: Arc<dyn PieceShape>,
    /// Rarest first, over the pieces that nobody fetches yet.
    pub picker: Picker,
    active: BTreeMap<PieceIndex, ActivePiece>,
    /// The buffers of the active pieces.
    pub landings: Landings,
    storing: BTreeMap<PieceIndex, Vec<Giver>>,
    /// Pieces that came with a wrong hash from several peers.
    suspect: Vec<PieceIndex>,
    /// The pool was empty when a piece was to be begun.
    pub(in crate::swarm) starved: bool,
    /// The medium failed.
    pub halted: bool,
    /// Bytes of frames whose sender was lost before they were whole.
    pub dropped: u64,
    depth_limit: usize,
}

impl Fetcher {
    /// Wants the pieces of `missing`; no other piece is ever begun.
    pub fn new(
        geometry: Geometry,
        pool: BufPool,
        shape: Arc<dyn PieceShape>,
        missing: &Bitfield,
        depth_limit: usize,
        rng: &mut Rng,
    ) -> Self {
        Fetcher {
            geometry,
            pool,
            shape,
            picker: Picker::new(missing, rng),
            active: BTreeMap::new(),
            landings: Landings::default(),
            storing: BTreeMap::new(),
            suspect: Vec::new(),
            starved: false,
            halted: false,
            dropped: 0,
            depth_limit,
        }
    }

    /// Pieces that are being fetched.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// When the pool is to be asked again.
    pub fn deadline(&self, now: Now) -> Option<Now> {
        self.starved.then(|| now + BUFFER_RETRY)
    }

    /// True once after the pool was found empty.
    pub fn take_starved(&mut self) -> bool {
        std::mem::take(&mut self.starved)
    }

    /// Asks `conn` for as much as is good for it.
    pub fn fill(&mut self, conn: ConnId, peers: &mut Peers, now: Now, out: &mut VecDeque<Output>) {
        loop {
            let Some(peer) = peers.get(&conn) else { return };
            let room = peer.asked.len() < peer.depth(now, self.depth_limit);
            if self.halted || peer.choking_us || !peer.we_are_interested || !room {
                return;
            }
            let more = peer.schedules.is_none() && peer.asked.len() < peer.ahead(now);
            let Some(block) = self
                .own_block(conn)
                .or_else(|| more.then(|| self.find_block(conn, peers, now, out)).flatten())
            else {
                return;
            };
            let Some(peer) = peers.get_mut(&conn) else { return };
            if peer.asked.is_empty() {
                peer.progress = now.max(peer.begins);
            }
            peer.asked.push_back(block);
            out.push_back(Output::Send { conn, message: Message::Request(block) });
        }
    }

    /// The next block of a piece that `conn` owns.
    fn own_block(&mut self, conn: ConnId) -> Option<Block> {
        let owned = |active: &&mut ActivePiece| active.owner == Some(conn) && active.free() > 0;
        self.active.values_mut().find(owned)?.ask(conn, false)
    }

    /// Something else for `conn` to do.
    fn find_block(
        &mut self,
        conn: ConnId,
        peers: &mut Peers,
        now: Now,
        out: &mut VecDeque<Output>,
    ) -> Option<Block> {
        self.adopt(conn, peers, now)
            .or_else(|| self.begin(conn, peers, now, out))
            .or_else(|| self.help(conn, peers, now))
            .or_else(|| self.take_over(conn, peers, now, out))
            .or_else(|| self.end_game(conn, peers, now))
    }

    /// A piece whose owner was lost.
    fn adopt(&mut self, conn: ConnId, peers: &Peers, now: Now) -> Option<Block> {
        let peer = peers.get(&conn)?;
        let (_, active) = self
            .active
            .iter_mut()
            .filter(|(piece, active)| {
                let alone = active.givers.is_empty() || active.givers == [conn];
                active.owner.is_none()
                    && active.free() > 0
                    && peer.offers(**piece, now)
                    && (!active.solo || alone)
            })
            .min_by_key(|(_, active)| active.missing())?;
        active.owner = Some(conn);
        active.since = now;
        active.ask(conn, false)
    }

    /// The pieces that are being fetched.
    pub fn pieces(&self) -> impl Iterator<Item = &ActivePiece> {
        self.active.values()
    }

    /// `piece`, if it is being fetched.
    pub fn piece(&self, piece: PieceIndex) -> Option<&ActivePiece> {
        self.active.get(&piece)
    }

    /// Pieces wait for the medium.
    pub fn is_storing(&self) -> bool {
        !self.storing.is_empty()
    }

    /// Peers that have something of their pieces left that they were not asked for.
    pub fn owners(&self) -> Vec<ConnId> {
        self.active.values().filter(|active| active.free() > 0).filter_map(|active| active.owner).collect()
    }

    /// Pieces that were begun and whose owner was lost.
    pub fn pieces_of_nobody(&self) -> impl Iterator<Item = PieceIndex> {
        self.active
            .iter()
            .filter(|(_, active)| active.owner.is_none() && active.free() > 0)
            .map(|(at, _)| *at)
    }

    /// The sizes of the torrent.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Bytes of `piece` that travel when it is not compressed.
    pub fn travels(&self, piece: PieceIndex) -> u64 {
        let ranges = self.shape.data_ranges(piece, self.geometry.len_of(piece));
        ranges.iter().map(|range| u64::from(range.end - range.start)).sum()
    }

    /// What is asked for to have `piece`: the blocks of its frame of `frame` bytes if it is worth it (0:
    /// there is none), else those of its bytes that travel.
    fn blocks_of(&self, piece: PieceIndex, frame: u32) -> Vec<Block> {
        if (1..=longest(self.travels(piece))).contains(&frame) {
            return Block::of_frame(piece, frame);
        }
        self.geometry.blocks_of(piece, self.shape.as_ref())
    }

    /// `conn` is to send what is missing of `piece`, from `start`; if nothing came yet, its frame of `frame`
    /// bytes. False if it has an owner or is not being fetched.
    pub fn adopt_piece(&mut self, conn: ConnId, Offered { piece, frame }: Offered, start: Now) -> bool {
        let blocks = if frame > 0 { self.blocks_of(piece, frame) } else { Vec::new() };
        let Some(active) = self.active.get_mut(&piece) else { return false };
        let alone = active.givers.is_empty() || active.givers == [conn];
        if active.owner.is_some() || active.free() == 0 || (active.solo && !alone) {
            return false;
        }
        active.owner = Some(conn);
        active.since = start;
        if !blocks.is_empty() && active.untouched() && active.free() == active.missing() {
            self.restart(piece, blocks);
        }
        true
    }

    /// `conn` is to send `piece` or its frame, from `start`; false if it is not wanted, there is no buffer
    /// for it, or nothing of it travels.
    pub fn begin_piece(
        &mut self,
        conn: ConnId,
        Offered { piece, frame }: Offered,
        start: Now,
        out: &mut VecDeque<Output>,
    ) -> bool {
        if !self.picker.wants(piece) {
            return false;
        }
        let Some(buf) = self.pool.take() else {
            self.starved = true;
            return false;
        };
        self.picker.unwant(piece);
        let blocks = self.blocks_of(piece, frame);
        let nothing_travels = blocks.is_empty();
        let landing = Arc::new(Landing::new(buf, blocks));
        self.landings.open(piece, Arc::clone(&landing));
        if nothing_travels {
            self.store(piece, Vec::new(), None, out);
        } else {
            let solo = self.suspect.contains(&piece);
            self.active.insert(piece, ActivePiece::new(landing, conn, solo, start));
        }
        !nothing_travels
    }

    /// All of `piece` is here.
    fn store(
        &mut self,
        piece: PieceIndex,
        givers: Vec<Giver>,
        frame: Option<u32>,
        out: &mut VecDeque<Output>,
    ) {
        if let Some(buf) = self.landings.shut(piece) {
            self.storing.insert(piece, givers);
            out.push_back(Output::Store { piece, buf, frame });
        }
    }

    /// A new piece, if there is a buffer for it.
    fn begin(&mut self, conn: ConnId, peers: &Peers, now: Now, out: &mut VecDeque<Output>) -> Option<Block> {
        let peer = peers.get(&conn)?;
        loop {
            let piece = self.picker.rarest(|piece| peer.offers(piece, now))?;
            if self.begin_piece(conn, Offered { piece, frame: 0 }, now, out) {
                return self.active.get_mut(&piece)?.ask(conn, false);
            }
            if self.starved {
                return None;
            }
        }
    }

    /// A block of another peer's piece that nobody was asked for, from its end.
    fn help(&mut self, conn: ConnId, peers: &Peers, now: Now) -> Option<Block> {
        let peer = peers.get(&conn)?;
        let (_, active) = self
            .active
            .iter_mut()
            .filter(|(piece, active)| {
                !active.has_one_giver() && active.free() > 0 && peer.offers(**piece, now)
            })
            .max_by_key(|(_, active)| active.free())?;
        active.ask(conn, true)
    }

    /// A piece that nobody has begun to send, although it was asked for: from a seeder, whose time is
    /// the most precious, or from a peer that lets us wait.
    fn take_over(
        &mut self,
        conn: ConnId,
        peers: &mut Peers,
        now: Now,
        out: &mut VecDeque<Output>,
    ) -> Option<Block> {
        let peer = peers.get(&conn)?;
        if !peer.asked.is_empty() {
            return None;
        }
        let (piece, owner) = self.active.iter().find_map(|(piece, active)| {
            let owner = active.owner.filter(|owner| *owner != conn)?;
            let other = peers.get(&owner)?;
            let patient = now.since(active.since.max(other.progress)) < WAIT_FOR_OWNER;
            let relieve = other.seed && !peer.seed;
            (active.untouched() && peer.offers(*piece, now) && (relieve || !patient))
                .then_some((*piece, owner))
        })?;
        self.take_back(owner, piece, peers, out);
        let active = self.active.get_mut(&piece)?;
        active.owner = Some(conn);
        active.since = now;
        active.ask(conn, false)
    }

    /// When every piece is under way: a block that another peer was asked for, from a peer with nothing else
    /// to do. A seeder repeats only what the other peer is slow to send.
    fn end_game(&mut self, conn: ConnId, peers: &Peers, now: Now) -> Option<Block> {
        let peer = peers.get(&conn)?;
        if self.picker.wanted() > 0 {
            return None;
        }
        let slow = |other: ConnId| {
            peers.get(&other).is_none_or(|other| {
                now.since(other.progress) > Duration::from_secs(1) || (!peer.seed || other.seed)
            })
        };
        let mut pieces: Vec<_> = self
            .active
            .iter_mut()
            .filter(|(piece, active)| !active.has_one_giver() && peer.offers(**piece, now))
            .collect();
        pieces.sort_by_key(|(_, active)| std::cmp::Reverse(active.missing()));
        pieces.into_iter().find_map(|(_, active)| active.ask_again(conn, slow))
    }

    /// A block came from `conn`, which was asked for it (or had been): its bytes, or `None` if they are in
    /// their place. `None` if it was of no use.
    pub fn arrived(
        &mut self,
        conn: ConnId,
        block: Block,
        data: Option<&[u8]>,
        peers: &mut Peers,
        now: Now,
        out: &mut VecDeque<Output>,
    ) -> Option<Seen> {
        let active = self.active.get_mut(&block.piece)?;
        if active.has_one_giver() && active.owner != Some(conn) {
            return None;
        }
        let recall = match active.accept(conn, block, data) {
            Arrival::New { recall } => recall,
            Arrival::Useless => return None,
            Arrival::Lost => {
                // It was asked for before, and again after the piece was begun anew: a second one may follow.
                active.release(conn, block);
                if !block.in_frame() {
                    peers.get_mut(&conn)?.remember_recalled(block);
                }
                return None;
            }
        };
        active.count(u64::from(block.len), now);
        let mut seen = Seen { run: None };
        if let Some(peer) = recall.and_then(|other| peers.get_mut(&other))
            && peer.take_asked(block)
        {
            peer.remember_recalled(block);
            if let Some(conn) = recall {
                out.push_back(Output::Send { conn, message: Message::Cancel(block) });
            }
        }
        if active.missing() == 0
            && let Some(active) = self.active.remove(&block.piece)
        {
            let whole = active.givers.len() == 1;
            seen.run = active.run(now).filter(|_| whole);
            let known = |conn: &ConnId| peers.get(conn).map(|peer| Giver { conn: *conn, id: peer.id });
            let mut givers: Vec<Giver> = active.givers.iter().filter_map(known).collect();
            if givers.len() != active.givers.len() {
                // A peer that sent some of it is gone, so none that stayed can be blamed alone.
                givers.clear();
            }
            self.store(block.piece, givers, active.frame(), out);
        }
        Some(seen)
    }

    /// A piece was stored. Returns the peers that sent it, or `None` if it was not being stored.
    pub fn stored(&mut self, piece: PieceIndex) -> Option<Vec<Giver>> {
        self.suspect.retain(|suspect| *suspect != piece);
        self.storing.remove(&piece)
    }

    /// A piece had a wrong hash: wants it again. Returns the only peer that sent it, if there is one.
    pub fn wrong(&mut self, piece: PieceIndex, rng: &mut Rng) -> Option<Giver> {
        let givers = self.storing.remove(&piece)?;
        self.picker.want(piece, rng);
        if let [only] = givers[..] {
            return Some(only);
        }
        if !self.suspect.contains(&piece) {
            self.suspect.push(piece);
        }
        None
    }
}
