//! A terminal's current state: one shared value that the imaging code writes and the console and the reporter
//! to the server read.
//!
//! Invariant: readers see only complete values, and a writer never waits for a reader. `agent::console` shows
//! it, `agent::attempt` reports it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::agent::journal::Journal;
use crate::agent::log_lines::LogLines;
use crate::agent::view::View;
use crate::event::{Chosen, Outcome, Progress, Stage};
use crate::sync;

/// How often the attempt's log gets a line of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// A cheap handle to the terminal's [`View`]; clones share it.
#[derive(Debug, Clone)]
pub struct Status {
    view: watch::Sender<View>,
    began: Instant,
    /// What the journal was told of the view.
    told: Arc<Mutex<LogLines>>,
    journal: Journal,
}

impl Default for Status {
    fn default() -> Self {
        Status::new()
    }
}

impl Status {
    /// A terminal that has just started.
    pub fn new() -> Self {
        Status::with_journal(Journal::default())
    }

    /// The same with a journal that is told of all changes.
    pub(crate) fn with_journal(journal: Journal) -> Self {
        Status {
            view: watch::Sender::new(View::new()),
            began: Instant::now(),
            told: Arc::new(Mutex::new(LogLines::new(PROGRESS_EVERY, Outcome::title))),
            journal,
        }
    }

    /// What is told to the server as the attempt's log.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Time since the agent began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Enters `stage`. The progress counters stay unchanged.
    pub fn stage(&self, stage: Stage) {
        self.change(|view| view.progress.stage = stage);
    }

    /// Changes the numbers of the progress in place.
    pub fn progress(&self, change: impl FnOnce(&mut Progress)) {
        self.change(|view| change(&mut view.progress));
    }

    /// Says which disks the job's rules chose.
    pub fn chosen(&self, chosen: Vec<Chosen>) {
        self.change(|view| view.chosen = chosen);
    }

    /// Names the chosen disk for people: name, model, serial number, size.
    pub fn disk(&self, text: impl Into<String>) {
        let text = text.into();
        self.change(|view| view.disk = text);
    }

    /// Adds a line for people: a wait, or a problem that is retried. A line that repeats the last one is
    /// dropped.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        self.view.send_if_modified(|view| {
            let new = view.note(text);
            self.tell(view);
            new
        });
    }

    /// Begins another attempt: progress, disk, image and outcome are as at the start.
    pub(crate) fn begin_attempt(&self, image: impl Into<String>) {
        let image = image.into();
        self.change(|view| {
            view.progress = Progress::at(Stage::Discover);
            view.disk.clear();
            view.chosen.clear();
            view.outcome = None;
            view.image = image;
        });
    }

    pub fn change(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| {
            change(view);
            self.tell(view);
        });
    }

    fn tell(&self, view: &View) {
        let text = sync::lock(&self.told).update(view, self.began.elapsed());
        for line in text.lines() {
            self.journal.say(line.strip_prefix("flashmob: ").unwrap_or(line));
        }
    }

    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// A reader that can wait for changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_view() {
        let status = Status::new();
        let other = status.clone();
        other.stage(Stage::Fetch);
        other.progress(|p| p.bytes_done = 7);
        other.disk("sda");
        let view = status.view();
        assert_eq!(
            (view.progress.stage, view.progress.bytes_done, view.disk.as_str()),
            (Stage::Fetch, 7, "sda")
        );
    }

    #[test]
    fn every_note_and_every_stage_is_in_the_attempts_log() {
        let status = Status::new();
        for n in 0..20 {
            status.note(format!("note {n}"));
        }
        status.stage(Stage::Fetch);
        status.progress(|p| p.percent = 7.0);
        let text = status.journal().text(1 << 20);
        let said: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once("] ")?.1)).collect();
        assert_eq!(said[0], "starting");
        assert_eq!(said[1..21], std::array::from_fn::<_, 20, _>(|n| format!("note {n}")));
        assert!(said[21].starts_with("fetching the image 0%") && said.len() == 22, "{said:?}");
    }
}
