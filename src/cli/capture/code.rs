//! The code on the golden machine's screen, which a person types before its disk is read.
//!
//! Invariant: no disk passes before its own code was typed; a machine that starts again has another code. At
//! most one line is being read at a time, because `flashmob-mkimage` may ask for a password afterwards.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::api::LentView;
use crate::event::Failure;

/// Wrong codes until the capture ends.
const TRIES: u32 = 3;

/// A line that a person types; `None` at the end of the input.
type Line = io::Result<Option<String>>;

/// Lets lent disks pass whose code was typed.
pub(super) struct Gate {
    /// Every disk passes.
    open: bool,
    read: fn() -> Receiver<Line>,
    reading: Option<Receiver<Line>>,
    /// The address of the disk that was asked about last.
    asked: Option<String>,
    passed: Option<String>,
    wrong: u32,
}

impl Gate {
    /// Asks on the standard input, unless the administrator trusts the network.
    pub(super) fn new(open: bool) -> Self {
        Gate { open, read: read_line, reading: None, asked: None, passed: None, wrong: 0 }
    }

    /// May this disk be read? To be asked again until it may.
    pub(super) fn passes(&mut self, lent: &LentView) -> Result<bool, Failure> {
        if self.open || self.passed.as_ref() == Some(&lent.url) {
            return Ok(true);
        }
        if self.asked.as_ref() != Some(&lent.url) {
            self.asked = Some(lent.url.clone());
            println!(
                "  Type the code of 6 digits that its screen shows, and Enter. If its screen shows none,"
            );
            println!("  another machine answers in its place: stop with Ctrl-C.");
        }
        let reading = self.reading.get_or_insert_with(self.read);
        let line = match reading.try_recv() {
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => Ok(None),
            Ok(line) => line,
        };
        self.reading = None;
        let Some(line) = line.map_err(|e| untyped(&e.to_string()))? else {
            return Err(untyped("the input ended"));
        };
        if line.trim().is_empty() {
            return Ok(false);
        }
        if digits(&line) == digits(&lent.code) {
            println!("  right: this is the machine whose disk is read");
            self.passed = Some(lent.url.clone());
            return Ok(true);
        }
        self.wrong += 1;
        if self.wrong == TRIES {
            return Err(Failure::untrusted(
                format!("the machine that lends {} has another code", lent.disk),
                "Nothing was read. Another machine answers as this terminal: look for one with its MAC.",
            ));
        }
        println!("  The machine that lends has another code. Type the code on the golden machine's screen:");
        Ok(false)
    }
}

/// People may group digits.
fn digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect()
}

fn untyped(why: &str) -> Failure {
    Failure::usage(
        format!("the golden machine's code was not typed: {why}"),
        "Run this in a terminal, or send the code as a line; --trust-network goes on without it.",
    )
}

fn read_line() -> Receiver<Line> {
    let (typed, line) = channel();
    // The thread ends with the program, because nothing interrupts a read of the terminal.
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = io::stdin().read_line(&mut text).map(|bytes| (bytes > 0).then_some(text));
        // Without a receiver the capture is over.
        let _ = typed.send(read);
    });
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;

    fn lent(url: &str, code: &str) -> LentView {
        LentView {
            url: url.into(),
            code: code.into(),
            disk: "sda".into(),
            size: 1 << 20,
            sector_size: 512,
            read: 0,
        }
    }

    fn gate() -> Gate {
        let never = || channel().1;
        Gate { read: never, ..Gate::new(false) }
    }

    fn types(gate: &mut Gate, line: Line, lent: &LentView) -> Result<bool, Failure> {
        let (typed, reading) = channel();
        typed.send(line).expect("it is read");
        gate.reading = Some(reading);
        gate.passes(lent)
    }

    fn line(text: &str) -> Line {
        Ok(Some(format!("{text}\n")))
    }

    #[test]
    fn no_disk_is_read_before_its_own_code_was_typed() {
        let mut gate = gate();
        let (golden, other) = (lent("nbd://10.0.0.7:1/a", "042137"), lent("nbd://10.0.0.66:1/b", "555555"));
        assert_eq!(types(&mut gate, line("042137"), &other).ok(), Some(false), "another machine lends");
        assert_eq!(types(&mut gate, line(""), &golden).ok(), Some(false));
        assert_eq!(types(&mut gate, line("042 137"), &golden).ok(), Some(true));
        assert_eq!(gate.passes(&golden).ok(), Some(true), "it is asked once");
        assert_eq!(types(&mut gate, line("042137"), &other).ok(), Some(false), "another machine took over");
        let third = types(&mut gate, line("042137"), &other).expect_err("a third wrong code");
        assert!(third.class == Class::Untrusted && third.message.contains("another code"), "{third:?}");
    }

    #[test]
    fn without_a_person_it_ends_unless_the_network_is_trusted() {
        let golden = lent("nbd://10.0.0.7:1/a", "042137");
        let failure = types(&mut gate(), Ok(None), &golden).expect_err("the input ended");
        assert!(failure.class == Class::Usage && failure.advice.contains("--trust-network"), "{failure:?}");
        assert_eq!(Gate::new(true).passes(&golden).ok(), Some(true));
    }

    #[test]
    fn a_disk_waits_as_long_as_nothing_is_typed() {
        let mut gate = gate();
        let (_typed, reading) = channel();
        gate.reading = Some(reading);
        assert_eq!(gate.passes(&lent("nbd://10.0.0.7:1/a", "042137")).ok(), Some(false));
    }
}
