//! One steady clock for the whole server.
//!
//! Invariant: [`Clock::now`] never goes back while the server runs, and setting the machine's date does not
//! move it: every duration is measured by it. It reads as time since 1970 and can be written down; between
//! two starts the date may have been set, so `lab::restart` computes no duration across a start.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The date at the start, and the time since then.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    date_at_start: Duration,
    start: Instant,
}

impl Clock {
    /// A clock that agrees with the machine's date now.
    pub fn start() -> Self {
        let date_at_start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { date_at_start, start: Instant::now() }
    }

    /// Between this clock and the machine's date: someone has set the date meanwhile.
    pub fn off(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().abs_diff(self.now())
    }

    pub fn now(&self) -> Duration {
        self.date_at_start + self.start.elapsed()
    }
}
