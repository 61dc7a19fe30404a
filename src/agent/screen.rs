//! Keeps the consoles up to date with the terminal's status.
//!
//! Invariant: one thread for each console, so that a serial line that blocks holds up neither the work nor
//! the screen. Screens are redrawn every second; lines get a log: each change once, progress every
//! [`PROGRESS_EVERY`].

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::agent::console;
use crate::agent::status::{Status, View};
use crate::event::{Outcome, Stage};
use crate::io::host::console::Console;

/// How often a log gets a line of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
const REDRAW_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the end waits for a console that blocks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Turns views into log lines: the changes since the last one.
#[derive(Debug, Default)]
pub struct Log {
    facts: [String; 5],
    stage: Option<Stage>,
    notes: u64,
    progress: Option<Duration>,
    outcome: Option<Outcome>,
}

impl Log {
    /// Text to append, possibly empty. `now` is the time since any fixed moment.
    pub fn update(&mut self, view: &View, now: Duration) -> String {
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
        let due = moving && self.progress.is_none_or(|last| now >= last + PROGRESS_EVERY);
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
                text.push_str(&console::outcome_text(outcome));
            }
        }
        text
    }
}

/// The threads that write to the consoles.
pub(crate) struct Screens {
    writers: Vec<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Screens {
    /// Starts to show `status` on `consoles`.
    pub(crate) fn start(consoles: Vec<Console>, status: &Status) -> Self {
        let began = Instant::now();
        let start = |console: Console| -> Option<(mpsc::Sender<()>, JoinHandle<()>)> {
            let (stop, stopped) = mpsc::channel();
            let status = status.clone();
            let write = move || match console.is_screen() {
                true => draw(console, &status, &stopped),
                false => append(console, &status, &stopped, began),
            };
            match std::thread::Builder::new().name("console".into()).spawn(write) {
                Ok(writer) => Some((stop, writer)),
                // The terminal can do its work unseen, and the server's page shows how far it is.
                Err(e) => {
                    log::error!("cannot start a thread for a console, which stays dark: {e}");
                    None
                }
            }
        };
        Screens { writers: consoles.into_iter().filter_map(start).collect() }
    }

    /// Shows the last state and ends. A console that blocks is left alone.
    pub(crate) fn finish(self) {
        let end = Instant::now() + PATIENCE;
        let (stops, threads): (Vec<_>, Vec<_>) = self.writers.into_iter().unzip();
        drop(stops);
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Redraws a screen until the stop signal.
fn draw(mut console: Console, status: &Status, stopped: &mpsc::Receiver<()>) {
    // Screens that go dark after ten minutes (console_codes(4)) would hide the outcome; the cursor only
    // blinks.
    let mut result = console.write("\x1b[9;0]\x1b[14;0]\x1b[?25l\x1b[2J");
    loop {
        let last = !matches!(stopped.recv_timeout(REDRAW_EVERY), Err(RecvTimeoutError::Timeout));
        let (columns, rows) = console.size();
        result = result.and_then(|()| console.write(&console::screen(&status.view(), columns, rows)));
        if last || result.is_err() {
            return;
        }
    }
}

/// Appends to a line until the stop signal.
fn append(mut console: Console, status: &Status, stopped: &mpsc::Receiver<()>, began: Instant) {
    let mut log = Log::default();
    loop {
        let last = !matches!(stopped.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Timeout));
        let text = log.update(&status.view(), began.elapsed()).replace('\n', "\r\n");
        if (!text.is_empty() && console.write(&text).is_err()) || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Failure;

    #[test]
    fn a_log_has_each_change_once_and_progress_every_five_seconds() {
        let status = Status::new();
        let mut log = Log::default();
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
