//! The agent's own lines and the kernel's about disks and network cards, for the attempt's log on the server.
//!
//! `ring` bounds each of the two sources, `kernel` chooses among the kernel's messages.
//!
//! Invariant: bounded memory, and neither source drives out the other. No secret that was named to it leaves
//! it. A file in the machine's memory has the agent's lines as well, so that a worker that is started again
//! after a crash goes on with them, and tells the server about the attempt that ended in the crash.

mod kernel;
mod ring;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::api::{MAX_LOG, MAX_PACKED_LOG};
use crate::io::host::kmsg::since_start;
use crate::io::host::mirror::{Mirror, Unfinished};
use crate::sync;
use kernel::Record;
use ring::{Line, Ring};

/// In a netbooted terminal: the lines of this worker, and of those before it since the machine's start.
pub(crate) const FILE: &str = "/etc/flashmob/journal";
/// Bytes of each source, so that both fit into a log.
const EACH: usize = MAX_LOG / 2 - 100;
/// Shorter texts are no secrets, and would make other words unreadable.
const SHORTEST_SECRET: usize = 8;
const HIDDEN: &str = "•••";

/// A cheap handle; clones share the lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    own: Ring,
    kernel: Ring,
    hidden: Vec<String>,
    mirror: Option<Mirror>,
    /// Changes so far.
    changes: u64,
    /// The attempt of a worker that crashed.
    crashed: Option<Unfinished>,
}

impl Default for State {
    fn default() -> Self {
        State {
            own: Ring::new(EACH),
            kernel: Ring::new(EACH),
            hidden: Vec::new(),
            mirror: None,
            changes: 0,
            crashed: None,
        }
    }
}

impl Journal {
    /// Goes on with the lines that are in `file`, and keeps there the new ones.
    pub(crate) fn with_file(file: &Path) -> Self {
        let mut state = State::default();
        match Mirror::open(file) {
            Ok((mirror, before)) => {
                state.crashed = mirror.unfinished();
                state.hidden.extend(state.crashed.iter().map(|crashed| crashed.token.clone()));
                state.mirror = Some(mirror);
                before.lines().for_each(|line| state.take_up(line));
            }
            Err(e) => state.say(&format!("{}: {e}; a crash takes the log away", file.display())),
        }
        Journal(Arc::new(Mutex::new(state)))
    }

    /// Adds lines of the agent.
    pub(crate) fn say(&self, text: &str) {
        sync::lock(&self.0).say(text);
    }

    /// [`Journal::say`] for a panic, which may have happened while another line was added.
    pub(crate) fn say_if_free(&self, text: &str) {
        if let Ok(mut state) = self.0.try_lock() {
            state.say(text);
        }
    }

    /// Adds a record of the kernel's log if it belongs here.
    pub(crate) fn kernel(&self, record: &str) {
        if let Some(record) = Record::read(record).filter(Record::concerns_disks_or_network) {
            let mut state = sync::lock(&self.0);
            let text = state.without_secrets(record.text);
            state.kernel.push(record.time, &text);
            state.changes += 1;
        }
    }

    /// From now on this text is replaced in every line.
    pub(crate) fn hide(&self, secret: &str) {
        let mut state = sync::lock(&self.0);
        if secret.len() >= SHORTEST_SECRET && !state.hidden.iter().any(|known| known == secret) {
            state.hidden.push(secret.to_owned());
        }
    }

    /// Grows with each line.
    pub(crate) fn changes(&self) -> u64 {
        sync::lock(&self.0).changes
    }

    /// All lines by their time, the newest `most` bytes of them.
    pub(crate) fn text(&self, most: usize) -> String {
        let text = sync::lock(&self.0).render();
        let Some(over) = text.len().checked_sub(most).filter(|over| *over > 0) else { return text };
        // The first line that is there as a whole.
        let from = text.as_bytes()[over - 1..].iter().position(|byte| *byte == b'\n');
        from.map_or(String::new(), |from| text[over + from..].to_owned())
    }

    /// [`Journal::text`] as a zstd frame of at most [`MAX_PACKED_LOG`] bytes.
    pub(crate) fn pack(&self, most: usize) -> std::io::Result<Vec<u8>> {
        let mut most = most.min(MAX_LOG);
        loop {
            let packed = zstd::bulk::compress(self.text(most).as_bytes(), 3)?;
            if packed.len() <= MAX_PACKED_LOG {
                return Ok(packed);
            }
            most = most * 3 / 4;
        }
    }

    /// An attempt begins, or the last one has ended.
    pub(crate) fn attempt(&self, attempt: Option<&Unfinished>) {
        let mut state = sync::lock(&self.0);
        if let Some(mirror) = &state.mirror
            && let Err(e) = mirror.keep(attempt)
        {
            state.say(&format!("the attempt's number cannot be kept for a crash: {e}"));
        }
    }

    /// The attempt of a worker that crashed, if it was one of the server at `server`.
    pub(crate) fn crashed(&self, server: &str) -> Option<Unfinished> {
        let mut state = sync::lock(&self.0);
        if state.crashed.as_ref().is_some_and(|crashed| crashed.server == server) {
            state.crashed.take()
        } else {
            None
        }
    }
}

impl State {
    fn say(&mut self, text: &str) {
        let (now, text) = (since_start(), self.without_secrets(text));
        self.own.push(now, &text);
        self.changes += 1;
        if let Some(mirror) = &mut self.mirror {
            for line in text.lines() {
                mirror.append(&self::line(now, line));
            }
        }
    }

    /// Adds a line that an earlier worker showed.
    fn take_up(&mut self, line: &str) {
        let time = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let time = time.and_then(|(time, text)| Some((time.trim().parse::<f64>().ok()?, text)));
        let time = time.and_then(|(time, text)| Some((Duration::try_from_secs_f64(time).ok()?, text)));
        let (time, text) = time.unwrap_or((since_start(), line));
        self.own.push(time, text);
    }

    fn without_secrets(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }

    fn render(&self) -> String {
        let mut text = String::new();
        for (name, ring) in [("agent", &self.own), ("kernel", &self.kernel)] {
            if ring.dropped() > 0 {
                text += &format!("({} older lines of the {name} are gone)\n", ring.dropped());
            }
        }
        let kernel = self.kernel.lines().map(|line| (line, "kernel: "));
        let mut all: Vec<(&Line, &str)> = self.own.lines().map(|line| (line, "")).chain(kernel).collect();
        all.sort_by_key(|(line, _)| line.time);
        for (line, source) in all {
            // A secret may have been named after a line with it came.
            text += &self.without_secrets(&show(line, source));
        }
        text
    }
}

/// A line as it is in the file.
pub(crate) fn line(time: Duration, text: &str) -> String {
    show(&Line { time, text: text.to_owned(), times: 1 }, "")
}

/// As the kernel shows its lines: `[   12.345678] text`.
fn show(line: &Line, source: &str) -> String {
    let (seconds, micros) = (line.time.as_secs(), line.time.subsec_micros());
    let times = if line.times > 1 { format!(" ({} times)", line.times) } else { String::new() };
    format!("[{seconds:5}.{micros:06}] {source}{}{times}\n", line.text)
}

#[cfg(test)]
mod tests;
