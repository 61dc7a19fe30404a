//! Captures over the network: an administrator wants a disk, its terminal lends it.
//!
//! Invariant: only an administrator begins, watches and ends a capture, because who knows the address can
//! read the whole disk from the server; beginning and ending are in the audit. A terminal's report is heard
//! only with the token of its offer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::access::Caller;
use super::named::meant;
use super::reply::{Body, Error, Shared, conflict, error, keep, random_code, random_secret, read};
use crate::api::{CaptureView, Lend, LendOrders, LendReport, NewCapture, Refusal, Take, Watch};
use crate::event::Failure;
use crate::io::net::interfaces;
use crate::layout::rule::Rule;
use crate::server::app::App;
use crate::server::domain::captures::OfferSecrets;
use crate::server::domain::lab::{Lab, line, sentence};
use crate::server::http::listen::Ends;
use crate::sync;

/// `POST /api/v1/terminals/{id}/capture`.
#[utoipa::path(
    post,
    path = "/api/v1/terminals/{id}/capture",
    summary = "The terminal lends its disk at its next network boot",
    tag = "decisions",
    params(("id" = String, Path, description = "A name, label, MAC or UUID")),
    request_body = NewCapture,
    responses(
        (status = 201, description = "It waits for the terminal", body = CaptureView),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn create(
    State(app): Shared,
    caller: Caller,
    Path(typed): Path<String>,
    body: Body<NewCapture>,
) -> Result<(StatusCode, Json<CaptureView>), Error> {
    caller.admin(&app, "capture", &typed)?;
    let wanted = read(body)?;
    let (config, now) = (app.config(), app.now());
    let (view, saved) = {
        let mut lab = sync::lock(&app.lab);
        let id = meant(&lab, &config, &typed)?.id.clone();
        may_begin(&lab, &id, &wanted, now).map_err(conflict)?;
        let what = (wanted.image.as_str(), wanted.disk.as_str());
        let number = lab.captures.open(&id, what, caller.name(), now);
        log::info!(terminal = id; "{} is to be captured as {}", lab.title(&config, &id), wanted.image);
        let detail = format!("as {}, disk {}", wanted.image, wanted.disk);
        let audit = caller.audit(&app, "capture", &id, &detail);
        let saved = app.store.save(vec![audit, lab.kept_capture(&id)]);
        (view(&app, &mut lab, number, None)?, saved)
    };
    keep(saved).await?;
    Ok((StatusCode::CREATED, Json(view)))
}

fn may_begin(lab: &Lab, id: &str, wanted: &NewCapture, now: std::time::Duration) -> Result<(), Refusal> {
    let refused = |error: String, advice: String| Err(Refusal { error, advice });
    if !wanted.disk.starts_with("/dev/")
        && let Err(why) = wanted.disk.parse::<Rule>()
    {
        return refused(why, "docs/disks.md lists the rules for disks.".into());
    }
    if let Some(capture) = lab.captures.of(id, now) {
        let (by, image) = (&capture.request.by, &capture.request.image);
        return refused(
            format!("this terminal is captured already, as {image} (by {by})"),
            "Wait until that 'flashmob capture' has ended.".into(),
        );
    }
    if lab.is_half_written(id) {
        return refused(
            "this terminal's disk holds half a system".into(),
            "Let its job finish first, or take another terminal.".into(),
        );
    }
    if lab.get(id).and_then(|terminal| terminal.last.as_ref()).is_some_and(|last| last.outcome.is_none()) {
        return refused(
            "this terminal is being imaged".into(),
            format!("Wait, or cancel that first: flashmob terminal cancel {id}"),
        );
    }
    Ok(())
}

fn view(app: &App, lab: &mut Lab, number: u64, percent: Option<u8>) -> Result<CaptureView, Error> {
    let now = app.now();
    let terminal = lab.captures.terminal(number, now).map(str::to_owned);
    let (Some(terminal), Some(capture)) = (terminal, lab.captures.watch(number, percent, now)) else {
        return Err(gone(number));
    };
    let (state, lent, failure) = (capture.state(now), capture.lent(), capture.request.failure.clone());
    let title = lab.title(&app.config(), &terminal);
    let waiting = lab.jobs().of(&terminal).find(|(_, member)| !member.state.is_final());
    let job = waiting.map(|(job, _)| format!("job {} ({})", job.number, job.terms.title()));
    Ok(CaptureView { number, terminal, title, state, lent, failure, job })
}

fn gone(number: u64) -> Error {
    error(
        StatusCode::NOT_FOUND,
        format!("the server has no capture {number}: its program was silent, or the terminal was forgotten"),
        "Nothing was written to the terminal. Capture it again.",
    )
}

/// `POST /api/v1/captures/{number}`.
#[utoipa::path(
    post,
    path = "/api/v1/captures/{number}",
    summary = "Where a capture stands; who waits for it asks at least once a minute, or it ends",
    tag = "decisions",
    params(("number" = u64, Path, description = "The capture's number")),
    request_body = Watch,
    responses(
        (status = 200, description = "Where it stands", body = CaptureView),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn watch(
    State(app): Shared,
    caller: Caller,
    Path(number): Path<u64>,
    body: Body<Watch>,
) -> Result<Json<CaptureView>, Error> {
    caller.admin(&app, "watch a capture", &number.to_string())?;
    let watch = read(body)?;
    view(&app, &mut sync::lock(&app.lab), number, watch.percent).map(Json)
}

/// `DELETE /api/v1/captures/{number}`.
#[utoipa::path(
    delete,
    path = "/api/v1/captures/{number}",
    summary = "A capture is over: the terminal boots its own disk",
    tag = "decisions",
    params(("number" = u64, Path, description = "The capture's number")),
    responses(
        (status = 204, description = "Done"),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn end(State(app): Shared, caller: Caller, Path(number): Path<u64>) -> Result<StatusCode, Error> {
    caller.admin(&app, "end a capture", &number.to_string())?;
    let saved = {
        let mut lab = sync::lock(&app.lab);
        let id = lab.captures.terminal(number, app.now()).map(str::to_owned).ok_or_else(|| gone(number))?;
        lab.captures.end(number);
        log::info!(terminal = id; "the capture of {} is over", lab.title(&app.config(), &id));
        app.store.save(vec![caller.audit(&app, "end a capture", &id, ""), lab.kept_capture(&id)])
    };
    keep(saved).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/captures/{number}/lending`.
#[utoipa::path(
    post,
    path = "/api/v1/captures/{number}/lending",
    summary = "A terminal lends its disk, or cannot",
    tag = "terminals",
    params(("number" = u64, Path, description = "The capture's number, from the offer")),
    request_body = LendReport,
    responses(
        (status = 200, description = "Go on, or stop", body = LendOrders),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn lending(
    State(app): Shared,
    caller: Caller,
    Path(number): Path<u64>,
    body: Body<LendReport>,
) -> Result<Json<LendOrders>, Error> {
    let mut report = read(body)?;
    report.disk = line(report.disk);
    if let Some(failure) = &mut report.failure {
        for text in [&mut failure.message, &mut failure.advice] {
            *text = sentence(text);
        }
    }
    if !report.export.bytes().all(|byte| byte.is_ascii_alphanumeric()) || report.export.len() > 64 {
        return Err(error(StatusCode::BAD_REQUEST, "this is no name of an export", "Use another agent."));
    }
    let (now, from) = (app.now(), caller.ends.remote.ip());
    let failure = report.failure.as_ref().map(|failure| failure.message.clone());
    let mut lab = sync::lock(&app.lab);
    let Some(id) = lab.captures.report(number, from, report, now) else {
        return Ok(Json(LendOrders { release: true }));
    };
    lab.is_heard(&id, now);
    if let Some(why) = &failure {
        log::warn!(terminal = id; "{} cannot lend its disk: {why}", lab.title(&app.config(), &id));
        keep_later(&app, &lab, &id);
    }
    Ok(Json(LendOrders { release: failure.is_some() }))
}

/// Nobody waits for this: the store writes it as soon as it can.
fn keep_later(app: &App, lab: &Lab, id: &str) {
    drop(app.store.save(vec![lab.kept_capture(id)]));
}

/// Our addresses from which a lent disk may be read: the one that a new connection to the terminal gets, and
/// the one that the terminal called.
fn readers(ends: Ends) -> Vec<String> {
    let gets = match ends.remote.ip() {
        IpAddr::V4(terminal) => interfaces::source_towards(terminal).map(IpAddr::V4),
        IpAddr::V6(_) => None,
    };
    let all: BTreeSet<IpAddr> = gets.into_iter().chain([ends.local.ip()]).collect();
    all.iter().map(ToString::to_string).collect()
}

/// The offer to a terminal that asks for work while it is to be captured.
pub(super) fn offer(
    lab: &mut Lab,
    app: &App,
    (id, wish): (&str, &Take),
    ends: Ends,
) -> Result<Option<Response>, Error> {
    let now = app.now();
    let Some(capture) = lab.captures.of(id, now) else { return Ok(None) };
    if capture.request.failure.is_some() && wish.image.is_none() {
        return Ok(None);
    }
    let image = capture.request.image.clone();
    if let Some(asked) = &wish.image {
        return Err(error(
            StatusCode::CONFLICT,
            format!("this terminal is captured as {image}, and cannot be written with {asked}"),
            "Wait until 'flashmob capture' has ended on the server.",
        ));
    }
    if !wish.lend {
        let (what, advice) = (
            "this terminal's agent is too old to lend its disk",
            "Nothing was written. Make new netboot files with flashmob-initramfs, and restart the terminal.",
        );
        lab.captures.fail(id, Failure::refused(what, advice));
        keep_later(app, lab, id);
        return Err(error(StatusCode::CONFLICT, what, advice));
    }
    let secrets = OfferSecrets { token: random_secret()?, code: random_code()? };
    let lend = lab.captures.offer(id, secrets, now);
    keep_later(app, lab, id);
    Ok(lend.map(|mut lend| {
        lend.readers = readers(ends);
        log::info!(terminal = id; "{} lends its disk for {image}", lab.title(&app.config(), id));
        Json(Lend { lend }).into_response()
    }))
}
