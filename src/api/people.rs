//! Tokens of people, and what they did.

use serde::{Deserialize, Serialize};

/// A token to be made.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// Whose it is; `None` for a name by its role.
    #[serde(default)]
    pub name: Option<String>,
    /// `admin` or `teacher`.
    pub role: String,
    /// The room of a teacher.
    #[serde(default)]
    pub room: Option<String>,
}

/// A token as people see it.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    pub name: String,
    /// `admin` or `teacher`.
    pub role: String,
    /// The room of a teacher.
    pub room: Option<String>,
    /// When it was made.
    pub created: String,
}

/// A token that was made.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMade {
    /// The server cannot show it again.
    pub token: String,
    #[serde(flatten)]
    pub view: TokenView,
    /// Why it may be of no use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// One action of a person.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub at: String,
    /// The name of the person's token, and the address of the call.
    pub who: String,
    pub action: String,
    /// The terminal or token that it was about.
    pub subject: String,
    /// More about it; `refused: …` if it did not happen.
    pub detail: String,
}
