//! `/api/v1/…`: terminals say `hello`, `take` a job, report (`reports`); people look (`views`) and decide
//! (`decisions`, `together`, `jobs`, `wake`; `decide` is their common part) by any name of a terminal
//! (`named`) or for several terminals at once, describe terminals and import tables of them (`registry`),
//! look at what was (`history`), have tokens and see what was done (`people`), follow the lab (`changes`),
//! fetch a backup of the state (`backup`), and capture terminals' disks (`captures`). `logs` takes and shows
//! the attempts' logs. `access` says who calls.
//!
//! Invariant: every error is a [`Refusal`] with advice. An answer that promises something is sent only when
//! the database has it.

pub(crate) mod access;
mod backup;
pub mod captures;
pub(super) mod changes;
mod decide;
mod decisions;
mod hello;
pub mod history;
pub mod jobs;
pub mod logs;
mod named;
mod openapi;
mod people;
pub mod personal;
mod registry;
mod reply;
mod reports;
mod take;
mod together;
mod views;
mod wake;

pub use backup::backup;
pub use decisions::{admit, cancel, forget, retry};
pub use hello::hello;
pub use openapi::openapi;
pub use people::{audit, create_token, revoke_token, tokens};
pub use registry::{describe, describe_terminals, export, import};
pub use reply::Error;
pub use reports::{outcome, progress};
pub use take::take;
pub use together::{cancel_terminals, forget_terminals, retry_terminals};
pub use views::{ImageView, LabView, images, lab, rows, terminal, terminals};
pub use wake::{wake, wake_terminals};
