//! Parts of times and amounts, for constants that say what they are a part of.

use std::time::Duration;

/// A numerator and a denominator, which is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio(pub u32, pub u32);

impl Ratio {
    /// This part of `amount`, rounded down.
    pub(super) fn of(self, amount: u64) -> u64 {
        amount * u64::from(self.0) / u64::from(self.1)
    }

    /// This part of `time`, rounded down to whole nanoseconds.
    pub(crate) fn of_time(self, time: Duration) -> Duration {
        time * self.0 / self.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_rounded_down() {
        assert_eq!((Ratio(1, 5).of(99), Ratio(9, 10).of(10), Ratio(4, 1).of(3)), (19, 9, 12));
        assert_eq!(Ratio(8, 20).of_time(Duration::from_nanos(9)), Duration::from_nanos(3));
    }
}
