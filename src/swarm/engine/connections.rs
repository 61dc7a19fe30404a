//! Which connections are kept: admission, the rules of the tracker, silence, and dialling.
//!
//! Invariant: a connection that is not kept leaves nothing behind in any part of the engine.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::Engine;
use crate::peer_policy::PeerPolicy;
use crate::swarm::interface::{CloseReason, ConnId, Output};
use crate::swarm::peers::peer::Peer;
use crate::swarm::wire::extended::{ExtendedHandshake, OUR_EXTENSION_ID, OUR_EXTENSION_VERSION};
use crate::swarm::wire::handshake::Handshake;
use crate::swarm::wire::message::Message;

/// How often a keep-alive goes out; peers hang up after two minutes of silence (BEP 3).
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A peer that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(150);
/// A connection that lived so long was a good one: its address may be dialled again at once.
const PROVED: Duration = Duration::from_secs(30);

impl Engine {
    pub(super) fn connected(
        &mut self,
        conn: ConnId,
        addr: SocketAddr,
        incoming: bool,
        handshake: &Handshake,
    ) {
        if !incoming {
            self.address_book.connected(addr);
        }
        if let Some(why) = self.refuse_reason(addr, incoming, handshake) {
            self.ctx.out.push(Output::Close { conn, why });
            if !incoming {
                self.address_book.closed(addr, self.ctx.now, true);
            }
            return;
        }
        let mut peer = Peer::new(addr, incoming, handshake, self.geometry.pieces(), self.ctx.now);
        let access = self.zones.access(addr.ip());
        peer.link.set_access(access);
        self.zones.connected(access);
        let fast = peer.link.is_fast();
        self.ctx.peers.insert(conn, peer);
        if !incoming {
            // Said again: giving up an older connection to the same peer has freed its address.
            self.address_book.connected(addr);
        }
        let have = self.completion.have();
        let first = match (fast, have.is_all(), have.is_none()) {
            (true, true, _) => Some(Message::HaveAll),
            (true, _, true) => Some(Message::HaveNone),
            (false, _, true) => None,
            _ => Some(Message::Bitfield(Bytes::copy_from_slice(have.as_wire()))),
        };
        if let Some(message) = first {
            self.ctx.out.send(conn, message);
        }
        if handshake.extended {
            self.send_extended_handshake(conn);
        }
    }

    /// Why a new connection is not kept. May close an older one to the same peer instead.
    fn refuse_reason(
        &mut self,
        addr: SocketAddr,
        incoming: bool,
        handshake: &Handshake,
    ) -> Option<CloseReason> {
        if handshake.peer_id == self.ctx.config.peer_id {
            if !incoming {
                self.address_book.never(addr);
            }
            return Some(CloseReason::Itself);
        }
        if self.ctx.config.ours_only && !handshake.peer_id.is_ours() {
            return Some(CloseReason::Foreign);
        }
        if self.address_book.is_banned(handshake.peer_id, self.ctx.now) {
            return Some(CloseReason::Banned);
        }
        if !self.zones.may_meet(addr) {
            return Some(CloseReason::NotAllowed);
        }
        let same = self.ctx.peers.iter().find(|(_, peer)| peer.link.id() == handshake.peer_id);
        if let Some((old, peer)) = same.map(|(conn, peer)| (*conn, peer)) {
            // Both dialled each other: both sides keep what the one with the greater name dialled.
            let keep_incoming = handshake.peer_id > self.ctx.config.peer_id;
            if peer.link.is_incoming() == incoming || incoming != keep_incoming {
                return Some(CloseReason::Duplicate);
            }
            self.close(old, CloseReason::Duplicate);
        }
        (self.ctx.peers.len() >= self.ctx.config.max_peers).then_some(CloseReason::Full)
    }

    /// The extension handshake (BEP 10), first or again when something changed.
    fn send_extended_handshake(&mut self, conn: ConnId) {
        let said = ExtendedHandshake {
            request_queue: Some(self.ctx.config.request_queue),
            upload_only: Some(self.completion.complete()),
            client: Some(concat!("flashmob ", env!("CARGO_PKG_VERSION")).to_owned()),
            port: (self.ctx.config.listen_port != 0).then_some(self.ctx.config.listen_port),
            flashmob_id: Some(OUR_EXTENSION_ID),
            flashmob_version: Some(OUR_EXTENSION_VERSION),
            frames: self.ctx.config.accepts_frames().then_some(1),
        };
        self.ctx.out.send(conn, Message::Extended { id: 0, payload: said.encode().into() });
    }

    /// Everything that is wanted is here. A peer that counts our pieces sees a seeder by itself; of one with
    /// a part of them it must be told (BEP 21).
    pub(super) fn completed(&mut self) {
        self.ctx.out.push(Output::Complete);
        let conns: Vec<(ConnId, bool)> =
            self.ctx.peers.iter().map(|(conn, peer)| (*conn, peer.link.is_extended())).collect();
        for (conn, extended) in conns {
            if extended && !self.completion.have().is_all() {
                self.send_extended_handshake(conn);
            }
            self.close_if_idle(conn);
        }
    }

    /// From now on these rules hold.
    pub(super) fn follow(&mut self, policy: PeerPolicy) {
        if !self.zones.follow(policy) {
            return;
        }
        self.address_book.look_again();
        self.offers.wake();
        let conns: Vec<(ConnId, IpAddr)> =
            self.ctx.peers.iter().map(|(conn, peer)| (*conn, peer.link.addr().ip())).collect();
        for (conn, ip) in conns {
            let access = self.zones.access(ip);
            if !access.allowed() {
                self.close(conn, CloseReason::NotAllowed);
                continue;
            }
            if let Some(peer) = self.ctx.peers.get_mut(&conn) {
                peer.link.set_access(access);
            }
            self.update_interest(conn);
        }
        self.zones.recount(&self.ctx.peers, self.geometry.pieces());
        self.rechoke();
        self.wake = true;
    }

    /// Tells the peer whether we want something of it, when that changes.
    pub(super) fn update_interest(&mut self, conn: ConnId) {
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return };
        let want = peer.link.is_useful() && peer.link.access().fetch && !self.fetch.is_halted();
        if peer.download.set_interested(want) {
            let message = if want { Message::Interested } else { Message::NotInterested };
            self.ctx.out.push(Output::Send { conn, message });
        }
    }

    /// Two peers that both have everything they want need no connection.
    pub(super) fn close_if_idle(&mut self, conn: ConnId) {
        let done =
            |peer: &Peer| peer.link.is_seed() || (peer.link.is_upload_only() && !peer.upload.is_interested());
        if self.completion.complete() && self.ctx.peers.get(&conn).is_some_and(done) {
            self.close(conn, CloseReason::NothingToTrade);
        }
    }

    pub(super) fn rechoke(&mut self) {
        self.queue.rechoke(&mut self.ctx);
    }

    pub(super) fn do_housekeeping(&mut self) {
        self.offers.wake();
        let silent: Vec<ConnId> = self
            .ctx
            .peers
            .iter()
            .filter(|(_, peer)| peer.link.silent_for(self.ctx.now) >= SILENCE || peer.is_gone(self.ctx.now))
            .map(|(conn, _)| *conn)
            .collect();
        silent.into_iter().for_each(|conn| self.close(conn, CloseReason::Silent));
        for (conn, peer) in &mut self.ctx.peers {
            if peer.link.keeps_alive(self.ctx.now, KEEP_ALIVE) {
                self.ctx.out.push(Output::Send { conn: *conn, message: Message::KeepAlive });
            }
        }
        self.fetch.snub(&mut self.ctx);
        self.rechoke();
        self.wake = true;
    }

    pub(super) fn dial(&mut self) {
        while self.ctx.peers.len() + self.address_book.dialling()
            < self.ctx.config.dial_up_to.min(self.ctx.config.max_peers)
            && self.address_book.dialling() < self.ctx.config.max_dialling
        {
            let may = |addr: SocketAddr| self.zones.may_meet(addr);
            let Some(addr) = self.address_book.next_dial(self.ctx.now, &mut self.ctx.rng, may) else {
                return;
            };
            self.ctx.out.push(Output::Dial(addr));
        }
    }

    /// Ends a connection from our side.
    pub(super) fn close(&mut self, conn: ConnId, why: CloseReason) {
        if self.ctx.peers.contains_key(&conn) {
            let pointless = matches!(why, CloseReason::NothingToTrade | CloseReason::Fault(_));
            self.ctx.out.push(Output::Close { conn, why });
            self.forget(conn, pointless);
        }
    }

    /// The connection is no more.
    pub(super) fn forget(&mut self, conn: ConnId, pointless: bool) {
        let Some(peer) = self.ctx.peers.remove(&conn) else { return };
        if peer.link.is_seed() {
            self.fetch.picker_mut().count_seed(false);
        } else {
            let picker = self.fetch.picker_mut();
            peer.link.have().iter().for_each(|piece| picker.lost(piece));
        }
        self.zones.disconnected(&peer);
        self.fetch.lose(conn, peer.download.into_requests());
        self.offers.forget(conn);
        let known_otherwise = self.ctx.peers.values().any(|other| other.link.id() == peer.link.id());
        if let Some(addr) = peer.link.listen().filter(|_| !known_otherwise) {
            if peer.link.age(self.ctx.now) >= PROVED {
                self.address_book.proved(addr);
            }
            self.address_book.closed(addr, self.ctx.now, pointless);
        }
        self.rechoke();
        self.wake = true;
    }
}
