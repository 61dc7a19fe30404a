//! How the terminal's [`View`] looks: a large plain screen, and one line for logs.
//!
//! Invariant: pure text, at most as wide and high as the screen, and an outcome can be read from a photo.
//! `agent::screen` writes it to the consoles.

use crate::agent::view::View;
use crate::event::{Class, Outcome, Progress, Severity, Stage, worst};
use crate::units::show_bytes;

const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";
const GREEN: &str = "\x1b[1;97;42m";
const RED: &str = "\x1b[1;97;41m";
/// Blocks that every console font of Linux has.
const SOLID: char = '█';
const EMPTY: char = '░';

/// The whole screen for a console of `columns` × `rows`, from its upper left corner.
pub fn screen(view: &View, columns: usize, rows: usize) -> String {
    let width = columns.clamp(40, 200) - 1;
    let rows = rows.max(16);
    let mut lines = heading(view, width);
    match &view.outcome {
        Some(outcome) => lines.extend(outcome_lines(outcome, width)),
        None => {
            let share = format!("{}%", whole_percent(&view.progress));
            lines.extend(
                block_letters(&share, width, SOLID).into_iter().map(|line| format!("  {BOLD}{line}{RESET}")),
            );
            lines.push(String::new());
            lines.push(format!("  {BOLD}{}{RESET}", view.progress.stage.title()));
        }
    }
    lines.push(String::new());
    if view.outcome.is_none() || view.progress.stage == Stage::Serve {
        lines.push(format!("  {}", bar(&view.progress, width - 4)));
        lines.push(cut(&format!("  {}", numbers(&view.progress)), width));
        lines.push(String::new());
    }
    let room = rows.saturating_sub(lines.len() + 1);
    let first = view.notes.len().saturating_sub(room);
    lines.extend(view.notes[first..].iter().map(|note| cut(&format!("  {note}"), width)));
    lines.truncate(rows - 1);
    let mut text = String::from("\x1b[H");
    for line in lines {
        text.push_str(&line);
        text.push_str("\x1b[K\r\n");
    }
    text.push_str("\x1b[J");
    text
}

/// One line for a log, for example
/// `flashmob: fetching the image 42% 88.1 MB/s in 35.0 MB/s out 3 peers 0:21 left`.
pub fn line(progress: &Progress) -> String {
    let title = progress.stage.title();
    match progress.stage {
        Stage::Fetch | Stage::Verify | Stage::Serve => {
            format!("flashmob: {title} {}% {}", whole_percent(progress), numbers(progress))
        }
        Stage::Lend => format!("flashmob: {title}, {} so far", show_bytes(progress.bytes_out)),
        _ => format!("flashmob: {title}"),
    }
}

/// The outcome for a log: block letters and their meaning, without colours.
pub(crate) fn outcome_text(outcome: &Outcome) -> String {
    let (word, _) = outcome_word(outcome);
    let mut text = String::from("\n");
    for line in block_letters(word, 79, '#') {
        text.push_str(&format!("  {line}\n"));
    }
    text.push('\n');
    for line in facts(outcome) {
        text.push_str(&format!("flashmob: {}\n", cut(&line, usize::MAX)));
    }
    text
}

fn heading(view: &View, width: usize) -> Vec<String> {
    let mut lines = vec![format!("{BOLD}  flashmob{RESET}"), String::new()];
    for (name, value) in [
        ("machine", &view.machine),
        ("address", &view.address),
        ("server", &view.server),
        ("image", &view.image),
        ("disk", &view.disk),
    ] {
        let value = if value.is_empty() { "-" } else { value };
        lines.push(cut(&format!("  {name:<8} {value}"), width));
    }
    lines.push(String::new());
    lines
}

fn outcome_word(outcome: &Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Done { .. } => ("DONE", GREEN),
        Outcome::Checked { findings, .. } => match worst(findings).map(|finding| finding.severity) {
            Some(Severity::Error) => ("CHECKED", RED),
            Some(Severity::Warning) | None => ("CHECKED", GREEN),
        },
        Outcome::Failed { .. } => ("FAILED", RED),
    }
}

fn outcome_lines(outcome: &Outcome, width: usize) -> Vec<String> {
    let (word, colour) = outcome_word(outcome);
    let blank = format!("{colour}{:width$}{RESET}", "");
    let mut lines = vec![blank.clone()];
    for line in block_letters(word, width, SOLID) {
        lines.push(format!("{colour}{:<width$}{RESET}", format!("  {line}")));
    }
    lines.push(blank);
    lines.push(String::new());
    for fact in facts(outcome) {
        lines.extend(wrap(&fact, width - 4).into_iter().map(|line| format!("  {BOLD}{line}{RESET}")));
    }
    lines
}

/// The facts of an outcome that an administrator needs, one a line.
fn facts(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Done { seconds, bytes_in, bytes_out, disk, warnings, .. } => {
            let mut facts = vec![
                format!("the image is on {disk}, read back and right"),
                format!(
                    "took {}, received {}, sent {}",
                    clock(*seconds),
                    show_bytes(*bytes_in),
                    show_bytes(*bytes_out)
                ),
            ];
            facts.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
            facts
        }
        Outcome::Checked { findings, facts, .. } => {
            let findings = findings.iter().map(ToString::to_string);
            let facts = facts.iter().map(|fact| format!("{}: {}", fact.name, fact.value));
            let unchanged = "a preflight: the disk is as it was".to_string();
            std::iter::once(unchanged).chain(findings).chain(facts).collect()
        }
        Outcome::Failed { stage, failure, disk_touched } => {
            let mut facts = vec![
                format!("{} while {}", class_words(failure.class), stage.title()),
                format!("why: {}", failure.message),
            ];
            if !failure.advice.is_empty() {
                facts.push(format!("what to do: {}", failure.advice));
            }
            facts.push(if *disk_touched {
                "the disk's old content is gone; it will not start until the image is complete".into()
            } else {
                "the disk is as it was".into()
            });
            facts
        }
    }
}

/// A class with its number, as exit codes have it.
fn class_words(class: Class) -> String {
    let words = match class {
        Class::Retry => "try again later",
        Class::Usage => "wrong settings",
        Class::Refused => "refused",
        Class::Untrusted => "not trusted",
        Class::Disk => "the disk failed",
    };
    format!("{words} (class {})", class.exit_code())
}

fn whole_percent(progress: &Progress) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100 before")]
    let whole = progress.percent.clamp(0.0, 100.0).floor() as u8;
    whole
}

fn numbers(progress: &Progress) -> String {
    let mut text =
        format!("{} in {} out {} peers", rate(progress.rate_in), rate(progress.rate_out), progress.peers);
    if let Some(seconds) = progress.seconds_left {
        text.push_str(&format!(" {} left", clock(seconds)));
    }
    text
}

fn rate(bytes: u64) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{} MB/s", tenths / 10, tenths % 10)
}

fn clock(seconds: u64) -> String {
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

fn bar(progress: &Progress, width: usize) -> String {
    let inside = width.saturating_sub(2);
    let full = inside * usize::from(whole_percent(progress)) / 100;
    format!("[{}{}]", SOLID.to_string().repeat(full), EMPTY.to_string().repeat(inside - full))
}

/// At most `width` characters, without anything that moves the cursor.
fn cut(text: &str, width: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(width).collect()
}

/// Lines of at most `width` characters, broken at blanks where possible.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in cut(text, 2000).split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        while word.len() > width {
            lines.push(word.drain(..width).collect());
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        length += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

/// Text in letters of 5 × 5 blocks, each block two columns wide where there is room, so that a phone's photo
/// shows it.
fn block_letters(text: &str, width: usize, ink: char) -> Vec<String> {
    let wide = if text.len() * 12 < width { 2 } else { 1 };
    let (full, empty) = (&ink.to_string().repeat(wide), &" ".repeat(wide));
    (0..5)
        .map(|row| {
            let letters = text.chars().map(|c| {
                let bits = letter(c)[row];
                (0..5).map(|x| if bits & (16 >> x) != 0 { full.as_str() } else { empty }).collect::<String>()
            });
            letters.collect::<Vec<_>>().join(empty)
        })
        .collect()
}

/// Rows of a letter, five bits each.
fn letter(c: char) -> [u8; 5] {
    match c {
        'A' => [0b01110, 0b10001, 0b11111, 0b10001, 0b10001],
        'D' => [0b11110, 0b10001, 0b10001, 0b10001, 0b11110],
        'E' => [0b11111, 0b10000, 0b11110, 0b10000, 0b11111],
        'F' => [0b11111, 0b10000, 0b11110, 0b10000, 0b10000],
        'I' => [0b11111, 0b00100, 0b00100, 0b00100, 0b11111],
        'L' => [0b10000, 0b10000, 0b10000, 0b10000, 0b11111],
        'N' => [0b10001, 0b11001, 0b10101, 0b10011, 0b10001],
        'O' => [0b01110, 0b10001, 0b10001, 0b10001, 0b01110],
        '0' => [0b01110, 0b10011, 0b10101, 0b11001, 0b01110],
        '1' => [0b00100, 0b01100, 0b00100, 0b00100, 0b01110],
        '2' => [0b11110, 0b00001, 0b01110, 0b10000, 0b11111],
        '3' => [0b11110, 0b00001, 0b01110, 0b00001, 0b11110],
        '4' => [0b10010, 0b10010, 0b11111, 0b00010, 0b00010],
        '5' => [0b11111, 0b10000, 0b11110, 0b00001, 0b11110],
        '6' => [0b01110, 0b10000, 0b11110, 0b10001, 0b01110],
        '7' => [0b11111, 0b00001, 0b00010, 0b00100, 0b00100],
        '8' => [0b01110, 0b10001, 0b01110, 0b10001, 0b01110],
        '9' => [0b01110, 0b10001, 0b01111, 0b00001, 0b01110],
        '%' => [0b11001, 0b11010, 0b00100, 0b01011, 0b10011],
        _ => [0; 5],
    }
}

#[cfg(test)]
mod tests;
