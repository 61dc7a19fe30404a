//! From the clock on the wall to moments. When daylight saving time begins, some local times do not exist;
//! when it ends, some exist twice.
//!
//! A local time that is skipped means the first moment after the gap. A local time that exists twice means
//! the first of both.
//!
//! Invariant: a later local time never means an earlier moment.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, Zoned};

/// The moments that one local time can mean.
pub(super) enum Moments {
    Once(Timestamp),
    Twice(Timestamp, Timestamp),
    /// The end of the gap.
    Never(Timestamp),
}

impl Moments {
    /// `None` at the ends of the calendar only.
    pub(super) fn of(local: DateTime, zone: &TimeZone) -> Option<Self> {
        let ambiguous = zone.to_ambiguous_timestamp(local);
        let kind = ambiguous.offset();
        let later = ambiguous.later().ok()?;
        Some(match kind {
            AmbiguousOffset::Unambiguous { .. } => Moments::Once(later),
            AmbiguousOffset::Fold { .. } => {
                Moments::Twice(zone.to_ambiguous_timestamp(local).earlier().ok()?, later)
            }
            AmbiguousOffset::Gap { .. } => Moments::Never(gap_end(later, zone)),
        })
    }

    /// The moment that a local time means where nothing else is known.
    pub(super) fn first(&self) -> Timestamp {
        match *self {
            Moments::Once(moment) | Moments::Twice(moment, _) | Moments::Never(moment) => moment,
        }
    }

    /// The last moment at which the clock shows this local time, or the end of the gap.
    pub(super) fn last(&self) -> Timestamp {
        match *self {
            Moments::Once(moment) | Moments::Twice(_, moment) | Moments::Never(moment) => moment,
        }
    }

    /// The first of these moments for which `is` holds.
    pub(super) fn find(&self, is: impl Fn(Timestamp) -> bool) -> Option<Timestamp> {
        [self.first(), self.last()].into_iter().find(|moment| is(*moment))
    }
}

/// The moment at which the offset changed, for a moment between this change and the next one.
fn gap_end(shifted: Timestamp, zone: &TimeZone) -> Timestamp {
    let after = shifted.checked_add(Span::new().nanoseconds(1)).unwrap_or(shifted);
    zone.preceding(after).next().map_or(shifted, |change| change.timestamp())
}

/// The days around `moment` that may hold the next moment of something weekly.
pub(super) fn days_around(moment: &Zoned) -> impl Iterator<Item = Date> {
    let today = moment.date();
    (-2..=9).filter_map(move |days| today.checked_add(Span::new().days(days)).ok())
}

/// The first moment after `after` at which the clock shows `time`. `None` at the end of the calendar.
pub(super) fn next_clock(time: Time, after: &Zoned) -> Option<Timestamp> {
    days_around(after).find_map(|day| {
        Moments::of(day.to_datetime(time), after.time_zone())?.find(|moment| moment > after.timestamp())
    })
}
