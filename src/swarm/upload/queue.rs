//! Uploading: which peers may ask (choking), and which requests are answered next (turns).
//!
//! A turn is one piece for one peer. Few turns run at once, so that a piece is finished for one peer before
//! the next one is begun for another; more run only while the receivers are slower than we are. Among waiting
//! requests the piece that the fewest have goes first, so an early seeder sends each piece once before it
//! repeats one.
//!
//! Invariant: a connection has at most `send_window` blocks in the network's hands; a peer that is unchoked
//! stays so for [`MIN_UNCHOKE`] unless it loses interest; a request is answered, rejected (BEP 6) or, without
//! BEP 6, dropped by a choke. Peers that speak our scheduling ask only for what `offers` agreed with them:
//! they need no slot.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::swarm::context::{Context, Outputs};
use crate::swarm::geometry::Block;
use crate::swarm::interface::{ConnId, EngineConfig, Output};
use crate::swarm::peers::peer::{Peer, Peers};
use crate::swarm::pieces::picker::Picker;
use crate::swarm::rate::Capacity;
use crate::swarm::wire::message::Message;
use crate::units::{BLOCK_LEN, Now, PieceIndex};

/// Shortest time between unchoking and choking a peer that wants something.
pub(crate) const MIN_UNCHOKE: Duration = Duration::from_secs(10);
/// A peer that has waited this long is served before all others, whatever it asks for.
const FORGOTTEN: Duration = Duration::from_secs(2);
/// A turn that moved nothing for so long does not keep others waiting, where links are fast.
const SLOW: Duration = Duration::from_millis(50);
/// A turn that moved nothing is slow only after this many times the bytes that a connection has under way
/// have left.
const BURSTS: u64 = 4;

/// One piece being sent to one peer.
#[derive(Debug)]
struct Turn {
    conn: ConnId,
    piece: PieceIndex,
    began: Now,
    moved: Now,
    bytes: u64,
}

impl Turn {
    /// Its receiver takes less than half of its share of what our uplink can carry, or nothing for a while.
    /// Peers that share the uplink are not slow for that reason: otherwise each new turn would make all of
    /// them slow, and so justify one more turn.
    fn is_slow(&self, share: &Share, now: Now) -> bool {
        let age = now.since(self.began);
        let pause = share.pause();
        let due = share.time_of(self.bytes).saturating_mul(2).saturating_add(pause);
        now.since(self.moved) >= pause || age > pause.saturating_mul(2) && age > due
    }
}

/// The share of the uplink that one of several simultaneous turns gets.
struct Share<'a> {
    uplink: &'a Capacity,
    turns: u32,
    /// Bytes that leave at once.
    burst: u64,
}

impl Share<'_> {
    fn time_of(&self, bytes: u64) -> Duration {
        self.uplink.time_of(bytes).saturating_mul(self.turns)
    }

    /// How long it may seem to move nothing.
    fn pause(&self) -> Duration {
        SLOW.max(self.uplink.time_on_wire(BURSTS * self.burst).saturating_mul(self.turns))
    }
}

/// The uploading half of the engine.
#[derive(Debug)]
pub(crate) struct UploadQueue {
    turns: Vec<Turn>,
    /// Connections that have, or had of late, requests waiting or blocks in the network's hands.
    busy: BTreeSet<ConnId>,
    /// How many peers each piece was sent to.
    given: Vec<u32>,
    rotated: Now,
}

impl UploadQueue {
    /// Nothing sent yet.
    pub(crate) fn new(pieces: u32) -> Self {
        UploadQueue {
            turns: Vec::new(),
            busy: BTreeSet::new(),
            given: vec![0; pieces as usize],
            rotated: Now::ZERO,
        }
    }

    /// Starts and continues turns until the windows are full.
    pub(crate) fn pump(&mut self, picker: &Picker, uplink: &Capacity, ctx: &mut Context) {
        let Context { config, now, peers, out, .. } = ctx;
        let now = *now;
        self.busy.retain(|conn| peers.get(conn).is_some_and(|peer| !peer.upload.is_idle()));
        self.turns.retain(|turn| {
            let Some(peer) = peers.get_mut(&turn.conn) else { return false };
            fill_window(turn.conn, turn.piece, peer, (config, now), out);
            let of_turn = |block: &Block| block.piece == turn.piece;
            let throttled = !config.limit.sends_in(now).is_zero();
            peer.upload.sending().iter().any(of_turn) || throttled && peer.upload.queued().iter().any(of_turn)
        });
        while config.limit.sends_in(now).is_zero() && self.may_begin(config, uplink, now) {
            let Some((conn, piece)) = self.next_turn(peers, picker, now) else { break };
            let Some(peer) = peers.get_mut(&conn) else { break };
            if peer.upload.begin_turn(piece, now) {
                self.given[piece.get()] += 1;
            }
            fill_window(conn, piece, peer, (config, now), out);
            self.turns.push(Turn { conn, piece, began: now, moved: now, bytes: 0 });
        }
    }

    /// Bytes that scheduling peers were promised and that have not left, those for slow receivers apart.
    /// Where there are more than `enough`, a number above it.
    pub(crate) fn committed(&self, uplink: &Capacity, enough: u64, ctx: &Context) -> u64 {
        let mut sum = 0;
        let (now, share) = (ctx.now, self.share(&ctx.config, uplink));
        for (conn, peer) in self.waiting(&ctx.peers).filter(|(_, peer)| peer.scheduling.is_spoken()) {
            let slow = |turn: &Turn| turn.conn == conn && turn.is_slow(&share, now);
            if self.turns.iter().any(slow) {
                continue;
            }
            for block in peer.upload.sending().iter().chain(peer.upload.queued()) {
                sum += u64::from(block.len);
                if sum > enough {
                    return sum;
                }
            }
        }
        sum
    }

    /// There is room for one more turn.
    fn may_begin(&self, config: &EngineConfig, uplink: &Capacity, now: Now) -> bool {
        let share = self.share(config, uplink);
        let brisk = self.turns.iter().filter(|turn| !turn.is_slow(&share, now)).count();
        brisk < config.upload_parallel && self.turns.len() < config.upload_slots
    }

    fn share<'a>(&self, config: &EngineConfig, uplink: &'a Capacity) -> Share<'a> {
        let turns = u32::try_from(self.turns.len()).unwrap_or(u32::MAX);
        Share { uplink, turns, burst: config.send_window as u64 * u64::from(BLOCK_LEN) }
    }

    /// No peer waits for a block.
    pub(crate) fn is_idle(&self, peers: &Peers) -> bool {
        self.waiting(peers).all(|(_, peer)| peer.upload.is_idle())
    }

    /// Peers that wait for our blocks.
    fn waiting<'a>(&self, peers: &'a Peers) -> impl Iterator<Item = (ConnId, &'a Peer)> {
        self.busy.iter().filter_map(|conn| Some((*conn, peers.get(conn)?)))
    }

    /// Which peer to serve next, and with which piece: first a peer that was forgotten for long, then a piece
    /// that was begun, then the rarest piece, then the peer that waited longest.
    fn next_turn(&self, peers: &Peers, picker: &Picker, now: Now) -> Option<(ConnId, PieceIndex)> {
        let mut best = None;
        for (conn, peer) in self.waiting(peers) {
            let free = peer.upload.sending().is_empty() && !self.turns.iter().any(|turn| turn.conn == conn);
            if !free || peer.upload.queued().is_empty() || now < peer.upload.held_until() {
                continue;
            }
            let forgotten = now.since(peer.upload.served().max(peer.upload.choke_changed())) > FORGOTTEN;
            let mut last = None;
            for piece in peer.upload.queued().iter().map(|block| block.piece) {
                if last.replace(piece) == Some(piece) {
                    continue;
                }
                let begun = peer.upload.last_turn() == Some(piece);
                let running = self.turns.iter().filter(|turn| turn.piece == piece).count();
                let given = self.given.get(piece.get()).copied().unwrap_or(0);
                let copies = picker.availability(piece).max(given) as usize + running;
                let rank = (!forgotten, !begun, copies, peer.upload.served(), conn);
                if best.is_none_or(|(least, _)| rank < least) {
                    best = Some((rank, piece));
                }
            }
        }
        best.map(|((.., conn), piece)| (conn, piece))
    }

    /// A peer asks for `block`, which is inside the torrent. False if it asked for far more than it may.
    pub(crate) fn request(
        &mut self,
        conn: ConnId,
        block: Block,
        we_have_it: bool,
        ctx: &mut Context,
    ) -> bool {
        let limit = ctx.config.request_queue;
        let Some(peer) = ctx.peers.get_mut(&conn) else { return true };
        let full = peer.upload.queued().len() + peer.upload.sending().len() >= limit as usize;
        if peer.upload.is_choked() || !we_have_it || full {
            // A few cross a choke on the way; a flood of them is abuse.
            let denied = peer.upload.count_unanswerable();
            if peer.link.is_fast() {
                ctx.out.send(conn, Message::Reject(block));
            }
            return denied <= limit.saturating_mul(4);
        }
        if peer.upload.request(block) {
            self.busy.insert(conn);
        }
        true
    }

    /// The frame of `piece` is gone: requests for its blocks are rejected.
    pub(crate) fn withdraw_frame(&mut self, piece: PieceIndex, ctx: &mut Context) {
        for (conn, peer) in &mut ctx.peers {
            for block in peer.upload.withdraw_frame(piece) {
                ctx.out.send(*conn, Message::Reject(block));
            }
        }
    }

    /// A peer no longer wants `block`.
    pub(crate) fn cancel(&mut self, conn: ConnId, block: Block, ctx: &mut Context) {
        let Some(peer) = ctx.peers.get_mut(&conn) else { return };
        if peer.upload.cancel(block) && peer.link.is_fast() {
            ctx.out.send(conn, Message::Reject(block));
        }
    }

    /// A block left for the network (or could not be read). False if it was not ours to send.
    pub(crate) fn sent(&mut self, conn: ConnId, block: Block, ctx: &mut Context) -> bool {
        let now = ctx.now;
        let Some(peer) = ctx.peers.get_mut(&conn) else { return false };
        if !peer.upload.sent(block, now) {
            return false;
        }
        for turn in self.turns.iter_mut().filter(|turn| turn.conn == conn) {
            turn.moved = now;
            turn.bytes += u64::from(block.len);
        }
        true
    }

    /// Hands out the upload slots; also takes some back from the peers that had them longest while others
    /// wait.
    pub(crate) fn rechoke(&mut self, ctx: &mut Context) {
        let Context { config, now, peers, out, .. } = ctx;
        let now = *now;
        let mut waiting: Vec<(Now, ConnId)> = Vec::new();
        let mut holding: Vec<(Now, ConnId)> = Vec::new();
        for (conn, peer) in peers.iter_mut() {
            if peer.scheduling.is_spoken() {
                match (peer.upload.is_choked(), peer.link.access().serve) {
                    (true, true) => unchoke(*conn, peer, now, out),
                    (false, false) => choke(*conn, peer, now, out),
                    _ => {}
                }
                continue;
            }
            match (peer.upload.is_choked(), peer.upload.is_interested() && peer.link.access().serve) {
                (true, true) => waiting.push((peer.upload.choke_changed(), *conn)),
                (false, true) => holding.push((peer.upload.choke_changed(), *conn)),
                (false, false) => choke(*conn, peer, now, out),
                (true, false) => {}
            }
        }
        waiting.sort();
        let mut free = config.upload_slots.saturating_sub(holding.len());
        if waiting.len() > free && now.since(self.rotated) >= MIN_UNCHOKE {
            self.rotated = now;
            holding.sort();
            let quarter = (config.upload_slots / 4).max(1).min(waiting.len() - free);
            let due = holding.into_iter().filter(|(since, conn)| {
                now.since(*since) >= MIN_UNCHOKE && !self.turns.iter().any(|turn| turn.conn == *conn)
            });
            for (_, conn) in due.take(quarter) {
                if let Some(peer) = peers.get_mut(&conn) {
                    choke(conn, peer, now, out);
                    free += 1;
                }
            }
        }
        for (_, conn) in waiting.into_iter().take(free) {
            if let Some(peer) = peers.get_mut(&conn) {
                unchoke(conn, peer, now, out);
            }
        }
    }

    /// When a slow turn must be looked at, if others wait behind it, or somebody need not be held back any
    /// more.
    pub(crate) fn deadline(&self, uplink: &Capacity, ctx: &Context) -> Option<Now> {
        let Context { config, now, peers, .. } = ctx;
        let held =
            self.waiting(peers).map(|(_, peer)| peer.upload.held_until()).filter(|until| until > now).min();
        let waits = |(conn, peer): (ConnId, &Peer)| {
            !peer.upload.queued().is_empty() && !self.turns.iter().any(|turn| turn.conn == conn)
        };
        let limit = config.limit.sends_in(*now);
        let queued = |(_, peer): (ConnId, &Peer)| !peer.upload.queued().is_empty();
        let throttled = (!limit.is_zero() && self.waiting(peers).any(queued)).then(|| *now + limit);
        let pause = self.share(config, uplink).pause();
        let slow = || self.turns.iter().map(|turn| turn.moved + pause).min();
        let slow = self.waiting(peers).any(waits).then(slow).flatten();
        [held, throttled, slow].into_iter().flatten().min()
    }
}

/// Moves requests for `piece` into the network's hands, as far as the limit allows.
fn fill_window(
    conn: ConnId,
    piece: PieceIndex,
    peer: &mut Peer,
    (config, now): (&EngineConfig, Now),
    out: &mut Outputs,
) {
    while peer.upload.sending().len() < config.send_window && config.limit.sends_in(now).is_zero() {
        let Some(block) = peer.upload.send_next(piece) else { break };
        config.limit.pay_sent(u64::from(block.len) * u64::from(config.scale), now);
        out.push(Output::SendBlock { conn, block });
    }
}

fn unchoke(conn: ConnId, peer: &mut Peer, now: Now, out: &mut Outputs) {
    peer.upload.unchoke(now);
    out.send(conn, Message::Unchoke);
}

/// Chokes a peer; what it waits for is rejected, as BEP 6 asks.
fn choke(conn: ConnId, peer: &mut Peer, now: Now, out: &mut Outputs) {
    out.send(conn, Message::Choke);
    for block in peer.upload.choke(now) {
        if peer.link.is_fast() {
            out.send(conn, Message::Reject(block));
        }
    }
}
