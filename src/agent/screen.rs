//! Keeps the consoles up to date with the terminal's status.
//!
//! Invariant: one thread for each console, so that a serial line that blocks holds up neither the work nor
//! the screen. Screens are redrawn every second; serial lines get a log of the changes.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::agent::console;
use crate::agent::log_lines::LogLines;
use crate::agent::status::Status;
use crate::io::host::console::Console;

/// How often a serial line gets a line of progress.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_secs(5);
const REDRAW_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the end waits for a console that blocks.
const PATIENCE: Duration = Duration::from_secs(2);

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
    let mut log = LogLines::new(PROGRESS_EVERY, console::outcome_text);
    loop {
        let last = !matches!(stopped.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Timeout));
        let text = log.update(&status.view(), began.elapsed()).replace('\n', "\r\n");
        if (!text.is_empty() && console.write(&text).is_err()) || last {
            return;
        }
    }
}
