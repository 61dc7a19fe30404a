//! A terminal's system of its own: what an attempt gives it, how far the agent is, and the system's own call
//! once it has started.
//!
//! Invariant: a plain value, pure. The server says "booted" only after the started system's own call, and
//! "personalised" only after the agent's.

use serde::{Deserialize, Serialize};

use crate::api::{After, BootedView, PersonalView};
use crate::server::domain::jobs::Placement;

/// How often a terminal is sent the agent again to finish. One that is cut off more often boots its disk.
const MOST_FINISHES: u32 = 3;

/// Of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Personal {
    /// By the job's rule.
    pub hostname: Option<String>,
    /// The system stays as it was captured: only its filesystems grow.
    #[serde(default)]
    pub as_is: bool,
    /// What the attempt writes where, because the agent finishes without the job.
    pub images: Vec<Placement>,
    pub after: After,
    /// The agent has nothing left to do.
    #[serde(default)]
    pub done: bool,
    #[serde(default)]
    pub steps: Vec<String>,
    #[serde(default)]
    pub problems: Vec<String>,
    /// How often the terminal was sent the agent again to finish.
    #[serde(default)]
    pub finishes: u32,
    /// The started system's call.
    #[serde(default)]
    pub booted: Option<BootedView>,
}

impl Personal {
    pub(crate) fn new(hostname: Option<String>, images: Vec<Placement>, after: After) -> Self {
        Personal {
            hostname,
            as_is: false,
            images,
            after,
            done: false,
            steps: Vec::new(),
            problems: Vec::new(),
            finishes: 0,
            booted: None,
        }
    }

    /// Of a system that stays as it was captured, and whose image lets a partition grow.
    pub(crate) fn growth(images: Vec<Placement>, after: After) -> Self {
        Personal { as_is: true, ..Personal::new(None, images, after) }
    }

    /// Is the agent to finish it at the next boot from the network?
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.done && self.booted.is_none() && self.finishes < MOST_FINISHES
    }

    pub(crate) fn view(&self) -> PersonalView {
        PersonalView {
            as_is: self.as_is,
            hostname: self.hostname.clone(),
            done: self.done,
            steps: self.steps.clone(),
            problems: self.problems.clone(),
            booted: self.booted.clone(),
        }
    }

    /// What the server knows of the system on the disk, for people.
    pub(crate) fn words(&self) -> String {
        if let Some(BootedView { hostname, system, kernel, .. }) = &self.booted {
            let what: Vec<&str> =
                [system, kernel].into_iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
            let what = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
            return format!("booted as {hostname}{what}");
        }
        if self.as_is {
            return match (self.done, self.problems.first()) {
                (true, None) => "imaged".into(),
                (true, Some(problem)) => format!("imaged, not fully grown: {problem}"),
                (false, _) if self.is_unfinished() => "imaged, growth not yet reported".into(),
                (false, _) => "imaged, perhaps not grown: it was cut off each time".into(),
            };
        }
        let named = self.hostname.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
        match (self.done, self.problems.first()) {
            (true, None) => format!("imaged, personalised{named}"),
            (true, Some(problem)) => format!("imaged, not fully personalised: {problem}"),
            (false, _) if self.is_unfinished() => "imaged, not yet personalised".into(),
            (false, _) => "imaged, not personalised: it was cut off each time".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_what_is_known_and_no_more() {
        let mut personal = Personal::new(Some("lab-01".into()), Vec::new(), After::Reboot);
        assert_eq!(personal.words(), "imaged, not yet personalised");
        personal.finishes = MOST_FINISHES;
        assert!(!personal.is_unfinished() && personal.words().contains("cut off"));
        personal.done = true;
        assert_eq!(personal.words(), "imaged, personalised as lab-01");
        personal.problems.push("LVM".into());
        assert_eq!(personal.words(), "imaged, not fully personalised: LVM");
        let booted =
            BootedView { hostname: "lab-01".into(), system: "Debian 12".into(), ..BootedView::default() };
        personal.booted = Some(booted);
        assert_eq!(personal.words(), "booted as lab-01: Debian 12");
    }

    #[test]
    fn a_system_that_stays_as_it_was_captured_is_never_called_personalised() {
        let mut growth = Personal::growth(Vec::new(), After::Reboot);
        assert!(growth.is_unfinished());
        let mut words = vec![growth.words()];
        growth.finishes = MOST_FINISHES;
        words.push(growth.words());
        growth.done = true;
        words.push(growth.words());
        growth.problems.push("it is damaged".into());
        words.push(growth.words());
        assert_eq!(
            words,
            [
                "imaged, growth not yet reported",
                "imaged, perhaps not grown: it was cut off each time",
                "imaged",
                "imaged, not fully grown: it is damaged"
            ]
        );
    }
}
