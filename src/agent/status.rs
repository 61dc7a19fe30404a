//! A terminal's current state: one shared value that the imaging code writes and the console and the reporter
//! to the server read.
//!
//! Invariant: readers see only complete values, and a writer never waits for a reader. `agent::console` shows
//! it, `agent::attempt` reports it.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::event::{Chosen, Outcome, Progress, Stage};

/// Lines kept for people, newest last.
const NOTES: usize = 8;

/// Everything a person in front of the terminal can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// How far the attempt is; the stage is in there.
    pub progress: Progress,
    /// Manufacturer, product, serial number.
    pub machine: String,
    /// Own addresses, for example `10.0.0.7/24 on eth0`.
    pub address: String,
    /// The server's address, once it answered.
    pub server: String,
    /// `name@version`, once there is a job.
    pub image: String,
    /// The chosen disk: name, model, serial number, size.
    pub disk: String,
    /// The disks that the job's rules chose.
    pub chosen: Vec<Chosen>,
    /// Current waits and recent problems, newest last.
    pub notes: Vec<String>,
    /// How many notes there have been in all, so that a reader sees which ones are new.
    pub notes_said: u64,
    /// How the attempt ended, once it did.
    pub outcome: Option<Outcome>,
}

impl View {
    /// Notes added since a reader had seen `seen` notes; it misses those that were dropped.
    pub(crate) fn notes_since(&self, seen: u64) -> &[String] {
        let new = usize::try_from(self.notes_said.saturating_sub(seen)).unwrap_or(usize::MAX);
        &self.notes[self.notes.len() - new.min(self.notes.len())..]
    }
}

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
        let view = View {
            progress: Progress::at(Stage::Start),
            machine: String::new(),
            address: String::new(),
            server: String::new(),
            image: String::new(),
            disk: String::new(),
            chosen: Vec::new(),
            notes: Vec::new(),
            notes_said: 0,
            outcome: None,
        };
        Status { view: watch::Sender::new(view), began: Instant::now() }
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
            if view.notes.last() == Some(&text) {
                return false;
            }
            view.notes.push(text);
            if view.notes.len() > NOTES {
                view.notes.remove(0);
            }
            view.notes_said += 1;
            true
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

    #[test]
    fn a_reader_sees_each_new_note_once_and_the_oldest_are_dropped() {
        let status = Status::new();
        status.note("a");
        status.note("a");
        let seen = status.view().notes_said;
        assert_eq!(seen, 1);
        for n in 0..NOTES + 3 {
            status.note(format!("n{n}"));
        }
        let view = status.view();
        assert_eq!(view.notes.len(), NOTES);
        assert_eq!(view.notes_since(seen).len(), NOTES);
        assert_eq!(view.notes_since(view.notes_said - 2), ["n9", "n10"]);
        assert!(view.notes_since(view.notes_said).is_empty());
    }
}
