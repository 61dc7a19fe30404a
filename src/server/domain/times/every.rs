//! The openings of a standing job: days of the week, and a time of day.
//!
//! Invariant: at least one day is set. Days and time are local: an opening that daylight saving time skips
//! comes at the end of the gap, and one that it doubles comes once.

use std::fmt;
use std::str::FromStr;

use jiff::Zoned;
use jiff::civil::{Date, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::moments::{Moments, days_around};
use super::opening::Opening;
use super::words::{clock, show_clock};

const NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// For example `mon-fri 22:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Every {
    /// From Monday on.
    days: [bool; 7],
    time: Time,
}

impl Every {
    /// The first opening after `after`. At the end of the calendar (the year 9999) it is `after`.
    pub fn next(&self, after: &Zoned) -> Zoned {
        let zone = after.time_zone();
        let opening = |day: Date| Some(Moments::of(day.to_datetime(self.time), zone)?.first());
        days_around(after)
            .filter(|day| self.falls_on(*day))
            .filter_map(opening)
            .find(|moment| *moment > after.timestamp())
            .map_or_else(|| after.clone(), |moment| moment.to_zoned(zone.clone()))
    }

    /// The opening at this moment, with the time of day that was written.
    pub fn opening(&self, moment: &Zoned) -> Opening {
        Opening::at_clock(self.time, moment.clone())
    }

    pub(super) fn falls_on(&self, day: Date) -> bool {
        let number = day.weekday().to_monday_zero_offset();
        usize::try_from(number).is_ok_and(|number| self.days[number])
    }

    /// Runs of days, each with its first day and its length. A run may go on from Sunday to Monday.
    fn runs(&self) -> Vec<(usize, usize)> {
        let begins = |day: usize| self.days[day] && !self.days[(day + 6) % 7];
        let len = |day: usize| (0..7).take_while(|more| self.days[(day + more) % 7]).count();
        (0..7).filter(|day| begins(*day)).map(|day| (day, len(day))).collect()
    }
}

fn short(day: usize) -> &'static str {
    &NAMES[day % 7][..3]
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = show_clock(self.time);
        if self.days.iter().all(|day| *day) {
            return write!(f, "daily {time}");
        }
        let mut parts = Vec::new();
        for (first, len) in self.runs() {
            if len > 2 {
                parts.push(format!("{}-{}", short(first), short(first + len - 1)));
            } else {
                parts.extend((first..first + len).map(|day| short(day).to_owned()));
            }
        }
        write!(f, "{} {time}", parts.join(","))
    }
}

impl FromStr for Every {
    type Err = String;

    /// Reads `mon-fri 22:00`, `fri-mon 1:00`, `sat,sun 03:30` or `daily 22:00`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "'{text}' {what}: write days and a time, such as 'mon-fri 22:00', 'sat,sun 03:30' or \
                     'daily 22:00'"
            )
        };
        let lower = text.trim().to_ascii_lowercase();
        let (days, time) =
            lower.rsplit_once(char::is_whitespace).ok_or_else(|| wrong("lacks days or a time"))?;
        let time = clock(time).ok_or_else(|| wrong("does not end with a time of day"))?;
        let days: String = days.split_whitespace().collect();
        if days == "daily" {
            return Ok(Every { days: [true; 7], time });
        }
        let mut set = [false; 7];
        for part in days.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let day = |name: &str| day_named(name).ok_or_else(|| wrong(&format!("names no day by '{name}'")));
            let (first, last) = (day(first)?, day(last)?);
            for more in 0..=(last + 7 - first) % 7 {
                set[(first + more) % 7] = true;
            }
        }
        Ok(Every { days: set, time })
    }
}

/// The number of a day from Monday on: `mon` or `monday`.
fn day_named(name: &str) -> Option<usize> {
    NAMES.iter().position(|full| *full == name || full[..3] == *name)
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
