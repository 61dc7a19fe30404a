//! A backup of the server's state, while it runs.
//!
//! Invariant: it goes to administrators only, because it holds the attempts' tokens.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::access::Caller;
use super::reply::{Error, Shared, error, keep, unkept};
use crate::api::Refusal;
use crate::server::store::StoreError;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// `POST /api/v1/backup`: a copy of the database.
#[utoipa::path(
    post,
    path = "/api/v1/backup",
    summary = "A copy of the state",
    tag = "decisions",
    responses(
        (status = 200, description = "An SQLite database", body = Vec<u8>,
            content_type = "application/vnd.sqlite3"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn backup(State(app): Shared, caller: Caller) -> Result<Response, Error> {
    caller.admin(&app, "backup", "")?;
    keep(app.store.save(vec![caller.audit(&app, "backup", "", "")])).await?;
    let copy = app.store.copy().await.map_err(|e| match e {
        StoreError::UnderWay => error(StatusCode::CONFLICT, e.to_string(), e.advice()),
        other => unkept(&other),
    })?;
    let unreadable = |e: std::io::Error| {
        error(StatusCode::SERVICE_UNAVAILABLE, format!("reading the copy: {e}"), "Look at the server's disk.")
    };
    let length = copy.metadata().map_err(unreadable)?.len();
    log::info!("a backup of {length} bytes goes to {}", caller.ends.remote.ip());
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.sqlite3".to_string()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Body::from_stream(chunks(File::from_std(copy)))).into_response())
}

/// The bytes of a file, to its end.
fn chunks(file: File) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}
