//! One steady clock for the whole server.
//!
//! Invariant: [`Clock::now`] never goes back; it reads as time since 1970 and can be written down and compared after
//! a restart. When the machine's date is set while the server runs, it keeps its own count until the next start.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The date at the start, and what has gone by since.
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

    /// Time since 1970.
    pub fn now(&self) -> Duration {
        self.date_at_start + self.start.elapsed()
    }
}
