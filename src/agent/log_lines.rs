//! A terminal's changes as lines of text, for serial lines and for the attempt's log.
//!
//! Invariant: each change appears once, and progress not more often than asked for.

use std::time::Duration;

use crate::agent::console;
use crate::agent::view::View;
use crate::event::{Outcome, Stage};

/// Turns views into lines: the changes since the last one.
#[derive(Debug)]
pub(crate) struct LogLines {
    progress_every: Duration,
    show_outcome: fn(&Outcome) -> String,
    facts: [String; 5],
    stage: Option<Stage>,
    notes: u64,
    progress: Option<Duration>,
    outcome: Option<Outcome>,
}

impl LogLines {
    pub(crate) fn new(progress_every: Duration, show_outcome: fn(&Outcome) -> String) -> Self {
        LogLines {
            progress_every,
            show_outcome,
            facts: Default::default(),
            stage: None,
            notes: 0,
            progress: None,
            outcome: None,
        }
    }

    /// Text to append, possibly empty. `now` is the time since any fixed moment.
    pub(crate) fn update(&mut self, view: &View, now: Duration) -> String {
        let mut text = String::new();
        let mut say = |line: &str| {
            text.extend(line.chars().filter(|c| !c.is_control()));
            text.push('\n');
        };
        let facts = [
            ("machine", &view.machine),
            ("address", &view.address),
            ("server", &view.server),
            ("image", &view.image),
            ("disk", &view.disk),
        ];
        for (said, (name, fact)) in self.facts.iter_mut().zip(facts) {
            if said != fact && !fact.is_empty() {
                said.clone_from(fact);
                say(&format!("flashmob: {name} {fact}"));
            }
        }
        let moving = matches!(view.progress.stage, Stage::Fetch | Stage::Verify | Stage::Serve);
        let due = moving && self.progress.is_none_or(|last| now >= last + self.progress_every);
        if self.stage != Some(view.progress.stage) || due {
            self.stage = Some(view.progress.stage);
            self.progress = Some(now);
            say(&console::line(&view.progress));
        }
        for note in view.notes_since(self.notes) {
            say(&format!("flashmob: {note}"));
        }
        self.notes = view.notes_said;
        if self.outcome != view.outcome {
            self.outcome.clone_from(&view.outcome);
            if let Some(outcome) = &view.outcome {
                text.push_str(&(self.show_outcome)(outcome));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::status::Status;
    use crate::event::Failure;

    #[test]
    fn a_log_has_each_change_once_and_progress_every_five_seconds() {
        let status = Status::new();
        let mut log = LogLines::new(Duration::from_secs(5), console::outcome_text);
        let mut at = |seconds: u64| log.update(&status.view(), Duration::from_secs(seconds));
        assert_eq!(at(0), "flashmob: starting\n");
        assert_eq!(at(9), "");
        status.change(|view| view.address = "10.0.0.7/24 on eth0".into());
        status.note("eth1: no cable");
        status.stage(Stage::Fetch);
        assert_eq!(
            at(10),
            "flashmob: address 10.0.0.7/24 on eth0\n\
             flashmob: fetching the image 0% 0.0 MB/s in 0.0 MB/s out 0 peers\n\
             flashmob: eth1: no cable\n"
        );
        status.progress(|p| p.percent = 50.0);
        assert_eq!(at(14), "");
        assert!(at(15).starts_with("flashmob: fetching the image 50% "));
        let failure = Failure::disk("disk vda: write failed", "replace it");
        status.change(|view| {
            view.outcome = Some(Outcome::Failed { stage: Stage::Fetch, failure, disk_touched: true });
        });
        assert!(at(16).contains("flashmob: why: disk vda: write failed\n"));
        assert_eq!(at(17), "");
    }
}
