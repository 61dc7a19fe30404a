//! The moments at which the power may fail while a system becomes its terminal's own.
//!
//! Invariant: each change of a file passes here first, so that a test can end a run at any of them. Outside
//! of tests nothing happens.

use std::io;

/// A change of a file comes next. In a test, an error: the power has failed.
pub(super) fn change() -> io::Result<()> {
    #[cfg(test)]
    test::spend()?;
    Ok(())
}

#[cfg(test)]
pub(super) mod test {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        /// Changes until the power fails; `None`: never.
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Lets the power of this thread fail after this many changes.
    pub(in super::super) fn fails_after(changes: Option<u32>) {
        LEFT.set(changes);
    }

    pub(in super::super) fn has_failed() -> bool {
        LEFT.get() == Some(0)
    }

    pub(super) fn spend() -> io::Result<()> {
        match LEFT.get() {
            None => {}
            Some(0) => return Err(io::Error::other("the power has failed")),
            Some(left) => LEFT.set(Some(left - 1)),
        }
        Ok(())
    }
}
