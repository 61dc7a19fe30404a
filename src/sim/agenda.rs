//! What is to happen, in order of time; of one time, in the order in which it was planned.
//!
//! Invariant: what was planned comes out once. A heap of small entries is sorted, the events themselves stay
//! where they are: labs of a thousand terminals plan a hundred thousand ahead.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::units::Now;

/// A queue of events.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    /// Time in nanoseconds, number, and where the event is.
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    number: u64,
}

impl<E> Agenda<E> {
    /// Nothing planned.
    pub(super) fn new() -> Self {
        Agenda { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), number: 0 }
    }

    /// Plans `event`. Times beyond 584 years are as good as never.
    pub(super) fn plan(&mut self, at: Now, event: E) {
        let nanos = u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX);
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.events.push(None);
                self.events.len() - 1
            }
        };
        self.events[place] = Some(event);
        self.number += 1;
        self.heap.push(Reverse((nanos, self.number, place)));
    }

    /// The next event, if it is due by `limit`.
    pub(super) fn next(&mut self, limit: Now) -> Option<(Now, E)> {
        let Reverse((nanos, _, place)) = *self.heap.peek()?;
        let at = Now(std::time::Duration::from_nanos(nanos));
        if at > limit {
            return None;
        }
        self.heap.pop();
        self.free.push(place);
        Some((at, self.events[place].take()?))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_as_they_were_planned() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut agenda = Agenda::new();
        for (ms, name) in [(5, 'd'), (1, 'a'), (3, 'b'), (3, 'c')] {
            agenda.plan(at(ms), name);
        }
        assert_eq!(agenda.next(at(2)), Some((at(1), 'a')));
        assert_eq!(agenda.next(at(2)), None);
        agenda.plan(at(4), 'x');
        let rest: Vec<char> = std::iter::from_fn(|| agenda.next(at(9))).map(|(_, name)| name).collect();
        assert_eq!(rest, ['b', 'c', 'x', 'd']);
    }
}
