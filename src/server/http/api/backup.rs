//! A backup of the server's state, while it runs.
//!
//! Invariant: it goes to the server itself only, because it holds the attempts' tokens.

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::local::from_the_server_itself;
use super::reply::{Error, Shared, error, unkept};
use crate::server::http::listen::Ends;
use crate::server::store::StoreError;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// `POST /api/v1/backup`: a copy of the database.
pub async fn backup(
    State(app): Shared,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let advice = "A backup holds secrets, and the server knows no administrator but a caller at its loopback \
                  address: run 'flashmob backup FILE' on the server itself.";
    from_the_server_itself(ends, &headers, "fetch a backup", advice)?;
    let copy = app.store.copy().await.map_err(|e| match e {
        StoreError::UnderWay => error(StatusCode::CONFLICT, e.to_string(), e.advice()),
        other => unkept(&other),
    })?;
    let unreadable = |e: std::io::Error| {
        error(StatusCode::SERVICE_UNAVAILABLE, format!("reading the copy: {e}"), "Look at the server's disk.")
    };
    let length = copy.metadata().map_err(unreadable)?.len();
    log::info!("a backup of {length} bytes goes to {}", ends.remote.ip());
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
