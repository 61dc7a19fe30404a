//! The end of each window of a standing job.
//!
//! Invariant: a closing that was read ends a window after it opens.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::opening::{Opening, closing_clock};
use super::words::{clock, duration, show_clock};

/// For example `06:00` or `+8h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// The next time after the opening at which the clock shows this time.
    Clock(Time),
    After(SignedDuration),
}

impl Closing {
    /// The end of the window that opens so.
    pub fn of(&self, opens: &Opening) -> Timestamp {
        match *self {
            Closing::Clock(time) => closing_clock(time, opens).unwrap_or(Timestamp::MAX),
            Closing::After(long) => opens.moment.timestamp().saturating_add(long).unwrap_or(Timestamp::MAX),
        }
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closing::Clock(time) => f.write_str(&show_clock(*time)),
            Closing::After(long) => write!(f, "+{long:#}"),
        }
    }
}

impl FromStr for Closing {
    type Err = String;

    /// Reads `06:00` or `+8h`.
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        if let Some(time) = clock(&lower) {
            return Ok(Closing::Clock(time));
        }
        match lower.strip_prefix('+').and_then(duration) {
            Some(long) if long.is_zero() => Err(format!("'{text}' is a window without length")),
            Some(long) => Ok(Closing::After(long)),
            None => Err(format!(
                "'{text}' is no end for the windows of a standing job: write a time of day, such as 06:00, \
                 or a time after the opening, such as +8h"
            )),
        }
    }
}

impl Serialize for Closing {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Closing {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
