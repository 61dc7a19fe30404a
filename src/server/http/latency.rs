//! Measures how long each route takes.
//!
//! Invariant: a request that fits no route counts as the route "other", so that invented addresses and
//! methods make no new numbers.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::server::app::App;
use crate::server::meters::Route;

pub(super) async fn measure(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let path = matched.map_or("other", MatchedPath::as_str).to_string();
    let method = word(request.method());
    let begin = Instant::now();
    let response = next.run(request).await;
    app.meters.request(Route { method, path }, response.status().as_u16(), begin.elapsed());
    response
}

fn word(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    known.into_iter().find(|word| *word == method.as_str()).unwrap_or("other")
}
