//! What the worker writes to standard error: shown on the consoles as before, and the end of it kept, because
//! a worker that crashes can tell no server about it.
//!
//! Invariant: at most [`KEPT`] bytes are kept. If no thread can be made to read, the worker writes to the
//! consoles itself.

use std::io::{PipeReader, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::io::host::console::{self, Console};
use crate::sync;

/// A panic with its backtrace.
const KEPT: usize = 16 << 10;
/// How long the last bytes are waited for when the worker has ended. A program that it started may still hold
/// its end of the pipe.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct LastWords {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl LastWords {
    /// Has `command` write its errors here.
    pub(crate) fn of(command: &mut Command) -> Option<Self> {
        let (read_end, write_end) = std::io::pipe().ok()?;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&kept);
        let read = move || listen(read_end, &keep, console::open_all());
        let reader = std::thread::Builder::new().name("last-words".into()).spawn(read).ok()?;
        command.stderr(Stdio::from(write_end));
        Some(LastWords { kept, reader })
    }

    /// What the command wrote last. It has ended.
    pub(crate) fn heard(&self) -> String {
        self.heard_within(PATIENCE)
    }

    fn heard_within(&self, patience: Duration) -> String {
        let end = Instant::now() + patience;
        while !self.reader.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        String::from_utf8_lossy(&sync::lock(&self.kept)).into_owned()
    }
}

fn listen(mut from: PipeReader, kept: &Mutex<Vec<u8>>, mut consoles: Vec<Console>) {
    let mut buffer = [0; 4096];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        {
            let mut kept = sync::lock(kept);
            kept.extend_from_slice(&buffer[..length]);
            let over = kept.len().saturating_sub(KEPT);
            kept.drain(..over);
        }
        let text = String::from_utf8_lossy(&buffer[..length]).replace('\n', "\r\n");
        for console in &mut consoles {
            // A console that is broken shows nothing else either.
            let _ = console.write(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::PipeWriter;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// What `script` says. Its input stays open for as long as the returned pipe does.
    fn said_by(script: &str) -> (LastWords, PipeWriter) {
        let (read_end, write_end) = std::io::pipe().unwrap();
        let (input, held) = std::io::pipe().unwrap();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&kept);
        let reader = std::thread::spawn(move || listen(read_end, &keep, Vec::new()));
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(input).stderr(Stdio::from(write_end));
        let mut child = command.spawn().unwrap();
        drop(command);
        child.wait().unwrap();
        (LastWords { kept, reader }, held)
    }

    #[test]
    fn the_end_of_what_a_program_wrote_is_kept() {
        let heard = |script| said_by(script).0.heard_within(Duration::from_secs(60));
        assert_eq!(heard("echo 'thread main panicked' >&2; kill -9 $$"), "thread main panicked\n");
        let long = heard("seq 1 20000 >&2");
        assert!(long.len() == KEPT && long.ends_with("19999\n20000\n"), "{}", long.len());
    }

    #[test]
    fn a_grandchild_that_lives_on_holds_up_nothing() {
        let (last_words, held) = said_by("exec 3<&0; cat <&3 & echo done >&2");
        while sync::lock(&last_words.kept).is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(last_words.heard_within(SHORT), "done\n");
        assert!(!last_words.reader.is_finished(), "the grandchild still holds its end of the pipe");
        drop(held);
        last_words.reader.join().unwrap();
    }
}
