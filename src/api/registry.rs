//! What people say of terminals.
//!
//! Invariant: only shapes, as in the module above.

use serde::{Deserialize, Serialize};

/// Most bytes of a table of terminals: each has about 100.
pub const MAX_TABLE: usize = 4 << 20;

/// A person describes a terminal, and so registers it. What is left out stays, an empty text clears.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Describe {
    pub label: Option<String>,
    pub room: Option<String>,
    pub seat: Option<String>,
    /// Groups that it joins.
    pub join: Vec<String>,
    /// Groups that it leaves.
    pub leave: Vec<String>,
    pub hostname: Option<String>,
}

/// How many terminals an imported table names.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Imported {
    pub created: usize,
    pub updated: usize,
    pub unchanged: usize,
}
