//! Attempts' logs: a terminal hands its own over, people read them.
//!
//! Invariant: a log is taken only with its attempt's token, and only if it can be unpacked within its bounds.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::named::meant;
use super::reply::{Error, Shared, error, not_taken, unkept};
use crate::api::{Refusal, TOKEN_HEADER};
use crate::server::domain::lab::date;
use crate::server::domain::logs::unpack;
use crate::sync;

/// `POST /api/v1/attempts/{attempt}/log`.
#[utoipa::path(
    post,
    path = "/api/v1/attempts/{attempt}/log",
    operation_id = "hand_over_log",
    summary = "An attempt hands over its log",
    tag = "terminals",
    params(
        ("attempt" = u64, Path, description = "From the assignment"),
        ("flashmob-token" = String, Header, description = "From the assignment"),
    ),
    request_body(content = Vec<u8>, content_type = "application/zstd"),
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn hand_over(
    State(app): Shared,
    Path(attempt): Path<u64>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Error> {
    let advice = "Use an agent of the same version as the server.";
    let packed = body.map_err(|e| error(e.status(), e.body_text(), advice))?;
    let token = headers.get(TOKEN_HEADER).and_then(|token| token.to_str().ok()).unwrap_or_default();
    // The token first: only a terminal with an attempt has the server unpack anything.
    let checked = {
        let mut lab = sync::lock(&app.lab);
        lab.log(app.now(), attempt, token, packed.to_vec()).map_err(not_taken)?
    };
    unpack(&packed).map_err(|e| error(StatusCode::UNPROCESSABLE_ENTITY, e.to_string(), advice))?;
    app.store.save(vec![checked]).await.map_err(|e| unkept(&e))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whose attempt it should be.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Whose {
    /// A name, label, MAC or UUID.
    terminal: Option<String>,
}

/// `GET /api/v1/attempts/{attempt}/log[?terminal=ID]`.
#[utoipa::path(
    get,
    path = "/api/v1/attempts/{attempt}/log",
    operation_id = "attempt_log",
    summary = "What an attempt said of itself",
    tag = "views",
    params(("attempt" = u64, Path, description = "The attempt's number"), Whose),
    responses(
        (status = 200, description = "The log", body = String, content_type = "text/plain"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot be read now", body = Refusal),
    )
)]
pub async fn read(
    State(app): Shared,
    Path(attempt): Path<u64>,
    query: Result<Query<Whose>, QueryRejection>,
) -> Result<Response, Error> {
    let advice = "terminal is a label, a MAC or a UUID.";
    let Query(Whose { terminal }) = query.map_err(|e| error(e.status(), e.body_text(), advice))?;
    let config = app.config();
    let id =
        |typed: &String| meant(&sync::lock(&app.lab), &config, typed).map(|terminal| terminal.id.clone());
    let wanted = terminal.as_ref().map(id).transpose()?;
    let found = app.store.log(attempt).await.map_err(|e| unkept(&e))?;
    let log = found.filter(|log| wanted.as_ref().is_none_or(|id| *id == log.terminal)).ok_or_else(|| {
        let of = terminal.map(|typed| format!(" of {typed}")).unwrap_or_default();
        let advice = "A terminal hands its log over every minute while it works. Attempts of older agents \
                      have none, and old ones go by [history] keep_days.";
        error(StatusCode::NOT_FOUND, format!("there is no log of attempt {attempt}{of}"), advice)
    })?;
    let text = unpack(&log.packed)
        .map_err(|e| error(StatusCode::INTERNAL_SERVER_ERROR, e.to_string(), "Look at the server's disk."))?;
    let title = sync::lock(&app.lab).title(&config, &log.terminal);
    let head = format!("# attempt {attempt} of {title}, as of {}\n", date(log.received));
    let kind = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((kind, head + &text).into_response())
}
