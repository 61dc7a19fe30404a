//! `/api/v1/…`: terminals say hello, take a job, report (`terminals`); people look (`views`) and decide
//! (`decisions`, `wake`) by any name of a terminal (`named`), describe terminals and import tables of them
//! (`registry`), and fetch a backup of the state (`backup`).
//!
//! Invariant: every error is a [`Refusal`] with advice. An answer that promises something is sent only when
//! the database has it.

mod backup;
mod decisions;
mod local;
mod named;
mod registry;
mod reply;
mod terminals;
mod views;
mod wake;

pub use backup::backup;
pub use decisions::{admit, cancel, forget, retry};
pub use registry::{describe, export, import};
pub use reply::Error;
pub use terminals::{hello, outcome, progress, take};
pub use views::{ImageView, LabView, images, lab, rows, terminal, terminals};
pub use wake::wake;
