//! `/announce`, `/scrape` and `/torrents/…`: the tracker behind HTTP.
//!
//! Invariant: every answer to a peer is a bencoded dictionary with status 200, also a failure (BEP 3). The
//! handed-out torrent has the stored `info` bytes; tracker and web seed are added outside (BEP 19), the
//! latter only where the payload lies as the torrent's files.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::image_id::ImageId;
use crate::server::app::App;
use crate::server::domain::tickets;
use crate::server::http::api::access::Caller;
use crate::server::http::listen::Ends;
use crate::server::http::netboot::host_of;
use crate::server::http::payload::{CLOSED, may_have};
use crate::sync;
use crate::tracker::announce::parse_scrape;
use crate::tracker::{Announce, Seeder, reply};

fn bencoded(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain"), (header::CACHE_CONTROL, "no-store")], bytes).into_response()
}

/// `GET /announce`.
pub(crate) async fn announce(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Response {
    let announce = match Announce::parse(query.as_deref().unwrap_or_default()) {
        Ok(announce) => announce,
        Err(error) => return bencoded(reply::failure(&error.to_string())),
    };
    let repository = app.repository();
    let image = repository.catalog.images.iter().find(|image| image.info_hash == announce.info_hash);
    let ticket = query.as_deref().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("t="));
    if image.is_some_and(|image| !may_have(&app, &caller, &image.id(), ticket)) {
        return bencoded(reply::failure(CLOSED));
    }
    let home = Seeder { peer_id: app.seeder.peer_id, address: (ends.local.ip(), app.seeder.port).into() };
    let now = app.now();
    let answer = sync::lock(&app.tracker).announce(now, ends.remote.ip(), &announce, Some(home), &mut random);
    bencoded(match answer {
        Ok(answer) => reply::announce(&answer, &announce),
        Err(unknown) => reply::failure(&unknown.to_string()),
    })
}

/// Where the kernel has no randomness to give (it never happens after boot) peers come in a fixed order.
fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// `GET /scrape`.
pub(crate) async fn scrape(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    bencoded(match parse_scrape(query.as_deref().unwrap_or_default()) {
        Ok(hashes) => {
            let now = app.now();
            let mut tracker = sync::lock(&app.tracker);
            tracker.expire(now);
            reply::scrape(&tracker.scrape(&hashes))
        }
        Err(error) => reply::failure(&error.to_string()),
    })
}

/// `GET /torrents/NAME/VERSION.torrent`.
pub(crate) async fn torrent(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    caller: Caller,
    Path((name, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let repository = app.repository();
    let version = file.strip_suffix(".torrent").unwrap_or_default();
    let Some(torrent) = repository.torrents.get(&ImageId::new(&name, version)) else {
        return (StatusCode::NOT_FOUND, "there is no such image\n").into_response();
    };
    let host = host_of(&headers, ends);
    let metainfo = torrent.stored.as_ref().clone();
    let id = ImageId::new(&name, version);
    let closed = !app.config().open_images.contains(&name) && caller.is_somebody();
    let ticket = closed.then(|| tickets::issue_for_torrent(&app.ticket_key, &id, app.now()));
    let (query, folder) = match &ticket {
        Some(ticket) => (format!("?t={ticket}"), format!("t={ticket}/")),
        None => Default::default(),
    };
    let seeds = torrent.web_seed.then(|| format!("http://{host}/images/{folder}{name}/"));
    let bytes = metainfo
        .with_trackers(vec![format!("http://{host}/announce{query}")])
        .with_url_list(seeds.into_iter().collect())
        .to_bytes();
    let disposition = format!("attachment; filename=\"{name}-{version}.torrent\"");
    let headers = [
        (header::CONTENT_TYPE, "application/x-bittorrent".to_string()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    (headers, bytes).into_response()
}
