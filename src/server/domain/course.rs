//! The course of an attempt: when each of its stages began, as its reports told.
//!
//! Invariant: pure, in the order of time, and at most [`MOST`] entries.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Stage;

/// Stages of one attempt that are kept; few are reached twice, where pieces came wrong. Of a terminal that
/// reports nonsense the first ones are kept.
const MOST: usize = 40;

/// The stages of an attempt.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Course(Vec<Reached>);

/// A stage that began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Reached {
    stage: Stage,
    /// Milliseconds since 1970.
    at: u64,
}

impl Course {
    /// A report that came at `now` says that the attempt is at `stage`.
    pub(crate) fn reach(&mut self, stage: Stage, now: Duration) {
        if self.0.last().is_none_or(|last| last.stage != stage) && self.0.len() < MOST {
            self.0.push(Reached { stage, at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX) });
        }
    }

    /// Each stage with its begin and how long it took, up to the last report at `heard`.
    pub(crate) fn stages(&self, heard: Duration) -> impl Iterator<Item = (Stage, Duration, Duration)> {
        let begins = self.0.iter().map(|reached| Duration::from_millis(reached.at));
        let ends = begins.clone().skip(1).chain([heard]);
        let stages = self.0.iter().map(|reached| reached.stage);
        stages.zip(begins.zip(ends)).map(|(stage, (begin, end))| (stage, begin, end.saturating_sub(begin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stage_lasts_until_the_next_one_and_the_last_one_until_the_last_report() {
        let mut course = Course::default();
        for (stage, second) in
            [(Stage::Manifest, 10), (Stage::Fetch, 12), (Stage::Fetch, 60), (Stage::Verify, 90)]
        {
            course.reach(stage, second * SECOND);
        }
        let stages: Vec<_> = course.stages(95 * SECOND).collect();
        let expected = [
            (Stage::Manifest, 10 * SECOND, 2 * SECOND),
            (Stage::Fetch, 12 * SECOND, 78 * SECOND),
            (Stage::Verify, 90 * SECOND, 5 * SECOND),
        ];
        assert_eq!(stages, expected);
        assert_eq!(Course::default().stages(SECOND).count(), 0);
    }

    #[test]
    fn a_terminal_that_reports_nonsense_fills_nothing() {
        let mut course = Course::default();
        for n in 0..1000 {
            course.reach(if n % 2 == 0 { Stage::Fetch } else { Stage::Verify }, n * SECOND);
        }
        assert_eq!(course.stages(1000 * SECOND).count(), MOST);
    }
}
