//! The script for a terminal's next step, in the language of the program that asks.
//!
//! Invariant: pure; `ipxe` and `grub` know the languages.

use crate::server::domain::ipxe::Caller;
use crate::server::domain::step::Step;
use crate::server::domain::{grub, ipxe};

/// The program that asks, which decides the language of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Ipxe,
    /// A GRUB that a distribution signed: Secure Boot refuses iPXE.
    Grub,
}

/// What `caller` does next.
pub(crate) fn script(step: &Step, caller: &Caller, language: Language) -> String {
    match (language, step) {
        (Language::Grub, step) => grub::script(caller, step),
        (Language::Ipxe, Step::Agent { what, ticket, arguments }) => {
            ipxe::agent(caller, what, ticket.as_deref(), arguments)
        }
        (Language::Ipxe, Step::Disk(root_path)) => ipxe::disk(caller, root_path.as_deref()),
        (Language::Ipxe, Step::Hold { error, advice }) => ipxe::hold(caller, error, advice),
        (Language::Ipxe, Step::Queue { why }) => ipxe::queue(caller, why),
    }
}
