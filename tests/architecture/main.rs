//! The rules of the tree, held by tests: imports point down, no file reaches itself, every file states its
//! purpose, lines wrap, and the agent carries no server.
//!
//! Invariant: these tests read the tree and `cargo tree`, nothing else; a broken rule names the file and
//! line. Other tests check behaviour.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod dependencies;
mod docs;
mod layers;
mod tree;
