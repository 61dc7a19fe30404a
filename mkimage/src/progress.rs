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
    /// For a program: the number that it was told last.
    told: Option<u64>,
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
        Progress { bar, what, total, done: 0, start: now, last_line: now, told: None }
    }

    /// The same, which also prints each percent on stdout if a program `reads` that.
    pub(crate) fn told(self, reads: bool) -> Self {
        Progress { told: reads.then_some(0), ..self }
    }

    /// `bytes` more are done.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let percent = self.percent();
        if let Some(told) = self.told.as_mut().filter(|told| **told != percent) {
            *told = percent;
            println!("percent {percent}");
        }
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

    fn percent(&self) -> u64 {
        let percent = (u128::from(self.done) * 100).checked_div(u128::from(self.total)).unwrap_or(100);
        u64::try_from(percent).unwrap_or(100)
    }

    fn line(&self) {
        let percent = self.percent();
        eprintln!("{}: {percent} % of {}, {}/s", self.what, show_bytes(self.total), show_bytes(self.rate()));
    }
}
