//! Who may have the payload of an image.
//!
//! Manifest, signature and the other small files of an image are for everybody. Its payload is for terminals
//! with a job, which have a ticket for it, and for people with a token, unless the image is open. Of the
//! administrator's files for terminals (`after`), open or not, a terminal gets those that its rules name, and
//! an administrator all.
//!
//! Invariant: a ticket in an address is for one image, so nobody gets another by it. A terminal's is for its
//! attempt as well.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::image_id::ImageId;
use crate::manifest::names;
use crate::server::app::App;
use crate::server::domain::tickets;
use crate::server::http::api::access::Caller;
use crate::server::http::api::personal;
use crate::server::http::listen::Ends;

/// What to do without a ticket.
pub(super) const CLOSED: &str = "this image is not open: its payload is for terminals with a job, and for \
    people with a token. Fetch its torrent with yours, or name the image in open_images of the server's \
    configuration";

/// The same for the administrator's files for terminals.
const NOT_YOURS: &str = "this is one of the administrator's files: it is for terminals that its rule names, \
    while they have a job, and for administrators";

/// May the payload of `image` go to a caller with this ticket?
pub(super) fn may_have(app: &App, caller: &Caller, image: &ImageId, ticket: Option<&str>) -> bool {
    let good = |ticket| tickets::is_for_payload(&app.ticket_key, ticket, image, app.now());
    app.config().open_images.contains(&image.name) || caller.is_somebody() || ticket.is_some_and(good)
}

/// May the administrator's file with this hash go to the caller? An open image does not open it, nor does the
/// ticket of a torrent file.
fn may_have_file(app: &App, caller: &Caller, (image, hash): (&ImageId, &str), ticket: Option<&str>) -> bool {
    let is_its = |ticket| {
        let attempt = tickets::attempt_of(&app.ticket_key, ticket, image, app.now());
        attempt.is_some_and(|attempt| personal::is_for(app, attempt, image, hash))
    };
    caller.is_admin() || ticket.is_some_and(is_its)
}

/// `/images/t=TICKET/…` is `/images/…` with a ticket. A ticket in the path stays there in every address that
/// a client makes of it (BEP 19).
pub(super) async fn guarded(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_string();
    let rest = path.strip_prefix("/images/").unwrap_or_default();
    let (ticket, plain) = match rest.strip_prefix("t=").and_then(|rest| rest.split_once('/')) {
        Some((ticket, plain)) => (Some(ticket), plain),
        None => (None, rest),
    };
    if let [name, version, folder, file] = plain.split('/').collect::<Vec<_>>()[..] {
        let (caller, image) = (Caller::new(&app, ends, request.headers()), ImageId::new(name, version));
        let why = match folder {
            names::PAYLOAD if !may_have(&app, &caller, &image, ticket) => Some(CLOSED),
            names::AFTER if !may_have_file(&app, &caller, (&image, file), ticket) => Some(NOT_YOURS),
            _ => None,
        };
        if let Some(why) = why {
            return (StatusCode::FORBIDDEN, format!("{why}\n")).into_response();
        }
    }
    if ticket.is_some() {
        match format!("/images/{plain}").parse::<Uri>() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return StatusCode::NOT_FOUND.into_response(),
        }
    }
    next.run(request).await
}
