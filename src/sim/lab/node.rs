//! The nodes of a lab and the connections between them.

use crate::sim::frames::FrameStore;
use crate::sim::link::{Link, PipeId};
use crate::sim::spec::NodeSpec;
use crate::swarm::{CloseReason, Engine};
use crate::units::Now;

/// One node at work.
pub struct Node {
    pub(super) spec: NodeSpec,
    pub(super) engine: Option<Engine>,
    pub(super) link: Link,
    pub(super) woken_at: Option<Now>,
    pub(super) disk_free: Now,
    /// The frames that it keeps, and whose each is.
    pub(super) frames: FrameStore,
    pub(super) vanished: bool,
    pub finished: Option<Now>,
    pub payload_out: u64,
    pub closes: Vec<CloseReason>,
}

impl Node {
    /// A node that is still off.
    pub(super) fn new(spec: &NodeSpec, scale: u32) -> Self {
        Node {
            spec: spec.clone(),
            engine: None,
            link: Link::new(spec.rate, scale as usize),
            woken_at: None,
            disk_free: Now::ZERO,
            frames: FrameStore::new(spec.frames),
            vanished: false,
            finished: None,
            payload_out: 0,
            closes: Vec::new(),
        }
    }

    /// Its specification.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// The fraction of its wanted pieces that it has.
    pub(crate) fn part_done(&self) -> f32 {
        let stats = self.engine.as_ref().map(Engine::stats).unwrap_or_default();
        if stats.pieces == 0 { 0.0 } else { stats.pieces_done as f32 / stats.pieces as f32 }
    }

    /// Its engine, while it is on.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }
}

/// An open connection: its two nodes, and its pipes there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conn {
    pub(super) ends: [usize; 2],
    pub(super) pipes: [PipeId; 2],
}

impl Conn {
    pub(super) fn pipe_of(&self, node: usize) -> PipeId {
        self.pipes[usize::from(self.ends[0] != node)]
    }

    pub(super) fn other(&self, node: usize) -> usize {
        self.ends[usize::from(self.ends[0] == node)]
    }
}
