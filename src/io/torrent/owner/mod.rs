//! The owner task of a torrent: feeds its engine and carries out its outputs.
//!
//! `state` makes it, `conns` are its connections, `pieces` its payload; the event loop is here.
//!
//! Invariant: only this task touches the engine and the cache; it waits only for events. It ends on an order
//! to stop or a failed write, after everything that it started has ended.

mod conns;
mod pieces;
mod soundness;
mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::announcing;
use super::cache::Data;
use super::check::check;
use super::dial::{self, Dialled};
use super::handle::{Ends, Found, Phase};
use super::handshake::Accepted;
use super::report::Outgoing;
use super::shared::{PUBLISH, Shared};
use super::spec::{Have, TorrentSpec};
use crate::bitfield::Bitfield;
use crate::event::Failure;
use crate::swarm::{Geometry, Input, Output, SwarmStats};
use state::{Channels, EVENTS, Owner, Pieces};

/// Runs a torrent until it is stopped or fails.
pub(super) async fn run(
    shared: Arc<Shared>,
    spec: TorrentSpec,
    geometry: Geometry,
    wanted: Bitfield,
    accepted: mpsc::Receiver<Accepted>,
    mut ends: Ends,
) {
    let end = match check(&spec, geometry, &wanted, &mut ends).await {
        Ok(Some(have)) => work(&shared, spec, geometry, Pieces { have, wanted }, accepted, &mut ends).await,
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    ends.phase.send_replace(match end {
        Ok(()) => Phase::Stopped,
        Err(failure) => Phase::Failed(failure),
    });
}

/// Fetches and serves. Returns when everything it started has ended.
async fn work(
    shared: &Arc<Shared>,
    spec: TorrentSpec,
    geometry: Geometry,
    pieces: Pieces,
    accepted: mpsc::Receiver<Accepted>,
    ends: &mut Ends,
) -> Result<(), Failure> {
    let nothing_to_sync = matches!(spec.have, Have::Everything);
    let storage = Arc::clone(&spec.storage);
    let trackers = spec.trackers.clone();
    let (mut owner, channels) = Owner::new(shared, spec, geometry, pieces, accepted)?;
    owner.publish(ends);
    if !owner.engine.stats().complete {
        ends.phase.send_replace(Phase::Fetching);
    } else if nothing_to_sync {
        owner.complete = true;
        ends.phase.send_replace(Phase::Complete);
    } else {
        owner.begin_sync();
    }
    let mut announcers = announcing::start(shared, owner.spec.meta.info_hash, trackers, ends);
    let result = owner.serve(channels, ends).await;
    if let Err(failure) = &result {
        ends.phase.send_replace(Phase::Failed(failure.clone()));
    }
    owner.publish(ends);
    let Owner { disk, complete, frame_maker, .. } = owner;
    let finished = tokio::task::spawn_blocking(move || {
        if let Some(maker) = frame_maker {
            maker.finish();
        }
        disk.finish();
        // Pieces written before a stop are kept, because the next start finds them.
        if complete { Ok(()) } else { storage.sync() }
    });
    while announcers.join_next().await.is_some() {}
    match (result, finished.await) {
        (Ok(()), Ok(Err(error))) => Err(error.into()),
        (result, _) => result,
    }
}

impl Owner {
    /// The loop: waits for an event, feeds the engine, carries out its outputs.
    async fn serve(&mut self, mut from: Channels, ends: &mut Ends) -> Result<(), Failure> {
        let mut ticks = interval(PUBLISH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut batch = Vec::with_capacity(EVENTS);
        let (mut stop, mut hashes) = (ends.stop.clone(), ends.hashes.clone());
        self.learn(hashes.borrow_and_update().clone());
        self.tell(Input::Tick);
        loop {
            self.drain_outputs();
            let deadline = self.engine.deadline().map(|now| self.started + now.0);
            let wake = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                _ = from.events.recv_many(&mut batch, EVENTS) => self.peer_events(&mut batch),
                Some(done) = from.done.recv() => {
                    self.disk_event(done, ends)?;
                    while let Ok(done) = from.done.try_recv() {
                        self.disk_event(done, ends)?;
                    }
                }
                Some(accepted) = from.accepted.recv() => {
                    let Accepted { stream, address, handshake, permit } = accepted;
                    self.connected(stream, address, true, handshake, permit);
                }
                Some(Dialled { address, outcome }) = from.dialled.recv() => match outcome {
                    Some((stream, handshake, permit)) => {
                        self.connected(stream, address, false, handshake, permit);
                    }
                    None => self.tell(Input::DialFailed(address)),
                },
                Some(found) = ends.candidates.recv() => self.heard_of(found),
                Ok(()) = hashes.changed() => self.learn(hashes.borrow_and_update().clone()),
                () = sleep_until(wake) => self.tell(Input::Tick),
                _ = ticks.tick() => {
                    while self.dials.try_join_next().is_some() {}
                    self.publish(ends);
                }
            }
        }
    }

    /// Rules first: a peer that must not be met is not dialled.
    fn heard_of(&mut self, found: Found) {
        if let Some(policy) = found.policy {
            self.tell(Input::Policy(policy));
        }
        self.tell(Input::Candidates(found.peers));
    }

    /// Carries out the engine's outputs until there are no more.
    fn drain_outputs(&mut self) {
        loop {
            while let Some(output) = self.engine.poll() {
                self.carry_out(output);
            }
            self.load_wanted();
            if self.starved && self.pool.available() > 0 {
                self.starved = false;
                self.tell(Input::Tick);
                continue;
            }
            self.starved = self.pool.available() == 0;
            return;
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial(address) => {
                let (shared, dialled) = (Arc::clone(&self.shared), self.to_owner_dialled.clone());
                self.dials.spawn(dial::dial(shared, address, self.spec.meta.info_hash, dialled));
            }
            Output::Send { conn, message } => self.send(conn, Outgoing::Message(message)),
            Output::SendBlock { conn, block } if block.in_frame() => {
                let data = self.frames.get(block).map(Data::Here);
                self.serve_block(conn, block, data);
            }
            Output::SendBlock { conn, block } => {
                if let Some(data) = self.cache.get(conn, block) {
                    self.send(conn, Outgoing::Block(block, data));
                }
            }
            Output::Close { conn, why } => {
                if let Some(peer) = self.conns.remove(&conn) {
                    log::debug!("{}: closing: {why}", peer.address);
                }
            }
            Output::Store { piece, buf, frame } => self.store(piece, buf, frame),
            Output::MakeFrame { piece, at_most } => self.make_frame(piece, at_most),
            Output::Complete => self.begin_sync(),
        }
    }

    fn publish(&self, ends: &Ends) {
        let stats: SwarmStats = self.engine.stats();
        self.window.follow(stats.capacity);
        ends.stats.send_replace(stats);
    }
}
