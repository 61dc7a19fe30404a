//! Fetching pieces: which blocks are requested from which peer, and which offers are granted.

pub(super) mod fetch;
pub(super) mod grants;
