//! The output of a running `make`, `get` or `seed`, for people and programs.
//!
//! Invariant: with `--json`, one event a line on the standard output, flushed, and no other output there;
//! without it a bar on the standard error, or a line every ten seconds if that is not a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::event::{Event, Failure, Progress, Stage};
use crate::io::torrent::{Phase, Swarm};
use crate::units::show_bytes;

/// Between two lines if the output is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows how far it is.
pub(super) struct Show {
    json: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    started: Instant,
    trouble: Option<String>,
}

impl Show {
    pub(super) fn new(json: bool, total: u64) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total);
            let template = "{msg} [{wide_bar}] {percent:>3}% {binary_bytes}/{binary_total_bytes} {prefix}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Show { json, bar, last_line: None, started: Instant::now(), trouble: None }
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// A swarm's state; called about once a second.
    pub(super) fn swarm(&mut self, swarm: &Swarm) {
        let progress = progress_of(swarm);
        let trouble = swarm.trouble();
        if trouble != self.trouble {
            if let (Some(bar), Some(text)) = (&self.bar, &trouble) {
                bar.println(text);
            }
            self.trouble = trouble;
        }
        if self.json {
            return emit(&Event::Progress(progress));
        }
        let what = match swarm.phase() {
            Phase::Checking { .. } => "checking",
            Phase::Complete => "seeding",
            _ => "fetching",
        };
        let details = format!(
            "in {}/s out {}/s, {} peers",
            show_bytes(progress.rate_in),
            show_bytes(progress.rate_out),
            progress.peers
        );
        let done = match swarm.phase() {
            Phase::Checking { bytes } => bytes,
            _ => progress.bytes_done,
        };
        self.bytes(what, done, progress.bytes_total, &details);
    }

    pub(super) fn bytes(&mut self, what: &'static str, done: u64, total: u64, details: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what);
            bar.set_prefix(details.to_owned());
            bar.set_position(done);
        } else if !self.json && self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let percent = percent(done, total);
            eprintln!("{what}: {percent:.1} % of {} {details}", show_bytes(total));
        }
    }

    /// Every byte is written and synced.
    pub(super) fn complete(&mut self, bytes: u64) {
        let seconds = self.seconds();
        if self.json {
            return emit(&Event::Complete { bytes, seconds });
        }
        self.say(&format!("complete: {} in {seconds:.1} s, written and synced", show_bytes(bytes)));
    }

    /// A line for people.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if !self.json => eprintln!("{text}"),
            None => {}
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a failure for programs; people see the program's last message.
pub(super) fn failed(json: bool, failure: &Failure) {
    if json {
        emit(&Event::Error(failure.clone()));
    }
}

/// One line on the standard output. A reader that has gone away does not end the transfer.
fn emit(event: &Event) {
    let mut out = std::io::stdout().lock();
    if let Ok(line) = serde_json::to_string(event)
        && writeln!(out, "{line}").and_then(|()| out.flush()).is_err()
    {
        log::debug!("the standard output is closed");
    }
}

/// The event of a swarm's numbers.
fn progress_of(swarm: &Swarm) -> Progress {
    let stats = swarm.stats();
    let phase = swarm.phase();
    let (stage, verified) = match phase {
        Phase::Checking { bytes } => (Stage::Start, bytes),
        Phase::Complete => (Stage::Serve, 0),
        _ => (Stage::Fetch, 0),
    };
    let left = stats.bytes_total.saturating_sub(stats.bytes_done);
    let seconds_left = (stage == Stage::Fetch).then(|| left.checked_div(stats.rate_in)).flatten();
    Progress {
        percent: percent(stats.bytes_done, stats.bytes_total),
        bytes_done: stats.bytes_done,
        bytes_total: stats.bytes_total,
        rate_in: stats.rate_in,
        rate_out: stats.rate_out,
        bytes_out: stats.bytes_out,
        peers: u32::try_from(stats.peers).unwrap_or(u32::MAX),
        bytes_verified: verified,
        seconds_left,
        ..Progress::at(stage)
    }
}

fn percent(done: u64, total: u64) -> f32 {
    if total == 0 {
        return 100.0;
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a shown percentage")]
    let percent = (done as f64 / total as f64 * 100.0) as f32;
    percent
}
