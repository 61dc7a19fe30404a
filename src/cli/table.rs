//! Tables of answers for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::server::domain::times;

/// Columns as wide as their widest cell. Control characters, which may come from a terminal, are left out.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let clean: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.replace(char::is_control, " ")).collect()).collect();
    let widths: Vec<usize> =
        (0..N).map(|i| clean.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    clean.iter().map(line).collect()
}

/// A moment in the time zone of this machine, with its offset.
pub(super) fn local(time: Timestamp) -> String {
    times::minute(time, &TimeZone::system())
}

/// A moment that the server wrote, with seconds, in the time zone of this machine.
pub(super) fn local_second(text: &str) -> String {
    let time = text.parse().ok();
    time.map_or_else(|| text.into(), |time: Timestamp| times::second(time, &TimeZone::system()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_do_not_reach_the_terminal() {
        let rows = [["A", "B"], ["long\u{1b}[31m", "x"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "A          B\nlong [31m  x\n");
    }
}
