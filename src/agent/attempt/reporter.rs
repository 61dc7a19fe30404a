//! What an attempt tells the server: progress, its log, the outcome; and the orders that come back.
//!
//! Invariant: a server that is away holds up nothing but the telling of the outcome, which has a bound.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::pace::Pace;
use crate::agent::status::Status;
use crate::agent::view::View;
use crate::api::{Assignment, MAX_LOG, Orders, OutcomeReport, ProgressReport};
use crate::event::Outcome;
use crate::io::host::mirror::Unfinished;
use crate::io::net::api_client::{Api, CallError};
use crate::io::net::wake::{self, Sent};
use crate::units::Mac;

/// Bytes of the lines that are handed over while the attempt goes on.
const LATEST: usize = 64 << 10;
/// How long a leaving terminal tries to hand over the last lines.
const LAST_LOG: Duration = Duration::from_secs(5);
/// Machines that one answer of the server may have this terminal wake.
const MOST_WOKEN: usize = 64;

/// Reports the attempt's progress to the server, and passes on its orders.
pub(super) struct Reporter {
    api: Api,
    assignment: Assignment,
    status: Status,
    pace: Pace,
    orders: watch::Sender<Orders>,
    /// The changes of the journal that the server has; `None` once it has said that it takes no logs.
    logged: Cell<Option<u64>>,
}

impl Reporter {
    pub(super) fn begin(
        api: &Api,
        assignment: &Assignment,
        status: &Status,
        pace: Pace,
        orders: watch::Sender<Orders>,
    ) -> Self {
        let (journal, Assignment { attempt, token, job, .. }) = (status.journal(), assignment);
        let tickets = assignment.tasks().filter_map(|task| task.ticket.as_ref());
        let own = assignment.personal.iter().map(|personal| &personal.ticket);
        tickets.chain(own).chain([token]).for_each(|secret| journal.hide(secret));
        journal.say(&format!("attempt {attempt} of job {job} begins: {}", assignment.title()));
        journal.attempt(Some(&Unfinished {
            server: api.base().to_owned(),
            attempt: *attempt,
            token: token.clone(),
        }));
        let (api, assignment, status) = (api.clone(), assignment.clone(), status.clone());
        Reporter { api, assignment, status, pace, orders, logged: Cell::new(Some(0)) }
    }

    /// Reports progress and the log for ever.
    pub(super) async fn report(&self) -> Infallible {
        tokio::select! {
            never = self.progress() => never,
            never = self.latest_lines() => never,
        }
    }

    /// Hands over the newest lines again and again, so that the server has them when this machine loses its
    /// power.
    async fn latest_lines(&self) -> Infallible {
        // What is seen at the start is worth the most, and the first minute is long.
        let mut pause = self.pace.log / 12;
        loop {
            tokio::time::sleep(pause).await;
            self.log(LATEST).await;
            pause = self.pace.log;
        }
    }

    /// Hands over the newest `most` bytes of the log if there is something new. A log that is lost stops
    /// nothing.
    pub(super) async fn log(&self, most: usize) {
        let journal = self.status.journal();
        let changes = journal.changes();
        if self.logged.get().is_none_or(|logged| logged == changes) {
            return;
        }
        let Ok(packed) = journal.pack(most) else { return };
        match self.api.log(self.assignment.attempt, &self.assignment.token, packed).await {
            Ok(()) => self.logged.set(Some(changes)),
            // An older server, or an attempt that is over.
            Err(CallError::Refused(rejected)) if [404, 405].contains(&rejected.status) => {
                self.logged.set(None)
            }
            Err(e) => log::debug!("the log is not handed over: {e}"),
        }
    }

    /// Hands over all of the log at the attempt's end.
    pub(super) async fn end(&self) {
        let _ = tokio::time::timeout(LAST_LOG, self.log(MAX_LOG)).await;
        self.status.journal().attempt(None);
    }

    /// Reports progress for ever.
    async fn progress(&self) -> Infallible {
        let mut away = false;
        loop {
            match self.progress_once().await {
                Ok(()) => {
                    if away {
                        self.status.note("the server answers again");
                    }
                    away = false;
                }
                Err(e) => {
                    if !away {
                        self.status.note(format!("{e}; going on without the server"));
                    }
                    away = true;
                }
            }
            tokio::time::sleep(self.pace.report).await;
        }
    }

    pub(super) async fn progress_once(&self) -> Result<(), CallError> {
        let View { progress, chosen, .. } = self.status.view();
        let report = ProgressReport { token: self.assignment.token.clone(), progress, chosen };
        let orders = self.api.progress(self.assignment.attempt, &report).await?;
        self.hear(orders);
        Ok(())
    }

    /// Shows and reports an outcome after which the terminal leaves. An unreachable server learns of it by
    /// the terminal's silence.
    pub(super) async fn last(&self, outcome: Outcome) {
        self.status.change(|view| view.outcome = Some(outcome.clone()));
        let _ = self.outcome(outcome, self.pace.tell).await;
        self.end().await;
    }

    /// Reports the outcome until the server has it or the time is over.
    pub(super) async fn outcome(&self, outcome: Outcome, within: Duration) -> Result<(), CallError> {
        let end = Instant::now() + within;
        let report = OutcomeReport { token: self.assignment.token.clone(), outcome };
        loop {
            match self.api.outcome(self.assignment.attempt, &report).await {
                Ok(orders) => {
                    self.hear(orders);
                    return Ok(());
                }
                Err(CallError::Refused(rejected)) if rejected.status < 500 => {
                    self.status.note(format!("the outcome is not taken: {rejected}"));
                    return Err(CallError::Refused(rejected));
                }
                Err(e) if Instant::now() + self.pace.report >= end => return Err(e),
                Err(_) => tokio::time::sleep(self.pace.report * 3).await,
            }
        }
    }

    fn hear(&self, mut orders: Orders) {
        wake(std::mem::take(&mut orders.wake));
        self.orders.send_if_modified(|old| std::mem::replace(old, orders.clone()) != orders);
    }
}

/// Hands over the log of an attempt that ended in a crash of the worker before this one, if it was one of the
/// server behind `api`.
pub(crate) async fn tell_crash(api: &Api, status: &Status) {
    let journal = status.journal();
    let Some(Unfinished { attempt, token, .. }) = journal.crashed(api.base()) else { return };
    if let Ok(packed) = journal.pack(MAX_LOG)
        && let Err(e) = api.log(attempt, &token, packed).await
    {
        log::warn!("the log of attempt {attempt}, which ended in a crash, cannot be handed over: {e}");
    }
    journal.attempt(None);
}

/// Wakes machines of this terminal's networks for a server in another one. A packet that is lost is ordered
/// again.
fn wake(macs: Vec<String>) {
    let macs: Vec<Mac> = macs.iter().take(MOST_WOKEN).filter_map(|mac| mac.parse().ok()).collect();
    if macs.is_empty() {
        return;
    }
    tokio::task::spawn_blocking(move || match wake::send(&macs) {
        Ok(Sent { problems, .. }) if problems.is_empty() => {}
        Ok(Sent { problems, .. }) => log::warn!("cannot wake other terminals: {}", problems.join("; ")),
        Err(e) => log::warn!("cannot wake other terminals: {e}"),
    });
}
