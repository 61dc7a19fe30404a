//! What of terminals' captures is stored.
//!
//! Invariant: a capture is stored as long as it is known, so that it survives a restart of the server.

use std::time::Duration;

use super::{Change, Lab};

impl Lab {
    /// The capture of a terminal as it is now, or that it has none.
    pub(crate) fn kept_capture(&self, id: &str) -> Change {
        Change::Capture(id.into(), self.captures.stored(id).map(Box::new))
    }

    /// Ends captures whose program is silent.
    pub(crate) fn end_silent_captures(&mut self, now: Duration) -> Vec<Change> {
        let over = self.captures.remove_silent(now);
        over.iter().map(|id| self.kept_capture(id)).collect()
    }
}
