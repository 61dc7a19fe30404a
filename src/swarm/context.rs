//! The state that all parts of the engine share: configuration, time, connected peers, the random generator
//! and the queue of outputs.
//!
//! The engine owns the one [`Context`] and lends it to the part that decides. Invariant: time never goes
//! back.

use std::collections::VecDeque;
use std::time::Duration;

use crate::rng::Rng;
use crate::swarm::interface::{ConnId, EngineConfig, Output};
use crate::swarm::peers::peer::Peers;
use crate::swarm::wire::flashmob::SchedulingMessage;
use crate::swarm::wire::message::Message;
use crate::units::Now;

/// The state that every part may read and change.
pub(super) struct Context {
    pub config: EngineConfig,
    pub now: Now,
    pub peers: Peers,
    pub rng: Rng,
    pub out: Outputs,
}

impl Context {
    /// A context at time zero without peers.
    pub(super) fn new(config: EngineConfig) -> Self {
        let rng = Rng::new(config.seed);
        Context { config, now: Now::ZERO, peers: Peers::new(), rng, out: Outputs::default() }
    }

    /// The names of all connections, for loops that change peers.
    pub(crate) fn conns(&self) -> Vec<ConnId> {
        self.peers.keys().copied().collect()
    }

    /// How long until the limit lets a piece or block come that is asked for now.
    pub(crate) fn receives_in(&self) -> Duration {
        self.config.limit.receives_in(self.now)
    }

    /// Counts `bytes` that were asked for.
    pub(crate) fn pay_received(&self, bytes: u32) {
        self.config.limit.pay_received(u64::from(bytes) * u64::from(self.config.scale), self.now);
    }

    /// Sends a message of our extension to `conn`, if it is connected and speaks the extension.
    pub(crate) fn send_scheduling(&mut self, conn: ConnId, message: &SchedulingMessage) {
        if let Some(id) = self.peers.get(&conn).and_then(|peer| peer.scheduling.id()) {
            self.out.send(conn, Message::Extended { id, payload: message.encode().into() });
        }
    }
}

/// The actions that the driver of the engine is to take, in order.
#[derive(Debug, Default)]
pub(crate) struct Outputs(VecDeque<Output>);

impl Outputs {
    /// Queues `output`.
    pub(super) fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }

    /// Queues `message` for `conn`.
    pub(super) fn send(&mut self, conn: ConnId, message: Message) {
        self.push(Output::Send { conn, message });
    }

    /// Takes the first output.
    pub(super) fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }
}
