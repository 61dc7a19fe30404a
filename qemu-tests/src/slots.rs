//! How many machines may run at once in one process: two cores emulate three in bearable time.
//!
//! Invariant: never more than [`MACHINES`]; a test takes all it needs at once, so that two cannot wait for
//! each other.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Machines that run at once.
pub const MACHINES: usize = 3;

static FREE: Mutex<usize> = Mutex::new(MACHINES);
static CHANGED: Condvar = Condvar::new();

/// The right to run some machines, until it is dropped.
#[derive(Debug)]
pub struct Slots(usize);

impl Slots {
    /// Waits until `count` machines may run (at most [`MACHINES`]).
    pub fn take(count: usize) -> Self {
        let count = count.min(MACHINES);
        let mut free =
            CHANGED.wait_while(lock(), |free| *free < count).unwrap_or_else(PoisonError::into_inner);
        *free -= count;
        Slots(count)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        *lock() += self.0;
        CHANGED.notify_all();
    }
}

/// A test that failed while it held the lock has not spoilt a number.
fn lock() -> MutexGuard<'static, usize> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let all = Slots::take(MACHINES + 5);
        assert_eq!((all.0, *lock()), (MACHINES, 0));
        drop(all);
        assert_eq!(*lock(), MACHINES);
    }
}
