//! How fast an attempt repeats what it repeats.

use std::time::Duration;

/// How fast things are repeated; tests are faster.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two reports of progress.
    pub report: Duration,
    /// Before the second try; the third waits three times as long.
    pub again: Duration,
    /// How long the agent tries to report a failure to a server that is away.
    pub tell: Duration,
    /// How long leaving the swarm may take.
    pub leave: Duration,
    /// Between two checks for new lines in the attempt's log.
    pub log: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            report: Duration::from_secs(1),
            again: Duration::from_secs(10),
            tell: Duration::from_secs(300),
            leave: Duration::from_secs(10),
            log: Duration::from_secs(60),
        }
    }
}
