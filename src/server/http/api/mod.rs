//! `/api/v1/…`: terminals say hello, take a job, report (`terminals`); people look (`views`) and decide
//! (`decisions`).
//!
//! Invariant: every error is a [`Refusal`] with advice. An answer that promises something is sent only when
//! the database has it.

mod decisions;
mod terminals;
mod views;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::Refusal;
use crate::server::app::{App, lock};
use crate::server::store::StoreError;
pub use decisions::{cancel, retry};
pub use terminals::{hello, outcome, progress, take};
pub use views::{ImageView, LabView, images, lab, rows, terminals};

type Shared = State<Arc<App>>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// A refusal with its status.
pub struct Error(StatusCode, Refusal);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

fn error(status: StatusCode, error: impl Into<String>, advice: impl Into<String>) -> Error {
    Error(status, Refusal { error: error.into(), advice: advice.into() })
}

fn conflict(refusal: Refusal) -> Error {
    Error(StatusCode::CONFLICT, refusal)
}

/// The body of a call.
fn read<T>(body: Body<T>) -> Result<T, Error> {
    let advice = "Use an agent of the same version as the server.";
    body.map(|Json(value)| value).map_err(|e| error(e.status(), e.body_text(), advice))
}

/// Waits until what was promised is on the disk.
async fn keep(app: &App, saved: impl Future<Output = Result<(), StoreError>>) -> Result<(), Error> {
    saved.await.map_err(|e| {
        let advice =
            format!("Look at the server's disk and log; it has {} terminals.", lock(&app.lab).iter().count());
        error(StatusCode::SERVICE_UNAVAILABLE, e.to_string(), advice)
    })
}

fn stranger(id: &str) -> Error {
    error(
        StatusCode::NOT_FOUND,
        format!("no terminal '{id}' is known here"),
        "See 'flashmob terminals' for those that are.",
    )
}
