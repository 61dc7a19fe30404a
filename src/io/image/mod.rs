//! An image as the server and the administrator's tools have it: a folder with a manifest, its sidecars and
//! the payload.
//!
//! Invariant: a folder that does not hold together is refused when it is opened.

pub mod folder;
pub mod payload;
#[cfg(test)]
mod tests;
