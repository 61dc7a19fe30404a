//! A terminal's current state: one shared value that the imaging code writes and the console and the reporter
//! to the server read.
//!
//! Invariant: readers see only complete values, and a writer never waits for a reader. `agent::console` shows
//! it, `agent::attempt` reports it.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::agent::view::View;
use crate::event::{Chosen, Progress, Stage};

/// A cheap handle to the terminal's [`View`]; clones share it.
#[derive(Debug, Clone)]
pub struct Status {
    view: watch::Sender<View>,
    began: Instant,
}

impl Default for Status {
    fn default() -> Self {
        Status::new()
    }
}

impl Status {
    /// A terminal that has just started.
    pub fn new() -> Self {
        Status { view: watch::Sender::new(View::new()), began: Instant::now() }
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
        self.view.send_if_modified(|view| view.note(text));
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
        self.view.send_modify(change);
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
}
