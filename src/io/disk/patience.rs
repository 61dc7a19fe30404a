//! Patience with a device that was just given back: the child of a fork keeps a copy of each open file until
//! it runs its own program, so the kernel may call the device busy for a moment more.
//!
//! Invariant: the wait has an end.

use std::thread;
use std::time::Duration;

/// How often a device is tried again, and the time between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Tries again for up to a second, as long as the failure is one that `passes`.
pub(super) fn patiently<T, E>(
    passes: impl Fn(&E) -> bool,
    mut work: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..TRIES {
        match work() {
            Err(e) if passes(&e) => thread::sleep(PAUSE),
            done => return done,
        }
    }
    work()
}
