//! Limits the calls of one address, so that nobody can keep the server from the others.
//!
//! Invariant: a call that comes from a known terminal is never refused here. Others get 429 with advice and
//! `Retry-After`. `limits` counts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::server::app::App;
use crate::server::http::api::Error;
use crate::server::http::listen::Ends;
use crate::sync;

/// May `address` ask for something that does not come from a known terminal?
pub(crate) fn may_ask(app: &App, address: IpAddr) -> Result<(), Duration> {
    sync::lock(&app.limits).request(app.now(), address, &app.config().limits)
}

/// For pages and commands: each counts.
pub(super) async fn views(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    match may_ask(&app, ends.remote.ip()) {
        Ok(()) => next.run(request).await,
        Err(wait) => too_much(ends, wait),
    }
}

/// For the calls of terminals: those that are refused count, because no known terminal sends them again and
/// again.
pub(super) async fn reports(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    // Conflicts are answers to known terminals.
    let uncounted = [StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS];
    if !response.status().is_client_error() || uncounted.contains(&response.status()) {
        return response;
    }
    match may_ask(&app, ends.remote.ip()) {
        Ok(()) => response,
        Err(wait) => too_much(ends, wait),
    }
}

fn too_much(ends: Ends, wait: Duration) -> Response {
    let advice = "If several people or a proxy use this address, raise requests_per_second in [limits] of \
        the server's configuration.";
    Error::too_much(format!("{} asks too much", ends.remote.ip()), wait, advice).into_response()
}
