//! The rules of the house, held by tests: imports point down, dependencies are ones that Apache-2.0 can use.
//!
//! Invariant: these tests read the tree and `cargo metadata`, nothing else; a broken rule names the file and
//! line. Other tests check behaviour.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod architecture;
mod dependencies;
mod tree;
