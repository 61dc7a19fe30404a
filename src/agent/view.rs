//! A terminal's current state, as people see it on its screen.
//!
//! Invariant: a plain value. `status` shares it, `console` shows it, `log_lines` turns its changes into text.

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
    /// A terminal that has just started.
    pub(crate) fn new() -> Self {
        View {
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
        }
    }

    /// Adds a line for people, unless it repeats the last one.
    pub(crate) fn note(&mut self, text: String) -> bool {
        if self.notes.last() == Some(&text) {
            return false;
        }
        self.notes.push(text);
        if self.notes.len() > NOTES {
            self.notes.remove(0);
        }
        self.notes_said += 1;
        true
    }

    /// Notes added since a reader had seen `seen` notes; it misses those that were dropped.
    pub(crate) fn notes_since(&self, seen: u64) -> &[String] {
        let new = usize::try_from(self.notes_said.saturating_sub(seen)).unwrap_or(usize::MAX);
        &self.notes[self.notes.len() - new.min(self.notes.len())..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_new_note_once_and_the_oldest_are_dropped() {
        let mut view = View::new();
        assert!(view.note("a".into()) && !view.note("a".into()));
        let seen = view.notes_said;
        assert_eq!(seen, 1);
        for n in 0..NOTES + 3 {
            view.note(format!("n{n}"));
        }
        assert_eq!(view.notes.len(), NOTES);
        assert_eq!(view.notes_since(seen).len(), NOTES);
        assert_eq!(view.notes_since(view.notes_said - 2), ["n9", "n10"]);
        assert!(view.notes_since(view.notes_said).is_empty());
    }
}
