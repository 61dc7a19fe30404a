//! The parts of which people compose times: `22:00` and `2h30m`.
//!
//! Invariant: a duration that was read is not negative.

use jiff::SignedDuration;
use jiff::civil::{Date, Time};

/// Reads `22:00`, `1:00` or `22:00:30`.
pub(super) fn clock(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let hour = number(parts.next()?, 1..=2)?;
    let minute = number(parts.next()?, 2..=2)?;
    let second = parts.next().map_or(Some(0), |second| number(second, 2..=2))?;
    if parts.next().is_some() {
        return None;
    }
    Time::new(hour, minute, second, 0).ok()
}

/// Shows what [`clock`] reads: seconds only if there are some.
pub(super) fn show_clock(time: Time) -> String {
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    if second == 0 { format!("{hour:02}:{minute:02}") } else { format!("{hour:02}:{minute:02}:{second:02}") }
}

/// Reads `2026-12-01`.
pub(super) fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let year = number(parts.next()?, 4..=4)?;
    let month = number(parts.next()?, 2..=2)?;
    let day = number(parts.next()?, 2..=2)?;
    if parts.next().is_some() {
        return None;
    }
    Date::new(year, month, day).ok()
}

/// Reads `20s`, `20 s`, `8h` or `2h30m`.
pub(super) fn duration(text: &str) -> Option<SignedDuration> {
    let text = text.trim();
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|duration: &SignedDuration| !duration.is_negative())
}

/// Reads a number of as many digits as `len` allows.
fn number<T: std::str::FromStr>(text: &str, len: std::ops::RangeInclusive<usize>) -> Option<T> {
    let only_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if only_digits && len.contains(&text.len()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_clock_time_no_date_and_no_duration_is_refused() {
        for bad in ["", ":", "24:00", "22", "22:0", "22:60", "22:00:60", "22:00:00:00", "+1:00", "١:00"] {
            assert_eq!(clock(bad), None, "{bad}");
        }
        for bad in ["", "2026-12", "2026-13-01", "2026-02-29", "26-12-01", "2026-1-01", "2026-12-01-01"] {
            assert_eq!(date(bad), None, "{bad}");
        }
        for bad in ["", "5", "s", "-5s", "5s ago", "1d", "5 monkeys", "99999999999999999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_date_is_one_of_the_calendar() {
        assert_eq!(date("2028-02-29"), Date::new(2028, 2, 29).ok());
    }

    #[test]
    fn a_duration_is_read_with_and_without_spaces() {
        assert_eq!(duration("2h30m"), Some(SignedDuration::from_mins(150)));
        assert_eq!(duration(" 2 h 30 min "), Some(SignedDuration::from_mins(150)));
        assert_eq!(duration("20 s"), Some(SignedDuration::from_secs(20)));
    }
}
