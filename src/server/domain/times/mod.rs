//! The times at which jobs open and close, as people write them.
//!
//! A time of day means the next moment at which the clock of the given time zone shows it. If daylight saving
//! time skips a local time, the first moment after the gap is meant. If it doubles one, the first of both is
//! meant that is still to come; a standing job ([`Every`]) opens at the first one only.
//!
//! Invariant: no opening is in the past, and no window ends before it opens.

mod closing;
mod every;
mod moments;
mod opening;
#[cfg(test)]
mod tests;
mod words;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

pub use closing::Closing;
pub use every::Every;
use moments::{Moments, next_clock};
pub use opening::Opening;
use opening::closing_clock;

/// A time as it was written.
enum Written {
    /// Counted from the moment that the reader knows: `now` or `+20s`.
    After(SignedDuration),
    Clock(Time),
    Local(DateTime),
    Moment(Timestamp),
}

/// Reads when a job opens: `now`, `+20s`, `now + 2h30m`, `22:00`, `tomorrow 22:00`, `2026-12-01 22:00` or
/// RFC 3339. The zone of `now` is the one of local times.
pub fn at(text: &str, now: &Zoned) -> Result<Opening, String> {
    let written = written(text, now)?;
    let moment = match &written {
        Written::After(long) => now.timestamp().checked_add(*long).ok(),
        Written::Clock(time) => next_clock(*time, now),
        Written::Local(local) => Moments::of(*local, now.time_zone())
            .map(|moments| moments.find(|moment| moment >= now.timestamp()).unwrap_or(moments.last())),
        Written::Moment(moment) => Some(*moment),
    };
    let moment = moment.ok_or_else(|| too_far(text))?;
    if moment < now.timestamp() {
        return Err(format!("'{}' is past, because it is {} now: give a later time", text.trim(), show(now)));
    }
    let moment = moment.to_zoned(now.time_zone().clone());
    Ok(match written {
        Written::Clock(time) => Opening::at_clock(time, moment),
        Written::Local(local) => Opening { moment, written: local },
        Written::After(_) | Written::Moment(_) => moment.into(),
    })
}

/// Reads when a job with this opening closes. The words are those of [`at`], counted from the opening:
/// `06:00` is the next 06:00 after it, and `+8h` is eight hours after it.
pub fn until(text: &str, opening: &Opening) -> Result<Timestamp, String> {
    let opens = &opening.moment;
    let moment = match written(text, opens)? {
        Written::After(long) => opens.timestamp().checked_add(long).ok(),
        Written::Clock(time) => closing_clock(time, opening),
        Written::Local(local) => opening.closing(local),
        Written::Moment(moment) => Some(moment),
    };
    let moment = moment.ok_or_else(|| too_far(text))?;
    if moment <= opens.timestamp() {
        let (end, opening) = (show(&moment.to_zoned(opens.time_zone().clone())), show(opens));
        return Err(format!("the end, {end}, is not after the opening, {opening}: give a later end"));
    }
    Ok(moment)
}

fn written(text: &str, from: &Zoned) -> Result<Written, String> {
    let lower = text.trim().to_ascii_lowercase();
    read(&lower, from).ok_or_else(|| {
        format!(
            "'{}' is not a time: write now, +2h30m, 22:00, tomorrow 22:00, 2026-12-01 22:00 or \
             2026-12-01T22:00:00+01:00",
            text.trim()
        )
    })
}

fn read(lower: &str, from: &Zoned) -> Option<Written> {
    if lower == "now" {
        return Some(Written::After(SignedDuration::ZERO));
    }
    let ahead = lower.strip_prefix("now").unwrap_or(lower).trim_start().strip_prefix('+');
    if let Some(long) = ahead {
        return words::duration(long).map(Written::After);
    }
    if let Some(time) = words::clock(lower) {
        return Some(Written::Clock(time));
    }
    if let Some((day, time)) = lower.split_once([' ', 't']).filter(|(day, _)| !day.is_empty())
        && let (Some(day), Some(time)) = (words::date(day), words::clock(time.trim()))
    {
        return Some(Written::Local(day.to_datetime(time)));
    }
    if let Some((day, time)) = lower.split_once(' ')
        && let Some(ahead) = ["today", "tomorrow"].iter().position(|word| *word == day)
    {
        let day = from.date().checked_add(Span::new().days(i64::try_from(ahead).ok()?)).ok()?;
        return words::clock(time.trim()).map(|time| Written::Local(day.to_datetime(time)));
    }
    lower.parse().ok().map(Written::Moment)
}

fn too_far(text: &str) -> String {
    format!("'{}' is too far ahead", text.trim())
}

/// For people: `Tue 2026-12-01 22:00 +01:00`. The offset is there because a command may run in another zone
/// than the server.
pub fn minute(moment: Timestamp, zone: &TimeZone) -> String {
    moment.to_zoned(zone.clone()).strftime("%a %F %H:%M %:z").to_string()
}

/// A window for people.
pub fn window(opens: Timestamp, closes: Timestamp, zone: &TimeZone) -> String {
    format!("{} to {}", minute(opens, zone), minute(closes, zone))
}

/// A moment for people, with seconds.
pub fn second(moment: Timestamp, zone: &TimeZone) -> String {
    moment.to_zoned(zone.clone()).strftime("%a %F %T %:z").to_string()
}

/// For people: `2026-12-01 22:00:00 Europe/Berlin`.
fn show(moment: &Zoned) -> String {
    moment.strftime("%F %T %Q").to_string()
}
