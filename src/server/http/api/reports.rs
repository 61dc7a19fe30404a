//! Attempts say how far they are, and how they ended.
//!
//! Invariant: a report is accepted only with its attempt's token. `lab` keeps the state.

use axum::Json;
use axum::extract::{Path, State};

use super::reply::{Body, Error, Shared, keep, not_taken, read};
use crate::api::{Orders, OutcomeReport, ProgressReport, Refusal};
use crate::event::Outcome;
use crate::server::domain::lab::Change;
use crate::sync;

/// `POST /api/v1/attempts/{attempt}/progress`. Progress may be lost, so the answer does not wait until it is
/// stored.
#[utoipa::path(
    post,
    path = "/api/v1/attempts/{attempt}/progress",
    summary = "An attempt says how far it is",
    tag = "terminals",
    params(("attempt" = u64, Path, description = "From the assignment")),
    request_body = ProgressReport,
    responses(
        (status = 200, description = "Done", body = Orders),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
    )
)]
pub async fn progress(
    State(app): Shared,
    Path(attempt): Path<u64>,
    body: Body<ProgressReport>,
) -> Result<Json<Orders>, Error> {
    let report = read(body)?;
    let ties = app.ties();
    let mut lab = sync::lock(&app.lab);
    let now = app.now();
    let (mut orders, mut changes) =
        lab.progress(now, attempt, &report.token, report.progress, &ties).map_err(not_taken)?;
    if let Some(id) = lab.of_attempt(attempt) {
        let mut waking = sync::lock(&app.waking);
        waking.heard(id);
        orders.wake = waking.orders(id, now).iter().map(ToString::to_string).collect();
    }
    changes.extend(lab.chosen(attempt, report.chosen));
    if !changes.is_empty() {
        drop(app.store.save(changes));
    }
    Ok(Json(orders))
}

/// `POST /api/v1/attempts/{attempt}/outcome`.
#[utoipa::path(
    post,
    path = "/api/v1/attempts/{attempt}/outcome",
    summary = "An attempt ended",
    tag = "terminals",
    params(("attempt" = u64, Path, description = "From the assignment")),
    request_body = OutcomeReport,
    responses(
        (status = 200, description = "Done", body = Orders),
        (status = "4XX", description = "Refused, with what to do", body = Refusal),
        (status = 503, description = "The database cannot keep it now", body = Refusal),
    )
)]
pub async fn outcome(
    State(app): Shared,
    Path(attempt): Path<u64>,
    body: Body<OutcomeReport>,
) -> Result<Json<Orders>, Error> {
    let report = read(body)?;
    let ties = app.ties();
    let (orders, saved) = {
        let mut lab = sync::lock(&app.lab);
        let known = lab.has_outcome(attempt);
        let (orders, changes) =
            lab.outcome(app.now(), attempt, &report.token, report.outcome, &ties).map_err(not_taken)?;
        if let Some(Change::Attempt(id, ended)) = changes.first().filter(|_| !known) {
            let title = lab.title(&app.config(), id);
            let outcome = ended.outcome.as_ref().map(Outcome::title).unwrap_or_default();
            ended.outcome.iter().for_each(|outcome| app.meters.ended(outcome, ended.cancelled));
            log::info!(terminal = id, attempt; "{title}, attempt {attempt}: {outcome}");
        }
        (orders, app.store.save(changes))
    };
    keep(saved).await?;
    Ok(Json(orders))
}
