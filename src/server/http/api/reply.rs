//! Shared by the handlers of the API: reading a call, refusing it, waiting for the database.
//!
//! Invariant: every error is a [`Refusal`] with advice.

use crate::api::Refusal;
use crate::server::app::App;
use crate::server::store::StoreError;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

pub(super) type Shared = State<Arc<App>>;

pub(super) type Body<T> = Result<Json<T>, JsonRejection>;

/// A refusal with its status.
pub struct Error(StatusCode, Refusal);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

pub(super) fn error(status: StatusCode, error: impl Into<String>, advice: impl Into<String>) -> Error {
    Error(status, Refusal { error: error.into(), advice: advice.into() })
}

pub(super) fn conflict(refusal: Refusal) -> Error {
    Error(StatusCode::CONFLICT, refusal)
}

/// The body of a call.
pub(super) fn read<T>(body: Body<T>) -> Result<T, Error> {
    let advice = "Use an agent of the same version as the server.";
    body.map(|Json(value)| value).map_err(|e| error(e.status(), e.body_text(), advice))
}

/// Waits until the change is on the disk.
pub(super) async fn keep(saved: impl Future<Output = Result<(), StoreError>>) -> Result<(), Error> {
    saved.await.map_err(|e| unkept(&e))
}

/// The refusal of a call that the database could not carry out.
pub(super) fn unkept(e: &StoreError) -> Error {
    error(StatusCode::SERVICE_UNAVAILABLE, e.to_string(), e.advice())
}

pub(super) fn stranger(id: &str) -> Error {
    error(
        StatusCode::NOT_FOUND,
        format!("no terminal '{id}' is known here"),
        "See 'flashmob terminals' for those that are.",
    )
}
