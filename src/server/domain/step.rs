//! What a terminal that netboots does next, for the languages of `ipxe` and `grub`.
//!
//! Invariant: plain values; `http::netboot` makes them from the decision of `jobs`.

use crate::api::BootStep;
use crate::server::domain::ipxe::Caller;
use crate::server::domain::{grub, ipxe};

/// The program that asks, which decides the language of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Ipxe,
    /// A GRUB that a distribution signed: Secure Boot refuses iPXE.
    Grub,
}

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

    /// The script for `caller`.
    pub fn script(&self, caller: &Caller, language: Language) -> String {
        match (language, self) {
            (Language::Grub, step) => grub::script(caller, step),
            (Language::Ipxe, Step::Agent { what, ticket, arguments }) => {
                ipxe::agent(caller, what, ticket.as_deref(), arguments)
            }
            (Language::Ipxe, Step::Disk(root_path)) => ipxe::disk(caller, root_path.as_deref()),
            (Language::Ipxe, Step::Hold { error, advice }) => ipxe::hold(caller, error, advice),
            (Language::Ipxe, Step::Queue { why }) => ipxe::queue(caller, why),
        }
    }
}
