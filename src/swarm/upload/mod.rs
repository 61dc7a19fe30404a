//! Sending pieces: which requests are answered next, and which pieces are offered.

pub(super) mod ledger;
pub(super) mod offers;
pub(super) mod queue;
