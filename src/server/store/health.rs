//! What is wrong with the database while the server runs.
//!
//! Invariant: what is not on the disk is counted from the moment of its change on, so that the memory that
//! waiting changes take has a bound, and so that no failure passes unseen.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::error::StoreError;
use crate::server::domain::catalog::Problem;
use crate::sync;

/// Changes that may wait in memory, for a disk that is full or slow: about 100 MB.
pub(super) const MOST: usize = 1 << 16;

#[derive(Debug, Default)]
pub(crate) struct Health {
    unwritten: AtomicUsize,
    lost: AtomicU64,
    /// Why the last transaction failed, until one succeeds.
    trouble: Mutex<Option<StoreError>>,
}

impl Health {
    /// Changes that are not on the disk yet.
    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten.load(Relaxed) as u64
    }

    /// Changes that memory has, and the database will never have.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Makes room for `changes` more; false when too many wait already.
    pub(super) fn reserve(&self, changes: usize) -> bool {
        let fits = self.unwritten.fetch_add(changes, Relaxed) + changes <= MOST;
        if !fits {
            self.free(changes);
        }
        fits
    }

    /// These changes wait no more.
    pub(super) fn free(&self, changes: usize) {
        self.unwritten.fetch_sub(changes, Relaxed);
    }

    pub(super) fn lose(&self, changes: usize) {
        self.lost.fetch_add(changes as u64, Relaxed);
    }

    /// A transaction failed. Returns whether that is news.
    pub(super) fn failed(&self, error: &StoreError) -> bool {
        let before = sync::lock(&self.trouble).replace(error.clone());
        before.is_none_or(|before| before.to_string() != error.to_string())
    }

    /// Everything is written. Returns whether that is news.
    pub(super) fn well(&self) -> bool {
        sync::lock(&self.trouble).take().is_some()
    }

    /// What a person should look at.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(error) = &*sync::lock(&self.trouble) {
            problems.push(Problem {
                what: "database".into(),
                error: format!("{error}. Changes that are in the server's memory only: {}", self.unwritten()),
                advice: format!(
                    "{} Do not restart the server before this problem is gone, because the changes would be \
                     lost.",
                    error.advice()
                ),
            });
        }
        let lost = self.lost();
        if lost > 0 {
            problems.push(Problem {
                what: "database".into(),
                error: format!("{lost} changes could not be stored, so the database lacks them"),
                advice: "The log says which and why. When no other problem of the database is left, restart \
                         the server, so that it goes on with what the database has; then look at the jobs \
                         and terminals that the log names."
                    .into(),
            });
        }
        problems
    }
}
