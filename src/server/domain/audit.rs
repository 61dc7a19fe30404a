//! What people did: one entry for each action, also for those that were refused.
//!
//! Invariant: an entry is stored with the change that it is about, or not at all. `store` keeps entries as
//! long as `[history] keep_days` says.

use std::time::Duration;

/// The longest text of an entry that callers choose.
const LONGEST: usize = 200;

/// One action of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub at: Duration,
    /// The name of the person's token, and the address of the call.
    pub who: String,
    /// One word, as in the commands: `retry`, `cancel`.
    pub action: String,
    /// The terminal, token or job that it was about.
    pub subject: String,
    /// More about it; `refused: …` if it did not happen.
    pub detail: String,
}

impl Entry {
    /// An entry with texts that are short.
    pub(crate) fn new(at: Duration, who: String, action: &str, subject: &str, detail: &str) -> Entry {
        let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        Entry { at, who, action: short(action), subject: short(subject), detail: short(detail) }
    }
}
