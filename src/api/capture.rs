//! A disk that is captured where it stands: the terminal lends it to the server, and changes nothing.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /api/v1/terminals/{id}/capture` | [`NewCapture`] | [`CaptureView`]; an administrator |
//! | `POST /api/v1/captures/{number}` | [`Watch`] | [`CaptureView`]; an administrator |
//! | `DELETE /api/v1/captures/{number}` | | 204; an administrator |
//! | `POST /api/v1/terminals/{id}/take` | `Take` | 200 [`Lend`] |
//! | `POST /api/v1/captures/{number}/lending` | [`LendReport`] | [`LendOrders`] |

use serde::{Deserialize, Serialize};

use crate::event::Failure;

/// A person wants a terminal's disk captured.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCapture {
    /// The image's name, for people.
    pub image: String,
    /// The disk: a rule (`layout::rule`), or a device.
    pub disk: String,
}

/// Where a capture stands.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureState {
    /// The terminal has not started the agent.
    Waiting,
    /// Its disk can be read.
    Lending,
    /// It was lending, and is silent.
    Silent,
    /// The terminal cannot lend it.
    Failed,
}

/// A capture for the administrator who waits for it.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureView {
    pub number: u64,
    /// The terminal's name in calls.
    pub terminal: String,
    /// The terminal for people.
    pub title: String,
    pub state: CaptureState,
    pub lent: Option<LentView>,
    /// Why it cannot be lent.
    pub failure: Option<Failure>,
    /// The job that waits for the terminal meanwhile.
    pub job: Option<String>,
}

/// A lent disk.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LentView {
    /// `nbd://ADDRESS:PORT/EXPORT`; who has it can read the disk from the server.
    pub url: String,
    /// What the screen of the machine that lends shows: six digits.
    pub code: String,
    /// The disk for people.
    pub disk: String,
    pub size: u64,
    pub sector_size: u32,
    /// Bytes that were read.
    pub read: u64,
}

/// The program that captures is still there.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watch {
    /// How much is captured, if it knows.
    #[serde(default)]
    pub percent: Option<u8>,
}

/// The answer to a terminal that is to lend a disk.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lend {
    pub lend: LendOffer,
}

/// A disk is to be lent, read-only, to the server and nobody else.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LendOffer {
    pub capture: u64,
    /// Must come with every report.
    pub token: String,
    /// Six digits for the screen, which a person compares; empty from a server that knows none.
    #[serde(default)]
    pub code: String,
    /// The image that is made, for people.
    pub image: String,
    /// A rule (`layout::rule`), or a device.
    pub disk: String,
    /// The addresses from which the server may read, beside those at which the terminal knows it: a server
    /// with several networks may come by another one.
    #[serde(default)]
    pub readers: Vec<String>,
}

/// A terminal lends its disk, or cannot.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LendReport {
    /// From the offer.
    pub token: String,
    /// The TCP port where NBD is spoken, at the address that reports.
    pub port: u16,
    /// The export's name, random.
    pub export: String,
    /// The disk for people.
    pub disk: String,
    pub size: u64,
    pub sector_size: u32,
    /// Bytes that were read.
    pub read: u64,
    /// Why nothing is lent.
    #[serde(default)]
    pub failure: Option<Failure>,
}

/// The answer to a report.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LendOrders {
    /// The capture is over: the terminal boots its own disk.
    pub release: bool,
}
