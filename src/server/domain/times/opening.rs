//! The opening of a window: the moment, and the local time that a person wrote for it.
//!
//! The two differ where daylight saving time skips the local time. The end of the window depends on both: a
//! window from 02:15 to 03:00 was meant to last 45 minutes, and one from 03:00 to 03:00 a day, and in the
//! night that skips the hour from 02:00 both open at 03:00.
//!
//! Invariant: pure.

use jiff::civil::{DateTime, Time};
use jiff::{SignedDuration, Span, Timestamp, Zoned};

use super::moments::{Moments, days_around};

/// When a window opens.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    pub moment: Zoned,
    /// The local time that was written, which is never later than the clock shows at `moment`.
    pub(super) written: DateTime,
}

impl From<Zoned> for Opening {
    fn from(moment: Zoned) -> Self {
        Opening { written: moment.datetime(), moment }
    }
}

impl Opening {
    /// The opening that was written as this time of day.
    pub(super) fn at_clock(time: Time, moment: Zoned) -> Self {
        let same_day = moment.date().to_datetime(time);
        let written = match same_day <= moment.datetime() {
            true => same_day,
            // The end of the day was skipped.
            false => same_day.checked_sub(Span::new().days(1)).unwrap_or(same_day),
        };
        Opening { moment, written }
    }

    /// The moment at which the window closes if it closes at this local time; not after the opening if there
    /// is none.
    ///
    /// An end that the clock has passed when the skipped hour ends comes as much later as was skipped,
    /// because otherwise the window would have no length, or last until the next night.
    pub(super) fn closing(&self, local: DateTime) -> Option<Timestamp> {
        let opening = self.moment.timestamp();
        let moments = Moments::of(local, self.moment.time_zone())?;
        let after = moments.find(|moment| moment > opening);
        let made_up = || {
            let late = self.moment.datetime().duration_since(local);
            let moment = opening.checked_add(self.skipped() - late).ok()?;
            (local > self.written && moment > opening).then_some(moment)
        };
        after.or_else(made_up).or(Some(moments.last()))
    }

    /// The length of the gap that holds the written local time.
    fn skipped(&self) -> SignedDuration {
        if self.written >= self.moment.datetime() {
            return SignedDuration::ZERO;
        }
        let just_before = self.moment.timestamp().checked_sub(Span::new().nanoseconds(1));
        let before = just_before.map(|before| self.moment.time_zone().to_offset(before));
        let seconds = |offset: jiff::tz::Offset| i64::from(offset.seconds());
        let gap = before.map_or(0, |before| seconds(self.moment.offset()) - seconds(before));
        SignedDuration::from_secs(gap.max(0))
    }
}

/// The end of a window that closes when the clock shows `time`. `None` at the end of the calendar.
pub(super) fn closing_clock(time: Time, opens: &Opening) -> Option<Timestamp> {
    days_around(&opens.moment).find_map(|day| {
        let closing = opens.closing(day.to_datetime(time))?;
        (closing > opens.moment.timestamp()).then_some(closing)
    })
}
