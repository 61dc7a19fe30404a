//! The engine itself: dispatches inputs to the parts that decide.

use std::collections::VecDeque;
use std::sync::Arc;

use super::geometry::{Geometry, PieceShape};
use super::interface::{EngineConfig, Input, Output, SwarmStats};
use crate::buf::BufPool;
use crate::units::Now;

/// One torrent's state machine.
pub struct Engine {
    config: EngineConfig,
    pool: BufPool,
    shape: Arc<dyn PieceShape>,
    out: VecDeque<Output>,
    now: Now,
    geometry: Geometry,
}

impl Engine {
    /// An engine for one torrent. `None` if `config`'s lengths make no torrent, its bitfield is of another
    /// one, or the pool's buffers are shorter than a piece.
    pub fn new(config: EngineConfig, pool: BufPool, shape: Arc<dyn PieceShape>) -> Option<Self> {
        let geometry = Geometry::new(config.piece_length, config.total_length)?;
        let fits =
            pool.buf_len() >= config.piece_length as usize && config.have.pieces() == geometry.pieces();
        fits.then(|| Engine { config, pool, shape, out: VecDeque::new(), now: Now::ZERO, geometry })
    }

    /// Takes what happened at `now`. Drain [`poll`](Self::poll) afterwards.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = self.now.max(now);
        let _ = (input, &self.pool, &self.shape, &self.geometry);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Now> {
        None
    }

    /// A snapshot.
    pub fn stats(&self) -> SwarmStats {
        SwarmStats { pieces: self.config.have.pieces(), ..SwarmStats::default() }
    }
}
