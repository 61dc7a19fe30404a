//! The router: which handler answers which address.
//!
//! Invariant: from the repository only an image's own files are served, by names without escapes. Folders
//! that are still written begin with a dot and cannot be reached. Bodies and answering times of the API are
//! bounded, except a backup's, which takes as long as its copy; `listen` bounds connections, `fairness` the
//! calls of one address.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::services::ServeDir;

use crate::api::MAX_TABLE;
use crate::image_id::is_plain_name;
use crate::manifest::names;
use crate::server::app::App;
use crate::server::http::api;
use crate::server::http::fairness;
use crate::server::http::latency;
use crate::server::http::metrics;
use crate::server::http::netboot;
use crate::server::http::page;
use crate::server::http::payload;
use crate::server::http::tracking;

/// Largest body of a call: an inventory with 64 disks has a few ten KiB.
const MAX_BODY: usize = 256 << 10;
/// Largest table of terminals.
/// Longest time that a call may take, its body included.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Everything under the server's port.
pub fn router(app: Arc<App>) -> Router {
    let reports = Router::new()
        .route("/api/v1/hello", post(api::hello))
        .route("/api/v1/terminals/{id}/take", post(api::take))
        .route("/api/v1/attempts/{attempt}/progress", post(api::progress))
        .route("/api/v1/attempts/{attempt}/outcome", post(api::outcome))
        .route("/api/v1/attempts/{attempt}/log", post(api::logs::hand_over))
        .route("/api/v1/attempts/{attempt}/personal", post(api::personal::report))
        .route("/api/v1/booted", post(api::personal::booted))
        .route("/api/v1/captures/{number}/lending", post(api::captures::lending))
        .layer(from_fn_with_state(Arc::clone(&app), fairness::reports));
    let known = from_fn_with_state(Arc::clone(&app), api::changes::unless_known);
    let views = Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/", get(page::page))
        .route("/page/{file}", get(page::file))
        .route("/api/v1/changes", get(api::changes::changes))
        .route("/api/v1/lab", get(api::lab).route_layer(known.clone()))
        .route("/api/v1/openapi.json", get(api::openapi))
        .route("/api/v1/terminals", get(api::terminals).route_layer(known.clone()))
        .route("/api/v1/terminals/{id}", get(api::terminal).patch(api::describe).delete(api::forget))
        .route("/api/v1/terminals/export", get(api::export))
        .route("/api/v1/attempts/{attempt}/log", get(api::logs::read))
        .route("/api/v1/terminals/{id}/retry", post(api::retry))
        .route("/api/v1/terminals/{id}/cancel", post(api::cancel))
        .route("/api/v1/terminals/{id}/admit", post(api::admit))
        .route("/api/v1/terminals/{id}/wake", post(api::wake))
        .route("/api/v1/decisions/retry", post(api::retry_terminals))
        .route("/api/v1/decisions/cancel", post(api::cancel_terminals))
        .route("/api/v1/decisions/cancel-jobs", post(api::jobs::cancel_several))
        .route("/api/v1/decisions/forget", post(api::forget_terminals))
        .route("/api/v1/decisions/set", post(api::describe_terminals))
        .route("/api/v1/decisions/wake", post(api::wake_terminals))
        .route("/api/v1/terminals/{id}/capture", post(api::captures::create))
        .route("/api/v1/captures/{number}", post(api::captures::watch).delete(api::captures::end))
        .route("/api/v1/tokens", get(api::tokens).post(api::create_token))
        .route("/api/v1/tokens/{name}", delete(api::revoke_token))
        .route("/api/v1/audit", get(api::audit))
        .route("/api/v1/jobs", get(api::jobs::jobs).route_layer(known).post(api::jobs::create))
        .route("/api/v1/jobs/{number}", get(api::jobs::job))
        .route("/api/v1/jobs/{number}/cancel", post(api::jobs::cancel))
        .route("/api/v1/jobs/{number}/retry", post(api::jobs::retry))
        .route("/api/v1/attempts", get(api::history::attempts))
        .route("/api/v1/jobs/{number}/runs/{run}", get(api::history::run))
        .route("/api/v1/jobs/{number}/report.csv", get(api::jobs::report))
        .layer(from_fn_with_state(Arc::clone(&app), fairness::views))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest));
    let calls = Router::new()
        .route("/announce", get(tracking::announce))
        .route("/scrape", get(tracking::scrape))
        .route("/boot/ipxe", get(netboot::script))
        .route("/boot/grub", get(netboot::grub_script))
        .route("/boot/step", get(netboot::step))
        .route("/torrents/{name}/{file}", get(tracking::torrent))
        .merge(reports)
        .merge(views)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(in_time));
    let import = Router::new()
        .route("/api/v1/terminals/import", post(api::import))
        .layer(from_fn_with_state(Arc::clone(&app), fairness::views))
        .layer(DefaultBodyLimit::max(MAX_TABLE))
        .layer(from_fn(in_time));
    // It takes as long as the copy of a large database takes.
    let backup = Router::new()
        .route("/api/v1/backup", post(api::backup))
        .layer(from_fn_with_state(Arc::clone(&app), fairness::views));
    let images = ServeDir::new(&app.images).append_index_html_on_directories(false);
    let guarded = from_fn_with_state(Arc::clone(&app), payload::guarded);
    let mut router = calls
        .merge(backup)
        .merge(import)
        .merge(Router::new().nest_service("/images", images).layer(from_fn(only_images)).layer(guarded));
    if let Some(boot) = &app.boot {
        let boot = ServeDir::new(boot).append_index_html_on_directories(false);
        let noted = from_fn_with_state(Arc::clone(&app), netboot::noted);
        router = router.merge(Router::new().nest_service("/boot", boot).layer(noted));
    }
    let measure = from_fn_with_state(Arc::clone(&app), latency::measure);
    router.fallback(nothing_here).layer(measure).with_state(app)
}

async fn nothing_here() -> Response {
    (StatusCode::NOT_FOUND, "flashmob has nothing at this address\n").into_response()
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(CALL_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    }
}

async fn only_images(request: Request, next: Next) -> Response {
    if !is_image_file(request.uri().path()) {
        return nothing_here().await;
    }
    let path = request.uri().path().to_string();
    let mut response = next.run(request).await;
    if response.status() == StatusCode::NOT_FOUND && path.contains("/payload/") {
        let why = "this payload does not lie here as files: it comes through the swarm\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    }
    // A version never changes; but one that was damaged may be copied again under its name.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// `/images/NAME/VERSION/` and `FILE`, `payload/0000.bin` or `after/SHA256`, nothing else.
fn is_image_file(path: &str) -> bool {
    const FILES: [&str; 7] = [
        names::MANIFEST,
        names::SIGNATURE,
        names::EXTENTS,
        names::PIECES,
        names::BOOT,
        names::TORRENT,
        names::AFTER_LIST,
    ];
    let Some(rest) = path.strip_prefix("/images/") else { return false };
    match rest.split('/').collect::<Vec<_>>().as_slice() {
        [name, version, file] => is_plain_name(name) && is_plain_name(version) && FILES.contains(file),
        [name, version, folder, file] if *folder == names::AFTER => {
            let is_hash = file.len() == 64 && file.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            is_plain_name(name) && is_plain_name(version) && is_hash
        }
        [name, version, folder, file] => {
            let digits = file.strip_suffix(".bin").unwrap_or_default();
            is_plain_name(name)
                && is_plain_name(version)
                && *folder == names::PAYLOAD
                && digits.len() >= 4
                && digits.bytes().all(|b| b.is_ascii_digit())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_images_have_an_address() {
        for good in
            ["/images/a/1/manifest.json", "/images/a-b/1.0/payload/0000.bin", "/images/a/1/pieces.sha256"]
        {
            assert!(is_image_file(good), "{good}");
        }
        let hash = "0f".repeat(32);
        assert!(is_image_file(&format!("/images/a/1/after/{hash}")));
        assert!(!is_image_file(&format!("/images/a/1/after/{hash}0")));
        assert!(!is_image_file("/images/a/1/after/secret.txt"));
        for bad in [
            "/images/",
            "/images/a/1/",
            "/images/a/1/notes.txt",
            "/images/.partial-a/1/manifest.json",
            "/images/a/.partial-1/manifest.json",
            "/images/a/../manifest.json",
            "/images/a/%2e%2e/manifest.json",
            "/images//1/manifest.json",
            "/images/a/1/payload/../manifest.json",
            "/images/a/1/payload/flashmob.sqlite",
            "/images/a/1/payload/.bin",
            "/images/flashmob.sqlite",
        ] {
            assert!(!is_image_file(bad), "{bad}");
        }
    }
}
