//! One terminal in one run of a job: its state, and what each event makes of it.
//!
//! ```text
//!             take                  outcome: done
//!  waiting ─────────► running ───────────────────────► done
//!   ▲  │ ▲               │  │ failed, interrupted:           retry, by name
//!   │  │ └───────────────┘  └─ after the last try ──► failed ────────┐
//!   │  ├── the window ends ──► missed, asleep ───────────────────────┤ retry
//!   │  └── a person cancels (also running) ──► cancelled ────────────┤
//!   └────────────────────────────────────────────────────────────────┘
//! ```
//! In a preflight `done` is "checked without an error".
//!
//! Invariant: a done member waits again only by a person's word. A terminal's own outcome "done" stands in
//! every state, because the image is on its disk.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::Compare;
use crate::event::{CheckFinding, Severity};

/// Where a terminal stands in a run.
#[derive(utoipa::ToSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has not begun, or begins again.
    Waiting,
    /// An attempt holds the lease.
    Running,
    Done,
    Failed,
    /// A person stopped it, or the window ended and the job says stop.
    Cancelled,
    /// The window ended before it began.
    Missed,
    /// It did not wake before the window ended.
    Asleep,
}

impl State {
    pub(crate) const ALL: [State; 7] = [
        State::Waiting,
        State::Running,
        State::Done,
        State::Failed,
        State::Cancelled,
        State::Missed,
        State::Asleep,
    ];

    /// Nothing more happens without a person.
    pub fn is_final(self) -> bool {
        !matches!(self, State::Waiting | State::Running)
    }

    /// The state for people and in files.
    pub fn word(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Missed => "missed",
            State::Asleep => "asleep",
        }
    }
}

/// One terminal in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub state: State,
    /// Attempts since a person last let it begin.
    pub tries: u32,
    /// Attempts in this run before that.
    #[serde(default)]
    pub earlier: u32,
    /// Its latest attempt in this run.
    pub attempt: Option<u64>,
    /// When the state changed.
    pub since: Timestamp,
    /// Why it is in this state.
    pub reason: String,
    /// A person's choice for the next attempt.
    pub compare: Option<Compare>,
    /// The end of its own window, if a person retried it when the rest of the run's was too short.
    pub until: Option<Timestamp>,
    /// It spoke since the run opened.
    pub heard: bool,
    /// A person took it out: it is in no further run until a person retries it.
    #[serde(default)]
    pub out: bool,
    /// What its preflight found, errors first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<CheckFinding>,
}

impl Member {
    pub(crate) fn waiting(since: Timestamp) -> Self {
        Member {
            state: State::Waiting,
            tries: 0,
            earlier: 0,
            attempt: None,
            since,
            reason: String::new(),
            compare: None,
            until: None,
            heard: false,
            out: false,
            findings: Vec::new(),
        }
    }

    /// Its attempts in this run.
    pub(crate) fn attempts(&self) -> u32 {
        self.earlier.saturating_add(self.tries)
    }

    pub(super) fn enter(&mut self, state: State, since: Timestamp, reason: impl Into<String>) {
        self.state = state;
        self.since = since;
        self.reason = reason.into();
    }

    /// An attempt begins.
    pub(super) fn take(&mut self, attempt: u64, since: Timestamp) {
        self.tries = self.tries.saturating_add(1);
        self.attempt = Some(attempt);
        self.heard = true;
        self.findings.clear();
        self.enter(State::Running, since, "");
    }

    /// An attempt ended without success: it begins again while tries are left.
    pub(super) fn try_again_or_fail(&mut self, attempts: u32, since: Timestamp, reason: &str) {
        let state = if self.tries < attempts { State::Waiting } else { State::Failed };
        self.enter(state, since, reason);
    }

    /// A preflight looked at it. Its reason is the finding to be looked at first.
    pub(super) fn checked(&mut self, findings: &[CheckFinding], since: Timestamp) {
        self.findings = findings.to_vec();
        self.findings.sort_by_key(|finding| finding.severity);
        let worst = self.findings.first();
        let state = match worst.map(|finding| finding.severity) {
            Some(Severity::Error) => State::Failed,
            Some(Severity::Warning) | None => State::Done,
        };
        let reason = worst.map(|finding| finding.what.clone()).unwrap_or_default();
        self.enter(state, since, reason);
    }

    /// A person lets it begin again, until `until` if the rest of the run's own window is too short.
    pub(super) fn retry(&mut self, compare: Option<Compare>, until: Option<Timestamp>, since: Timestamp) {
        self.earlier = self.attempts();
        self.tries = 0;
        self.compare = compare;
        self.until = until;
        self.heard = false;
        self.out = false;
        self.enter(State::Waiting, since, "");
    }
}
