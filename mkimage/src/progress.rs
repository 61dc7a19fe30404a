//! How far it is: a bar where a person looks on, a line now and then where not.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use flashmob::units::show_bytes;
use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines if the output is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Progress on stderr over a known number of bytes.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    done: u64,
    start: Instant,
    last_line: Instant,
}

impl Progress {
    /// Begins at 0 of `total` bytes.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = ProgressStyle::with_template(
                "{msg} [{wide_bar}] {percent:>3}% {binary_bytes}/{binary_total_bytes} \
                 {binary_bytes_per_sec} {eta}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what);
            bar
        });
        let now = Instant::now();
        Progress { bar, what, total, done: 0, start: now, last_line: now }
    }

    /// `bytes` more are done.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        match &self.bar {
            Some(bar) => bar.set_position(self.done),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                self.line();
            }
            None => {}
        }
    }

    /// It is over, well or not.
    pub(crate) fn finish(&self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => self.line(),
        }
    }

    /// Seconds since the beginning.
    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Bytes a second since the beginning.
    pub(crate) fn rate(&self) -> u64 {
        let nanos = self.start.elapsed().as_nanos().max(1);
        u64::try_from(u128::from(self.done) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
    }

    fn line(&self) {
        let percent =
            if self.total == 0 { 100 } else { u128::from(self.done) * 100 / u128::from(self.total) };
        eprintln!("{}: {percent} % of {}, {}/s", self.what, show_bytes(self.total), show_bytes(self.rate()));
    }
}
