//! Jobs as the API, the page and the command line show them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::CheckFinding;

use super::{Job, Jobs, Member, Overrun, Phase, State};

/// A job in a list.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    pub number: u64,
    /// `name@version` of each image.
    pub images: String,
    /// The terminals are only looked at.
    #[serde(default)]
    pub preflight: bool,
    pub targets: Vec<String>,
    pub note: String,
    pub by: String,
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    pub phase: Phase,
    pub cancelled: bool,
    /// The number of this run; more than 1 only in a standing job.
    pub run: u32,
    #[schema(value_type = String, format = DateTime)]
    pub opens: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub closes: Timestamp,
    /// Until when terminals may begin that a person retried when the rest of the window was too short.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub again_until: Option<Timestamp>,
    /// When the next run of a standing job opens.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next: Option<Timestamp>,
    /// The calendar of a standing job, for example `mon-fri 22:00`.
    pub every: Option<String>,
    pub follow: bool,
    pub wave: Option<u32>,
    pub attempts: u32,
    pub wake: bool,
    pub overrun: Overrun,
    /// What each terminal may use of its link, each way, in Mbit/s.
    #[serde(default)]
    pub limit_mbit: Option<u32>,
    /// The forecast for one terminal, seconds.
    pub needs: u64,
    /// How many terminals are in each state.
    pub counts: BTreeMap<String, usize>,
}

/// A terminal in a run of a job.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    pub terminal: String,
    pub label: Option<String>,
    pub state: State,
    /// Why it is in this state.
    pub reason: String,
    /// Its attempts in this run.
    pub tries: u32,
    pub attempt: Option<u64>,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// What is known of the system that its attempt installed: imaged, personalised, booted.
    #[serde(default)]
    pub system: Option<String>,
    /// What its preflight found, errors first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<CheckFinding>,
}

/// A job with the terminals of its run.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub job: JobView,
    /// Those that need a person first.
    pub terminals: Vec<MemberView>,
}

impl MemberView {
    /// A terminal's place in a run.
    pub(crate) fn of(terminal: &str, member: &Member, label: Option<String>) -> Self {
        MemberView {
            terminal: terminal.into(),
            label,
            state: member.state,
            reason: member.reason.clone(),
            tries: member.attempts(),
            attempt: member.attempt,
            since: member.since,
            system: None,
            findings: member.findings.clone(),
        }
    }
}

/// One run of a job.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastRun {
    pub job: u64,
    /// Counted from 1.
    pub run: u32,
    /// Those that need a person first.
    pub terminals: Vec<MemberView>,
}

impl PastRun {
    pub(crate) fn of(job: u64, run: u32, mut terminals: Vec<MemberView>) -> Self {
        sort(&mut terminals);
        PastRun { job, run, terminals }
    }
}

impl Jobs {
    /// A job in a list.
    pub fn view(&self, job: &Job) -> JobView {
        let mut counts = BTreeMap::new();
        for (_, member) in self.members(job.number) {
            *counts.entry(member.state.word().to_string()).or_default() += 1;
        }
        JobView {
            number: job.number,
            images: job.terms.title(),
            preflight: job.terms.preflight,
            targets: job.targets.clone(),
            note: job.note.clone(),
            by: job.by.clone(),
            created: job.created,
            phase: job.run.phase,
            cancelled: job.cancelled,
            run: job.run.number,
            opens: job.run.opens,
            closes: job.run.closes,
            again_until: self.again_until(job),
            next: job.next,
            every: job.standing.as_ref().map(|standing| standing.every.to_string()),
            follow: job.standing.as_ref().is_some_and(|standing| standing.follow),
            wave: job.pace.wave,
            attempts: job.pace.attempts,
            wake: job.pace.wake,
            overrun: job.pace.overrun,
            limit_mbit: job.terms.limit_mbit,
            needs: job.needs,
            counts,
        }
    }

    /// The end of the latest window that a retry opened for terminals of its own, while one is in it.
    fn again_until(&self, job: &Job) -> Option<Timestamp> {
        let unfinished = self.members(job.number).filter(|(_, member)| !member.state.is_final());
        unfinished.filter_map(|(_, member)| member.until).max()
    }

    /// A job with its terminals. `label` knows their labels, `system` what their attempts installed.
    pub(crate) fn report(
        &self,
        job: &Job,
        label: impl Fn(&str) -> Option<String>,
        system: impl Fn(&str, Option<u64>) -> Option<String>,
    ) -> Report {
        let row = |(terminal, member): (&str, &Member)| {
            let mut row = MemberView::of(terminal, member, label(terminal));
            row.system = system(terminal, member.attempt);
            if let Some(why) = self.why_not_yet(terminal, job.number).filter(|_| row.state == State::Waiting)
            {
                row.reason = why;
            }
            row
        };
        let mut terminals: Vec<MemberView> = self.members(job.number).map(row).collect();
        sort(&mut terminals);
        Report { job: self.view(job), terminals }
    }
}

/// Those that need a person first.
fn sort(terminals: &mut [MemberView]) {
    terminals.sort_by_key(|row| (urgency(row.state), row.label.clone(), row.terminal.clone()));
}

/// Lower is shown first.
fn urgency(state: State) -> u8 {
    match state {
        State::Failed => 0,
        State::Asleep => 1,
        State::Missed => 2,
        State::Cancelled => 3,
        State::Running => 4,
        State::Waiting => 5,
        State::Done => 6,
    }
}
