//! The newest lines of one source, in bounded memory.
//!
//! Invariant: the lines together have at most the ring's bytes, and a count says how many older ones are
//! gone. A line that repeats the last one is counted instead of kept.

use std::collections::VecDeque;
use std::time::Duration;

/// Longest line; the rest of a longer one is cut off.
const MAX_LINE: usize = 1024;
/// Bytes that a line takes beside its text: time, name of the source, line feed, count.
const BESIDE: usize = 48;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Since the machine's start.
    pub(super) time: Duration,
    pub(super) text: String,
    /// How often it came in a row.
    pub(super) times: u32,
}

#[derive(Debug)]
pub(super) struct Ring {
    limit: usize,
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: u64,
}

impl Ring {
    pub(super) fn new(limit: usize) -> Self {
        Ring { limit, lines: VecDeque::new(), bytes: 0, dropped: 0 }
    }

    /// Adds the lines of `text`; empty ones and control characters are left out.
    pub(super) fn push(&mut self, time: Duration, text: &str) {
        for line in text.lines() {
            let mut text: String = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
            text.retain(|c| !c.is_control());
            text.truncate(text.floor_char_boundary(MAX_LINE));
            if text.trim().is_empty() {
                continue;
            }
            match self.lines.back_mut() {
                Some(last) if last.text == text => last.times = last.times.saturating_add(1),
                _ => {
                    self.bytes += text.len() + BESIDE;
                    self.lines.push_back(Line { time, text, times: 1 });
                }
            }
        }
        while self.bytes > self.limit
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.text.len() + BESIDE;
            self.dropped += u64::from(oldest.times);
        }
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// Older lines that are gone.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(ring: &Ring) -> Vec<(&str, u32)> {
        ring.lines().map(|line| (line.text.as_str(), line.times)).collect()
    }

    #[test]
    fn a_repeated_line_is_counted_and_control_characters_go() {
        let mut ring = Ring::new(10_000);
        ring.push(Duration::from_secs(1), "a\tb\x1b[2J\r\n\n  \na");
        ring.push(Duration::from_secs(2), "a\na");
        assert_eq!(texts(&ring), [("a b[2J", 1), ("a", 3)]);
        assert_eq!(
            ring.lines().last().map(|line| line.time),
            Some(Duration::from_secs(1)),
            "when it came first"
        );
    }

    proptest! {
        #[test]
        fn a_ring_keeps_the_newest_lines_within_its_bytes(
            lines in prop::collection::vec("[a-zä]{1,40}", 0..200),
            long in 0usize..3000,
            limit in 1100usize..4000,
        ) {
            let mut ring = Ring::new(limit);
            for (n, line) in lines.iter().enumerate() {
                ring.push(Duration::from_secs(1), &format!("{n}{line}"));
            }
            ring.push(Duration::from_secs(2), &"ä".repeat(long));
            let kept = texts(&ring);
            prop_assert!(kept.iter().map(|(text, _)| text.len()).sum::<usize>() <= limit);
            let all = lines.len() + usize::from(long > 0);
            prop_assert_eq!(kept.len() as u64 + ring.dropped(), all as u64);
            prop_assert!(kept.iter().all(|(text, _)| text.len() <= MAX_LINE));
            let gone = usize::try_from(ring.dropped()).expect("few");
            let newest: Vec<String> =
                lines.iter().enumerate().map(|(n, line)| format!("{n}{line}")).skip(gone).collect();
            for (kept, expected) in kept.iter().zip(&newest) {
                prop_assert_eq!(kept.0, expected.as_str());
            }
        }
    }
}
