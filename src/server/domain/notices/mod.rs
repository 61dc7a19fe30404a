//! What happened in the lab that people outside of it want to hear: the notices that webhooks deliver.
//!
//! [`Watcher`] finds them as the differences between two looks, [`Outbox`] says when each is to be sent.
//!
//! Invariant: pure; time comes in as an argument. What is so at the first look is not news. An outbox is
//! bounded, and keeps the order.

mod outbox;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::server::domain::catalog::Problem;
use crate::server::domain::jobs::{Jobs, Phase, State};

pub(crate) use outbox::{Outbox, Sent};

/// What a webhook can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Every terminal of a run has its final state.
    JobDone,
    /// A terminal of a job failed, did not wake, or missed the window.
    TerminalFailed,
    /// Something that concerns the whole lab waits for a person.
    NeedsMe,
}

/// One notice, as it is posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Notice {
    pub(crate) event: Kind,
    pub(crate) time: Timestamp,
    /// A sentence for people. Chat services show the member with this name.
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) terminal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<State>,
    /// How many terminals of the run are in each state.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) counts: BTreeMap<String, usize>,
}

impl Notice {
    fn new(event: Kind, time: Timestamp, text: String) -> Self {
        let counts = BTreeMap::new();
        Notice { event, time, text, job: None, run: None, terminal: None, label: None, state: None, counts }
    }
}

/// What was so at the last look.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    began: bool,
    /// The run of each job, and whether it was over.
    runs: HashMap<u64, (u32, bool)>,
    /// Terminals of jobs that had failed, with the job's run.
    failed: HashMap<(u64, String), (u32, Timestamp)>,
    problems: HashSet<(String, String)>,
}

impl Watcher {
    /// What is new at `time`. `label` knows the terminals' labels.
    pub(crate) fn look(
        &mut self,
        time: Timestamp,
        jobs: &Jobs,
        problems: &[Problem],
        label: impl Fn(&str) -> Option<String>,
    ) -> Vec<Notice> {
        let mut notices = self.failures(time, jobs, label);
        notices.extend(self.ends(time, jobs));
        notices.extend(self.problems(time, problems));
        if !std::mem::replace(&mut self.began, true) {
            notices.clear();
        }
        notices
    }

    fn failures(
        &mut self,
        time: Timestamp,
        jobs: &Jobs,
        label: impl Fn(&str) -> Option<String>,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut failed = HashMap::new();
        for job in jobs.iter() {
            for (terminal, member) in jobs.members(job.number) {
                if !matches!(member.state, State::Failed | State::Missed | State::Asleep) {
                    continue;
                }
                let (key, is) = ((job.number, terminal.to_string()), (job.run.number, member.since));
                if self.failed.get(&key) != Some(&is) {
                    let name = label(terminal);
                    let shown = name.as_deref().unwrap_or(terminal);
                    let why = match member.reason.as_str() {
                        "" => String::new(),
                        reason => format!(": {reason}"),
                    };
                    let text = format!("{shown} {} in job {}{why}", verb(member.state), job.number);
                    notices.push(Notice {
                        job: Some(job.number),
                        run: Some(job.run.number),
                        terminal: Some(terminal.into()),
                        label: name,
                        state: Some(member.state),
                        ..Notice::new(Kind::TerminalFailed, time, text)
                    });
                }
                failed.insert(key, is);
            }
        }
        self.failed = failed;
        notices
    }

    fn ends(&mut self, time: Timestamp, jobs: &Jobs) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut runs = HashMap::new();
        for job in jobs.iter() {
            let (number, run, over) = (job.number, job.run.number, job.run.phase == Phase::Over);
            let before = self.runs.get(&number).copied();
            runs.insert(number, (run, over));
            let ended = match before {
                _ if over && before != Some((run, true)) => Some((run, jobs.view(job).counts)),
                // The next run of a standing job has replaced the terminals of the one that ended.
                Some((earlier, false)) if earlier < run => Some((earlier, BTreeMap::new())),
                _ => None,
            };
            let Some((run, counts)) = ended else { continue };
            let list: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
            let how = if list.is_empty() { String::new() } else { format!(": {}", list.join(", ")) };
            let text = format!("Job {number} ({}) is over{how}", job.terms.title());
            let notice = Notice::new(Kind::JobDone, time, text);
            notices.push(Notice { job: Some(number), run: Some(run), counts, ..notice });
        }
        self.runs = runs;
        notices
    }

    fn problems(&mut self, time: Timestamp, problems: &[Problem]) -> Vec<Notice> {
        let key = |problem: &Problem| (problem.what.clone(), problem.error.clone());
        let new = problems.iter().filter(|problem| !self.problems.contains(&key(problem)));
        let told = |Problem { what, error, advice }: &Problem| {
            Notice::new(Kind::NeedsMe, time, format!("{what}: {error}. {advice}"))
        };
        let notices = new.map(told).collect();
        self.problems = problems.iter().map(key).collect();
        notices
    }
}

fn verb(state: State) -> &'static str {
    match state {
        State::Missed => "missed its window",
        State::Asleep => "did not wake",
        _ => "failed",
    }
}
