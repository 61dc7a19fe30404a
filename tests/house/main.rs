//! The rules of the house, held by tests: imports point down, dependencies are ones that Apache-2.0 can use.
//!
//! Invariant: these tests read the tree and `cargo metadata`, nothing else; a rule that is broken names the
//! file and line. What the code does is left to the other tests.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod architecture;
mod dependencies;
