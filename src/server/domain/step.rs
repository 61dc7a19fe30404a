//! What a terminal that netboots does next; `scripts` puts it into the words of the program that asks.
//!
//! Invariant: plain values; `http::netboot` makes them from the decision of `jobs`.

use crate::api::BootStep;

/// A terminal's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Boot the agent, with a ticket that lets it speak.
    Agent { what: String, ticket: Option<String>, arguments: String },
    /// On to the disk: the root path of the system that was imaged (see `boot::start`), if there is one.
    Disk(Option<String>),
    /// The disk holds half a system: wait until a person has decided.
    Hold { error: String, advice: String },
    /// Its turn comes later.
    Queue { why: String },
}

impl Step {
    /// For an agent that asks itself.
    pub fn for_agent(&self) -> BootStep {
        match self {
            Step::Agent { ticket, .. } => BootStep::Work { ticket: ticket.clone() },
            Step::Disk(_) => BootStep::Disk,
            Step::Hold { error, advice } => BootStep::Wait { why: format!("{error}. {advice}") },
            Step::Queue { why } => BootStep::Wait { why: why.clone() },
        }
    }
}
