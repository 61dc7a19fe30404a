//! What the engine knows about one connected peer.
//!
//! Invariant: `useful` is the number of wanted pieces that the peer has and we lack; every list here is
//! bounded (requests by `reqq`, recalled blocks and refusals by constants below). Decisions are left to
//! `fetch` and `serve`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::swarm::interface::ConnId;
use crate::swarm::peers::access::PeerAccess;
use crate::swarm::peers::rate::RateMeter;
use crate::swarm::peers::reliance::Reliance;
use crate::swarm::pieces::geometry::Block;
use crate::swarm::wire::extended::ExtendedHandshake;
use crate::swarm::wire::handshake::Handshake;
use crate::units::{BLOCK_LEN, Now, PeerId, PieceIndex};

/// All connected peers, in a fixed order so that runs can be repeated.
pub type Peers = BTreeMap<ConnId, Peer>;

/// Requests in the air at a peer whose rate is not known yet: one MiB.
const FIRST_DEPTH: usize = 64;
/// What a peer queues that does not say (BEP 10 `reqq`): what libtorrent assumes of others.
const DEFAULT_REQUEST_QUEUE: u32 = 250;
/// Below this much of time, at the peer's rate, the next piece is asked for, so that the peer never idles.
const AHEAD: Duration = Duration::from_millis(50);
/// Fewest requests in the air before the next piece is asked for.
const MIN_AHEAD: usize = 4;
/// Requests in the air at a peer that stalled and is being tried again.
const SNUBBED_DEPTH: usize = 4;
/// Recalled blocks that may still arrive, remembered for each peer.
const MAX_RECALLED: usize = 4096;
/// Pieces a peer refused or declined, remembered for each peer.
const MAX_REFUSED: usize = 64;
/// How long a refused piece is not asked for again, and a declined one not offered again.
const REFUSED_REST: Duration = Duration::from_secs(3);
/// A peer that owes blocks and says nothing for so long is gone.
const OWES_BLOCKS: Duration = Duration::from_secs(5);
/// The version of our extension that has offers.
const SCHEDULING: u8 = 2;

/// One connected peer.
#[derive(Debug)]
pub struct Peer {
    /// The other end of the connection.
    pub addr: SocketAddr,
    /// Where the peer listens, as far as known.
    pub listen: Option<SocketAddr>,
    /// True if the peer dialled us.
    pub incoming: bool,
    /// Its name.
    pub id: PeerId,
    /// Both sides speak BEP 6.
    pub fast: bool,
    /// Both sides speak BEP 10.
    pub extended: bool,
    /// What it has.
    pub have: Bitfield,
    /// A bitfield (or have-all, have-none) came.
    pub said_bitfield: bool,
    /// Counted as a peer that has everything.
    pub seed: bool,
    /// Wanted pieces it has and we lack.
    pub useful: u32,
    /// BEP 10 `reqq`.
    pub request_queue: u32,
    /// BEP 21.
    pub upload_only: bool,
    /// It answers no requests of ours.
    pub choking_us: bool,
    /// It wants something of ours.
    pub interested: bool,
    /// We answer no requests of its.
    pub choked: bool,
    /// We told it that we want something.
    pub we_are_interested: bool,
    /// When the connection opened.
    pub connected_at: Now,
    /// When the last message came.
    pub heard: Now,
    /// When the last keep-alive went out.
    pub kept_alive: Now,

    /// Blocks we asked for, in order.
    pub asked: VecDeque<Block>,
    /// Blocks we asked for and no longer count on; they may come all the same.
    pub recalled: VecDeque<Block>,
    /// Pieces it refused lately.
    pub refused: VecDeque<(PieceIndex, Now)>,
    /// When it last sent a block, or was first asked after having sent all.
    pub progress: Now,
    /// It stalled: not asked before this time, and little after it until it sends again.
    pub snubbed: Option<Now>,
    /// Bytes of blocks from it.
    pub rate_in: RateMeter,

    /// Blocks it asked for.
    pub queue: VecDeque<Block>,
    /// Blocks handed to the network for it.
    pub sending: Vec<Block>,
    /// When it was last choked or unchoked by us.
    pub choke_changed: Now,
    /// When it was last served.
    pub served: Now,
    /// The piece it was served last.
    pub last_turn: Option<PieceIndex>,
    /// Requests that could not be answered.
    pub unanswerable: u32,

    /// It gets no new piece before: the uplink it is behind is at its limit.
    pub held_until: Now,

    /// What the rules let us do with it.
    pub standing: PeerAccess,
    /// It speaks our scheduling: the id it gave for these messages.
    pub schedules: Option<u8>,
    /// It takes frames.
    pub takes_frames: bool,
    /// Its downlink is taken until then, as it said.
    pub taken_until: Now,
    /// Pieces it declined lately.
    pub declined: VecDeque<(PieceIndex, Now)>,
    /// Whether it answers what it is offered.
    pub reliance: Reliance,
    /// It has sent a piece that was right, or blocks of one.
    pub gave_right: bool,
    /// A piece of ours that it asked to be offered.
    pub wish: Option<PieceIndex>,
    /// When it will begin to send what we granted it.
    pub begins: Now,
    /// Its last whole piece came at less than half of what our downlink carries: others may send beside it.
    pub slow_sender: bool,
}

impl Peer {
    /// A peer that has just shaken hands and has said nothing about pieces.
    pub fn new(addr: SocketAddr, incoming: bool, handshake: &Handshake, pieces: u32, now: Now) -> Self {
        Peer {
            addr,
            listen: (!incoming).then_some(addr),
            incoming,
            id: handshake.peer_id,
            fast: handshake.fast,
            extended: handshake.extended,
            have: Bitfield::none(pieces),
            said_bitfield: false,
            seed: false,
            useful: 0,
            request_queue: DEFAULT_REQUEST_QUEUE,
            upload_only: false,
            choking_us: true,
            interested: false,
            choked: true,
            we_are_interested: false,
            connected_at: now,
            heard: now,
            kept_alive: now,
            asked: VecDeque::new(),
            recalled: VecDeque::new(),
            refused: VecDeque::new(),
            progress: now,
            snubbed: None,
            rate_in: RateMeter::default(),
            queue: VecDeque::new(),
            sending: Vec::new(),
            choke_changed: now,
            served: Now::ZERO,
            last_turn: None,
            unanswerable: 0,
            held_until: Now::ZERO,
            standing: PeerAccess::FREE,
            schedules: None,
            takes_frames: false,
            taken_until: Now::ZERO,
            declined: VecDeque::new(),
            reliance: Reliance::default(),
            gave_right: false,
            wish: None,
            begins: Now::ZERO,
            slow_sender: false,
        }
    }

    /// A message came.
    pub fn hear(&mut self, now: Now) {
        self.heard = now;
        self.reliance.spoke();
    }

    /// It speaks our scheduling, owes us an answer or blocks, and nobody seems to be there: its cable was
    /// pulled, or its power went. A closed socket would have said so. Standard clients may be silent for two
    /// minutes (BEP 3).
    pub fn is_gone(&self, now: Now) -> bool {
        let owes_blocks = self.snubbed.is_some() && now.since(self.heard) >= OWES_BLOCKS;
        self.schedules.is_some() && (self.reliance.is_gone(now) || owes_blocks)
    }

    /// It may be offered pieces of ours.
    pub fn takes_offers(&self) -> bool {
        self.schedules.is_some() && self.interested && self.standing.serve
    }

    /// True if nothing is to be sent to it that it asked for.
    pub fn waits_for_nothing(&self) -> bool {
        self.queue.is_empty() && self.sending.is_empty()
    }

    /// Takes what the peer says about itself.
    pub fn introduce(&mut self, said: &ExtendedHandshake) {
        if let Some(requests) = said.request_queue {
            self.request_queue = requests.max(1);
        }
        if let Some(upload_only) = said.upload_only {
            self.upload_only = upload_only;
        }
        if let Some(id) = said.flashmob_id.filter(|_| said.flashmob_version >= Some(SCHEDULING)) {
            self.schedules = Some(id);
            self.takes_frames = said.frames.is_some();
        }
        // Only while it is not known: a peer that names ever new ports would fill the book of addresses, and
        // the address that was dialled would never be dialled again.
        if let (Some(port), None) = (said.port, self.listen) {
            self.listen = Some(SocketAddr::new(self.addr.ip(), port));
        }
    }

    /// Requests that may be in the air at this peer: a second of its rate, never more than it queues. What
    /// was granted is asked for at once.
    pub fn depth(&self, now: Now, limit: usize) -> usize {
        if self.schedules.is_some() {
            return usize::try_from(self.request_queue).unwrap_or(usize::MAX);
        }
        if let Some(until) = self.snubbed {
            return if now < until { 0 } else { SNUBBED_DEPTH };
        }
        let second = usize::try_from(self.rate_in.rate(now) / u64::from(BLOCK_LEN)).unwrap_or(limit);
        let queue = usize::try_from(self.request_queue).unwrap_or(limit);
        second.max(FIRST_DEPTH).min(limit).min(queue)
    }

    /// Requests in the air below which the next piece is begun.
    pub fn ahead(&self, now: Now) -> usize {
        let bytes = u128::from(self.rate_in.rate(now)) * AHEAD.as_millis() / 1000;
        usize::try_from(bytes / u128::from(BLOCK_LEN)).unwrap_or(MIN_AHEAD).max(MIN_AHEAD)
    }

    /// The block will come or was recalled: takes it off the list of what was asked for. True if it was on
    /// it.
    pub fn take_asked(&mut self, block: Block) -> bool {
        let at = self.asked.iter().position(|asked| *asked == block);
        at.and_then(|at| self.asked.remove(at)).is_some()
    }

    /// The same for recalled blocks.
    pub fn take_recalled(&mut self, block: Block) -> bool {
        let at = self.recalled.iter().position(|recalled| *recalled == block);
        at.and_then(|at| self.recalled.remove(at)).is_some()
    }

    /// Remembers that `block` may come although it is not waited for.
    pub fn remember_recalled(&mut self, block: Block) {
        if self.recalled.len() >= MAX_RECALLED {
            self.recalled.pop_front();
        }
        self.recalled.push_back(block);
    }

    /// Remembers that the peer refused `piece`.
    pub fn refuse(&mut self, piece: PieceIndex, now: Now) {
        remember(&mut self.refused, piece, now);
    }

    /// Remembers that the peer declined `piece`.
    pub fn decline(&mut self, piece: PieceIndex, now: Now) {
        remember(&mut self.declined, piece, now);
    }

    /// Whether the peer would take `piece` of ours, as far as we know.
    pub fn may_take(&self, piece: PieceIndex, now: Now) -> bool {
        !self.have.has(piece) && !is_fresh(&self.declined, piece, now)
    }

    /// Whether `piece` may be asked for: the peer has it and did not refuse it lately.
    pub fn offers(&self, piece: PieceIndex, now: Now) -> bool {
        self.have.has(piece) && !is_fresh(&self.refused, piece, now)
    }
}

fn remember(list: &mut VecDeque<(PieceIndex, Now)>, piece: PieceIndex, now: Now) {
    list.retain(|(old, at)| *old != piece && now.since(*at) < REFUSED_REST);
    if list.len() >= MAX_REFUSED {
        list.pop_front();
    }
    list.push_back((piece, now));
}

fn is_fresh(list: &VecDeque<(PieceIndex, Now)>, piece: PieceIndex, now: Now) -> bool {
    list.iter().any(|(old, at)| *old == piece && now.since(*at) < REFUSED_REST)
}
